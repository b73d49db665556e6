//! What the kernel's measurement itself adds to the run time of a program.
//!
//! With `BPF_ENABLE_STATS` the kernel reads its clock before and after every run (`__bpf_prog_run`); part of that is
//! counted as the program's. A program that does nothing, run the same way, shows how much.
#![allow(unsafe_code)]

use std::{
    fs, io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

/// `enum bpf_cmd`.
const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_PROG_TEST_RUN: libc::c_long = 10;
const BPF_ENABLE_STATS: libc::c_long = 32;
/// `enum bpf_prog_type`.
const SOCKET_FILTER: u32 = 1;
/// `r0 = 0; exit`.
const NOTHING: [u64; 2] = [0x0000_0000_0000_00b7, 0x0000_0000_0000_0095];
const RUNS: u32 = 1_000_000;

/// `union bpf_attr`, the beginning of `BPF_PROG_LOAD`.
#[repr(C)]
struct Load {
    kind: u32,
    instructions: u32,
    code: u64,
    license: u64,
}

/// `union bpf_attr`, the beginning of `BPF_PROG_TEST_RUN`.
#[repr(C)]
struct TestRun {
    program: u32,
    result: u32,
    size_in: u32,
    size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
}

fn bpf<T>(command: libc::c_long, attributes: &mut T) -> io::Result<i32> {
    // SAFETY: the attributes have the size given and outlive the call, and so does what they point to.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attributes, size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as i32) }
}

fn owned(fd: i32) -> OwnedFd {
    // SAFETY: the kernel has just made it; nobody else owns it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// Run time of an empty program as the kernel accounts for it, nanoseconds; the least of five rounds.
pub fn nanoseconds() -> io::Result<f64> {
    let _stats = owned(bpf(BPF_ENABLE_STATS, &mut 0u32)?);
    let license = b"GPL\0";
    let program = owned(bpf(
        BPF_PROG_LOAD,
        &mut Load {
            kind: SOCKET_FILTER,
            instructions: NOTHING.len() as u32,
            code: NOTHING.as_ptr() as u64,
            license: license.as_ptr() as u64,
        },
    )?);
    let packet = [0u8; 64];
    let mut least = f64::INFINITY;
    for _ in 0..5 {
        let before = told(&program)?;
        bpf(
            BPF_PROG_TEST_RUN,
            &mut TestRun {
                program: program.as_raw_fd() as u32,
                result: 0,
                size_in: packet.len() as u32,
                size_out: 0,
                data_in: packet.as_ptr() as u64,
                data_out: 0,
                repeat: RUNS,
                duration: 0,
            },
        )?;
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
