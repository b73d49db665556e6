//! The bill of materials: `CycloneDX`, of the crates that the agent is made of.

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result};

use super::{Architecture, epoch, tool};
use crate::{build::WORKSPACE, shell::run};

/// As JSON, of the workspace in a directory. It names no path of this machine.
pub(super) fn sbom(workspace: &Path, architecture: Architecture) -> Result<Vec<u8>> {
    let name = format!("graylag-{}.cdx", architecture.debian());
    let mut command = Command::new(tool("cargo-cyclonedx")?);
    command
        .args(["cyclonedx", "--quiet", "--manifest-path", "agent/Cargo.toml", "--no-build-deps"])
        .args(["--format", "json", "--spec-version", "1.5"])
        .args(["--target", architecture.target(), "--override-filename", &name])
        // With it, the document has neither a time of its own nor a random number.
        .env("SOURCE_DATE_EPOCH", epoch()?.to_string())
        .current_dir(workspace);
    run(&mut command)?;
    // The tool writes into the directory of each package of the workspace.
    let mut text = None;
    for package in ["agent", "agent-ebpf", "tests", "xtask"] {
        let path = workspace.join(package).join(format!("{name}.json"));
        if package == "agent" {
            text = Some(fs::read_to_string(&path).with_context(|| path.display().to_string())?);
        }
        let _ = fs::remove_file(path);
    }
    let place = workspace.canonicalize()?.display().to_string();
    Ok(text.context("cargo-cyclonedx wrote nothing")?.replace(&place, WORKSPACE).into_bytes())
}
