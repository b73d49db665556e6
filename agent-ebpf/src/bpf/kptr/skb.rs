//! Packets as tracing programs see them.

use core::ffi::c_void;

use aya_ebpf::Global;

use super::{
    DEV_NET, Direct, Load, NET_INUM, Probe, SKB_CB, SKB_DEV, SKB_HEAD, SKB_IIF, SKB_NETWORK_HEADER,
    SKB_PROTOCOL, SKB_SK, SKC_NET, TCP_CB_GSO_SEGS, probe,
};

/// A `struct sk_buff` of a tracing program.
#[derive(Clone, Copy)]
pub struct Skb {
    raw: *const c_void,
}

impl Skb {
    /// Wraps a pointer that the verifier knows to be a packet and not null.
    #[inline(always)]
    pub fn new(raw: *const c_void) -> Self {
        Self { raw }
    }

    #[inline(always)]
    fn get<T: Copy>(&self, offset: &Global<u32>) -> T {
        // SAFETY: the constructor's contract.
        unsafe { Direct::load(self.raw, offset) }
    }

    /// Whether it came in through an interface (`skb_iif` is set by `__netif_receive_skb_core`).
    #[inline(always)]
    pub fn is_received(&self) -> bool {
        self.get::<i32>(&SKB_IIF) != 0
    }

    /// IP protocol number of its payload, 0 where it is not IP or has no network header.
    #[inline(always)]
    pub fn ip_protocol(&self) -> u8 {
        const IPV4: u16 = 0x0800u16.to_be();
        const IPV6: u16 = 0x86ddu16.to_be();
        // `iphdr.protocol` (RFC 791) and `ipv6hdr.nexthdr` (RFC 8200).
        let at = match self.get::<u16>(&SKB_PROTOCOL) {
            IPV4 => 9,
            IPV6 => 6,
            _ => return 0,
        };
        let head: *const c_void = self.get(&SKB_HEAD);
        let network = self.get::<u16>(&SKB_NETWORK_HEADER) as usize;
        // SAFETY: a copy that checks its address; any byte is valid.
        unsafe { probe(head.byte_add(network + at)) }
    }

    /// Namespace of its device, or of its socket where it has no device yet; 0 for neither.
    #[inline(always)]
    pub fn netns(&self) -> u32 {
        // SAFETY: copies that check their addresses; a null pointer reads as zero.
        unsafe {
            let device: *const c_void = self.get(&SKB_DEV);
            if !device.is_null() {
                let net: *const c_void = Probe::load(device, &DEV_NET);
                return Probe::load(net, &NET_INUM);
            }
            let socket: *const c_void = self.get(&SKB_SK);
            if !socket.is_null() {
                let net: *const c_void = Probe::load(socket, &SKC_NET);
                return Probe::load(net, &NET_INUM);
            }
            0
        }
    }

    /// Segments of a packet in TCP's write queue (`TCP_SKB_CB(skb)->tcp_gso_segs`), at least one.
    #[inline(always)]
    pub fn tcp_segments(&self) -> u64 {
        // SAFETY: a copy that checks its address; `cb` is part of the packet.
        let segments: u16 =
            unsafe { Probe::load(self.raw.byte_add(SKB_CB.load() as usize), &TCP_CB_GSO_SEGS) };
        if segments == 0 { 1 } else { u64::from(segments) }
    }
}
