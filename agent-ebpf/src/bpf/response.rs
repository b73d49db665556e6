//! First byte and response time, both roles, payload never read.
//!
//! Hooks: `tp_btf/sk_data_ready` for what arrives; for what is sent `tp_btf/tcp_sendmsg_locked` where the kernel has
//! it, else `tp_btf/sock_send_length`.

use aya_ebpf::{EbpfContext, macros::btf_tracepoint, programs::BtfTracePointContext};
use graylag_ebpf::{
    key::Role,
    record::{Conn, conn},
};

use super::{
    kptr::{self, Direct, Sock, TCP, TcpCounters, TcpSock, argument},
    loss, maps, state,
};

/// In-order data is ready for the application.
#[btf_tracepoint(function = "sk_data_ready")]
pub fn sk_data_ready(ctx: BtfTracePointContext) -> i32 {
    let sk = Sock::<Direct>::new(argument(ctx.as_ptr(), 0) as *mut _);
    if !carries_data(sk) {
        return 0;
    }
    let Some(entry) = maps::conn(sk.id(), sk.remote_port()) else { return 0 };
    let Some(tp) = sk.tcp() else { return 0 };
    let now = kptr::now();
    match entry.path.role() {
        Role::Client => client_received(entry, now, tp.acked(), tp.received()),
        Role::Server => server_received(entry, now, tp.received(), handed_over(sk, tp)),
    }
    loss::sample_if_due(entry, tp, now);
    0
}

/// The application hands data to TCP, before it is copied; under the socket's lock. Linux 6.16 and later.
#[btf_tracepoint(function = "tcp_sendmsg_locked")]
pub fn tcp_sendmsg_locked(ctx: BtfTracePointContext) -> i32 {
    let sk = Sock::<Direct>::new(argument(ctx.as_ptr(), 0) as *mut _);
    let Some(entry) = maps::conn(sk.id(), sk.remote_port()) else { return 0 };
    let Some(tp) = sk.tcp() else { return 0 };
    let now = kptr::now();
    match entry.path.role() {
        Role::Client => entry.exchange.client_sends(now, tp.write_seq()),
        Role::Server => server_sends(entry, now),
    }
    loss::sample_if_due(entry, tp, now);
    0
}

/// A send returned; any socket, no lock. Linux 6.3 and later.
#[btf_tracepoint(function = "sock_send_length")]
pub fn sock_send_length(ctx: BtfTracePointContext) -> i32 {
    let ctx = ctx.as_ptr();
    let sent = argument(ctx, 1) as i32;
    let sk = Sock::<Direct>::new(argument(ctx, 0) as *mut _);
    if sent <= 0 || !carries_data(sk) {
        return 0;
    }
    let Some(entry) = maps::conn(sk.id(), sk.remote_port()) else { return 0 };
    let Some(tp) = sk.tcp() else { return 0 };
    let now = kptr::now();
    match entry.path.role() {
        Role::Client => {
            if entry.exchange.client_sent(now, tp.write_seq().wrapping_sub(sent as u32)) {
                // Faster than the call that sent it, as happens within one host: a round trip stands in.
                answered(entry, tp.srtt_ns(), now);
            }
        }
        Role::Server => {
            if let Some(waited) = entry.exchange.server_sent(now, handed_over(sk, tp)) {
                answered(entry, waited, now);
            }
        }
    }
    loss::sample_if_due(entry, tp, now);
    0
}

/// Data reached the client; see `Exchange::client_received`.
#[inline(always)]
pub fn client_received(entry: &mut Conn, now: u64, acked: u32, received: u32) {
    if entry.exchange.is_data(received) {
        entry.rhythm.hears(now, entry.exchange.asked_ns);
    }
    if let Some(waited) = entry.exchange.client_received(now, acked, received) {
        answered(entry, waited, now);
    }
}

/// Data reached the server; see `Exchange::server_received`.
#[inline(always)]
pub fn server_received(entry: &mut Conn, now: u64, received: u32, seq: u32) {
    if let Some(waited) = entry.exchange.server_received(now, received, seq) {
        answered(entry, waited, now);
    }
}

/// Data leaves the server.
#[inline(always)]
pub fn server_sends(entry: &mut Conn, now: u64) {
    if let Some(waited) = entry.exchange.server_sends(now) {
        answered(entry, waited, now);
    }
}

/// A request was answered.
#[inline(always)]
fn answered(entry: &mut Conn, waited: u64, now: u64) {
    let Some(stats) = maps::path(&entry.path, now) else { return };
    maps::record(&mut stats.response, waited);
    if entry.flags & conn::FIRST_DONE == 0 {
        entry.flags |= conn::FIRST_DONE;
        maps::record(&mut stats.first_byte, waited);
    }
}

/// The sequence number of the next byte of data that the application hands over: a FIN has one too, and is no answer.
#[inline(always)]
fn handed_over(sk: Sock<Direct>, tp: TcpSock) -> u32 {
    let fin = matches!(sk.state(), state::FIN_WAIT1 | state::FIN_WAIT2);
    tp.write_seq().wrapping_sub(u32::from(fin))
}

/// A TCP connection that is past its handshake; the hooks fire for every kind of socket.
#[inline(always)]
fn carries_data(sk: Sock<Direct>) -> bool {
    matches!(sk.state(), state::ESTABLISHED | state::FIN_WAIT1 | state::FIN_WAIT2 | state::CLOSE_WAIT)
        && sk.protocol() == TCP
}
