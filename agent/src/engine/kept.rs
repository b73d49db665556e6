//! What is kept for the next agent, beside what the kernel keeps.

use std::{collections::HashMap, time::Duration};

use graylag_ebpf::relay::SocketRecord;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Engine, Inner};
use crate::{
    aggregate::{Aggregator, PeerName},
    collect::Observation,
};

/// It is kept anew at least this often: histogram buckets of the kernel wrap, the more often the longer nobody looks.
const AT_LEAST_EVERY: Duration = Duration::from_secs(60);

/// What an earlier agent kept. Its form belongs to the contract between the halves (`graylag_ebpf::ABI_VERSION`).
#[derive(Deserialize)]
pub struct Kept {
    origin_ns: i64,
    peers: HashMap<u16, PeerName>,
    aggregator: Aggregator,
}

#[derive(Serialize)]
struct Keep<'a> {
    origin_ns: i64,
    peers: &'a HashMap<u16, PeerName>,
    aggregator: &'a Aggregator,
}

impl Kept {
    /// Reads it.
    pub fn read(bytes: &[u8]) -> Result<Self, String> {
        match postcard::take_from_bytes(bytes) {
            Ok((kept, [])) => Ok(kept),
            Ok(_) => Err("there is more of it than expected".into()),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Peers by the identifiers under which the kernel counts.
    pub const fn peers(&self) -> &HashMap<u16, PeerName> {
        &self.peers
    }
}

impl Engine {
    /// Goes on from what an earlier agent kept, with the kernel as it is now. Nobody has been told anything yet, and nothing is
    /// judged by what was counted while there was no agent.
    pub fn take_over(&self, kept: Kept, subjects: usize, seen: &Observation, sockets: &[SocketRecord]) {
        let mut inner = self.lock();
        // Series go on from when they began, on the same clock.
        inner.origin = Timestamp::from_nanosecond(kept.origin_ns.into()).unwrap_or(inner.origin);
        inner.aggregator.take_over(kept.aggregator, subjects, seen, sockets);
        inner.untold += seen.ends_missed;
    }

    /// What the next agent needs, where it is not what was said last.
    pub fn keep_if_due(&self, now: Duration) -> Option<Vec<u8>> {
        let mut inner = self.lock();
        let changes = inner.aggregator.changes();
        let (of, at) = inner.kept;
        (of != changes || now.saturating_sub(at) >= AT_LEAST_EVERY).then(|| inner.keep(now)).flatten()
    }

    /// What the next agent needs.
    pub fn keep(&self, now: Duration) -> Option<Vec<u8>> {
        self.lock().keep(now)
    }
}

impl Inner {
    fn keep(&mut self, now: Duration) -> Option<Vec<u8>> {
        self.kept = (self.aggregator.changes(), now);
        let keep = Keep {
            origin_ns: i64::try_from(self.origin.as_nanosecond()).ok()?,
            peers: self.aggregator.peers(),
            aggregator: &self.aggregator,
        };
        postcard::to_allocvec(&keep)
            .inspect_err(|error| tracing::error!("what is counted is not kept for the next agent: {error}"))
            .ok()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use bytemuck::Zeroable;
    use graylag_ebpf::{
        key::{PathKey, Role, V4_MAPPED},
        record::PathStats,
    };

    use super::*;
    use crate::{
        aggregate::Naming,
        collect::Packed,
        engine::Facts,
        health,
        kernel::Dropped,
        model::{Direction, Outcome, Transport},
        telemetry::{Value, catalog::Id},
    };

    fn engine(now: u64) -> Engine {
        let judge = (health::Settings::default(), BTreeMap::new());
        let interval = Duration::from_millis(500);
        Engine::new(Facts::default(), Naming::default(), judge, 10, interval, Duration::from_secs(now))
    }

    /// What the kernel says after so many handshakes and drops.
    fn seen(at: u64, handshakes: u64) -> Observation {
        let key = PathKey {
            address: [0, 0, V4_MAPPED, u32::from_ne_bytes([10, 0, 0, 1])],
            netns: 7,
            port: 443,
            peer: 0,
            prefix: 128,
            role: Role::Client as u8,
            reserved: [0; 2],
        };
        let mut stats = PathStats::zeroed();
        stats.touched_ns = at * 1_000_000_000;
        stats.outcomes[Outcome::Established as usize] = handshakes;
        (stats.handshake.buckets[5], stats.handshake.sum_ns) = (handshakes as u32, handshakes * 1000);
        let (direction, transport) = (Direction::Receive, Transport::Tcp);
        Observation {
            at_ns: at * 1_000_000_000,
            paths: vec![(key, Packed::from(&stats))],
            drops: vec![Dropped { reason: "NO_SOCKET".into(), direction, transport, packets: handshakes }],
            ..Observation::default()
        }
    }

    /// `(total, when it began)` of a counter with one series that is not 0.
    fn total(engine: &Engine, id: Id) -> (u64, u64) {
        let points = engine.points(id);
        let counts = points.iter().filter_map(|point| match point.value {
            Value::Count(n) if n > 0 => Some((n, engine.unix_nanos(point.since))),
            _ => None,
        });
        let counts: Vec<_> = counts.collect();
        assert_eq!(counts.len(), 1, "{points:?}");
        counts[0]
    }

    #[test]
    fn totals_go_on_with_what_was_counted_while_there_was_nobody() {
        let first = engine(100);
        first.absorb(&seen(101, 50), Duration::ZERO);
        let kept = first.keep(Duration::from_secs(101)).unwrap();
        // What it saw afterwards the kernel knows too.
        first.absorb(&seen(102, 70), Duration::ZERO);
        assert!(
            first.keep_if_due(Duration::from_secs(102)).is_none(),
            "nothing but the kernel's counters changed"
        );
        assert!(first.keep_if_due(Duration::from_secs(162)).is_some());
        let second = engine(200);
        second.take_over(Kept::read(&kept).unwrap(), 10, &seen(200, 75), &[]);
        for id in [Id::HandshakeCount, Id::PacketDropped] {
            let ((before, began), (after, since)) = (total(&first, id), total(&second, id));
            assert_eq!((before, after), (70, 75));
            assert_eq!(began, since, "of the same series");
        }
        let told = second.absorb(&seen(201, 75), Duration::ZERO);
        assert!(told.is_empty(), "{told:?}");
        assert_eq!(total(&second, Id::HandshakeCount).0, 75);
        let subjects = second.status(Duration::from_secs(201)).subjects;
        assert_eq!(subjects.len(), 1);
    }

    #[test]
    fn one_that_is_cut_or_goes_on_is_refused() {
        let engine = engine(100);
        engine.absorb(&seen(101, 50), Duration::ZERO);
        let kept = engine.keep(Duration::from_secs(101)).unwrap();
        assert!(Kept::read(&kept).is_ok());
        assert!(Kept::read(&kept[..kept.len() - 1]).is_err());
        assert!(Kept::read(&[kept.as_slice(), &[0]].concat()).is_err());
    }
}
