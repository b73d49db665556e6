//! Media by socket and process: what a relay takes in, what it puts out, what waits for it.
//!
//! Hooks: `cgroup_skb/ingress` and `cgroup_skb/egress` at the root, where every packet of every namespace meets its socket,
//! after the address translation of the way in and before that of the way out; `tp_btf/udp_fail_queue_rcv_skb`. What is
//! counted lives with the socket (`BPF_MAP_TYPE_SK_STORAGE`) and goes with it. Which process a socket belongs to no packet
//! tells: a pass over all open files does, run when there are sockets that no pass has found.
#![allow(unsafe_code)] // iterator contexts are read here, and the storage of sockets

use core::{ffi::c_void, mem::MaybeUninit, ptr};

use aya_ebpf::{
    EbpfContext,
    bindings::BPF_SK_STORAGE_GET_F_CREATE,
    btf_maps::SkStorage,
    helpers::generated::{bpf_sk_storage_get, bpf_sock_from_file},
    macros::{btf_map, btf_tracepoint, cgroup_skb},
    programs::{BtfTracePointContext, SkBuffContext},
};
use graylag_ebpf::{
    counter::Direction,
    demux::Kind,
    media::MediaCounter,
    relay::{SocketMedia, source_hash},
};

use super::{
    datagram::Datagram,
    kptr::{self, PASS, Probe, Sock, Task, address_of, argument, socket_of},
    maps, media_maps,
    packet::{Packet, Quick, may_be_media, quick},
    scan,
};

#[btf_map]
static SOCKET_MEDIA: SkStorage<SocketMedia> = SkStorage::new();

/// What a socket of the root cgroup's receives.
#[cgroup_skb(ingress)]
pub fn relay_in(ctx: SkBuffContext) -> i32 {
    observe(&ctx, Direction::Receive);
    PASS
}

/// What it sends.
#[cgroup_skb(egress)]
pub fn relay_out(ctx: SkBuffContext) -> i32 {
    observe(&ctx, Direction::Transmit);
    PASS
}

#[inline(always)]
fn observe(ctx: &SkBuffContext, direction: Direction) {
    let packet = Packet::new(ctx.skb.skb);
    if !may_be_media(packet) {
        return;
    }
    let mut datagram = MaybeUninit::uninit();
    let datagram = Datagram::begin(&mut datagram, direction);
    // Fragments have been put together here, or are not yet made; what else is not simple is not media.
    if !matches!(quick(packet, 0, direction, datagram), Quick::Datagram) || datagram.open(packet) != Kind::Rtp
    {
        return;
    }
    let Some((sk, _)) = socket_of(ctx) else { return };
    // SAFETY: the socket of the packet; so too below.
    let mut found = unsafe { of(sk.cast(), 0) };
    if found.is_none() {
        if !maps::in_scope(Sock::<Probe>::new(address_of(sk)).netns()) {
            return;
        }
        found = unsafe { of(sk.cast(), BPF_SK_STORAGE_GET_F_CREATE.into()) };
        if found.is_none() {
            // Another CPU was faster (`bpf_local_storage_update`: EEXIST), or there is no memory.
            found = unsafe { of(sk.cast(), 0) };
        }
    }
    let Some(media) = found else {
        media_maps::count(MediaCounter::SocketRefused, u64::from(datagram.segments));
        return;
    };
    let now = datagram.coarse_ns;
    if media.began_ns == 0 {
        media.began_ns = now;
    }
    match direction {
        Direction::Receive => {
            maps::add(&mut media.received, u64::from(datagram.segments));
            let [.., r0, r1, r2, r3, _, ports] = datagram.words;
            media.sources.note(now, source_hash([r0, r1, r2, r3], (ports >> 16) as u16));
        }
        Direction::Transmit => maps::add(&mut media.sent, u64::from(datagram.segments)),
    }
}

/// The media of a socket.
///
/// # Safety
/// `sk` must be a socket that the verifier knows as such.
#[inline(always)]
unsafe fn of(sk: *mut c_void, flags: u64) -> Option<&'static mut SocketMedia> {
    let map = (&raw const SOCKET_MEDIA).cast_mut().cast();
    // SAFETY: the caller's. What is made is zeros. Counters are added to atomically; the rest may be torn, which costs a bit
    // of a sketch.
    unsafe { bpf_sk_storage_get(map, sk, ptr::null_mut(), flags).cast::<SocketMedia>().as_mut() }
}

/// A datagram that found the receive buffer full.
#[btf_tracepoint(function = "udp_fail_queue_rcv_skb")]
pub fn relay_dropped(ctx: BtfTracePointContext) -> i32 {
    // SAFETY: the tracepoint's second argument is a socket.
    if let Some(media) = unsafe { of(argument(ctx.as_ptr(), 1) as *mut c_void, 0) } {
        maps::add(&mut media.dropped, 1);
    }
    0
}

/// All sockets that carry media.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/bpf_sk_storage_map")]
pub extern "C" fn scan_sockets(ctx: *mut c_void) -> i32 {
    // `struct bpf_iter__bpf_sk_storage_map` has the socket where one of a map's elements has the key.
    let Some((seq, sk, media)) = scan::element::<c_void, SocketMedia>(ctx) else { return 0 };
    let queued = Sock::<kptr::Direct>::new(sk.cast_mut()).udp_queued();
    let head = [sk as u64, u64::from(queued)];
    let _ = scan::write(seq, &raw const head) && scan::write(seq, media);
    0
}

/// `struct bpf_iter__task_file`.
#[repr(C)]
struct OpenFile {
    meta: *const scan::Meta,
    task: *mut c_void,
    fd: u64,
    file: *mut c_void,
}

/// Tells the sockets that carry media whose they are. What several processes have open belongs to the first, which is the
/// oldest where process numbers have not wrapped.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task_file")]
pub extern "C" fn own_sockets(ctx: *mut c_void) -> i32 {
    // SAFETY: the context of this program type; the verifier checks the access.
    let (task, file) = unsafe { ((*ctx.cast::<OpenFile>()).task, (*ctx.cast::<OpenFile>()).file) };
    if task.is_null() || file.is_null() {
        return 0;
    }
    // SAFETY: not null.
    let socket = unsafe { bpf_sock_from_file(file.cast()) };
    if socket.is_null() {
        return 0;
    }
    let Some(sk) = kptr::sock_of(socket.cast()) else { return 0 };
    // SAFETY: the socket of a file that the iterator holds.
    if let Some(media) = unsafe { of(sk, 0) } {
        let pass = maps::scan().pass;
        if media.pass != pass {
            let task = Task::new(task);
            media.process = task.process();
            media.command = task.command();
            media.pass = pass;
        }
    }
    0
}
