//! The container runtime that the agent is tried with, and what gives its pods a network: unpacked and not installed, for Debian's
//! packages replace Docker's, which whoever runs the tests may use.

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result};

use crate::{
    apt::{Apt, MIRROR},
    release::Architecture,
    shell::{say, succeeds},
};

/// The suite they are of: their libraries are the C library and libseccomp, which are there wherever apt is.
const SUITE: &str = "bookworm";
/// containerd, what it starts containers with, and its plugins for networks.
const PACKAGES: &[&str] = &["containerd", "runc", "containernetworking-plugins"];

/// Puts them at target/tools/containerd/usr.
pub(crate) fn fetch() -> Result<()> {
    let root = Path::new("target/tools/containerd");
    if succeeds(Command::new(root.join("usr/bin/containerd")).arg("--version")) {
        return Ok(());
    }
    say(format!("downloading {} of Debian {SUITE}, into target/tools", PACKAGES.join(", ")));
    let directory = std::env::current_dir()?.join("target/tools");
    fs::create_dir_all(&directory)?;
    let apt = Apt::new(SUITE, Architecture::host().debian(), MIRROR, &directory)?;
    apt.unpack(PACKAGES, &[], &directory.join("containerd")).context("containerd cannot be had")
}
