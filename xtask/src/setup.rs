//! What building and testing need beyond rustup: installed once, checked in well under a second afterwards.

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result};

use crate::{
    debian, promtool,
    shell::{find, output, run, say},
};

/// LLVM that bpf-linker is built against; Debian 12 has it in its security archive.
const LLVM: &str = "22";
/// The linker's version, the one the kernel object is tested with.
const BPF_LINKER: &str = "0.13.0";

/// Rust's own sources (the kernel target has no prebuilt `core`) and the BPF linker.
pub(crate) fn build() -> Result<()> {
    let sysroot = output(Command::new("rustc").args(["--print", "sysroot"]))?;
    if !Path::new(&sysroot).join("lib/rustlib/src/rust/library/core").is_dir() {
        say("installing rust-src with rustup (the sources of `core`, for the kernel target)");
        run(Command::new("rustup").args(["component", "add", "rust-src"]))?;
    }
    if find("bpf-linker").is_none() {
        debian::install(&[
            &format!("llvm-{LLVM}-dev"),
            &format!("libpolly-{LLVM}-dev"),
            "libzstd-dev",
            "zlib1g-dev",
            // gcc comes with the linker (.cargo/cc); crates with C sources need no more.
            "g++",
        ])
        .with_context(|| {
            format!(
                "LLVM {LLVM} for bpf-linker (Debian 12 has it in its security archive: \
                 `deb http://deb.debian.org/debian-security bookworm-security main`; a prebuilt bpf-linker on PATH serves as well)"
            )
        })?;
        say(format!("installing bpf-linker {BPF_LINKER} with cargo (about a minute)"));
        let prefix = format!("/usr/lib/llvm-{LLVM}");
        run(Command::new("cargo")
            .args(["install", "bpf-linker", "--version", BPF_LINKER, "--no-default-features"])
            .args(["--features", &format!("llvm-{LLVM}"), "--quiet"])
            .env("LLVM_PREFIX", &prefix)
            .env(format!("LLVM_SYS_{LLVM}1_PREFIX"), &prefix)
            // Not the workspace's toolchain file or target directory: this is a tool of its own.
            .current_dir("/"))
        .context("bpf-linker could not be built; a prebuilt one on PATH serves as well")?;
    }
    Ok(())
}

/// What the tests use: network tools, real servers, kernels and a machine to boot them in.
pub(crate) fn test() -> Result<()> {
    debian::install(&[
        "iproute2",
        "nftables",
        "procps",
        "nginx-light",
        "haproxy",
        "postgresql",
        "coturn",
        "python3-venv",
        "qemu-system-x86",
        "busybox-static",
        "cpio",
        "kmod",
        "xz-utils",
        "util-linux",
        "tmux",
    ])?;
    stamp_suite()?;
    promtool::fetch()?;
    python()
}

/// What the benchmark compares with, beyond what the tests use.
pub(crate) fn bench() -> Result<()> {
    debian::install(&["bird2"])
}

/// The stranger that STAMP is tested against.
const STAMP_SUITE: &str = "1.0.0";

/// An implementation of RFC 8762 that shares no line with ours: a program, under target/tools.
fn stamp_suite() -> Result<()> {
    let root = Path::new("target/tools");
    if root.join("bin/stamp-suite").exists() {
        return Ok(());
    }
    say(format!("installing stamp-suite {STAMP_SUITE} with cargo, into target/tools (about a minute)"));
    let root = std::path::absolute(root).context("target/tools")?;
    run(Command::new("cargo")
        .args(["install", "stamp-suite", "--version", STAMP_SUITE, "--locked", "--quiet", "--root"])
        .arg(root)
        // Not the workspace's toolchain file or target directory: this is a tool of its own.
        .current_dir("/"))
    .context("stamp-suite could not be built")
}

/// What the tests' Python programs need.
const REQUIREMENTS: &[&str] =
    &["tests/collector/requirements.txt", "tests/deploy/requirements.txt", "tests/peers/requirements.txt"];

/// Their Python packages, in an environment of their own under target/.
fn python() -> Result<()> {
    let read = |path: &&str| fs::read_to_string(path).with_context(|| (*path).to_owned());
    let wanted = REQUIREMENTS.iter().map(read).collect::<Result<Vec<_>>>()?.concat();
    let environment = Path::new("target/venv");
    let stamp = environment.join("requirements.txt");
    if fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
        return Ok(());
    }
    say(format!("installing with pip, into target/venv: what {} name", REQUIREMENTS.join(", ")));
    // The system's interpreter, and not one that a version manager put before it on PATH.
    let python = Path::new("/usr/bin/python3");
    let python = if python.exists() { python } else { Path::new("python3") };
    run(Command::new(python).args(["-m", "venv", "--clear"]).arg(environment))?;
    let requirements = REQUIREMENTS.iter().flat_map(|path| ["-r", path]);
    // Not `bin/pip`: its first line names the directory in which the environment was made, wherever it is now.
    run(Command::new(environment.join("bin/python"))
        .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"])
        .args(requirements))?;
    fs::write(stamp, wanted).context("target/venv")
}
