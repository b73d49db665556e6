//! The kernel matrix: stock Debian kernels in QEMU, software emulation, with the static agent and the static tests.

mod fetch;
mod guest;
mod image;
mod linked;

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    thread,
    time::Instant,
};

use anyhow::{Context, Result, anyhow, ensure};

use Architecture::{Arm, X86};

use crate::{
    apt::MIRROR,
    programs::{self, Program},
    release::{self, Architecture},
    shell::say,
    tally::Tally,
};

/// A kernel of the matrix.
#[derive(Debug)]
struct Kernel {
    /// Debian suite.
    suite: &'static str,
    /// What its processor is.
    architecture: Architecture,
    /// Version that the suite's cloud kernel has; with the architecture where that is not this machine's.
    version: &'static str,
    /// Where the suite is, first choice and archive.
    mirrors: &'static [&'static str],
    /// Signals that this kernel cannot give, as `graylag check` names them. The tests hold the agent to it: it says so
    /// for these and for no others.
    without: &'static [&'static str],
    /// Test programs that run in it.
    tests: &'static [&'static str],
}

const ARCHIVE: &str = "http://archive.debian.org/debian";

/// Those that take longest come first.
const KERNELS: &[Kernel] = &[
    Kernel {
        suite: "bookworm",
        architecture: X86,
        version: "6.1",
        mirrors: &[MIRROR, ARCHIVE],
        without: &[],
        tests: WITH_PINS,
    },
    Kernel {
        suite: "trixie",
        architecture: X86,
        version: "6.12",
        mirrors: &[MIRROR, ARCHIVE],
        without: &[],
        tests: WITH_MEDIA,
    },
    Kernel {
        suite: "bullseye",
        architecture: X86,
        version: "5.10",
        mirrors: &[MIRROR, ARCHIVE],
        without: &["handshake_client", "drops", "media", "relay"],
        tests: TESTS,
    },
    Kernel {
        suite: "trixie",
        architecture: Arm,
        version: FOREIGN,
        mirrors: &[MIRROR, ARCHIVE],
        without: &[],
        tests: TESTS,
    },
];

/// The test programs that run in every guest.
const TESTS: &[&str] = &["verifier", "degraded", "tcp_cases"];
/// And where the kernel has what media takes (`bpf_loop`, Linux 5.17).
const WITH_MEDIA: &[&str] = &["verifier", "degraded", "tcp_cases", "media", "hostile", "streams", "netem"];
/// And in the oldest of these, what is pinned: it has no TCX, whose links can be pinned, and the machine's own kernel does.
const WITH_PINS: &[&str] =
    &["verifier", "degraded", "tcp_cases", "media", "hostile", "streams", "netem", "path_map", "upgrade"];
/// Of these, single tests that take what no guest has: a collector in Python. They run on the machine.
const NOT_IN_GUESTS: &[(&str, &str)] = &[("upgrade", "killed_or_told_to_end")];
/// Of all test programs, those that run in guests only: they need what these kernels have and the machine's own may lack.
/// On the machine they are built and not run, so that none of them has to pass over anything.
const ONLY_IN_GUESTS: &[&str] = &["netem"];
/// The guest of another architecture, which runs only where it is asked for: see [`crate::test::shipped`].
pub(crate) const FOREIGN: &str = "6.12-arm64";
/// Guests at once. An emulated processor keeps a real one busy, and its tests are as patient as elsewhere.
const AT_ONCE: usize = 2;

fn is_chosen(kernel: &Kernel, only: Option<&str>) -> bool {
    let is_foreign = kernel.version == FOREIGN;
    only.map_or(!is_foreign, |only| only == kernel.version || (only == kernel.suite && !is_foreign))
}

/// Boots every kernel of this machine's architecture, or the one named, and runs its tests in it, or those named. `programs` may be more
/// than run there.
pub(crate) fn all(agent: &Path, programs: &[Program], only: Option<&str>, tests: &[String]) -> Result<Tally> {
    ensure!(
        cfg!(target_arch = "x86_64"),
        "the kernels of the matrix are for x86-64, like the programs built on it"
    );
    let chosen: Vec<&Kernel> = KERNELS.iter().filter(|kernel| is_chosen(kernel, only)).collect();
    ensure!(
        !chosen.is_empty(),
        "no such kernel; there are {}",
        KERNELS.iter().map(|k| k.version).collect::<Vec<_>>().join(", ")
    );
    let foreign = chosen.iter().find(|kernel| kernel.architecture != X86).map(|_| foreign()).transpose()?;
    // What is fetched is said one after the other; what is emulated runs at once.
    let images = chosen.iter().map(|kernel| match &foreign {
        Some((agent, programs)) if kernel.architecture == Arm => prepare(kernel, agent, programs, tests),
        _ => prepare(kernel, agent, programs, tests),
    });
    let images = images.collect::<Result<Vec<_>>>()?;
    let queue = Mutex::new(chosen.iter().zip(&images));
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).next();
    let work = || -> Result<Tally> {
        let mut tally = Tally::default();
        while let Some((kernel, image)) = next() {
            tally.add(guest::run(kernel, image)?);
        }
        Ok(tally)
    };
    let outcomes = thread::scope(|scope| {
        let guests: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(work)).collect();
        guests.into_iter().map(thread::ScopedJoinHandle::join).collect::<Vec<_>>()
    });
    let mut tally = Tally::default();
    for outcome in outcomes {
        tally.add(outcome.map_err(|_| anyhow!("a guest's thread panicked"))??);
    }
    Ok(tally)
}

/// The agent as it is shipped for arm64, and the tests, for the same target.
fn foreign() -> Result<(PathBuf, Vec<Program>)> {
    let agent = release::binary(Arm)?;
    say("building the tests for arm64 (the first time takes minutes)");
    let chosen: Vec<&str> = ["--package", "graylag-tests"]
        .into_iter()
        .chain(TESTS.iter().flat_map(|test| ["--test", test]))
        .collect();
    let cargo = release::cargo(Path::new("cargo"), Arm)?;
    Ok((agent, programs::build_with(cargo, Arm.target(), &chosen)?))
}

/// The test programs that run in any of the guests, in cargo's words.
pub(crate) fn programs() -> Vec<&'static str> {
    let names: BTreeSet<&str> = KERNELS.iter().flat_map(|kernel| kernel.tests).copied().collect();
    let each = names.into_iter().flat_map(|name| ["--test", name]);
    ["--package", "graylag-tests"].into_iter().chain(each).collect()
}

/// Whether a test program runs in guests only.
pub(crate) fn is_for_guests_only(program: &Program) -> bool {
    ONLY_IN_GUESTS.contains(&program.name.as_str())
}

fn prepare(kernel: &Kernel, agent: &Path, programs: &[Program], only: &[String]) -> Result<image::Image> {
    let started = Instant::now();
    let names: Vec<&str> =
        if only.is_empty() { kernel.tests.to_vec() } else { only.iter().map(String::as_str).collect() };
    let program = |name: &&str| -> Result<&Program> {
        let (version, all) = (kernel.version, kernel.tests.join(", "));
        ensure!(kernel.tests.contains(name), "{name} does not run in {version}; there are {all}");
        programs.iter().find(|program| program.name == *name).with_context(|| format!("{name} was not built"))
    };
    let tests = names.iter().map(program).collect::<Result<Vec<_>>>()?;
    let files = fetch::fetch(kernel)?;
    let image = image::build(kernel, files, agent, &tests)?;
    say(format!("{}: image made in {} s", kernel.version, started.elapsed().as_secs()));
    Ok(image)
}
