//! TCP segments as a `cgroup_skb` program sees them: from the network header on.

use aya_ebpf::programs::SkBuffContext;
use graylag_ebpf::key::{Address, V4_MAPPED};

use super::kptr::TCP;

pub const FIN: u8 = 1;
pub const SYN: u8 = 1 << 1;
pub const RST: u8 = 1 << 2;
pub const ACK: u8 = 1 << 4;

/// The header fields that are used here.
pub struct Segment {
    pub source: Address,
    pub destination: Address,
    pub source_port: u16,
    pub destination_port: u16,
    pub sequence: u32,
    pub acknowledged: u32,
    pub flags: u8,
    /// Bytes of payload, of the whole packet where it is a GSO or GRO one.
    pub payload: u32,
}

impl Segment {
    /// Nothing where it is not TCP or too short to be.
    #[inline(always)]
    pub fn read(ctx: &SkBuffContext) -> Option<Self> {
        let version: u8 = ctx.load(0).ok()?;
        let (source, destination, tcp_at) = match version >> 4 {
            4 => {
                let [source, destination]: [u32; 2] = ctx.load(12).ok()?;
                ([0, 0, V4_MAPPED, source], [0, 0, V4_MAPPED, destination], usize::from(version & 0xf) * 4)
            }
            6 => {
                let [source, destination]: [Address; 2] = ctx.load(8).ok()?;
                (source, destination, ipv6_payload(ctx)?)
            }
            _ => return None,
        };
        let head: [u8; 14] = ctx.load(tcp_at).ok()?;
        let headers = tcp_at as u32 + u32::from(head[12] >> 4) * 4;
        Some(Self {
            source,
            destination,
            source_port: u16::from_be_bytes([head[0], head[1]]),
            destination_port: u16::from_be_bytes([head[2], head[3]]),
            sequence: u32::from_be_bytes([head[4], head[5], head[6], head[7]]),
            acknowledged: u32::from_be_bytes([head[8], head[9], head[10], head[11]]),
            flags: head[13],
            payload: ctx.len().saturating_sub(headers),
        })
    }
}

/// Walks the extension headers of RFC 8200 §4 to TCP.
#[inline(always)]
fn ipv6_payload(ctx: &SkBuffContext) -> Option<usize> {
    const HOP_BY_HOP: u8 = 0;
    const ROUTING: u8 = 43;
    const DESTINATION: u8 = 60;
    const MOST: u32 = 6;
    let mut next: u8 = ctx.load(6).ok()?;
    let mut at = 40usize;
    for _ in 0..MOST {
        match next {
            TCP => return Some(at),
            HOP_BY_HOP | ROUTING | DESTINATION => {
                let [following, length]: [u8; 2] = ctx.load(at).ok()?;
                next = following;
                at += (usize::from(length) + 1) * 8;
            }
            _ => return None,
        }
    }
    None
}
