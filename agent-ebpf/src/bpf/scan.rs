//! Iterators: the kernel walks its tables and hands over only what user space has to see.
//!
//! `iter/bpf_map_elem` (Linux 5.9): one pass costs no system call per entry, and what did not change or does not wait
//! is never copied.

#![allow(unsafe_code)] // iterator contexts are read here; aya has no type for them

use core::{ffi::c_void, ptr};

use aya_ebpf::helpers::generated::bpf_seq_write;
use graylag_ebpf::{
    counter::Counter,
    key::{PathKey, Role, Tuple},
    record::{Conn, HalfOpen, PathStats, conn, waiting},
    session::Session,
};

use super::{
    kptr::{self, Probe, Sock},
    maps, state,
};

/// `struct bpf_iter__bpf_map_elem`.
#[repr(C)]
struct MapElement<K, V> {
    meta: *const Meta,
    map: *const c_void,
    key: *const K,
    value: *const V,
}

/// `struct bpf_iter_meta`, as far as it is used.
#[repr(C)]
pub struct Meta {
    pub seq: *mut c_void,
}

/// The element, and where to write; nothing at the end of the pass.
#[inline(always)]
pub fn element<K, V>(ctx: *mut c_void) -> Option<(*mut c_void, *const K, *const V)> {
    let ctx = ctx.cast::<MapElement<K, V>>();
    // SAFETY: the context of this program type; the verifier checks every access.
    let (meta, key, value) = unsafe { ((*ctx).meta, (*ctx).key, (*ctx).value) };
    if key.is_null() || value.is_null() {
        return None;
    }
    // SAFETY: `meta` is never null.
    Some((unsafe { (*meta).seq }, key, value))
}

/// Whether it was written. Where the buffer is full the reader empties it and the program runs again for this element.
#[inline(always)]
pub fn write<T>(seq: *mut c_void, record: *const T) -> bool {
    const OVERFLOW: i64 = -75;
    // SAFETY: the helper reads size_of::<T>() bytes that the verifier knows to be there.
    let result = unsafe { bpf_seq_write(seq.cast(), record.cast_mut().cast(), size_of::<T>() as u32) };
    if result != 0 && result != OVERFLOW {
        maps::count(Counter::ScanTruncated);
    }
    result == 0
}

/// Paths touched since the last pass.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/bpf_map_elem")]
pub extern "C" fn scan_paths(ctx: *mut c_void) -> i32 {
    let Some((seq, key, value)) = element::<PathKey, PathStats>(ctx) else { return 0 };
    // SAFETY: not null, of the map's value size.
    let touched = unsafe { ptr::read_volatile(&raw const (*value).touched_ns) };
    let mut seen = true;
    if touched >= maps::scan().touched_since_ns {
        // A record is the key, four bytes of padding and the value: `record::PathRecord`.
        let mut head = [0u32; 8];
        // SAFETY: 28 bytes of key into 32 of head.
        unsafe { ptr::copy_nonoverlapping(key.cast::<u32>(), head.as_mut_ptr(), 7) };
        seen = write(seq, &raw const head) && write(seq, value);
    }
    if seen {
        maps::count(Counter::ScannedPath);
    }
    0
}

/// Connections that wait.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/bpf_map_elem")]
pub extern "C" fn scan_conns(ctx: *mut c_void) -> i32 {
    let Some((seq, key, value)) = element::<u64, Conn>(ctx) else { return 0 };
    // SAFETY: not null, of the map's value size; a torn read at worst tells of a wait that has just ended.
    let (id, entry) = unsafe { (*key, &*value) };
    let kinds = maps::scan().kinds;
    let (mut kind, since_ns) = if kinds & waiting::STALE != 0 && is_stale(id, entry) {
        (waiting::STALE, entry.began_ns)
    } else {
        entry.waits().unwrap_or((0, 0))
    };
    let spoken = kind != waiting::STALE && kinds & waiting::SPOKEN != 0 && is_spoken_to(id, entry);
    if spoken {
        kind |= waiting::SPOKEN;
    }
    let mut seen = true;
    if kind & kinds != 0 {
        let mut record = entry.waiting_for(id, kind, since_ns);
        if spoken {
            record.segments_in = kptr::segments_in(id);
        }
        seen = write(seq, &raw const record);
    }
    if seen {
        maps::count(Counter::ScannedConnection);
    }
    0
}

/// Whether the peer of a client's connection speaks regularly and neither end has closed its side.
#[inline(always)]
fn is_spoken_to(id: u64, entry: &Conn) -> bool {
    entry.rhythm.is_known()
        && entry.path.role() == Role::Client
        && Sock::<Probe>::new(id as *mut c_void).state() == state::ESTABLISHED
}

/// Whether a connection's socket is gone. Programs at tracepoints are not run where they interrupt themselves
/// (`__bpf_trace_run`), so once in a great while the end of a connection is missed. A socket's memory stays one of a
/// socket (`SLAB_TYPESAFE_BY_RCU`): its state and remote port tell whether it is still the same.
#[inline(always)]
fn is_stale(id: u64, entry: &Conn) -> bool {
    let sk = Sock::<Probe>::new(id as *mut c_void);
    let alive = if entry.flags & conn::ESTABLISHED == 0 {
        sk.state() == state::SYN_SENT
    } else {
        !matches!(sk.state(), state::CLOSE | state::SYN_SENT | state::LISTEN)
    };
    !alive || sk.remote_port() != entry.remote_port
}

/// ICE sessions that began since a time.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/bpf_map_elem")]
pub extern "C" fn scan_sessions(ctx: *mut c_void) -> i32 {
    let Some((seq, key, value)) = element::<u64, Session>(ctx) else { return 0 };
    // SAFETY: not null, of the map's value size.
    if unsafe { (*value).began_ns } >= maps::scan().touched_since_ns {
        let _ = write(seq, key) && write(seq, value);
    }
    0
}

/// Handshakes that reached a listener and are not complete: all of them.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/bpf_map_elem")]
pub extern "C" fn scan_half_open(ctx: *mut c_void) -> i32 {
    let Some((seq, key, value)) = element::<Tuple, HalfOpen>(ctx) else { return 0 };
    let _ = write(seq, key) && write(seq, value);
    0
}
