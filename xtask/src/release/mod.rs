//! What is shipped: the static programs of both architectures, the image, the package.

mod build;
mod containerfile;
mod deb;
mod image;
mod oci;
mod sbom;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::Once,
    time::UNIX_EPOCH,
};

use anyhow::{Context, Result};

pub(crate) use build::{AGENT, binary, cargo};
pub(crate) use containerfile::containerfile;
pub(crate) use deb::package;
pub(crate) use image::{again as image_again, image};

use crate::shell::{output, say};

/// What a program is shipped for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
#[value(rename_all = "snake_case")]
pub(crate) enum Architecture {
    /// x86-64.
    #[value(name = "x86_64", alias = "amd64")]
    X86,
    /// 64-bit Arm.
    #[value(name = "aarch64", alias = "arm64")]
    Arm,
}

impl Architecture {
    /// Both.
    pub(crate) const ALL: [Self; 2] = [Self::X86, Self::Arm];

    /// In Rust's words. musl: its C library is meant to be linked statically, name resolution included.
    pub(crate) const fn target(self) -> &'static str {
        match self {
            Self::X86 => "x86_64-unknown-linux-musl",
            Self::Arm => "aarch64-unknown-linux-musl",
        }
    }

    /// In Debian's words, which are Go's and so OCI's too.
    pub(crate) const fn debian(self) -> &'static str {
        match self {
            Self::X86 => "amd64",
            Self::Arm => "arm64",
        }
    }

    /// The compiler for it, for what C there is in `ring`, and to link: this machine's own, which has linked what runs here
    /// (.cargo/cc), or Debian's for the other architecture.
    pub(crate) fn compiler(self) -> &'static str {
        match self {
            _ if self == Self::host() => "cc",
            Self::X86 => "x86_64-linux-gnu-gcc",
            Self::Arm => "aarch64-linux-gnu-gcc",
        }
    }

    /// What strips its programs.
    pub(crate) const fn strip(self) -> &'static str {
        match self {
            Self::X86 => "x86_64-linux-gnu-strip",
            Self::Arm => "aarch64-linux-gnu-strip",
        }
    }

    /// What emulates it.
    pub(crate) const fn qemu(self) -> &'static str {
        match self {
            Self::X86 => "qemu-system-x86_64",
            Self::Arm => "qemu-system-aarch64",
        }
    }

    /// The packages that have it, on another architecture. With the C library's headers: those of `ring` include some.
    pub(crate) const fn cross_packages(self) -> [&'static str; 2] {
        match self {
            Self::X86 => ["gcc-x86-64-linux-gnu", "libc6-dev-amd64-cross"],
            Self::Arm => ["gcc-aarch64-linux-gnu", "libc6-dev-arm64-cross"],
        }
    }

    /// The one this runs on.
    pub(crate) const fn host() -> Self {
        if cfg!(target_arch = "x86_64") { Self::X86 } else { Self::Arm }
    }
}

/// A built program.
pub(crate) type Shipped = (Architecture, PathBuf);

/// Builds the agent for both architectures, or for one.
pub(crate) fn programs(only: Option<Architecture>) -> Result<Vec<Shipped>> {
    let chosen =
        Architecture::ALL.into_iter().filter(|architecture| only.is_none_or(|only| only == *architecture));
    chosen.map(|architecture| Ok((architecture, binary(architecture)?))).collect()
}

/// What is made of this machine's program, which [`binary`] has just built, for the tests: the image, and the package.
pub(crate) fn packed(program: &Path) -> Result<()> {
    let program = (Architecture::host(), program.to_owned());
    image::of_host(&program)?;
    package(&[program]).map(drop)
}

/// Version of everything that is shipped.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Seconds since 1970 that everything shipped is dated with: what `SOURCE_DATE_EPOCH` says
/// (a convention of reproducible-builds.org), else when the commit was made.
fn epoch() -> Result<u64> {
    static SAID: Once = Once::new();
    if let Ok(given) = std::env::var("SOURCE_DATE_EPOCH") {
        return given.parse().with_context(|| format!("SOURCE_DATE_EPOCH={given} is no number of seconds"));
    }
    let said = Command::new("git").args(["log", "-1", "--format=%ct"]).output()?;
    if said.status.success() {
        let said = String::from_utf8_lossy(&said.stdout);
        return said.trim().parse().with_context(|| format!("git dates the commit {said:?}"));
    }
    // In an archive that git made, files have the commit's date.
    let modified = fs::metadata("Cargo.toml")?.modified()?;
    SAID.call_once(|| {
        say("this is no clone: dated like Cargo.toml, for SOURCE_DATE_EPOCH says nothing else");
    });
    Ok(modified.duration_since(UNIX_EPOCH)?.as_secs())
}

/// The commit, where this is a clone; `-dirty` behind it where the files are not the commit's.
fn revision() -> String {
    let git = |arguments: &[&str]| output(Command::new("git").args(arguments)).ok();
    let Some(commit) = git(&["rev-parse", "HEAD"]) else { return "unknown".into() };
    let clean = git(&["status", "--porcelain", "--untracked-files=no"]).is_some_and(|said| said.is_empty());
    if clean { commit } else { commit + "-dirty" }
}

/// A program of cargo's that is installed below target/.
fn tool(name: &str) -> Result<PathBuf> {
    std::path::absolute(Path::new("target/tools/bin").join(name)).context("target/tools")
}
