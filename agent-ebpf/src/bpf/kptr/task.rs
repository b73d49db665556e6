//! Tasks, and the sockets that they have open.

use core::ffi::c_void;

use super::{Direct, Load, Probe, SOCKET_SK, TASK_COMM, TASK_TGID};

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
}
