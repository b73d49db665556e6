//! Getting a suite's kernel: downloaded and unpacked once, with an apt of its own.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};

use super::Kernel;
use crate::{
    release::Architecture,
    shell::{output, run, say},
};

/// Signs the suites; part of every Debian.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// What a guest of another architecture starts besides: this machine's programs do not run there.
const PROGRAMS: &[&str] = &["busybox-static", "iproute2", "nftables"];

/// An unpacked kernel.
pub(super) struct Files {
    /// Where it is unpacked, with the programs where it is another architecture's.
    pub(super) root: PathBuf,
    /// The compressed image.
    pub(super) vmlinuz: PathBuf,
    /// Its release, the name of the directory of modules.
    pub(super) release: String,
}

/// Where everything of a kernel is kept.
pub(super) fn directory(kernel: &Kernel) -> Result<PathBuf> {
    let name = if kernel.architecture == Architecture::host() {
        kernel.suite.to_owned()
    } else {
        format!("{}-{}", kernel.suite, kernel.architecture.debian())
    };
    let path = std::env::current_dir()?.join("target/kernels").join(name);
    fs::create_dir_all(&path)?;
    Ok(path)
}

/// The kernel, downloaded where it is not there yet.
pub(super) fn fetch(kernel: &Kernel) -> Result<Files> {
    let directory = directory(kernel)?;
    let root = directory.join("root");
    if let Ok(found) = unpacked(&root) {
        return Ok(found);
    }
    let mut failures = Vec::new();
    for mirror in kernel.mirrors {
        say(format!("{}: downloading the kernel of Debian {} from {mirror}", kernel.version, kernel.suite));
        match download(kernel, mirror, &directory) {
            Ok(packages) => {
                // Unpacked beside and moved: an interrupted run leaves nothing that looks whole.
                let fresh = directory.join("root.new");
                let _ = fs::remove_dir_all(&fresh);
                let _ = fs::remove_dir_all(&root);
                for package in &packages {
                    run(Command::new("dpkg-deb").arg("-x").arg(package).arg(&fresh))?;
                }
                fs::rename(&fresh, &root)?;
                let _ = fs::remove_dir_all(directory.join("apt"));
                return unpacked(&root);
            }
            Err(error) => failures.push(format!("{mirror}: {error:#}")),
        }
    }
    bail!(
        "the kernel of Debian {} ({}) cannot be had, so nothing was tested on it: {}",
        kernel.suite,
        kernel.version,
        failures.join("; ")
    )
}

/// A small apt of its own: nothing of the machine's configuration is used or touched, and the suite's signature is
/// checked all the same. Returns the packages.
fn download(kernel: &Kernel, mirror: &str, directory: &Path) -> Result<Vec<PathBuf>> {
    let architecture = kernel.architecture.debian();
    let apt = directory.join("apt");
    let _ = fs::remove_dir_all(&apt);
    fs::create_dir_all(apt.join("lists/partial"))?;
    fs::create_dir_all(apt.join("cache/archives/partial"))?;
    fs::write(apt.join("status"), "")?;
    let source = format!("deb [signed-by={KEYRING}] {mirror} {} main\n", kernel.suite);
    fs::write(apt.join("sources.list"), source)?;
    let archives = apt.join("cache/archives");
    let options = [
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
    let tool = |program: &str| {
        let mut command = Command::new(program);
        for option in &options {
            command.args(["-o", option]);
        }
        command
    };
    run(tool("apt-get").args(["update", "-qq", "--error-on=any"]))?;
    let any = format!("linux-image-cloud-{architecture}");
    let depends = output(tool("apt-cache").args(["depends", &any]))?;
    let package = depends
        .lines()
        .filter_map(|line| line.trim().strip_prefix("Depends: "))
        .find(|name| name.starts_with("linux-image-"))
        .with_context(|| format!("{any} depends on no kernel"))?
        .to_owned();
    run(tool("apt-get").args(["download", "-qq", &package]).current_dir(&archives))?;
    if kernel.architecture != Architecture::host() {
        // With everything that they depend on: nothing is installed there, by an empty list of what is.
        run(tool("apt-get")
            .args(["install", "-qq", "--yes", "--download-only", "--no-install-recommends"])
            .args(PROGRAMS))?;
    }
    let files = fs::read_dir(&archives)?.flatten().map(|entry| entry.path());
    let packages: Vec<_> = files.filter(|path| path.extension().is_some_and(|e| e == "deb")).collect();
    ensure!(!packages.is_empty(), "apt-get downloaded nothing");
    Ok(packages)
}

fn unpacked(root: &Path) -> Result<Files> {
    let boot = fs::read_dir(root.join("boot")).context("no kernel")?.flatten().map(|entry| entry.path());
    for vmlinuz in boot {
        let name = vmlinuz.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if let Some(release) = name.strip_prefix("vmlinuz-") {
            return Ok(Files { root: root.to_owned(), release: release.to_owned(), vmlinuz });
        }
    }
    bail!("no kernel")
}
