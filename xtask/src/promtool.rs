//! promtool, which runs the tests of the alert and recording rules: from a later Debian than the tests run on, since who uses
//! these rules has a Prometheus of these years and not 2.42.

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result, ensure};

use crate::{
    apt::{Apt, MIRROR},
    release::Architecture,
    shell::{output, say, succeeds},
};

/// The suite that has it.
const SUITE: &str = "forky";
/// The version that the rules are tested with; the suite moves on within it.
const MAJOR: &str = "3";

/// Puts it at target/tools/promtool/usr/bin/promtool.
pub(crate) fn fetch() -> Result<()> {
    let root = Path::new("target/tools/promtool");
    let program = root.join("usr/bin/promtool");
    if succeeds(Command::new(&program).arg("--version")) {
        return Ok(());
    }
    say(format!("downloading promtool of Debian {SUITE}, into target/tools"));
    let directory = std::env::current_dir()?.join("target/tools");
    fs::create_dir_all(&directory)?;
    let apt = Apt::new(SUITE, Architecture::host().debian(), MIRROR, &directory)?;
    apt.unpack(&["promtool"], &[], &directory.join("promtool")).context("promtool cannot be had")?;
    let version = output(Command::new(&program).arg("--version"))?;
    ensure!(
        version.starts_with(&format!("promtool, version {MAJOR}.")),
        "promtool of Debian {SUITE} is not {MAJOR}.x any more: {version}"
    );
    Ok(())
}
