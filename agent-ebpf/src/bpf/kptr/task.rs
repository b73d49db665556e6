//! Tasks, and the sockets that they have open.

use core::ffi::c_void;

use aya_ebpf::Global;

use super::{
    CGROUP_NODE, CSS_SET_CGROUP, Direct, KERNFS_ID, Load, NET_INUM, NSPROXY_NET, Probe, SOCKET_SK,
    TASK_CGROUPS, TASK_COMM, TASK_NSPROXY, TASK_PID, TASK_TGID,
};

/// `socket.sk`.
#[inline(always)]
pub fn sock_of(socket: *mut c_void) -> Option<*mut c_void> {
    // SAFETY: the verifier knows it to be a `struct socket`.
    let sk: *mut c_void = unsafe { Direct::load(socket, &SOCKET_SK) };
    (!sk.is_null()).then_some(sk)
}

/// A `struct task_struct`.
#[derive(Clone, Copy)]
pub struct Task {
    raw: *mut c_void,
}

impl Task {
    /// Wraps a pointer that the verifier knows to be a task and not null.
    #[inline(always)]
    pub fn new(raw: *mut c_void) -> Self {
        Self { raw }
    }

    /// `tgid`: what user space calls its process.
    #[inline(always)]
    pub fn process(self) -> u32 {
        // SAFETY: the constructor's contract.
        unsafe { Direct::load(self.raw, &TASK_TGID) }
    }

    /// `comm`, zero-filled.
    #[inline(always)]
    pub fn command(self) -> [u8; 16] {
        // SAFETY: the constructor's contract.
        unsafe { Probe::load(self.raw, &TASK_COMM) }
    }
    /// Whether it is its process's first thread.
    #[inline(always)]
    pub fn leads(self) -> bool {
        // SAFETY: the constructor's contract.
        unsafe { Direct::load::<u32>(self.raw, &TASK_PID) == self.process() }
    }

    /// Inode of its network namespace; 0 of one that is ending, which has none (`exit_task_namespaces`).
    #[inline(always)]
    pub fn netns(self) -> u32 {
        // SAFETY: the members are looked up for these very structures; what is gone reads as zero.
        unsafe { Probe::load(follow(follow(self.raw, &TASK_NSPROXY), &NSPROXY_NET), &NET_INUM) }
    }

    /// Its cgroup's number in the hierarchy of version 2; 0 where there is none.
    #[inline(always)]
    pub fn cgroup(self) -> u64 {
        // SAFETY: as above.
        unsafe {
            let cgroup = follow(follow(self.raw, &TASK_CGROUPS), &CSS_SET_CGROUP);
            Probe::load(follow(cgroup, &CGROUP_NODE), &KERNFS_ID)
        }
    }
}

/// The structure that a member points at.
///
/// # Safety
/// As for [`Load::load`].
#[inline(always)]
unsafe fn follow(base: *const c_void, member: &Global<u32>) -> *const c_void {
    // SAFETY: the caller's.
    unsafe { Probe::load(base, member) }
}
