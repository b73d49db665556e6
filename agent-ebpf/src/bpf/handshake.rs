//! Handshakes of both roles and the life of a connection, from the TCP state machine.
//!
//! Hook: `tp_btf/inet_sock_set_state` (`tcp_set_state`), every namespace, every attempt, in the context that changes
//! the state, under the socket's lock.

use aya_ebpf::{EbpfContext, macros::btf_tracepoint, programs::BtfTracePointContext};
use aya_log_ebpf::debug;
use bytemuck::Zeroable;
use graylag_ebpf::{
    counter::Counter,
    errno,
    key::{PathKey, Role},
    outcome::Outcome,
    record::{Conn, conn},
};

use super::{
    kptr::{self, Direct, Sock, TCP, TcpCounters, argument},
    loss, maps, path, state,
};

/// Begins, completes and ends attempts and connections.
#[btf_tracepoint(function = "inet_sock_set_state")]
pub fn inet_sock_set_state(ctx: BtfTracePointContext) -> i32 {
    let ctx = ctx.as_ptr();
    let (old, new) = (argument(ctx, 1) as u8, argument(ctx, 2) as u8);
    let sk = Sock::<Direct>::new(argument(ctx, 0) as *mut _);
    match (old, new) {
        (state::CLOSE, state::SYN_SENT) => attempt_begins(sk),
        (state::SYN_SENT, state::ESTABLISHED) => client_established(sk),
        (state::SYN_RECV, state::ESTABLISHED) => server_established(sk),
        (state::SYN_SENT, state::CLOSE) => attempt_fails(sk),
        (_, state::CLOSE) => connection_ends(sk),
        (state::ESTABLISHED, state::FIN_WAIT1) | (state::CLOSE_WAIT, state::LAST_ACK) => closing(sk),
        _ => {}
    }
    0
}

#[inline(always)]
fn attempt_begins(sk: Sock<Direct>) {
    if sk.protocol() != TCP {
        return;
    }
    let netns = sk.netns();
    if !maps::in_scope(netns) {
        return;
    }
    let path = path::of(sk, netns, Role::Client);
    let entry = Conn { path, began_ns: kptr::now(), remote_port: sk.remote_port(), ..Conn::zeroed() };
    maps::insert_conn(sk.id(), &entry);
}

#[inline(always)]
fn client_established(sk: Sock<Direct>) {
    let Some(entry) = maps::conn(sk.id(), sk.remote_port()) else { return };
    let now = kptr::now();
    entry.flags |= conn::ESTABLISHED;
    if let Some(stats) = maps::path(&entry.path, now) {
        maps::add(&mut stats.outcomes[Outcome::Established as usize], 1);
        maps::record(&mut stats.handshake, now - entry.began_ns);
    }
}

/// The child socket of a listener. Its handshake began in [`super::listen`], or before this program was loaded.
#[inline(always)]
fn server_established(sk: Sock<Direct>) {
    if sk.protocol() != TCP {
        return;
    }
    if maps::conn(sk.id(), sk.remote_port()).is_some_and(|entry| entry.flags & conn::ESTABLISHED == 0) {
        return client_established(sk); // an attempt of this host: simultaneous open (RFC 9293 §3.5)
    }
    let tuple = sk.tuple();
    if !maps::in_scope(tuple.netns) {
        return;
    }
    let now = kptr::now();
    let key = path::of(sk, tuple.netns, Role::Server);
    // 0 for none: an `Option` would leave its value on the stack unset, and kernels before 6.2 refuse to copy that.
    let half_open = maps::half_open(&tuple).map_or(0, |entry| entry.began_ns);
    let cookie = if half_open == 0 { maps::take_cookie(&tuple) } else { 0 };
    let flags = if cookie == 0 { conn::ESTABLISHED } else { conn::ESTABLISHED | conn::COOKIE };
    let remote_port = tuple.remote_port;
    maps::insert_conn(sk.id(), &Conn { path: key, flags, began_ns: now, remote_port, ..Conn::zeroed() });
    let Some(stats) = maps::path(&key, now) else { return };
    maps::add(&mut stats.outcomes[Outcome::Established as usize], 1);
    if cookie != 0 {
        maps::add(&mut stats.cookies_established, 1);
    }
    let began = half_open | cookie;
    if began != 0 {
        maps::record(&mut stats.handshake, now - began);
    }
    if half_open != 0 {
        maps::remove_half_open(&tuple);
    }
}

