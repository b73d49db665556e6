//! Connections that were there before graylag: found once, at start, so that long-lived pools are not invisible.
//!
//! `iter/tcp` walks the listeners of a namespace first (`bpf_iter_tcp`), then its connections; a connection whose
//! local port listens is a server's.

#![allow(unsafe_code)] // iterator contexts are read here; aya has no type for them

use core::ffi::c_void;

use aya_log_ebpf::info;
use graylag_ebpf::key::{Role, UdpPort};

use super::{
    handshake::adopted,
    kptr::{Direct, Sock, TcpCounters},
    maps, path, scan, state,
};

/// `struct bpf_iter__tcp`.
#[repr(C)]
struct TcpElement {
    meta: *const scan::Meta,
    sk_common: *mut c_void,
}

/// Tracks one connection of the reader's namespace.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/tcp")]
pub extern "C" fn adopt(ctx: *mut c_void) -> i32 {
    // SAFETY: the context of this program type; the verifier checks the access.
    let raw = unsafe { (*ctx.cast::<TcpElement>()).sk_common };
    if raw.is_null() {
        return 0;
    }
    let sk = Sock::<Direct>::new(raw);
    let netns = sk.netns();
    if !maps::in_scope(netns) {
        return 0;
    }
    let local = UdpPort { netns, port: sk.local_port(), reserved: 0 };
    match sk.state() {
        state::LISTEN => maps::insert_listening(&local),
        state::ESTABLISHED | state::CLOSE_WAIT => {
            let Some(tp) = sk.tcp() else { return 0 };
            if maps::conn(sk.id(), sk.remote_port()).is_some() {
                return 0;
            }
            let role = if maps::is_listening(&local) { Role::Server } else { Role::Client };
            let mut entry = adopted(path::of(sk, netns, role), sk.remote_port(), tp.received());
            entry.segments_in = tp.segments_in();
            entry.segments_out = tp.segments_out();
            entry.dsack = tp.dsack_dups();
            maps::insert_conn(sk.id(), &entry);
            info!((), "adopted a connection, service port {}", entry.path.port);
        }
        _ => {}
    }
    0
}
