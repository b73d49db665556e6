//! TCP sockets, however they are reached.

use core::ffi::c_void;

use aya_ebpf::{
    Global,
    bindings::{bpf_sock, bpf_tcp_sock},
    helpers::generated::bpf_tcp_sock,
};

use super::{
    Direct, Load, Probe, TP_BYTES_RECEIVED, TP_DSACK_DUPS, TP_SEGS_IN, TP_SEGS_OUT, TP_SND_UNA, TP_SRTT_US,
    TP_WRITE_SEQ,
};

/// What is sampled of a TCP socket, however it is reached.
pub trait TcpCounters {
    /// Smoothed round-trip time in nanoseconds; `srtt_us` holds eighths of a microsecond.
    fn srtt_ns(&self) -> u64;
    /// `segs_in`.
    fn segments_in(&self) -> u32;
    /// `segs_out`.
    fn segments_out(&self) -> u32;
    /// `dsack_dups`.
    fn dsack_dups(&self) -> u32;
}

/// The stable view of a TCP socket that `cgroup_skb` programs get (`struct bpf_tcp_sock`).
#[derive(Clone, Copy)]
pub struct StableTcpSock {
    raw: *mut bpf_tcp_sock,
}

impl StableTcpSock {
    /// Nothing where it is not a full TCP socket.
    #[inline(always)]
    pub fn new(sk: *mut bpf_sock) -> Option<Self> {
        // SAFETY: the helper checks the socket, and answers null.
        let raw = unsafe { bpf_tcp_sock(sk) };
        if raw.is_null() { None } else { Some(Self { raw }) }
    }

    /// `snd_nxt`.
    #[inline(always)]
    pub fn send_next(&self) -> u32 {
        // SAFETY: not null; the verifier checks the access.
        unsafe { (*self.raw).snd_nxt }
    }

    /// `rcv_nxt`.
    #[inline(always)]
    pub fn receive_next(&self) -> u32 {
        // SAFETY: not null; the verifier checks the access.
        unsafe { (*self.raw).rcv_nxt }
    }
}

// SAFETY of the four reads: not null; the verifier checks the access.
impl TcpCounters for StableTcpSock {
    #[inline(always)]
    fn srtt_ns(&self) -> u64 {
        u64::from(unsafe { (*self.raw).srtt_us }) * 125
    }
    #[inline(always)]
    fn segments_in(&self) -> u32 {
        unsafe { (*self.raw).segs_in }
    }
    #[inline(always)]
    fn segments_out(&self) -> u32 {
        unsafe { (*self.raw).segs_out }
    }
    #[inline(always)]
    fn dsack_dups(&self) -> u32 {
        unsafe { (*self.raw).dsack_dups }
    }
}

/// `segs_in` of the socket at an address that may be none any more.
#[inline(always)]
pub fn segments_in(address: u64) -> u32 {
    // SAFETY: any bits are a number; the helper checks the address.
    unsafe { Probe::load(address as *const c_void, &TP_SEGS_IN) }
}

/// A `struct tcp_sock`.
#[derive(Clone, Copy)]
pub struct TcpSock {
    raw: *mut c_void,
}

impl TcpSock {
    /// Wraps a pointer that the verifier knows to be a TCP socket and not null.
    #[inline(always)]
    pub(super) fn new(raw: *mut c_void) -> Self {
        Self { raw }
    }

    #[inline(always)]
    fn get<T: Copy>(&self, offset: &Global<u32>) -> T {
        // SAFETY: the constructor's contract.
        unsafe { Direct::load(self.raw, offset) }
    }

    /// `snd_una`.
    #[inline(always)]
    pub fn acked(&self) -> u32 {
        self.get(&TP_SND_UNA)
    }

    /// `write_seq`: the sequence number of the next byte the application hands over.
    #[inline(always)]
    pub fn write_seq(&self) -> u32 {
        self.get(&TP_WRITE_SEQ)
    }

    /// Low half of `bytes_received`.
    #[inline(always)]
    pub fn received(&self) -> u32 {
        self.get::<u64>(&TP_BYTES_RECEIVED) as u32
    }
}

impl TcpCounters for TcpSock {
    #[inline(always)]
    fn srtt_ns(&self) -> u64 {
        u64::from(self.get::<u32>(&TP_SRTT_US)) * 125
    }
    #[inline(always)]
    fn segments_in(&self) -> u32 {
        self.get(&TP_SEGS_IN)
    }
    #[inline(always)]
    fn segments_out(&self) -> u32 {
        self.get(&TP_SEGS_OUT)
    }
    #[inline(always)]
    fn dsack_dups(&self) -> u32 {
        self.get(&TP_DSACK_DUPS)
    }
}
