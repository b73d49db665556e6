//! What the kernel counts of UDP by path, and what it hands to user space.

use bytemuck::{Pod, Zeroable};

use crate::{bucket::Histogram, counter::Direction, demux::Kind, flow::Flow, key::Address, rtp::Event};

/// Index of the path that takes what finds no room.
pub const OTHER_PATH: u32 = 0;

/// What UDP is aggregated by: one remote prefix or configured peer, in one namespace. Ports are left out: media has none
/// that mean anything.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Pod, Zeroable)]
pub struct MediaKey {
    /// Remote address, masked to `prefix` bits; all zero where a configured peer stands for all its addresses.
    pub address: Address,
    /// Inode number of the network namespace.
    pub netns: u32,
    /// Identifier of the configured peer, 0 for none.
    pub peer: u16,
    /// Significant bits of `address`, 0 to 128 (IPv4: 96 to 128).
    pub prefix: u8,
    /// Zero.
    pub reserved: u8,
}

/// What every packet counts for its path, of one direction, on one CPU.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Traffic {
    /// Last datagram, monotonic nanoseconds, right to a tick of the kernel.
    pub last_ns: u64,
    /// Last RTP packet.
    pub last_media_ns: u64,
    /// Bytes of UDP payload.
    pub bytes: u64,
    /// RTP packets that belong to a valid stream, once each: with what [`Quality`] says was lost, what was expected.
    pub received: u64,
    /// Datagrams by [`group`].
    pub packets: [u64; GROUPS],
}

/// Kinds that are counted apart by path: STUN, DTLS, RTP, RTCP, and the rest together.
pub const GROUPS: usize = 5;

/// Where a kind is counted in [`Traffic::packets`].
#[inline(always)]
pub const fn group(kind: Kind) -> usize {
    let kind = kind as usize;
    if kind < GROUPS { kind } else { GROUPS - 1 }
}

/// Of a path, both directions; one value for each CPU.
pub type PathTraffic = [Traffic; 2];

/// Lengths of loss bursts: 1, 2, to 4, to 8, …, to 2¹⁵, more. Bucket `i` is OTLP's bucket `i - 1` at scale 0.
pub const BURST_BUCKETS: usize = 17;

/// Bucket of a burst's length.
#[inline(always)]
pub const fn burst_bucket(length: u32) -> usize {
    if length < 2 {
        return 0;
    }
    let bucket = 32 - (length - 1).leading_zeros() as usize;
    if bucket < BURST_BUCKETS { bucket } else { BURST_BUCKETS - 1 }
}

/// What few packets count for their path, of one direction; see [`crate::rtp::Tally`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Quality {
    /// By [`crate::rtp::Event`].
    pub trouble: [u64; Event::TROUBLE],
    /// Bursts of loss by [`burst_bucket`]; one less for each that late packets undo.
    pub bursts: [u64; BURST_BUCKETS],
    /// Jitter of the path's streams, each taken once in [`JITTER_EVERY`] packets.
    pub jitter: Histogram,
}

/// A stream's jitter is recorded whenever its sequence number is a multiple of this.
pub const JITTER_EVERY: u16 = 32;

/// Of a path, both directions.
pub type PathQuality = [Quality; 2];

/// What the passes over the flow table shall do, written by user space before each.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
pub struct FlowScan {
    /// Monotonic nanoseconds: the "now" of this pass.
    pub now_ns: u64,
    /// A direction is fresh where media came within this.
    pub fresh_ns: u64,
    /// It has just fallen silent where its last media is older than that and younger than this …
    pub fell_ns: u64,
    /// … and is silent until it is older than this; then nobody expects any.
    pub recent_ns: u64,
    /// Number of the pass: [`PathFlows`] of another pass count from zero.
    pub pass: u32,
    /// Zero.
    pub reserved: u32,
}

/// What a pass found of a path's flows; by direction.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct PathFlows {
    /// The pass that this is of.
    pub pass: u32,
    /// With fresh media.
    pub fresh: [u32; 2],
    /// Silent, while the flow's other direction has fresh media: for how long is [`FlowScan::recent_ns`].
    pub one_way: [u32; 2],
    /// Of these, just now.
    pub fell: [u32; 2],
    /// Zero; the entry is cleared by words of eight bytes.
    pub reserved: u32,
}

/// A media flow of fewer packets than this says nothing by its silence.
const ESTABLISHED_MEDIA: u16 = 25;

