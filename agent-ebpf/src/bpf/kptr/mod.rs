//! The one room where kernel pointers are read.
//!
//! Offsets come from the running kernel's BTF as frozen globals, so the verifier knows them as constants. A tracing
//! program holds typed pointers and loads through them directly ([`Direct`]); a `cgroup_skb` program holds an opaque
//! socket and copies ([`Probe`]).
#![allow(unsafe_code)]

mod skb;
mod task;
mod tcp;

use core::{ffi::c_void, marker::PhantomData, mem::MaybeUninit};

use aya_ebpf::{
    Global,
    bindings::bpf_sock,
    helpers::generated::{bpf_ktime_get_ns, bpf_probe_read_kernel, bpf_skc_to_tcp_sock},
    programs::SkBuffContext,
};
use graylag_ebpf::{
    for_each_offset,
    key::{Address, Tuple, V4_MAPPED},
    offsets::MISSING,
};

pub use skb::Skb;
pub use task::{Task, sock_of};
pub use tcp::{StableTcpSock, TcpCounters, TcpSock, segments_in};

macro_rules! globals {
    ($(($name:ident, $path:literal)),*) => {
        $(
            #[unsafe(no_mangle)]
            static $name: Global<u32> = Global::new(MISSING);
        )*
    };
}
for_each_offset!(globals);

/// 1: full at `sk_max_ack_backlog` entries, 0: at one more. Tried by the agent before it loads this.
#[unsafe(no_mangle)]
static REQUEST_QUEUE_FULL_AT_BACKLOG: Global<u32> = Global::new(0);

const AF_INET: u16 = 2;
/// `IPPROTO_TCP`.
pub const TCP: u8 = 6;
/// `IPPROTO_UDP`.
pub const UDP: u8 = 17;

/// How a member is loaded.
pub trait Load {
    /// # Safety
    /// `base` must point to a kernel structure that has a `T` at `offset`.
    unsafe fn load<T: Copy>(base: *const c_void, offset: &Global<u32>) -> T;
}

/// A load the verifier checks against the kernel's BTF.
#[derive(Clone, Copy)]
pub struct Direct;

impl Load for Direct {
    #[inline(always)]
    unsafe fn load<T: Copy>(base: *const c_void, offset: &Global<u32>) -> T {
        // SAFETY: the verifier proves that the member exists and that faults are handled.
        unsafe { core::ptr::read_volatile(base.byte_add(offset.load() as usize).cast()) }
    }
}

/// `bpf_probe_read_kernel`: zero where the address is bad.
#[derive(Clone, Copy)]
pub struct Probe;

impl Load for Probe {
    #[inline(always)]
    unsafe fn load<T: Copy>(base: *const c_void, offset: &Global<u32>) -> T {
        // SAFETY: the helper checks the address itself and clears the destination on a fault.
        unsafe { probe(base.byte_add(offset.load() as usize)) }
    }
}

/// Copies a `T` from anywhere in the kernel.
///
/// # Safety
/// Any bit pattern must be a valid `T`.
#[inline(always)]
pub unsafe fn probe<T: Copy>(address: *const c_void) -> T {
    let mut value = MaybeUninit::<T>::uninit();
    // SAFETY: the helper writes size_of::<T>() bytes, zeroes on a fault.
    unsafe {
        bpf_probe_read_kernel(value.as_mut_ptr().cast(), size_of::<T>() as u32, address);
        value.assume_init()
    }
}

/// `CLOCK_MONOTONIC` in nanoseconds.
#[inline(always)]
pub fn now() -> u64 {
    // SAFETY: no preconditions.
    unsafe { bpf_ktime_get_ns() }
}

/// Argument `n` of a BTF tracepoint.
#[inline(always)]
pub fn argument(ctx: *mut c_void, n: usize) -> u64 {
    // SAFETY: the verifier checks `n` against the tracepoint's prototype.
    unsafe { *ctx.cast::<u64>().add(n) }
}

/// The address of a socket as a plain number, which is all that [`Probe`] needs: the verifier forbids arithmetic on
/// the pointer itself, and reading one's own stack through a helper yields what is there without its type.
#[inline(always)]
pub fn address_of(sk: *mut bpf_sock) -> *mut c_void {
    // SAFETY: a copy of a local.
    unsafe { probe((&raw const sk).cast()) }
}

/// What a `cgroup_skb` program answers: the packet goes on; graylag never decides that.
pub const PASS: i32 = 1;

/// The socket of a packet in a `cgroup_skb` program, and its `skc_state`.
#[inline(always)]
pub fn socket_of(ctx: &SkBuffContext) -> Option<(*mut bpf_sock, u8)> {
    // SAFETY: the context is a `__sk_buff`; the verifier checks the access.
    let sk = unsafe { core::ptr::read_volatile(&raw const (*ctx.skb.skb).__bindgen_anon_2).sk };
    if sk.is_null() {
        return None;
    }
    // SAFETY: not null.
    Some((sk, unsafe { (*sk).state } as u8))
}

/// A `struct sock`, or a `struct request_sock` where only `sock_common` is read.
pub struct Sock<L> {
    raw: *mut c_void,
    load: PhantomData<L>,
}

impl<L> Clone for Sock<L> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<L> Copy for Sock<L> {}

impl<L: Load> Sock<L> {
    /// Wraps a pointer that the verifier knows to be a socket and not null.
    #[inline(always)]
    pub fn new(raw: *mut c_void) -> Self {
        Self { raw, load: PhantomData }
    }

