//! The pinned map of path states as a data plane reads it: a process with two `bpf(2)` calls, and a BPF program. None of the agent's
//! code but the ABI.
#![allow(unsafe_code)] // bpf(2)

use std::{
    ffi::CString,
    io,
    mem::offset_of,
    net::IpAddr,
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
    process::Command,
};

use graylag_ebpf::{
    counter::Direction,
    path_state::{Entry, Key, State, VERSION},
};

use crate::proc::{Directory, run};

/// `enum bpf_cmd`.
const BPF_MAP_LOOKUP_ELEM: libc::c_long = 1;
const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_OBJ_GET: libc::c_long = 7;
const BPF_PROG_TEST_RUN: libc::c_long = 10;
/// To read takes no more than the pin's read permission.
const BPF_F_RDONLY: u32 = 1 << 3;

/// `union bpf_attr`, the part of `BPF_OBJ_GET`.
#[repr(C)]
struct ObjGet {
    pathname: u64,
    bpf_fd: u32,
    file_flags: u32,
}

/// `union bpf_attr`, the part of `BPF_MAP_LOOKUP_ELEM`.
#[repr(C)]
struct Lookup {
    map_fd: u32,
    reserved: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// `union bpf_attr`, the part of `BPF_PROG_LOAD`.
#[repr(C)]
struct ProgLoad {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
}

/// `union bpf_attr`, the part of `BPF_PROG_TEST_RUN`.
#[repr(C)]
struct TestRun {
    prog_fd: u32,
    retval: u32,
    data_size_in: u32,
    data_size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
}

fn bpf<T>(command: libc::c_long, attributes: &T) -> io::Result<i64> {
    // SAFETY: the structure has the size given; what it points to lives as long as the caller's borrow.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, &raw const *attributes, size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Monotonic time, the clock of the map.
pub fn now_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes the structure only.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// The map, open.
pub struct Reader(OwnedFd);

impl Reader {
    /// Opens the pin for reading.
    pub fn open(pin: &Path) -> io::Result<Self> {
        let path = CString::new(pin.as_os_str().as_bytes())?;
        let get = ObjGet { pathname: path.as_ptr() as u64, bpf_fd: 0, file_flags: BPF_F_RDONLY };
        let fd = bpf(BPF_OBJ_GET, &get)?;
        // SAFETY: a fresh descriptor that nobody else owns.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd as i32) }))
    }

    /// What is said of an address, valid or not.
    pub fn entry(&self, address: IpAddr) -> Option<Entry> {
        let (key, mut entry) = (Key::host(address), Entry::default());
        let lookup = Lookup {
            map_fd: self.0.as_raw_fd() as u32,
            reserved: 0,
            key: &raw const key as u64,
            value: &raw mut entry as u64,
            flags: 0,
        };
        bpf(BPF_MAP_LOOKUP_ELEM, &lookup).ok().map(|_| entry)
    }

    /// What a data plane acts on: receive and transmit. Whatever it does not hear is unknown.
    pub fn states(&self, address: IpAddr) -> [State; 2] {
        let entry = self.entry(address).unwrap_or_default();
        let now = now_ns();
        Direction::BOTH.map(|direction| entry.state(direction, now))
    }
}

/// A BPF program that looks an address up, and answers with the state of its way out.
pub struct Program(OwnedFd);

impl Program {
    /// Loads it, tied to the reader's map. In C it is in docs/verdicts.md.
    pub fn load(reader: &Reader, address: IpAddr) -> io::Result<Self> {
        const BPF_PROG_TYPE_SOCKET_FILTER: u32 = 1;
        const FP: u8 = 10;
        /// `struct bpf_insn`, little-endian.
        const fn instruction(code: u8, dst: u8, src: u8, off: i16, imm: i32) -> u64 {
            code as u64
                | ((dst | src << 4) as u64) << 8
                | (off as u16 as u64) << 16
                | (imm as u32 as u64) << 32
        }
        let key = Key::host(address);
        let store = |at: i16, word: u32| instruction(0x62, FP, 0, at, word as i32);
        let call = |helper| instruction(0x85, 0, 0, 0, helper);
        let out = offset_of!(Entry, transmit) as i16;
        let program = [
            store(-24, key.bits),
            store(-20, key.address[0]),
            store(-16, key.address[1]),
            store(-12, key.address[2]),
            store(-8, key.address[3]),
            instruction(0x18, 1, 1, 0, reader.0.as_raw_fd()), // r1 = map, of two words
            0,
            instruction(0xbf, 2, FP, 0, 0), // r2 = fp
            instruction(0x07, 2, 0, 0, -24),
            call(1),                       // bpf_map_lookup_elem
            instruction(0x15, 0, 0, 8, 0), // if !r0 goto end
            instruction(0xbf, 6, 0, 0, 0), // r6 = r0
            call(5),                       // bpf_ktime_get_ns
            instruction(0x79, 1, 6, offset_of!(Entry, valid_until_ns) as i16, 0),
            instruction(0x3d, 0, 1, 4, 0), // if r0 >= r1 goto end
            instruction(0x61, 1, 6, offset_of!(Entry, version) as i16, 0),
            instruction(0x55, 1, 0, 2, VERSION as i32), // if r1 != VERSION goto end
            instruction(0x61, 0, 6, out, 0),            // r0 = transmit.state
            instruction(0x95, 0, 0, 0, 0),
            instruction(0xb7, 0, 0, 0, 0), // end: r0 = 0
            instruction(0x95, 0, 0, 0, 0),
        ];
        let mut log = [0_u8; 16384];
        let load = ProgLoad {
            prog_type: BPF_PROG_TYPE_SOCKET_FILTER,
            insn_cnt: program.len() as u32,
            insns: program.as_ptr() as u64,
            license: c"GPL".as_ptr() as u64,
            log_level: 1,
            log_size: log.len() as u32,
            log_buf: log.as_mut_ptr() as u64,
        };
        let fd = bpf(BPF_PROG_LOAD, &load)
            .map_err(|error| io::Error::other(format!("{error}: {}", String::from_utf8_lossy(&log))))?;
        // SAFETY: a fresh descriptor that nobody else owns.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd as i32) }))
    }

    /// What it says now.
    pub fn transmit(&self) -> io::Result<State> {
        let packet = [0_u8; 64];
        let mut test = TestRun {
            prog_fd: self.0.as_raw_fd() as u32,
            retval: u32::MAX,
            data_size_in: packet.len() as u32,
            data_size_out: 0,
            data_in: packet.as_ptr() as u64,
            data_out: 0,
            repeat: 1,
            duration: 0,
        };
        // SAFETY: the structure has the size given; the kernel writes into it.
        let result =
            unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_TEST_RUN, &raw mut test, size_of::<TestRun>()) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(State::from_raw(test.retval)) }
    }
}

/// A BPF file system of its own.
pub struct BpfFs(Directory);

impl BpfFs {
    /// Mounts it.
    #[track_caller]
    pub fn new() -> Self {
        crate::require_root();
        let directory = Directory::new();
        run(Command::new("mount").args(["-t", "bpf", "bpf"]).arg(directory.path()));
        Self(directory)
    }

    /// A place in it.
    pub fn join(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}

impl Default for BpfFs {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for BpfFs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.0.path()).status();
    }
}
