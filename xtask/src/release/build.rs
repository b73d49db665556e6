//! Building the static programs, so that where and when does not show in them.

use std::{
    env,
    ffi::OsStr,
    fs, iter,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use super::{Architecture, tool};
use crate::{
    build::{AGAIN, Kind, ebpf, ebpf_at, remapped},
    setup,
    shell::{output, run, say},
};

/// What is built, in cargo's words.
pub(crate) const AGENT: [&str; 7] =
    ["--quiet", "--locked", "--release", "--package", "graylag", "--bin", "graylag"];

/// cargo, or a program of its, for an architecture's static programs: set-up must have been done.
pub(crate) fn cargo(program: impl AsRef<OsStr>, architecture: Architecture) -> Result<Command> {
    let target = architecture.target();
    let upper = target.to_uppercase().replace('-', "_");
    let mut command = Command::new(program);
    command
        .env("CARGO_ENCODED_RUSTFLAGS", remapped()?.join("\x1f"))
        .env_remove("RUSTFLAGS")
        .env(format!("CARGO_TARGET_{upper}_LINKER"), architecture.compiler())
        .env(format!("CC_{}", target.replace('-', "_")), architecture.compiler());
    Ok(command)
}

/// The agent for an architecture, with the list of its crates inside (cargo-auditable) and all set-up. Returns where it is.
pub(crate) fn binary(architecture: Architecture) -> Result<PathBuf> {
    setup::build()?;
    setup::release(architecture)?;
    ebpf(Kind::Release)?;
    say(format!("building the agent for {} (the first time takes minutes)", architecture.target()));
    agent(architecture, Path::new("."), Path::new("target"))
}

fn agent(architecture: Architecture, workspace: &Path, target: &Path) -> Result<PathBuf> {
    let mut command = cargo("cargo", architecture)?;
    let tools = tool("")?;
    let path = env::var_os("PATH").unwrap_or_default();
    command
        // What `cargo auditable build --locked` sets (0.7.7, src/cargo_auditable.rs), but for the place of the wrapper: cargo makes
        // it part of the name of every function of the workspace (compute_metadata), and by names their order in the program.
        .env("RUSTC_WORKSPACE_WRAPPER", "cargo-auditable")
        .env("CARGO_AUDITABLE_ORIG_ARGS", r#"{"offline":false,"locked":true,"frozen":false,"config":[]}"#)
        .env("PATH", env::join_paths(iter::once(tools).chain(env::split_paths(&path)))?)
        .arg("build")
        .args(AGENT)
        .args(["--target", architecture.target(), "--target-dir"])
        .arg(std::path::absolute(target)?)
        .current_dir(workspace);
    run(&mut command)?;
    Ok(target.join(architecture.target()).join("release/graylag"))
}

/// Builds the agent a second time, elsewhere: a copy of the sources at another path, another target directory. What comes
/// from the registry is taken as the first build has compiled it; our own crates, the kernel half among them, are compiled
/// again.
pub(crate) fn again(architecture: Architecture) -> Result<PathBuf> {
    let root = std::path::absolute(AGAIN)?;
    let _ = fs::remove_dir_all("target/again");
    fs::create_dir_all(&root)?;
    // What git has, as it is in the working tree.
    let files =
        output(Command::new("git").args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]))?;
    for file in files.split('\0').filter(|file| Path::new(file).is_file()) {
        let copy = root.join(file);
        fs::create_dir_all(copy.parent().context("a file's directory")?)?;
        fs::copy(file, copy).with_context(|| file.to_owned())?;
    }
    let target = root.join("target");
    for kept in ["bpf", "release", architecture.target()] {
        let from = Path::new("target").join(kept);
        // With their times, which cargo goes by; of the target only what this profile has.
        let (from, to) = if kept == "bpf" || kept == "release" {
            (from, target.join(kept))
        } else {
            (from.join("release"), target.join(kept).join("release"))
        };
        fs::create_dir_all(to.parent().context("a directory")?)?;
        run(Command::new("cp").args(["-a", "--reflink=auto"]).arg(from).arg(to))?;
    }
    say(format!("building the agent for {} once more, in target/again", architecture.target()));
    ebpf_at(&root, Kind::Release)?;
    agent(architecture, &root, &target)
}