    #[inline(always)]
    fn get<T: Copy>(&self, offset: &Global<u32>) -> T {
        // SAFETY: the constructor's contract; offsets are looked up for this very structure.
        unsafe { L::load(self.raw, offset) }
    }

    /// The key of its connection.
    #[inline(always)]
    pub fn id(&self) -> u64 {
        self.raw as u64
    }

    /// `skc_state`, one of [`super::state`].
    #[inline(always)]
    pub fn state(&self) -> u8 {
        self.get(&SKC_STATE)
    }

    /// `sk_protocol`.
    #[inline(always)]
    pub fn protocol(&self) -> u8 {
        self.get::<u16>(&SK_PROTOCOL) as u8
    }

    /// `skc_num`, the local port.
    #[inline(always)]
    pub fn local_port(&self) -> u16 {
        self.get(&SKC_NUM)
    }

    /// `skc_dport`, the remote port.
    #[inline(always)]
    pub fn remote_port(&self) -> u16 {
        u16::from_be(self.get(&SKC_DPORT))
    }

    /// Remote address.
    #[inline(always)]
    pub fn remote(&self) -> Address {
        self.address(&SKC_DADDR, &SKC_V6_DADDR)
    }

    /// Local address.
    #[inline(always)]
    pub fn local(&self) -> Address {
        self.address(&SKC_RCV_SADDR, &SKC_V6_RCV_SADDR)
    }

    #[inline(always)]
    fn address(&self, v4: &Global<u32>, v6: &Global<u32>) -> Address {
        if self.get::<u16>(&SKC_FAMILY) == AF_INET {
            [0, 0, V4_MAPPED, self.get(v4)]
        } else {
            // Word by word: the member is a union of arrays, and the verifier wants one element at a time.
            // SAFETY: the four words lie inside `struct in6_addr`.
            unsafe {
                let word = |i: usize| L::load::<u32>(self.raw.byte_add(4 * i), v6);
                [word(0), word(1), word(2), word(3)]
            }
        }
    }

    /// Inode of its network namespace.
    #[inline(always)]
    pub fn netns(&self) -> u32 {
        let net: *const c_void = self.get(&SKC_NET);
        // SAFETY: every socket has a namespace.
        unsafe { L::load(net, &NET_INUM) }
    }

    /// `net.ipv4.tcp_syncookies` of its namespace.
    #[inline(always)]
    pub fn syncookies(&self) -> u8 {
        let net: *const c_void = self.get(&SKC_NET);
        // SAFETY: every socket has a namespace.
        unsafe { L::load(net, &NET_SYNCOOKIES) }
    }

    /// `sk_err`.
    #[inline(always)]
    pub fn error(&self) -> u32 {
        self.get(&SK_ERR)
    }

    /// `sk_err_soft`.
    #[inline(always)]
    pub fn soft_error(&self) -> u32 {
        self.get(&SK_ERR_SOFT)
    }

    /// Whether the application closed the socket: no direction is left open (`RCV_SHUTDOWN` is set by `close`
    /// before the state changes, and not by `shutdown(SHUT_WR)`).
    #[inline(always)]
    pub fn closed_by_application(&self) -> bool {
        const RCV_SHUTDOWN: u8 = 1;
        self.get::<u8>(&SK_SHUTDOWN) & RCV_SHUTDOWN != 0
    }

    /// `sk_acceptq_is_full` of a listener.
    #[inline(always)]
    pub fn accept_queue_full(&self) -> bool {
        self.get::<u32>(&SK_ACK_BACKLOG) > self.get::<u32>(&SK_MAX_ACK_BACKLOG)
    }

    /// `inet_csk_reqsk_queue_is_full` of a listener, whose comparison differs from kernel to kernel.
    #[inline(always)]
    pub fn request_queue_full(&self) -> bool {
        let (length, backlog) = (self.get::<u32>(&ICSK_QLEN), self.get::<u32>(&SK_MAX_ACK_BACKLOG));
        length > backlog || (length == backlog && REQUEST_QUEUE_FULL_AT_BACKLOG.load() != 0)
    }

    /// Memory of what waits in a UDP socket's receive queue, bytes (`udp_rqueue_get`): what was read and is not yet given back
    /// does not count.
    #[inline(always)]
    pub fn udp_queued(&self) -> u32 {
        // SAFETY: as for `probe`; the caller knows that it is a UDP socket.
        let deficit = unsafe { Probe::load::<i32>(self.raw, &UDP_FORWARD_DEFICIT) };
        self.get::<i32>(&SK_RMEM_ALLOC).saturating_sub(deficit).max(0) as u32
    }

    /// `icsk_ca_state`, the low five bits of its byte.
    #[inline(always)]
    pub fn congestion_state(&self) -> u8 {
        // SAFETY: as for `probe`; a request or minimal socket has no such member and never gets here.
        unsafe { Probe::load::<u8>(self.raw, &ICSK_CA_STATE) & 0x1f }
    }

    /// The connection this socket is an end of.
    #[inline(always)]
    pub fn tuple(&self) -> Tuple {
        Tuple {
            local: self.local(),
            remote: self.remote(),
            netns: self.netns(),
            local_port: self.local_port(),
            remote_port: self.remote_port(),
        }
    }
}

impl Sock<Direct> {
    /// As a `struct tcp_sock`; nothing where it is not a full TCP socket.
    #[inline(always)]
    pub fn tcp(&self) -> Option<TcpSock> {
        // SAFETY: the helper checks protocol and kind, and answers null.
        let raw = unsafe { bpf_skc_to_tcp_sock(self.raw) };
        if raw.is_null() { None } else { Some(TcpSock::new(raw.cast())) }
    }
}