#[inline(always)]
fn attempt_fails(sk: Sock<Direct>) {
    let Some(entry) = maps::conn(sk.id(), sk.remote_port()) else { return };
    let now = kptr::now();
    if sk.tcp().is_some_and(|tp| tp.segments_out() == 0) {
        // `connect` failed here: no route, no free port. Nothing was asked of the network.
        maps::count(Counter::NotAttempted);
    } else if let Some(stats) = maps::path(&entry.path, now) {
        let outcome = Outcome::of_failed_connect(sk.error(), entry.soft_error);
        maps::add(&mut stats.outcomes[outcome as usize], 1);
        maps::record(&mut stats.handshake_failed, now - entry.began_ns);
        debug!(
            (),
            "handshake to port {}: {} after {} ns",
            entry.path.port,
            outcome.name(),
            now - entry.began_ns
        );
    }
    maps::remove_conn(sk.id());
}

/// An ICMP error reached an attempt. Where the caller held the socket just then the kernel only notes it
/// (`sk_err_soft`), and the caller may have taken it by the time it closes.
#[btf_tracepoint(function = "inet_sk_error_report")]
pub fn inet_sk_error_report(ctx: BtfTracePointContext) -> i32 {
    let sk = Sock::<Direct>::new(argument(ctx.as_ptr(), 0) as *mut _);
    if sk.state() == state::SYN_SENT
        && let Some(entry) = maps::conn(sk.id(), sk.remote_port())
    {
        // Neither is set yet where `ip_icmp_error` reports, and in `SYN_SENT` nothing else does.
        entry.soft_error = match (sk.error(), sk.soft_error()) {
            (0, 0) => errno::EHOSTUNREACH,
            (0, soft) => soft,
            (hard, _) => hard,
        };
    }
    0
}

/// The application closed. Where it still waited for its first byte, it has given up.
#[inline(always)]
fn closing(sk: Sock<Direct>) {
    let Some(entry) = maps::conn(sk.id(), sk.remote_port()) else { return };
    if entry.path.role() == Role::Client && sk.closed_by_application() {
        give_up(entry, kptr::now());
    }
}

#[inline(always)]
fn give_up(entry: &mut Conn, now: u64) {
    let asked = entry.exchange.asked_ns;
    if asked != 0
        && entry.flags & (conn::FIRST_DONE | conn::GIVEN_UP) == 0
        && let Some(stats) = maps::path(&entry.path, now)
    {
        maps::record(&mut stats.first_byte_failed, now.saturating_sub(asked));
    }
    entry.exchange.asked_ns = 0;
    entry.flags |= conn::GIVEN_UP;
}

#[inline(always)]
fn connection_ends(sk: Sock<Direct>) {
    let Some(entry) = maps::conn(sk.id(), sk.remote_port()) else { return };
    let now = kptr::now();
    give_up(entry, now);
    if let Some(stats) = maps::path(&entry.path, now) {
        if matches!(sk.error(), errno::ECONNRESET | errno::EPIPE) {
            maps::add(&mut stats.resets, 1);
        }
        if let Some(tp) = sk.tcp() {
            loss::sample(entry, tp, stats, now);
        }
    }
    maps::remove_conn(sk.id());
}

/// Used by [`super::adopt`]: a connection found established.
#[inline(always)]
pub fn adopted(key: PathKey, remote_port: u16, received: u32) -> Conn {
    let mut entry = Conn {
        path: key,
        flags: conn::ESTABLISHED | conn::FIRST_DONE | conn::ADOPTED,
        began_ns: kptr::now(),
        remote_port,
        ..Conn::zeroed()
    };
    entry.exchange.received = received;
    entry
}
