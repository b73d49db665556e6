//! What happened to media since the last look: RTP by path and direction.

use serde::{Deserialize, Serialize};
use std::time::Duration;

use graylag_ebpf::media::{BURST_BUCKETS, GROUPS};

use super::{Direction, Distribution, Path};

/// A path in one direction: what media is counted and judged by.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Leg {
    /// The path.
    pub path: Path,
    /// The direction, as this host sees it.
    pub direction: Direction,
}

/// What one leg did in a look.
#[derive(Clone, Debug)]
pub struct LegTick {
    /// Which.
    pub leg: Leg,
    /// What was counted.
    pub counts: MediaCounts,
    /// How its flows stand.
    pub flows: Flows,
    /// Age of its newest datagram; `None` where there never was one.
    pub age: Option<Duration>,
    /// Age of its newest RTP packet.
    pub media_age: Option<Duration>,
}

/// Flows of a leg, now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flows {
    /// Media is coming.
    pub fresh: u64,
    /// It was coming and no longer is, while the flow's other direction goes on.
    pub one_way: u64,
    /// Of these, those that fell silent just now.
    pub fell: u64,
}

impl Flows {
    /// Adds those of another path.
    pub fn add(&mut self, other: &Self) {
        self.fresh += other.fresh;
        self.one_way += other.one_way;
        self.fell += other.fell;
    }
}

/// Counts of one leg, of a look or since a start.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct MediaCounts {
    /// Bytes of UDP payload.
    pub bytes: u64,
    /// UDP datagrams by [`graylag_ebpf::media::group`].
    pub datagrams: [u64; GROUPS],
    /// RTP packets of valid streams, once each.
    pub packets: u64,
    /// RTP packets that had not come when a higher number came, less those that came late within the window of 64.
    pub lost: u64,
    /// Came after a higher number, within the window.
    pub reordered: u64,
    /// Came again.
    pub duplicated: u64,
    /// Bursts of loss, by length ([`graylag_ebpf::media::burst_bucket`]).
    pub bursts: [u64; BURST_BUCKETS],
    /// Interarrival jitter (RFC 3550 §6.4.1), a sample for each 32nd packet of a stream.
    pub jitter: Distribution,
}

impl MediaCounts {
    /// Adds another set of counts.
    pub fn add(&mut self, other: &Self) {
        self.bytes += other.bytes;
        self.datagrams.iter_mut().zip(other.datagrams).for_each(|(a, b)| *a += b);
        self.packets += other.packets;
        self.lost += other.lost;
        self.reordered += other.reordered;
        self.duplicated += other.duplicated;
        self.bursts.iter_mut().zip(other.bursts).for_each(|(a, b)| *a += b);
        self.jitter.add(&other.jitter);
    }

    /// Loss events: bursts, whatever their length.
    pub fn events(&self) -> u64 {
        self.bursts.iter().sum()
    }

    /// Share of the packets that was lost; `None` where none was expected.
    pub fn loss(&self) -> Option<f64> {
        let expected = self.packets + self.lost;
        (expected > 0).then(|| self.lost as f64 / expected as f64)
    }
}
