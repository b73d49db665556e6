//! Building the kernel object and the agent around it.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, anyhow};

use crate::{
    release::{self, Architecture},
    setup,
    shell::{as_root, find, output, run, say},
};

/// What the tests and the benchmark are built for. Named even though it is the host: flags for it then do not reach build
/// scripts and procedural macros.
#[cfg(target_arch = "x86_64")]
pub(crate) const HOST: &str = "x86_64-unknown-linux-gnu";
#[cfg(target_arch = "aarch64")]
pub(crate) const HOST: &str = "aarch64-unknown-linux-gnu";

/// Optimised, or with debug assertions: both must pass the verifier.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Profile `bpf`.
    Release,
    /// Profile `bpf-debug`.
    Debug,
}

impl Kind {
    /// Both.
    pub(crate) const ALL: [Self; 2] = [Self::Release, Self::Debug];

    fn profile(self) -> &'static str {
        match self {
            Self::Release => "bpf",
            Self::Debug => "bpf-debug",
        }
    }

    /// Where its object is, below the workspace.
    pub(crate) fn object(self) -> PathBuf {
        Path::new("target/bpf/bpfel-unknown-none").join(self.profile()).join("graylag-ebpf")
    }
}

/// Builds the kernel object; set-up must have been done. Returns where it is.
pub(crate) fn ebpf(kind: Kind) -> Result<PathBuf> {
    ebpf_at(Path::new("."), kind)?;
    Ok(kind.object())
}

/// Builds it from the sources of another workspace, into that workspace's target directory.
pub(crate) fn ebpf_at(workspace: &Path, kind: Kind) -> Result<()> {
    run(kernel_cargo("build", kind)?.args(["--profile", kind.profile()]).current_dir(workspace))
}

/// Another place for the workspace: the second build of what is shipped is made there.
pub(crate) const AGAIN: &str = "target/again/workspace";

/// What the workspace is called in what is built. Neither it nor `/cargo` nor `/rust` should be a place on the machine: where the BPF
/// linker finds sources by these names, it puts lines of them into the kernel object.
pub(crate) const WORKSPACE: &str = "/graylag";

/// Flags with which the paths of this machine do not reach what is built.
pub(crate) fn remapped() -> Result<Vec<String>> {
    let cargo_home = env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| env::home_dir().map(|home| home.join(".cargo")))
        .context("cargo's directory is unknown: set CARGO_HOME")?;
    let sysroot = output(Command::new("rustc").args(["--print", "sysroot"]))?;
    // Where rust-src is installed, rustc names the standard library's sources by where they are.
    let library = Path::new(&sysroot).join("lib/rustlib/src/rust");
    let root = env::current_dir()?;
    // The last that fits is taken. Both places are in the flags of both builds: cargo builds anew what was built with
    // other flags.
    let places = [
        (root.clone(), WORKSPACE),
        (root.join(AGAIN), WORKSPACE),
        (cargo_home, "/cargo"),
        (library, "/rust"),
    ];
    Ok(places.map(|(from, to)| format!("--remap-path-prefix={}={to}", from.display())).into())
}

/// Builds both at once: each spends most of its time on one processor, with `core`.
pub(crate) fn both_ebpf() -> Result<()> {
    let outcomes = std::thread::scope(|scope| {
        let builds = Kind::ALL.map(|kind| scope.spawn(move || ebpf(kind)));
        builds.map(std::thread::ScopedJoinHandle::join)
    });
    for outcome in outcomes {
        outcome.map_err(|_| anyhow!("a build's thread panicked"))??;
    }
    Ok(())
}

/// Clippy over the kernel half.
pub(crate) fn lint_ebpf() -> Result<()> {
    run(kernel_cargo("clippy", Kind::Release)?.args(["--", "-D", "warnings"]))
}

/// cargo for the kernel's target.
fn kernel_cargo(subcommand: &str, kind: Kind) -> Result<Command> {
    let linker = find("bpf-linker").context("bpf-linker is missing: cargo xtask setup")?;
    let arch = env::consts::ARCH;
    // Stable Rust with -Z build-std: no prebuilt `core` exists for bpfel, and no nightly is needed for this.
    let mut flags = vec![
        format!("-Clinker={}", linker.display()),
        // 32-bit arithmetic and jumps (Linux 5.1), which programs for the first BPF emulate with shifts.
        "-Ctarget-cpu=v3".into(),
        "-Cdebuginfo=2".into(),
        "-Clink-arg=--btf".into(),
        format!("--cfg=bpf_target_arch=\"{arch}\""),
    ];
    if kind == Kind::Debug {
        // Checks of `core` on raw pointers end in panics that do not return, and the verifier wants every function to.
        flags.push("-Zub-checks=no".into());
    } else {
        // What is shipped does not depend on where it was built. The other one keeps its paths: with them the linker finds
        // the lines of source that the verifier quotes.
        flags.extend(remapped()?);
    }
    let mut command = cargo(&flags.join("\x1f"));
    command
        .args([subcommand, "--quiet", "--locked", "--package", "graylag-ebpf", "--bin", "graylag-ebpf"])
        .args(["--target", "bpfel-unknown-none", "-Zbuild-std=core", "--target-dir", "target/bpf"])
        .env("RUSTC_BOOTSTRAP", "1");
    Ok(command)
}

/// cargo for the tests and the benchmark, static, to be given the target [`HOST`]: the same file runs here and in the test
/// kernels.
pub(crate) fn static_cargo() -> Command {
    cargo("-Ctarget-feature=+crt-static")
}

fn cargo(encoded_flags: &str) -> Command {
    let mut command = Command::new("cargo");
    command.env("CARGO_ENCODED_RUSTFLAGS", encoded_flags).env_remove("RUSTFLAGS");
    command
}

/// Where the agent is, whichever way it was built.
const AGENT: &str = "target/release/graylag";

/// Builds the agent as it is shipped for this machine, but for the list of its crates, which takes a tool more; with all
/// set-up. Returns where it is: `target/release/graylag`.
pub(crate) fn agent() -> Result<PathBuf> {
    setup::build()?;
    ebpf(Kind::Release)?;
    say("building the agent (the first time takes minutes)");
    let host = Architecture::host();
    run(release::cargo("cargo", host)?.arg("build").args(release::AGENT).args(["--target", host.target()]))?;
    shown(&Path::new("target").join(host.target()).join("release/graylag"))
}

/// Builds the agent that is shipped for this machine, to the byte, and links it to the same place: what is tested there is in the
/// image and in the package.
pub(crate) fn shipped() -> Result<PathBuf> {
    shown(&release::binary(Architecture::host())?)
}

/// Links what was built to where it is looked for.
fn shown(built: &Path) -> Result<PathBuf> {
    let shown = PathBuf::from(AGENT);
    std::fs::create_dir_all("target/release")?;
    // A running agent keeps its file: replace it, do not write into it.
    let _ = std::fs::remove_file(&shown);
    std::fs::hard_link(built, &shown).or_else(|_| std::fs::copy(built, &shown).map(drop))?;
    Ok(shown)
}

/// Builds the agent and runs it with its view.
pub(crate) fn run_agent(arguments: &[String]) -> Result<()> {
    let agent = agent()?;
    run(as_root(agent)?.args(["run", "--view"]).args(arguments))
}
