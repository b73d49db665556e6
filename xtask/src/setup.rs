//! What building and testing need beyond rustup: installed once, checked in well under a second afterwards.

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result};

use crate::{
    containerd, debian, promtool,
    release::Architecture,
    shell::{find, output, run, say},
};

/// LLVM that bpf-linker is built against; Debian 12 has it in its security archive.
const LLVM: &str = "22";
/// The linker's version, the one the kernel object is tested with.
const BPF_LINKER: &str = "0.13.0";

/// Rust's own sources (the kernel target has no prebuilt `core`), its library for the agent's target, and the BPF linker.
pub(crate) fn build() -> Result<()> {
    if !sysroot("src/rust/library/core")? {
        say("installing rust-src with rustup (the sources of `core`, for the kernel target)");
        run(Command::new("rustup").args(["component", "add", "rust-src"]))?;
    }
    library(Architecture::host())?;
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
        // Of it no service is started: the tests have one for a machine of its own, and its judge of units.
        "systemd",
    ])?;
    tools(STRANGERS, &[])?;
    promtool::fetch()?;
    containerd::fetch()?;
    python()
}

/// What the tests of the image and of the package use beyond that: a runtime, what unpacks for it, a Debian to install in; and what
/// both are made with.
pub(crate) fn packed() -> Result<()> {
    debian::install(&["runc", "umoci", "debootstrap"])?;
    debian::root()?;
    release(Architecture::host())?;
    package()
}

/// What the tests of both architectures use beyond that: a judge, another machine.
pub(crate) fn shipped() -> Result<()> {
    packed()?;
    debian::install(&["lintian", "qemu-system-arm"])
}

/// What the benchmark compares with, beyond what the tests use.
pub(crate) fn bench() -> Result<()> {
    debian::install(&["bird2"])
}

/// Programs of cargo's, with the versions that were tried. Each is built in about a minute, into target/tools.
type Tools = [(&'static str, &'static str)];

/// The stranger that STAMP is tested against: an implementation of RFC 8762 that shares no line with ours.
const STRANGERS: &Tools = &[("stamp-suite", "1.0.0")];
/// What shipping takes: the list of crates inside the program, and the one beside it.
const SHIPPING: &Tools = &[("cargo-auditable", "0.7.7"), ("cargo-cyclonedx", "0.5.9")];
/// What the package takes besides. The image, which a container builder makes from nothing, does without.
const PACKAGING: &Tools = &[("cargo-deb", "3.8.0")];

/// What runs for a moment only is there in half the time.
const UNOPTIMISED: &[&str] = &["--debug"];

/// Installs them, with these arguments to `cargo install`.
fn tools(tools: &Tools, how: &[&str]) -> Result<()> {
    let root = std::path::absolute("target/tools").context("target/tools")?;
    for (name, version) in tools {
        // Another version is another file: nothing here is asked what it is.
        let stamp = root.join(format!("{name}-{version}"));
        if stamp.exists() && root.join("bin").join(name).exists() {
            continue;
        }
        say(format!("installing {name} {version} with cargo, into target/tools (about a minute)"));
        run(Command::new("cargo")
            .args(["install", name, "--version", version, "--locked", "--quiet", "--force", "--root"])
            .arg(&root)
            .args(how)
            // Not the workspace's toolchain file or target directory: this is a tool of its own.
            .current_dir("/"))
        .with_context(|| format!("{name} could not be built"))?;
        fs::write(&stamp, "").with_context(|| stamp.display().to_string())?;
    }
    Ok(())
}

/// What building for shipping needs beyond [`build`]: the target and the compiler, where it is not this machine's, and the tools
/// around.
pub(crate) fn release(architecture: Architecture) -> Result<()> {
    library(architecture)?;
    let mut packages = vec!["ca-certificates"];
    if architecture != Architecture::host() {
        packages.extend(architecture.cross_packages());
    }
    debian::install(&packages)?;
    tools(SHIPPING, UNOPTIMISED)
}

/// Rust's library for an architecture's static programs.
fn library(architecture: Architecture) -> Result<()> {
    let target = architecture.target();
    if !sysroot(target)? {
        say(format!("installing Rust's library for {target} with rustup"));
        run(Command::new("rustup").args(["target", "add", target]))?;
    }
    Ok(())
}

/// Whether the toolchain has this, below its directory of libraries.
fn sysroot(path: &str) -> Result<bool> {
    let sysroot = output(Command::new("rustc").args(["--print", "sysroot"]))?;
    Ok(Path::new(&sysroot).join("lib/rustlib").join(path).is_dir())
}

/// What making the Debian package needs beyond that.
pub(crate) fn package() -> Result<()> {
    tools(PACKAGING, UNOPTIMISED)
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
