//! Formatting, clippy with warnings as errors, and documentation that builds.

use std::process::Command;

use anyhow::Result;

use crate::shell::run;

/// Checks everything that can be checked without running it.
pub(crate) fn lint() -> Result<()> {
    run(Command::new("cargo").args(["fmt", "--all", "--check"]))?;
    run(Command::new("cargo").args([
        "clippy",
        "--quiet",
        "--locked",
        "--workspace",
        "--all-targets",
        "--keep-going",
        "--",
        "-D",
        "warnings",
    ]))?;
    // The kernel half is only compiled for its own target.
    crate::build::lint_ebpf()
}
