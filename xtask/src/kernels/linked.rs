//! Programs that a guest starts, and the libraries that they are linked to: this machine's, or those of an unpacked Debian of
//! another architecture.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use crate::shell::{find, output};

/// Where they come from.
pub(super) struct Programs<'a> {
    /// The root of the other Debian; without one, this machine.
    pub(super) foreign: Option<&'a Path>,
}

/// Directories of programs and of libraries.
const PROGRAMS: &[&str] = &["usr/bin", "usr/sbin", "bin", "sbin"];
const LIBRARIES: &[&str] = &["usr/lib/aarch64-linux-gnu", "lib/aarch64-linux-gnu", "usr/lib", "lib"];

impl Programs<'_> {
    /// A program.
    pub(super) fn find(&self, name: &str) -> Result<PathBuf> {
        let Some(root) = self.foreign else {
            return find(name).with_context(|| format!("{name} is missing: cargo xtask setup"));
        };
        below(root, PROGRAMS, name).with_context(|| format!("no {name} below {}", root.display()))
    }

    /// Copies everything that a program is linked to.
    pub(super) fn copy_libraries(&self, program: &Path, root: &Path) -> Result<()> {
        match self.foreign {
            Some(foreign) => copy_foreign(program, foreign, root),
            None => copy_own(program, root),
        }
    }
}

fn below(root: &Path, directories: &[&str], name: &str) -> Option<PathBuf> {
    directories.iter().map(|directory| root.join(directory).join(name)).find(|path| path.is_file())
}

/// The dynamic linker says where it finds them.
fn copy_own(program: &Path, root: &Path) -> Result<()> {
    let libraries = output(Command::new("ldd").arg(program))?;
    for path in libraries.split_whitespace().filter(|word| word.starts_with('/')) {
        copy(Path::new(path), &root.join(path.trim_start_matches('/')))?;
    }
    Ok(())
}

/// Another architecture's dynamic linker does not run here: the names are in the files, and all go to one directory.
fn copy_foreign(program: &Path, foreign: &Path, root: &Path) -> Result<()> {
    const INTERPRETER: &str = "ld-linux-aarch64.so.1";
    let found = |name: &str| {
        below(foreign, LIBRARIES, name).with_context(|| format!("no {name} below {}", foreign.display()))
    };
    copy(&found(INTERPRETER)?, &root.join("lib").join(INTERPRETER))?;
    let mut rest = needed(program)?;
    let mut seen = BTreeSet::new();
    while let Some(name) = rest.pop() {
        if name != INTERPRETER && seen.insert(name.clone()) {
            let library = found(&name)?;
            copy(&library, &root.join("lib/aarch64-linux-gnu").join(&name))?;
            rest.extend(needed(&library)?);
        }
    }
    Ok(())
}

/// `0x… (NEEDED)  Shared library: [libmnl.so.0]`, as `readelf` prints of any architecture.
fn needed(file: &Path) -> Result<Vec<String>> {
    let dynamic = output(Command::new("readelf").arg("--dynamic").arg("--wide").arg(file))?;
    let name = |line: &str| Some(line.split_once("Shared library: [")?.1.trim_end_matches(']').to_owned());
    Ok(dynamic.lines().filter_map(name).collect())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to.parent().context("a library's directory")?)?;
    fs::copy(from, to).with_context(|| from.display().to_string())?;
    Ok(())
}