/// How a direction of a flow stands in a pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Freshness {
    /// No media, or none for long: nothing is expected.
    Idle,
    /// Media is coming.
    Fresh,
    /// It was a moment ago.
    Fell,
    /// It was, and no longer is.
    Silent,
}

impl FlowScan {
    /// How one direction stands.
    #[inline(always)]
    pub const fn freshness(&self, flow: &Flow, direction: Direction) -> Freshness {
        let half = flow.half(direction);
        match crate::flow::age_ns(crate::flow::moment(self.now_ns), half.last_media) {
            Some(age) if age < self.fresh_ns => Freshness::Fresh,
            Some(age) if age < self.recent_ns && half.media >= ESTABLISHED_MEDIA => {
                if age < self.fell_ns {
                    Freshness::Fell
                } else {
                    Freshness::Silent
                }
            }
            _ => Freshness::Idle,
        }
    }
}

/// Counters in the per-CPU map `MEDIA_COUNTERS`: what was not seen, not told apart or not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum MediaCounter {
    /// Later fragments of IPv4 or IPv6: they have no ports.
    Fragment = 0,
    /// IPv6 with more extension headers than are walked, or with ones that hide what follows.
    Extension,
    /// Headers that contradict themselves or end too soon.
    Malformed,
    /// More VLAN tags than are walked.
    Vlan,
    /// Segments of an offloaded datagram beyond those that are walked.
    Segment,
    /// Datagrams that cross a second interface the other way round: they are counted where they were seen first.
    Crossed,
    /// Datagrams without a flow: no entry could be given up for it.
    FlowRefused,
    /// Flows made.
    FlowCreated,
    /// Of these, in the place of one that was idle, or had come to nothing.
    FlowReplaced,
    /// RTP packets without a stream: no entry could be given up for it.
    StreamRefused,
    /// Streams made in the stream table.
    StreamCreated,
    /// Flows whose path found no room and counts as `~other`.
    PathFull,
    /// ICE sessions that found no room.
    SessionFull,
    /// RTP packets of sockets that had no memory left for what is counted of them.
    SocketRefused,
    /// Of all that is received: numbers that were not there when a higher one came ([`crate::rtp::Event::Missed`]).
    Missed,
}

impl MediaCounter {
    /// Number of counters.
    pub const COUNT: usize = 15;
    /// Datagrams, segments each, that are in nobody's account.
    pub const NOT_COVERED: [Self; 6] =
        [Self::Fragment, Self::Extension, Self::Malformed, Self::Vlan, Self::Segment, Self::FlowRefused];
}

const _: () = assert!(size_of::<Traffic>() == 72 && size_of::<MediaKey>() == 24);
const _: () = assert!(MediaCounter::Missed as usize + 1 == MediaCounter::COUNT);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// OTLP, scale 0: `2^index < value <= 2^(index + 1)`.
        #[test]
        fn bursts_go_where_otlp_puts_them(length in 1u32..40_000) {
            let index = burst_bucket(length) as i32 - 1;
            prop_assert!(f64::from(length) > 2f64.powi(index) || index == -1);
            prop_assert!(f64::from(length) <= 2f64.powi(index + 1) || index == BURST_BUCKETS as i32 - 2);
        }
    }

    #[test]
    fn groups_are_the_first_kinds() {
        assert_eq!([Kind::Stun, Kind::Dtls, Kind::Rtp, Kind::Rtcp].map(group), [0, 1, 2, 3]);
        assert_eq!([Kind::Quic, Kind::Zrtp, Kind::Other].map(group), [4, 4, 4]);
    }

    #[test]
    fn silence_is_told_from_idleness() {
        let scan = FlowScan {
            now_ns: 100 << 30,
            fresh_ns: 200_000_000,
            fell_ns: 1_000_000_000,
            recent_ns: 3_000_000_000,
            ..FlowScan::default()
        };
        let mut flow = Flow::zeroed();
        assert_eq!(scan.freshness(&flow, Direction::Receive), Freshness::Idle);
        for (age_ms, packets, expected) in [
            (50, 500, Freshness::Fresh),
            (50, 1, Freshness::Fresh),
            (500, 500, Freshness::Fell),
            (2000, 500, Freshness::Silent),
            (500, 1, Freshness::Idle),
            (9000, 500, Freshness::Idle),
        ] {
            flow.receive.media = packets;
            flow.receive.last_media = crate::flow::moment(scan.now_ns - age_ms * 1_000_000);
            assert_eq!(scan.freshness(&flow, Direction::Receive), expected);
            assert_eq!(scan.freshness(&flow, Direction::Transmit), Freshness::Idle);
        }
    }
}
