//! Reading a map through a kernel iterator (`iter/bpf_map_elem`, `iter/bpf_sk_storage_map`), which aya cannot attach: it has no way to name the
//! map; passes over all tasks (`iter/task`) without a link for each, which would take privileges that are given up; and pins of what is known by its descriptor only. Four `bpf(2)` calls, and the only raw system calls of the agent.
#![allow(unsafe_code)]

use std::{
    ffi::CString,
    fs::File,
    io::{self, Read},
    os::{
        fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

use bytemuck::{AnyBitPattern, Pod, Zeroable, pod_read_unaligned};

/// `enum bpf_cmd`.
const BPF_OBJ_PIN: libc::c_long = 6;
const BPF_OBJ_GET: libc::c_long = 7;
const BPF_LINK_CREATE: libc::c_long = 28;
const BPF_ITER_CREATE: libc::c_long = 33;
/// `enum bpf_attach_type`.
const BPF_TRACE_ITER: u32 = 28;

/// `union bpf_attr`, the part of `BPF_LINK_CREATE`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct LinkCreate {
    prog_fd: u32,
    target_fd: u32,
    attach_type: u32,
    flags: u32,
    iter_info: u64,
    iter_info_len: u32,
    reserved: u32,
}

/// `union bpf_attr`, the part of `BPF_ITER_CREATE`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct IterCreate {
    link_fd: u32,
    flags: u32,
}

/// `union bpf_attr`, the part of `BPF_OBJ_PIN` and `BPF_OBJ_GET`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Object {
    pathname: u64,
    bpf_fd: u32,
    file_flags: u32,
}

fn bpf<T: Pod>(command: libc::c_long, attributes: &T) -> io::Result<libc::c_long> {
    // SAFETY: `attributes` is plain data of the size given; the kernel reads it only, and what it points at lives in the caller.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, &raw const *attributes, size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// A call that makes a descriptor.
fn made<T: Pod>(command: libc::c_long, attributes: &T) -> io::Result<OwnedFd> {
    let fd = bpf(command, attributes)?;
    // SAFETY: a fresh descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Opens what is pinned somewhere: a map, a program or a link.
pub fn object_at(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    made(BPF_OBJ_GET, &Object { pathname: path.as_ptr() as u64, bpf_fd: 0, file_flags: 0 })
}

/// Pins what a descriptor stands for.
pub fn pin(fd: RawFd, path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    bpf(BPF_OBJ_PIN, &Object { pathname: path.as_ptr() as u64, bpf_fd: fd as u32, file_flags: 0 }).map(|_| ())
}

/// A loaded iterator program, tied to what it goes over.
pub struct KernelIterator {
    link: OwnedFd,
}

impl KernelIterator {
    /// Ties a loaded program to a map, where it goes over one.
    pub fn attach(program: BorrowedFd<'_>, map: Option<BorrowedFd<'_>>) -> io::Result<Self> {
        // `union bpf_iter_link_info`: its first member is the map's descriptor.
        let info = map.map_or(0, |map| map.as_raw_fd() as u32);
        let link = made(
            BPF_LINK_CREATE,
            &LinkCreate {
                prog_fd: program.as_raw_fd() as u32,
                target_fd: 0,
                attach_type: BPF_TRACE_ITER,
                flags: 0,
                iter_info: if map.is_some() { &raw const info as u64 } else { 0 },
                iter_info_len: if map.is_some() { size_of_val(&info) as u32 } else { 0 },
                reserved: 0,
            },
        )?;
        Ok(Self { link })
    }

    /// One pass: shows every record that the program wrote. Needs no privilege. `buffer` holds a few of them;
    /// the kernel fills no more than 32 KiB at a time (`bpf_seq_read`).
    pub fn read<T: AnyBitPattern>(&self, buffer: &mut [u8], mut visit: impl FnMut(&T)) -> io::Result<()> {
        let fd = made(BPF_ITER_CREATE, &IterCreate { link_fd: self.link.as_raw_fd() as u32, flags: 0 })?;
        let mut pass = File::from(fd);
        let mut held = 0;
        loop {
            held += match pass.read(&mut buffer[held..]) {
                Ok(0) => return Ok(()),
                Ok(n) => n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            let records = buffer[..held].chunks_exact(size_of::<T>());
            let rest = records.remainder().len();
            records.for_each(|record| visit(&pod_read_unaligned(record)));
            // A record may be cut by the end of the buffer: its rest comes first next time.
            buffer.copy_within(held - rest..held, 0);
            held = rest;
        }
    }
}
