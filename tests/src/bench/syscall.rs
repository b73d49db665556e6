//! `bpf(2)`, as far as the benchmark's own little programs need it.
#![allow(unsafe_code)]

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
};

/// `enum bpf_cmd`.
const MAP_CREATE: libc::c_long = 0;
const MAP_UPDATE: libc::c_long = 2;
const PROG_LOAD: libc::c_long = 5;
const PROG_TEST_RUN: libc::c_long = 10;
const ENABLE_STATS: libc::c_long = 32;

/// `enum bpf_prog_type`.
#[derive(Clone, Copy)]
#[repr(u32)]
pub enum Kind {
    /// `BPF_PROG_TYPE_SOCKET_FILTER`.
    SocketFilter = 1,
    /// `BPF_PROG_TYPE_SCHED_CLS`.
    Classifier = 3,
}

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
    context_size_in: u32,
    context_size_out: u32,
    context_in: u64,
    context_out: u64,
}

/// `union bpf_attr`, the beginning of `BPF_MAP_CREATE`.
#[repr(C)]
struct Map {
    kind: u32,
    key_size: u32,
    value_size: u32,
    entries: u32,
}

/// `union bpf_attr`, the beginning of `BPF_MAP_UPDATE_ELEM`.
#[repr(C)]
struct Update {
    map: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
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

/// Makes the kernel measure run times until it is dropped.
pub fn enable_stats() -> io::Result<OwnedFd> {
    bpf(ENABLE_STATS, &mut 0u32).map(owned)
}

/// Loads a program.
pub fn load(kind: Kind, code: &[u64]) -> io::Result<OwnedFd> {
    let license = b"GPL\0";
    let mut load = Load {
        kind: kind as u32,
        instructions: code.len() as u32,
        code: code.as_ptr() as u64,
        license: license.as_ptr() as u64,
    };
    bpf(PROG_LOAD, &mut load).map(owned)
}

/// An array of programs with one entry: this one.
pub fn array_of(program: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    const PROG_ARRAY: u32 = 3;
    let map = bpf(MAP_CREATE, &mut Map { kind: PROG_ARRAY, key_size: 4, value_size: 4, entries: 1 });
    let map = owned(map?);
    let (key, value) = (0u32, program.as_raw_fd());
    let mut update = Update {
        map: map.as_raw_fd() as u32,
        padding: 0,
        key: &raw const key as u64,
        value: &raw const value as u64,
        flags: 0,
    };
    bpf(MAP_UPDATE, &mut update)?;
    Ok(map)
}

/// What a program is shown.
#[derive(Clone, Copy, Debug, Default)]
pub struct Shown {
    /// `mark` of the packet when it comes the first time.
    pub mark: u32,
    /// Payload of a segment, where the packet stands for several.
    pub segment_size: u32,
}

/// Runs a program `repeat` times on one packet; nanoseconds of one run, by the kernel's clock, whole.
pub fn test_run(program: BorrowedFd<'_>, packet: &[u8], shown: Shown, repeat: u32) -> io::Result<u32> {
    // `struct __sk_buff` up to `gso_size`.
    let mut context = [0u32; 45];
    (context[2], context[44]) = (shown.mark, shown.segment_size);
    let mut run = TestRun {
        program: program.as_raw_fd() as u32,
        result: 0,
        size_in: packet.len() as u32,
        size_out: 0,
        data_in: packet.as_ptr() as u64,
        data_out: 0,
        repeat,
        duration: 0,
        context_size_in: 0,
        context_size_out: 0,
        context_in: 0,
        context_out: 0,
    };
    if shown.mark != 0 || shown.segment_size != 0 {
        (run.context_in, run.context_size_in) = (context.as_ptr() as u64, size_of_val(&context) as u32);
    }
    bpf(PROG_TEST_RUN, &mut run)?;
    Ok(run.duration)
}
