//! A small apt of its own, for packages of other suites: nothing of the machine's configuration is used or touched, and
//! the suite's signature is checked all the same.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

use crate::shell::{output, run};

/// Signs the suites; part of every Debian.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// Where Debian is.
pub(crate) const MIRROR: &str = "http://deb.debian.org/debian";

/// The lists of one suite, below a directory; they go when this does.
pub(crate) struct Apt {
    directory: PathBuf,
    options: Vec<String>,
}

impl Apt {
    /// Fetches the suite's lists from a mirror, for an architecture by Debian's name.
    pub(crate) fn new(suite: &str, architecture: &str, mirror: &str, directory: &Path) -> Result<Self> {
        let apt = directory.join("apt");
        let _ = fs::remove_dir_all(&apt);
        fs::create_dir_all(apt.join("lists/partial"))?;
        fs::create_dir_all(apt.join("cache/archives/partial"))?;
        fs::write(apt.join("status"), "")?;
        let source = format!("deb [signed-by={KEYRING}] {mirror} {suite} main\n");
        fs::write(apt.join("sources.list"), source)?;
        let options = vec![
            format!("APT::Architecture={architecture}"),
            format!("APT::Architectures={architecture}"),
            format!("Dir::Etc::sourcelist={}", apt.join("sources.list").display()),
            "Dir::Etc::sourceparts=/dev/null".into(),
            "Dir::Etc::preferencesparts=/dev/null".into(),
            format!("Dir::State={}", apt.display()),
            format!("Dir::State::lists={}", apt.join("lists").display()),
            format!("Dir::State::status={}", apt.join("status").display()),
            format!("Dir::Cache={}", apt.join("cache").display()),
            "Acquire::Languages=none".into(),
            "Acquire::Retries=3".into(),
            // apt's own user may not write below the home of whoever calls.
            "APT::Sandbox::User=root".into(),
            // Old suites are no longer signed anew; their signatures are checked.
            "Acquire::Check-Valid-Until=false".into(),
        ];
        let this = Self { directory: directory.to_owned(), options };
        run(this.tool("apt-get").args(["update", "-qq", "--error-on=any"]))?;
        Ok(this)
    }

    /// The first package that this one depends on whose name begins so.
    pub(crate) fn dependency(&self, package: &str, prefix: &str) -> Result<String> {
        let depends = output(self.tool("apt-cache").args(["depends", package]))?;
        depends
            .lines()
            .filter_map(|line| line.trim().strip_prefix("Depends: "))
            .find(|name| name.starts_with(prefix))
            .map(str::to_owned)
            .with_context(|| format!("{package} depends on no {prefix}"))
    }

    /// Downloads packages, and `more` with everything that they depend on, and unpacks it all into `root`, which is not there, or
    /// not whole, before.
    pub(crate) fn unpack(&self, packages: &[&str], more: &[&str], root: &Path) -> Result<()> {
        let archives = self.directory.join("apt/cache/archives");
        run(self.tool("apt-get").args(["download", "-qq"]).args(packages).current_dir(&archives))?;
        if !more.is_empty() {
            // Nothing is installed there, by an empty list of what is.
            run(self
                .tool("apt-get")
                .args(["install", "-qq", "--yes", "--download-only", "--no-install-recommends"])
                .args(more))?;
        }
        let files = fs::read_dir(&archives)?.flatten().map(|entry| entry.path());
        let files: Vec<_> = files.filter(|path| path.extension().is_some_and(|e| e == "deb")).collect();
        ensure!(!files.is_empty(), "apt-get downloaded nothing");
        // Unpacked beside and moved: an interrupted run leaves nothing that looks whole.
        let fresh = root.with_extension("new");
        let _ = fs::remove_dir_all(&fresh);
        let _ = fs::remove_dir_all(root);
        for file in &files {
            run(Command::new("dpkg-deb").arg("-x").arg(file).arg(&fresh))?;
        }
        fs::rename(&fresh, root).with_context(|| root.display().to_string())
    }

    fn tool(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        for option in &self.options {
            command.args(["-o", option]);
        }
        command
    }
}

impl Drop for Apt {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(self.directory.join("apt"));
    }
}
