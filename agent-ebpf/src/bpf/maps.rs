//! The maps, and the only place where map memory is touched.
//!
//! A reference handed out here stays valid until the program ends: map memory is freed by RCU. Shared counters are
//! changed by atomic additions only. A [`Conn`] is changed under its socket's lock, which the kernel holds around
//! every hook that looks one up, except `sock_send_length`; see `exchange` for what that costs.
#![allow(unsafe_code)]

use core::arch::asm;

use aya_ebpf::{
    Global,
    bindings::{BPF_ANY, BPF_F_NO_PREALLOC, BPF_NOEXIST},
    macros::map,
    maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, lpm_trie},
};
use aya_log_ebpf::warn;
use graylag_ebpf::{
    bucket::{self, BUCKETS, Histogram},
    counter::{Counter, Direction, REASONS, Transport, drop_index},
    key::{Address, PathKey, Peer, Tuple, UdpPort},
    record::{Conn, HalfOpen, PathStats, Scan},
};

// Sizes are defaults; the agent sets them from the configuration before it loads the object.
#[map]
static PATHS: HashMap<PathKey, PathStats> = HashMap::with_max_entries(4096, 0);
#[map]
static CONNS: HashMap<u64, Conn> = HashMap::with_max_entries(65_536, 0);
#[map]
static HALF_OPEN: HashMap<Tuple, HalfOpen> = HashMap::with_max_entries(16_384, 0);
/// SYNs answered with a cookie, by time. LRU: under a flood the oldest go, and with them only a latency.
#[map]
static COOKIES: LruHashMap<Tuple, u64> = LruHashMap::with_max_entries(4096, 0);
/// Never written: what a new path starts from. It is too big for the stack.
#[map]
static NEW_PATH: Array<PathStats> = Array::with_max_entries(1, 0);
#[map]
static COUNTERS: PerCpuArray<[u64; Counter::COUNT]> = PerCpuArray::with_max_entries(1, 0);
/// By [`drop_index`]. A hash, for of the many reasons few ever occur, and user space reads it every second.
#[map]
static DROPS: HashMap<u32, u64> = HashMap::with_max_entries(512, 0);
/// By drop reason: 1 where it is no loss (the agent knows the names) and need not be counted.
#[map]
static DROP_IGNORED: Array<u32> = Array::with_max_entries(REASONS, 0);
#[map]
static UDP_DROPS: HashMap<UdpPort, u64> = HashMap::with_max_entries(1024, 0);
/// Configured peers by prefix.
#[map]
static PEERS: LpmTrie<Address, Peer> = LpmTrie::with_max_entries(1024, BPF_F_NO_PREALLOC);
/// Namespaces in scope, where the configuration names some.
#[map]
static NETNS: HashMap<u32, u32> = HashMap::with_max_entries(1024, 0);
/// Listening ports, filled while existing connections are adopted.
#[map]
static LISTENING: HashMap<UdpPort, u32> = HashMap::with_max_entries(4096, 0);
#[map]
static SCAN: Array<Scan> = Array::with_max_entries(1, 0);

/// 1: only the namespaces in `NETNS`.
#[unsafe(no_mangle)]
static SCOPED: Global<u32> = Global::new(0);

/// Whether a namespace is to be watched.
#[inline(always)]
pub fn in_scope(netns: u32) -> bool {
    SCOPED.load() == 0 || NETNS.get_ptr(netns).is_some()
}

/// Adds to a shared counter.
#[inline(always)]
pub fn add(counter: &mut u64, n: u64) {
    // The target's `core` has no atomic addition; the instruction set has (BPF_ATOMIC | BPF_ADD).
    // SAFETY: map memory, aligned, valid for the program's run.
    unsafe { asm!("lock *(u64 *)({p} + 0) += {n}", p = in(reg) counter, n = in(reg) n) }
}

/// Records a duration.
#[inline(always)]
pub fn record(histogram: &mut Histogram, ns: u64) {
    add(&mut histogram.sum_ns, ns);
    let mut i = bucket::index(ns);
    // The compiler knows that `i` is in bounds, the verifier does not: keep the comparison.
    // SAFETY: a register is copied to itself.
    unsafe { asm!("{i} = {i}", i = inout(reg) i) }
    if i < BUCKETS {
        // SAFETY: `i` is in bounds; map memory, aligned, valid for the program's run.
        unsafe {
            let bucket = (&raw mut histogram.buckets).cast::<u32>().add(i);
            asm!("lock *(u32 *)({p} + 0) += {n}", p = in(reg) bucket, n = in(reg) 1u64);
        }
    }
}

/// Counts what the programs themselves did or could not do.
#[inline(always)]
pub fn count(counter: Counter) {
    if let Some(values) = COUNTERS.get_ptr_mut(0) {
        // SAFETY: per-CPU; a program interrupted by another may cost one count.
        if let Some(value) = unsafe { &mut *values }.get_mut(counter as usize) {
            *value += 1;
        }
    }
}

