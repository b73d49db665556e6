//! Sockets into processes: differences of each socket's counters, added up by whose it is.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use graylag_ebpf::relay::{SocketMedia, SocketRecord};

use serde::{Deserialize, Serialize};

use super::{SeriesSet, Tally};
use crate::model::{OTHER, Pending, Process, RelayCounts, RelayTick};

/// A socket that no pass over all open files has found within this belongs to no process.
const NOBODYS: Duration = Duration::from_secs(5);

impl Tally for RelayCounts {
    fn add(&mut self, other: &Self) {
        Self::add(self, other);
    }

    fn traffic(&self) -> f64 {
        (self.received + self.sent) as f64
    }

    fn shown(&self) -> f64 {
        self.sent as f64
    }
}

/// Processes that carry media, and what the kernel said of their sockets last.
#[derive(Serialize, Deserialize)]
pub struct Relays {
    sockets: HashMap<u64, Known>,
    series: SeriesSet<Arc<str>, RelayCounts>,
    #[serde(skip)]
    now: Vec<RelayTick>,
    last_at: Option<Duration>,
    /// How many sockets have gone, with their counters.
    #[serde(skip)]
    gone: u64,
}

/// What has been counted of a socket.
#[derive(Clone, Copy, Serialize, Deserialize)]
struct Known {
    began_ns: u64,
    counts: RelayCounts,
}

impl Relays {
    /// At most `limit` names of processes are published by themselves; totals begin at `at`.
    pub fn new(limit: usize, at: Duration) -> Self {
        Self {
            sockets: HashMap::new(),
            series: SeriesSet::new(limit, at),
            now: Vec::new(),
            last_at: None,
            gone: 0,
        }
    }

    /// Published processes, all of one name together.
    pub const fn series(&self) -> &SeriesSet<Arc<str>, RelayCounts> {
        &self.series
    }

    /// When they were looked at last.
    pub const fn looked_at(&self) -> Option<Duration> {
        self.last_at
    }

    /// How processes stood at the last look.
    pub fn now(&self) -> &[RelayTick] {
        &self.now
    }

    /// Takes all sockets as they are at `at`. What a socket did between the look before its end and its end is not known.
    pub fn absorb(&mut self, seen: &[SocketRecord], at: Duration) -> &[RelayTick] {
        let since = self.last_at.replace(at).unwrap_or(at);
        let now_ns = at.as_nanos() as u64;
        let mut before = std::mem::take(&mut self.sockets);
        let mut ticks: BTreeMap<Process, RelayTick> = BTreeMap::new();
        for record in seen {
            let media = &record.media;
            let known = before.remove(&record.id).filter(|known| known.began_ns == media.began_ns);
            let known = known.unwrap_or(Known { began_ns: media.began_ns, counts: RelayCounts::default() });
            let Some(process) = owner(media, now_ns) else {
                // What it has counted is its owner's, as soon as there is one.
                self.sockets.insert(record.id, known);
                continue;
            };
            let counts = counts(media);
            let tick = ticks.entry(process.clone()).or_insert_with(|| RelayTick {
                process,
                counts: RelayCounts::default(),
                queued: 0,
                sources: 0,
                sockets: 0,
            });
            tick.counts.add(&RelayCounts {
                received: counts.received.saturating_sub(known.counts.received),
                sent: counts.sent.saturating_sub(known.counts.sent),
                dropped: counts.dropped.saturating_sub(known.counts.dropped),
            });
            tick.queued += u64::from(record.queued);
            tick.sources += u64::from(media.sources.count(now_ns));
            tick.sockets += 1;
            self.sockets.insert(record.id, Known { counts, ..known });
        }
        self.gone += before.len() as u64;
        self.publish(&ticks, at, since);
        self.now = ticks.into_values().collect();
        &self.now
    }

