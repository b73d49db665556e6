//! Getting a suite's kernel: downloaded and unpacked once, with an apt of its own.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};

use super::Kernel;
use crate::{apt::Apt, release::Architecture, shell::say};

/// What a guest of another architecture starts besides: this machine's programs do not run there.
const PROGRAMS: &[&str] = &["busybox-static", "iproute2", "nftables", "util-linux"];

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
        match download(kernel, mirror, &directory, &root) {
            Ok(()) => return unpacked(&root),
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

/// The suite's kernel, unpacked into `root`.
fn download(kernel: &Kernel, mirror: &str, directory: &Path, root: &Path) -> Result<()> {
    let architecture = kernel.architecture.debian();
    let apt = Apt::new(kernel.suite, architecture, mirror, directory)?;
    let package = apt.dependency(&format!("linux-image-cloud-{architecture}"), "linux-image-")?;
    let more = if kernel.architecture == Architecture::host() { &[] } else { PROGRAMS };
    apt.unpack(&[&package], more, root)
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