/// The record of a path, made where there is none; the role's `~other` where there is no room.
#[inline(never)]
pub fn path(key: &PathKey, now: u64) -> Option<&'static mut PathStats> {
    #[allow(clippy::needless_borrows_for_generic_args)] // by value it would be copied to the stack
    let found = PATHS.get_ptr_mut(key).or_else(|| {
        let fresh = NEW_PATH.get_ptr(0)?;
        // SAFETY: a value of the array map; the kernel copies it.
        let _ = PATHS.insert(key, unsafe { &*fresh }, u64::from(BPF_NOEXIST));
        PATHS.get_ptr_mut(key)
    });
    let found = if let Some(found) = found {
        found
    } else {
        count(Counter::PathFull);
        warn!((), "path table full: service port {} counted as ~other", key.port);
        PATHS.get_ptr_mut(PathKey::other(key.role()))?
    };
    // SAFETY: see the module.
    let stats = unsafe { &mut *found };
    stats.touched_ns = now;
    Some(stats)
}

/// The connection of a socket.
///
/// Where the end of a connection was missed its record stays until the next scan, and the socket's memory may be another's
/// by then: one with another remote port is not this record's.
#[inline(always)]
pub fn conn(id: u64, remote_port: u16) -> Option<&'static mut Conn> {
    // SAFETY: see the module.
    CONNS.get_ptr_mut(id).map(|conn| unsafe { &mut *conn }).filter(|conn| conn.remote_port == remote_port)
}

/// Starts tracking a connection; whatever was left at this socket's address is overwritten.
#[inline(always)]
pub fn insert_conn(id: u64, conn: &Conn) {
    count(Counter::ConnectionSeen);
    if CONNS.insert(id, conn, u64::from(BPF_ANY)).is_err() {
        count(Counter::ConnectionFull);
        warn!((), "connection table full: service port {} not tracked", conn.path.port);
    }
}

/// Stops tracking a connection.
#[inline(always)]
pub fn remove_conn(id: u64) {
    let _ = CONNS.remove(id);
}

/// The unfinished handshake of a tuple.
#[inline(always)]
pub fn half_open(tuple: &Tuple) -> Option<&'static mut HalfOpen> {
    // SAFETY: see the module; two SYNs of one tuple at once may lose one count of `syns`.
    HALF_OPEN.get_ptr_mut(tuple).map(|entry| unsafe { &mut *entry })
}

/// Starts tracking a handshake that reached a listener.
#[inline(always)]
pub fn insert_half_open(tuple: &Tuple, entry: &HalfOpen) {
    count(Counter::HalfOpenSeen);
    if HALF_OPEN.insert(tuple, entry, u64::from(BPF_NOEXIST)).is_err() {
        count(Counter::HalfOpenFull);
        warn!((), "half-open table full: listening port {} not tracked", tuple.local_port);
    }
}

/// Stops tracking a handshake.
#[inline(always)]
pub fn remove_half_open(tuple: &Tuple) {
    let _ = HALF_OPEN.remove(tuple);
}

/// Remembers when a SYN was answered with a cookie; the first of its retransmissions counts.
#[inline(always)]
pub fn insert_cookie(tuple: &Tuple, now: u64) {
    let _ = COOKIES.insert(tuple, now, u64::from(BPF_NOEXIST));
}

/// When the SYN came that a cookie answered; 0 for none.
#[inline(always)]
pub fn take_cookie(tuple: &Tuple) -> u64 {
    // SAFETY: see the module.
    let began = COOKIES.get_ptr(tuple).map_or(0, |began| unsafe { *began });
    if began != 0 {
        let _ = COOKIES.remove(tuple);
    }
    began
}

/// The configured peer of an address.
#[inline(always)]
pub fn peer(address: Address) -> Option<Peer> {
    PEERS.get(lpm_trie::Key::new(128, address)).copied()
}

/// Counts a dropped packet.
#[inline(always)]
pub fn add_drop(reason: u32, direction: Direction, transport: Transport) {
    add_at(&DROPS, &drop_index(reason, direction, transport));
}

/// Whether a drop reason is no loss.
#[inline(always)]
pub fn is_ignored(reason: u32) -> bool {
    // SAFETY: see the module.
    DROP_IGNORED.get_ptr(reason).is_some_and(|ignored| unsafe { *ignored } != 0)
}

/// Counts a receive-buffer drop of a UDP port.
#[inline(always)]
pub fn add_udp_drop(port: &UdpPort) {
    add_at(&UDP_DROPS, port);
}

/// Adds one to the counter of a key, made where there is none.
#[inline(always)]
fn add_at<K>(counters: &HashMap<K, u64>, key: &K) {
    if let Some(value) = counters.get_ptr_mut(key) {
        // SAFETY: see the module.
        add(unsafe { &mut *value }, 1);
    } else if counters.insert(key, 1, u64::from(BPF_NOEXIST)).is_err() {
        // Another CPU was first, or there is no room.
        match counters.get_ptr_mut(key) {
            // SAFETY: see the module.
            Some(value) => add(unsafe { &mut *value }, 1),
            None => count(Counter::DropFull),
        }
    }
}

/// Remembers a listening port.
#[inline(always)]
pub fn insert_listening(port: &UdpPort) {
    let _ = LISTENING.insert(port, 1, u64::from(BPF_ANY));
}

/// Whether a port listens.
#[inline(always)]
pub fn is_listening(port: &UdpPort) -> bool {
    LISTENING.get_ptr(port).is_some()
}

/// What the iterators shall emit.
#[inline(always)]
pub fn scan() -> Scan {
    // SAFETY: see the module.
    SCAN.get_ptr(0).map_or(Scan { touched_since_ns: 0, kinds: 0, pass: 0 }, |scan| unsafe { *scan })
}
