//! What the kernel's measurement itself adds to the run time of a program.
//!
//! With `BPF_ENABLE_STATS` the kernel reads its clock before and after every run (`__bpf_prog_run`); part of that is
//! counted as the program's. A program that does nothing, run the same way, shows how much.

use std::{
    fs, io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
};

use crate::syscall::{Kind, Shown, enable_stats, load, test_run};

/// `r0 = 0; exit`.
pub const NOTHING: [u64; 2] = [0x0000_0000_0000_00b7, 0x0000_0000_0000_0095];
/// `r0 = 1; exit`: what lets pass at a cgroup.
pub const PASS: [u64; 2] = [0x0000_0001_0000_00b7, 0x0000_0000_0000_0095];
const RUNS: u32 = 1_000_000;

/// Run time of an empty program as the kernel accounts for it, nanoseconds; the least of five rounds.
pub fn nanoseconds() -> io::Result<f64> {
    let _stats = enable_stats()?;
    let program = load(Kind::SocketFilter, &NOTHING)?;
    let mut least = f64::INFINITY;
    for _ in 0..5 {
        let before = told(&program)?;
        test_run(program.as_fd(), &[0; 64], Shown::default(), RUNS)?;
        let after = told(&program)?;
        least = least.min((after.0 - before.0) as f64 / (after.1 - before.1).max(1) as f64);
    }
    Ok(least)
}

/// `(nanoseconds, runs)`, `bpf_prog_show_fdinfo`.
fn told(program: &OwnedFd) -> io::Result<(u64, u64)> {
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", program.as_raw_fd()))?;
    let field = |name: &str| {
        info.lines()
            .find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
            .ok_or_else(|| io::Error::other(format!("no {name} in fdinfo")))
    };
    Ok((field("run_time_ns:")?, field("run_cnt:")?))
}
