//! `bpf(2)`, as far as the tests' and the benchmark's own little programs need it.
#![allow(unsafe_code)]

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

use bytemuck::Pod;

/// `enum bpf_cmd`.
const MAP_CREATE: libc::c_long = 0;
const MAP_LOOKUP: libc::c_long = 1;
const MAP_UPDATE: libc::c_long = 2;
const PROG_LOAD: libc::c_long = 5;
const OBJ_GET: libc::c_long = 7;
const PROG_TEST_RUN: libc::c_long = 10;
const LINK_CREATE: libc::c_long = 28;
const ENABLE_STATS: libc::c_long = 32;

/// `enum bpf_prog_type`.
#[derive(Clone, Copy)]
#[repr(u32)]
pub enum Kind {
    /// `BPF_PROG_TYPE_SOCKET_FILTER`.
    SocketFilter = 1,
    /// `BPF_PROG_TYPE_SCHED_CLS`.
    Classifier = 3,
    /// `BPF_PROG_TYPE_CGROUP_SKB`.
    CgroupSkb = 8,
}

/// Where a program is attached.
#[derive(Clone, Copy)]
pub enum Place<'a> {
    /// What an interface of the caller's namespace receives, by its index (`BPF_TCX_INGRESS`).
    Interface(u32),
    /// What the sockets of a cgroup receive (`BPF_CGROUP_INET_INGRESS`).
    CgroupIn(BorrowedFd<'a>),
    /// What they send (`BPF_CGROUP_INET_EGRESS`).
    CgroupOut(BorrowedFd<'a>),
}

/// `union bpf_attr`, the beginning of `BPF_PROG_LOAD`.
#[repr(C)]
struct Load {
    kind: u32,
    instructions: u32,
    code: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
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

/// `union bpf_attr`, the beginning of `BPF_LINK_CREATE`; what is not set stands for nothing.
#[repr(C)]
#[derive(Default)]
struct Link {
    program: u32,
    target: u32,
    place: u32,
    flags: u32,
    rest: [u64; 6],
}

/// `union bpf_attr`, the beginning of `BPF_OBJ_GET`.
#[repr(C)]
struct Get {
    path: u64,
    fd: u32,
    flags: u32,
}

/// `union bpf_attr`, the part of `BPF_MAP_LOOKUP_ELEM` and `BPF_MAP_UPDATE_ELEM`.
#[repr(C)]
struct Element {
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

/// Opens what is pinned, for reading: that takes no more than the pin's read permission.
pub fn open_pin(path: &Path) -> io::Result<OwnedFd> {
    const RDONLY: u32 = 1 << 3;
    let path = CString::new(path.as_os_str().as_bytes())?;
    bpf(OBJ_GET, &mut Get { path: path.as_ptr() as u64, fd: 0, flags: RDONLY }).map(owned)
}

/// Looks a key up; nothing where the map does not have it.
pub fn look_up<K: Pod, V: Pod>(map: BorrowedFd<'_>, key: &K) -> Option<V> {
    let mut value = V::zeroed();
    let mut element = Element {
        map: map.as_raw_fd() as u32,
        padding: 0,
        key: &raw const *key as u64,
        value: &raw mut value as u64,
        flags: 0,
    };
    bpf(MAP_LOOKUP, &mut element).ok().map(|_| value)
}

/// Loads a program; where it is refused, with the verifier's reason.
pub fn load(kind: Kind, code: &[u64]) -> io::Result<OwnedFd> {
    let mut load = Load {
        kind: kind as u32,
        instructions: code.len() as u32,
        code: code.as_ptr() as u64,
        license: c"GPL".as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log: 0,
    };
    if let Ok(loaded) = bpf(PROG_LOAD, &mut load) {
        return Ok(owned(loaded));
    }
    // Only now: a log that is too short for all that the verifier looked at refuses a program that is none the worse.
    let mut log = vec![0_u8; 1 << 16];
    (load.log_level, load.log_size, load.log) = (1, log.len() as u32, log.as_mut_ptr() as u64);
    let refused = |error| io::Error::other(format!("{error}: {}", String::from_utf8_lossy(&log)));
    bpf(PROG_LOAD, &mut load).map(owned).map_err(refused)
}

/// Attaches a program, behind those that are there, until what is returned is dropped.
pub fn attach(program: BorrowedFd<'_>, place: Place<'_>) -> io::Result<OwnedFd> {
    let (target, place) = match place {
        Place::Interface(index) => (index, 46),
        Place::CgroupIn(cgroup) => (cgroup.as_raw_fd() as u32, 0),
        Place::CgroupOut(cgroup) => (cgroup.as_raw_fd() as u32, 1),
    };
    let mut link = Link { program: program.as_raw_fd() as u32, target, place, ..Link::default() };
    bpf(LINK_CREATE, &mut link).map(owned)
}

/// An array of programs with one entry: this one.
pub fn array_of(program: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    const PROG_ARRAY: u32 = 3;
    let map = bpf(MAP_CREATE, &mut Map { kind: PROG_ARRAY, key_size: 4, value_size: 4, entries: 1 });
    let map = owned(map?);
    let (key, value) = (0u32, program.as_raw_fd());
    let mut update = Element {
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

/// What became of runs.
#[derive(Clone, Copy, Debug)]
pub struct Ran {
    /// What the last one returned.
    pub result: u32,
    /// Nanoseconds of one, by the kernel's clock, whole.
    pub nanoseconds: u32,
}

/// Runs a program `repeat` times on one packet.
pub fn test_run(program: BorrowedFd<'_>, packet: &[u8], shown: Shown, repeat: u32) -> io::Result<Ran> {
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
    Ok(Ran { result: run.result, nanoseconds: run.duration })
}
