//! Handshakes as a listener sees them, before there is a socket.
//!
//! Hook: `cgroup_skb/ingress` at the root of the cgroup hierarchy. `tcp_v4_rcv` and `tcp_v6_rcv` run it from
//! `tcp_filter` with the *listener* as the socket, for SYNs, final ACKs and RSTs alike, in every namespace and before
//! anything is dropped for want of room. It is the one hook that sees a SYN at a full accept queue, which leaves no
//! other trace than a counter of the whole namespace. For every other packet it costs two loads and a compare.

use aya_ebpf::{macros::cgroup_skb, programs::SkBuffContext};
use aya_log_ebpf::debug;
use bytemuck::Zeroable;
use graylag_ebpf::{
    key::{Role, Tuple},
    outcome::Outcome,
    record::{HalfOpen, half_open},
};

use super::{
    kptr::{self, PASS, Probe, Sock, address_of, socket_of},
    maps, path,
    segment::{ACK, FIN, RST, SYN, Segment},
    state,
};

/// Begins handshakes of the server role and ends those that fail.
#[cgroup_skb(ingress)]
pub fn listen(ctx: SkBuffContext) -> i32 {
    if let Some((sk, state::LISTEN)) = socket_of(&ctx) {
        let _ = to_listener(&ctx, Sock::new(address_of(sk)));
    }
    PASS
}

#[inline(always)]
fn to_listener(ctx: &SkBuffContext, sk: Sock<Probe>) -> Option<()> {
    let segment = Segment::read(ctx)?;
    let netns = sk.netns();
    if !maps::in_scope(netns) {
        return None;
    }
    let tuple = Tuple {
        local: segment.destination,
        remote: segment.source,
        netns,
        local_port: segment.destination_port,
        remote_port: segment.source_port,
    };
    match segment.flags & (FIN | SYN | RST | ACK) {
        SYN => syn(sk, &tuple),
        ACK => ack(sk, &tuple),
        flags if flags & RST != 0 => rst(&tuple),
        flags if flags & (FIN | ACK) == FIN | ACK => ack(sk, &tuple),
        _ => {}
    }
    Some(())
}

/// As `tcp_conn_request` decides: request queue, then accept queue.
#[inline(always)]
fn syn(sk: Sock<Probe>, tuple: &Tuple) {
    let now = kptr::now();
    let key = path::key(tuple.remote, tuple.netns, tuple.local_port, Role::Server);
    let syncookies = sk.syncookies();
    let queue_full = sk.request_queue_full();
    let flags = if queue_full && syncookies == 0 {
        half_open::REQUEST_QUEUE_FULL
    } else if sk.accept_queue_full() {
        half_open::OVERFLOW_AT_SYN
    } else {
        0
    };
    if flags != 0 || queue_full || syncookies == 2 {
        if let Some(stats) = maps::path(&key, now) {
            let counter = match flags {
                half_open::REQUEST_QUEUE_FULL => &mut stats.request_queue_full,
                half_open::OVERFLOW_AT_SYN => &mut stats.overflow_at_syn,
                _ => &mut stats.cookies_sent,
            };
            maps::add(counter, 1);
        }
        debug!((), "SYN to port {}: no room, or a cookie (flags {})", tuple.local_port, flags);
        if flags == 0 {
            // No request socket, no timer: nothing is pending on this side.
            maps::insert_cookie(tuple, now);
            return;
        }
    }
    match maps::half_open(tuple) {
        Some(entry) => {
            entry.flags = flags;
            entry.last_ns = now;
            entry.syns += 1;
        }
        None => maps::insert_half_open(
            tuple,
            &HalfOpen { path: key, flags, began_ns: now, last_ns: now, syns: 1, ..HalfOpen::zeroed() },
        ),
    }
}

#[inline(always)]
fn ack(sk: Sock<Probe>, tuple: &Tuple) {
    if !sk.accept_queue_full() {
        return; // the state machine tells the rest
    }
    if let Some(entry) = maps::half_open(tuple) {
        entry.flags |= half_open::OVERFLOW_AT_ACK;
        if let Some(stats) = maps::path(&entry.path, kptr::now()) {
            maps::add(&mut stats.overflow_at_ack, 1);
        }
    }
}

#[inline(always)]
fn rst(tuple: &Tuple) {
    let Some(entry) = maps::half_open(tuple) else { return };
    let now = kptr::now();
    if let Some(stats) = maps::path(&entry.path, now) {
        maps::add(&mut stats.outcomes[Outcome::Reset as usize], 1);
        maps::record(&mut stats.handshake_failed, now - entry.began_ns);
    }
    maps::remove_half_open(tuple);
}
