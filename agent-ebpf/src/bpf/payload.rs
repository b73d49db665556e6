//! First byte and response time on kernels before 6.3, which lack the tracepoints of [`super::response`].
//!
//! Hooks: `cgroup_skb/ingress` and `cgroup_skb/egress` at the root, loaded only there: they cost a table look-up per
//! segment. What a tracepoint is told, these have to tell from sequence numbers: data is new where it reaches beyond
//! `rcv_nxt` (receive) or starts at `snd_nxt` (send; `tcp_write_xmit` advances it afterwards), a retransmission does
//! neither.

use aya_ebpf::{macros::cgroup_skb, programs::SkBuffContext};
use graylag_ebpf::{key::Role, record::Conn};

use super::{
    kptr::{self, PASS, StableTcpSock, socket_of},
    loss, maps, response,
    segment::Segment,
    state,
};

/// A segment for an established connection.
#[cgroup_skb(ingress)]
pub fn payload_in(ctx: SkBuffContext) -> i32 {
    if let Some((entry, tp, segment, now)) = data(&ctx, |segment| segment.source_port) {
        let end = segment.sequence.wrapping_add(segment.payload);
        if is_after(end, tp.receive_next()) {
            match entry.path.role() {
                Role::Client => response::client_received(entry, now, segment.acknowledged, end),
                // Each answer is told as it leaves: none is overtaken.
                Role::Server => response::server_received(entry, now, end, 0),
            }
        }
        loss::sample_if_due(entry, tp, now);
    }
    PASS
}

/// A segment from an established connection.
#[cgroup_skb(egress)]
pub fn payload_out(ctx: SkBuffContext) -> i32 {
    if let Some((entry, tp, segment, now)) = data(&ctx, |segment| segment.destination_port) {
        if !is_after(tp.send_next(), segment.sequence) {
            match entry.path.role() {
                Role::Client => entry.exchange.client_sends(now, segment.sequence),
                Role::Server => response::server_sends(entry, now),
            }
        }
        loss::sample_if_due(entry, tp, now);
    }
    PASS
}

/// The tracked connection of a segment that carries payload.
#[inline(always)]
fn data(
    ctx: &SkBuffContext,
    remote_port: impl Fn(&Segment) -> u16,
) -> Option<(&'static mut Conn, StableTcpSock, Segment, u64)> {
    let (sk, state) = socket_of(ctx)?;
    if !matches!(state, state::ESTABLISHED | state::FIN_WAIT1 | state::FIN_WAIT2 | state::CLOSE_WAIT) {
        return None;
    }
    let segment = Segment::read(ctx)?;
    if segment.payload == 0 {
        return None;
    }
    let entry = maps::conn(sk as u64, remote_port(&segment))?;
    Some((entry, StableTcpSock::new(sk)?, segment, kptr::now()))
}

#[inline(always)]
fn is_after(a: u32, b: u32) -> bool {
    (a.wrapping_sub(b) as i32) > 0
}
