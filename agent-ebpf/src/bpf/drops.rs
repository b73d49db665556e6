//! Packets this host drops, by the kernel's own reason.
//!
//! Hooks: `tp_btf/kfree_skb` (with a reason since Linux 5.17), `tp_btf/udp_fail_queue_rcv_skb`.

#![allow(unsafe_code)] // `no_mangle` for the frozen globals

use aya_ebpf::{EbpfContext, Global, macros::btf_tracepoint, programs::BtfTracePointContext};
use graylag_ebpf::{
    counter::{Direction, Transport},
    key::UdpPort,
};

use super::{
    kptr::{Direct, Skb, Sock, TCP, UDP, argument},
    maps,
};

/// 1: look a dropped packet's namespace up, because only some are in scope.
#[unsafe(no_mangle)]
static DROPS_SCOPED: Global<u32> = Global::new(0);

/// Counts a dropped packet by reason, direction and transport.
#[btf_tracepoint(function = "kfree_skb")]
pub fn kfree_skb(ctx: BtfTracePointContext) -> i32 {
    let ctx = ctx.as_ptr();
    let reason = argument(ctx, 2) as u32;
    if maps::is_ignored(reason) {
        return 0;
    }
    let skb = Skb::new(argument(ctx, 0) as *const _);
    if DROPS_SCOPED.load() != 0 && !maps::in_scope(skb.netns()) {
        return 0;
    }
    let direction = if skb.is_received() { Direction::Receive } else { Direction::Transmit };
    let transport = match skb.ip_protocol() {
        TCP => Transport::Tcp,
        UDP => Transport::Udp,
        _ => Transport::Other,
    };
    maps::add_drop(reason, direction, transport);
    0
}

/// Counts a datagram that found its receive buffer full.
#[btf_tracepoint(function = "udp_fail_queue_rcv_skb")]
pub fn udp_fail_queue_rcv_skb(ctx: BtfTracePointContext) -> i32 {
    let sk = Sock::<Direct>::new(argument(ctx.as_ptr(), 1) as *mut _);
    let netns = sk.netns();
    if maps::in_scope(netns) {
        maps::add_udp_drop(&UdpPort { netns, port: sk.local_port(), reserved: 0 });
    }
    0
}