    fn publish(&mut self, ticks: &BTreeMap<Process, RelayTick>, at: Duration, since: Duration) {
        let mut by_name: BTreeMap<Arc<str>, RelayCounts> = BTreeMap::new();
        for tick in ticks.values() {
            by_name.entry(tick.process.name.clone()).or_default().add(&tick.counts);
        }
        let elapsed = at.saturating_sub(since);
        self.series.begin(at);
        for (name, counts) in &by_name {
            self.series.add(name, counts, &Pending::default(), since);
        }
        self.series.end(elapsed, &by_name.iter().collect());
    }

    /// How often something happened that cannot be told from the kernel's counters alone.
    pub const fn changes(&self) -> u64 {
        self.series.changes() + self.gone
    }

    /// Publishes at most `limit` names by themselves from the next review on.
    pub const fn set_limit(&mut self, limit: usize) {
        self.series.set_limit(limit);
    }

    /// Lets those in trouble, and the busiest, be published by themselves.
    pub fn rank(&mut self, at: Duration, troubled: &BTreeSet<Arc<str>>) {
        self.series.rank(at, troubled);
    }
}

fn counts(media: &SocketMedia) -> RelayCounts {
    RelayCounts { received: media.received, sent: media.sent, dropped: media.dropped }
}

fn owner(media: &SocketMedia, now_ns: u64) -> Option<Process> {
    if media.pass != 0 {
        let end = media.command.iter().position(|byte| *byte == 0).unwrap_or(media.command.len());
        let name = String::from_utf8_lossy(&media.command[..end]);
        return Some(Process { name: name.into(), id: media.process });
    }
    let age = Duration::from_nanos(now_ns.saturating_sub(media.began_ns));
    (age >= NOBODYS).then(|| Process { name: OTHER.into(), id: 0 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytemuck::Zeroable;

    fn socket(id: u64, process: u32, received: u64, sent: u64) -> SocketRecord {
        let mut record = SocketRecord::zeroed();
        record.id = id;
        record.media.began_ns = 1;
        (record.media.received, record.media.sent) = (received, sent);
        (record.media.process, record.media.pass) = (process, u32::from(process > 0));
        record.media.command[..5].copy_from_slice(b"relay");
        record
    }

    fn at(tenths: u64) -> Duration {
        Duration::from_millis(100 * tenths)
    }

    #[test]
    fn what_an_ownerless_socket_counted_becomes_its_owners() {
        let mut relays = Relays::new(10, Duration::ZERO);
        assert!(relays.absorb(&[socket(1, 0, 50, 40)], at(1)).is_empty());
        let ticks = relays.absorb(&[socket(1, 7, 60, 50), socket(2, 7, 5, 5)], at(2));
        assert_eq!(ticks.len(), 1);
        assert_eq!(ticks[0].counts, RelayCounts { received: 65, sent: 55, dropped: 0 });
        assert_eq!((ticks[0].process.to_string(), ticks[0].sockets), ("relay [7]".into(), 2));
        assert_eq!(relays.absorb(&[socket(1, 7, 61, 50)], at(3))[0].counts.received, 1);
    }

    #[test]
    fn a_socket_that_takes_anothers_place_counts_from_zero() {
        let mut relays = Relays::new(10, Duration::ZERO);
        relays.absorb(&[socket(1, 7, 60, 50)], at(1));
        let mut other = socket(1, 7, 10, 0);
        other.media.began_ns = 5;
        assert_eq!(relays.absorb(&[other], at(2))[0].counts.received, 10);
        let totals = relays.series().iter().next().map(|(_, series)| series.totals);
        assert_eq!(totals, Some(RelayCounts { received: 70, sent: 50, dropped: 0 }));
    }

    #[test]
    fn what_nobody_has_open_is_told_apart() {
        let mut relays = Relays::new(10, Duration::ZERO);
        assert!(relays.absorb(&[socket(1, 0, 5, 0)], at(40)).is_empty());
        assert_eq!(relays.absorb(&[socket(1, 0, 5, 0)], at(60))[0].process.name.as_ref(), OTHER);
    }
}
