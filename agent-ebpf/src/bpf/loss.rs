//! Segments, retransmissions by kind, and round-trip times.
//!
//! Hooks: `tp_btf/tcp_retransmit_skb`, `tp_btf/tcp_retransmit_synack`. Segments and round trips are read from the
//! socket's own counters whenever another hook looks at it anyway, at most once in [`SAMPLE_NS`], and at its end.

#![allow(unsafe_code)] // `no_mangle` for the frozen globals

use aya_ebpf::{EbpfContext, Global, macros::btf_tracepoint, programs::BtfTracePointContext};
use graylag_ebpf::{
    counter::Counter,
    record::{Conn, PathStats, Retransmit, conn},
};

use super::{
    kptr::{self, Direct, Skb, Sock, TcpCounters, argument},
    maps, state,
};

/// Least time between two samples of one connection.
const SAMPLE_NS: u64 = 100_000_000;

/// 1 where the tracepoint's third argument is the error of the transmission (Linux 6.15 and later).
#[unsafe(no_mangle)]
static RETRANSMIT_HAS_ERROR: Global<u32> = Global::new(0);

/// Counts a retransmitted segment.
#[btf_tracepoint(function = "tcp_retransmit_skb")]
pub fn tcp_retransmit_skb(ctx: BtfTracePointContext) -> i32 {
    let ctx = ctx.as_ptr();
    if RETRANSMIT_HAS_ERROR.load() != 0 && argument(ctx, 2) as i32 != 0 {
        return 0; // it did not leave this host
    }
    let sk = Sock::<Direct>::new(argument(ctx, 0) as *mut _);
    let segments = Skb::new(argument(ctx, 1) as *const _).tcp_segments();
    let Some(entry) = maps::conn(sk.id(), sk.remote_port()) else {
        if maps::in_scope(sk.netns()) {
            maps::count(Counter::RetransmitUntracked);
        }
        return 0;
    };
    let now = kptr::now();
    let Some(stats) = maps::path(&entry.path, now) else { return 0 };
    if sk.state() == state::SYN_SENT {
        entry.syn_retransmitted += 1;
        maps::add(&mut stats.syn_retransmitted, 1);
    } else {
        let kind = kind(sk.congestion_state());
        if let Some(counter) = stats.retransmitted.get_mut(kind as usize) {
            maps::add(counter, segments);
        }
    }
    0
}

/// The congestion state names the reason (`enum tcp_ca_state`): only a tail loss probe is sent outside recovery.
#[inline(always)]
fn kind(congestion_state: u8) -> Retransmit {
    const RECOVERY: u8 = 3;
    const LOSS: u8 = 4;
    match congestion_state {
        RECOVERY => Retransmit::Fast,
        LOSS => Retransmit::Timeout,
        _ => Retransmit::TailLossProbe,
    }
}

/// Counts a retransmitted SYN-ACK.
#[btf_tracepoint(function = "tcp_retransmit_synack")]
pub fn tcp_retransmit_synack(ctx: BtfTracePointContext) -> i32 {
    let ctx = ctx.as_ptr();
    let request = Sock::<Direct>::new(argument(ctx, 1) as *mut _);
    let tuple = request.tuple();
    let Some(entry) = maps::half_open(&tuple) else { return 0 };
    let now = kptr::now();
    entry.last_ns = now;
    entry.syn_retransmitted += 1;
    if let Some(stats) = maps::path(&entry.path, now) {
        maps::add(&mut stats.syn_retransmitted, 1);
    }
    0
}

/// Adds what a socket counted since the last sample, where enough time has passed.
#[inline(always)]
pub fn sample_if_due<T: TcpCounters>(entry: &mut Conn, tp: T, now: u64) {
    if now - entry.sampled_ns >= SAMPLE_NS
        && let Some(stats) = maps::path(&entry.path, now)
    {
        sample(entry, tp, stats, now);
    }
}

/// Adds what a socket counted since the last sample.
#[inline(always)]
pub fn sample<T: TcpCounters>(entry: &mut Conn, tp: T, stats: &mut PathStats, now: u64) {
    entry.sampled_ns = now;
    let (segments_in, segments_out, dsack) = (tp.segments_in(), tp.segments_out(), tp.dsack_dups());
    maps::add(&mut stats.segments_in, u64::from(segments_in.wrapping_sub(entry.segments_in)));
    maps::add(&mut stats.segments_out, u64::from(segments_out.wrapping_sub(entry.segments_out)));
    let spurious = dsack.wrapping_sub(entry.dsack);
    if spurious != 0 {
        maps::add(&mut stats.retransmitted[Retransmit::Spurious as usize], u64::from(spurious));
    }
    entry.segments_in = segments_in;
    entry.segments_out = segments_out;
    entry.dsack = dsack;
    let srtt = tp.srtt_ns();
    if srtt != 0 && entry.flags & conn::COOKIE == 0 {
        maps::record(&mut stats.rtt, srtt);
    }
}
