//! Media by path and direction: differences of the kernel's counters, named, added up, in series of their own.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Duration,
};

use graylag_ebpf::{
    media::{BURST_BUCKETS, MediaKey, Quality, Traffic},
    rtp::Event,
};

use serde::{Deserialize, Serialize};

use super::{Naming, SeriesSet, kept};
use crate::{
    collect::MediaPath,
    model::{Direction, Flows, Leg, LegTick, MediaCounts, Path, Pending},
};

/// Legs and what the kernel said of them last.
#[derive(Serialize, Deserialize)]
pub struct Media {
    #[serde(with = "kept::by_pod")]
    baselines: HashMap<MediaKey, Box<[Baseline; 2]>>,
    series: SeriesSet<Leg, MediaCounts>,
    /// When something last came, by leg: for ages between looks in which nothing did.
    last: BTreeMap<Leg, (Option<Duration>, Option<Duration>)>,
    /// How often the kernel took back what had been told.
    #[serde(skip)]
    taken_back: u64,
}

/// What has been counted of one direction of a path.
#[derive(Clone, Copy, Serialize, Deserialize)]
struct Baseline {
    #[serde(with = "kept::pod")]
    traffic: Traffic,
    #[serde(with = "kept::pod")]
    quality: Quality,
    /// What was judged, at once.
    judged: Told,
    /// What was published, a look later: by then nearly all has come that comes late.
    published: Told,
}

impl Default for Baseline {
    fn default() -> Self {
        Self {
            traffic: Traffic::default(),
            quality: bytemuck::Zeroable::zeroed(),
            judged: Told::default(),
            published: Told::default(),
        }
    }
}

/// Lost packets and bursts as far as they have been told. The kernel takes back what comes late after all; a counter that was
/// told cannot shrink, so it waits until the kernel's has caught up.
#[derive(Clone, Copy, Default, Serialize, Deserialize)]
struct Told {
    lost: u64,
    bursts: [u64; BURST_BUCKETS],
}

impl Told {
    /// As the kernel has it.
    fn of(quality: &Quality) -> Self {
        // Of those that were missed when a later one came, some came after all. Taken back, a count of bursts may fall below zero
        // for a moment: as a signed number.
        let [missed, late] = [Event::Missed, Event::Late].map(|event| quality.trouble[event as usize]);
        let known = |n: u64| if n as i64 > 0 { n } else { 0 };
        Self { lost: missed.saturating_sub(late), bursts: quality.bursts.map(known) }
    }

    /// What was missed by the look before and has not come by now; of bursts, what both looks have.
    fn since(before: &Quality, now: &Quality) -> Self {
        let (was, is) = (Self::of(before), Self::of(now));
        let lost = before.trouble[Event::Missed as usize].saturating_sub(now.trouble[Event::Late as usize]);
        Self { lost, bursts: std::array::from_fn(|i| was.bursts[i].min(is.bursts[i])) }
    }

    /// Tells what is new; what that is.
    fn tell(&mut self, now: Self) -> Self {
        let more = Self {
            lost: now.lost.saturating_sub(self.lost),
            bursts: std::array::from_fn(|i| now.bursts[i].saturating_sub(self.bursts[i])),
        };
        self.lost += more.lost;
        self.bursts.iter_mut().zip(more.bursts).for_each(|(told, more)| *told += more);
        more
    }

    /// Whether more was told than there is.
    fn is_ahead_of(&self, now: &Self) -> bool {
        self.lost > now.lost || self.bursts.iter().zip(now.bursts).any(|(told, now)| *told > now)
    }
}

/// A leg without a datagram for this long is no longer spoken of.
const FORGET: Duration = Duration::from_secs(900);

impl Media {
    /// At most `limit` legs are published by themselves; totals begin at `at`.
    pub fn new(limit: usize, at: Duration) -> Self {
        Self {
            baselines: HashMap::new(),
            series: SeriesSet::new(limit, at),
            last: BTreeMap::new(),
            taken_back: 0,
        }
    }

    /// Published legs.
    pub const fn series(&self) -> &SeriesSet<Leg, MediaCounts> {
        &self.series
    }

    /// `(newest datagram, newest RTP packet)` of every leg that ever had one, on the ticks' clock.
    pub const fn last(&self) -> &BTreeMap<Leg, (Option<Duration>, Option<Duration>)> {
        &self.last
    }

    /// Takes what was seen at `at`, in a look that began at `since`.
    pub fn absorb(
        &mut self,
        seen: &[MediaPath],
        naming: &Naming,
        at: Duration,
        since: Duration,
    ) -> Vec<LegTick> {
        let mut ticks: BTreeMap<Leg, LegTick> = BTreeMap::new();
        let mut published: BTreeMap<Leg, MediaCounts> = BTreeMap::new();
        for path in seen {
            let name = name(naming, &path.key);
            let baselines = self.baselines.entry(path.key).or_default();
            for direction in Direction::BOTH {
                let leg = Leg { path: name.clone(), direction };
                let i = direction as usize;
                let (counts, told) = baselines[i].advance(&path.traffic[i], &path.quality[i]);
                self.taken_back += u64::from(baselines[i].is_ahead());
                published.entry(leg.clone()).or_default().add(&told);
                let last = self.last.entry(leg.clone()).or_default();
                remember(&mut last.0, path.traffic[i].last_ns);
                remember(&mut last.1, path.traffic[i].last_media_ns);
                let tick = ticks.entry(leg.clone()).or_insert_with(|| LegTick {
                    leg,
                    counts: MediaCounts::default(),
                    flows: Flows::default(),
                    age: None,
                    media_age: None,
                });
                tick.counts.add(&counts);
                tick.flows.add(&Flows {
                    fresh: u64::from(path.flows.fresh[i]),
                    one_way: u64::from(path.flows.one_way[i]),
                    fell: u64::from(path.flows.fell[i]),
                });
                tick.age = last.0.map(|last| at.saturating_sub(last));
                tick.media_age = last.1.map(|last| at.saturating_sub(last));
            }
        }
        // A leg that never carried anything is only the other direction's shadow.
        ticks.retain(|_, tick| tick.age.is_some());
        self.last.retain(|_, (last, _)| last.is_some_and(|last| at.saturating_sub(last) < FORGET));
        let elapsed = at.saturating_sub(since);
        self.series.begin(at);
        published.retain(|leg, _| ticks.contains_key(leg));
        for (leg, counts) in &published {
            self.series.add(leg, counts, &Pending::default(), since);
        }
        self.series.end(elapsed, &published.iter().collect());
        ticks.into_values().collect()
    }

    /// How often something happened that cannot be told from the kernel's counters alone.
    pub const fn changes(&self) -> u64 {
        self.series.changes() + self.taken_back
    }

    /// Publishes at most `limit` legs by themselves from the next review on.
    pub const fn set_limit(&mut self, limit: usize) {
        self.series.set_limit(limit);
    }

    /// Lets those in trouble, and the busiest, be published by themselves.
    pub fn rank(&mut self, at: Duration, troubled: &BTreeSet<Leg>) {
        self.series.rank(at, troubled);
    }
}

fn name(naming: &Naming, key: &MediaKey) -> Path {
    if key.prefix == 0 && key.peer == 0 {
        return Path::other();
    }
    naming.path(key.address, key.prefix, (key.peer != 0).then_some(key.peer))
}

fn remember(last: &mut Option<Duration>, ns: u64) {
    if ns > 0 {
        *last = (*last).max(Some(Duration::from_nanos(ns)));
    }
}

impl Baseline {
    /// Whether more was told than the kernel says now.
    fn is_ahead(&self) -> bool {
        let now = Told::of(&self.quality);
        self.judged.is_ahead_of(&now) || self.published.is_ahead_of(&now)
    }

    /// What was counted since the last look, to be judged, and to be published; a path that the kernel began anew counts from zero.
    fn advance(&mut self, now: &Traffic, quality: &Quality) -> (MediaCounts, MediaCounts) {
        let before = &self.traffic;
        let began_anew = now.bytes < before.bytes
            || now.received < before.received
            || now.packets.iter().zip(before.packets).any(|(now, before)| *now < before);
        if began_anew {
            *self = Self::default();
        }
        let (before, was) = (&self.traffic, &self.quality);
        let trouble =
            |event: Event| quality.trouble[event as usize].saturating_sub(was.trouble[event as usize]);
        let judged = self.judged.tell(Told::of(quality));
        let published = self.published.tell(Told::since(was, quality));
        let mut counts = MediaCounts {
            bytes: now.bytes - before.bytes,
            datagrams: std::array::from_fn(|i| now.packets[i] - before.packets[i]),
            packets: now.received - before.received,
            lost: judged.lost,
            reordered: trouble(Event::Late),
            duplicated: trouble(Event::Duplicated),
            bursts: judged.bursts,
            ..MediaCounts::default()
        };
        counts.jitter.add_delta(&quality.jitter, &was.jitter);
        (self.traffic, self.quality) = (*now, *quality);
        let told = MediaCounts { lost: published.lost, bursts: published.bursts, ..counts.clone() };
        (counts, told)
    }
}

#[cfg(test)]
mod tests {
    use bytemuck::Zeroable;
    use graylag_ebpf::{
        key::V4_MAPPED,
        media::{PathFlows, PathTraffic},
    };

    use super::*;

    fn path(host: u8, packets: u64, received: u64, lost: u64, last_s: u64) -> MediaPath {
        let key = MediaKey {
            address: [0, 0, V4_MAPPED, u32::from_ne_bytes([10, 0, 0, host])],
            netns: 1,
            peer: 0,
            prefix: 128,
            reserved: 0,
        };
        let mut path = MediaPath {
            key,
            traffic: PathTraffic::default(),
            quality: Zeroable::zeroed(),
            flows: PathFlows::default(),
        };
        let receive = &mut path.traffic[Direction::Receive as usize];
        receive.packets[2] = packets;
        receive.bytes = packets * 160;
        receive.received = received;
        receive.last_ns = last_s * 1_000_000_000;
        receive.last_media_ns = receive.last_ns;
        let quality = &mut path.quality[Direction::Receive as usize];
        (quality.trouble[Event::Missed as usize], quality.bursts[0]) = (lost, lost);
        path
    }

    fn seconds(s: u64) -> Duration {
        Duration::from_secs(s)
    }

    #[test]
    fn looks_are_differences_and_one_direction_says_nothing_of_the_other() {
        let (mut media, naming) = (Media::new(10, Duration::ZERO), Naming::default());
        media.absorb(&[path(1, 100, 98, 2, 1)], &naming, seconds(1), Duration::ZERO);
        let ticks = media.absorb(&[path(1, 150, 147, 3, 2)], &naming, seconds(2), seconds(1));
        assert_eq!(ticks.len(), 1, "nothing was transmitted");
        assert_eq!(ticks[0].leg.direction, Direction::Receive);
        assert_eq!(
            (ticks[0].counts.packets, ticks[0].counts.lost, ticks[0].counts.datagrams[2]),
            (49, 1, 50)
        );
        assert_eq!(ticks[0].age, Some(Duration::ZERO));
        let totals = |media: &Media| {
            let (_, series) = media.series().iter().next().unwrap();
            (series.totals.packets, series.totals.lost)
        };
        assert_eq!(totals(&media), (147, 2), "what was missed just now may yet come");
        media.absorb(&[path(1, 150, 147, 3, 2)], &naming, seconds(3), seconds(2));
        assert_eq!(totals(&media), (147, 3));
    }

    #[test]
    fn what_comes_within_a_look_was_never_published_as_lost() {
        let (mut media, naming) = (Media::new(10, Duration::ZERO), Naming::default());
        media.absorb(&[path(1, 100, 97, 3, 1)], &naming, seconds(1), Duration::ZERO);
        let mut late = path(1, 102, 99, 3, 2);
        late.quality[Direction::Receive as usize].trouble[Event::Late as usize] = 2;
        late.quality[Direction::Receive as usize].bursts[0] = 1;
        for look in 2..5 {
            media.absorb(&[late], &naming, seconds(look), seconds(look - 1));
            let (_, series) = media.series().iter().next().unwrap();
            assert_eq!((series.totals.lost, series.totals.bursts[0]), (1, 1));
        }
    }

    #[test]
    fn ages_grow_while_nothing_comes() {
        let (mut media, naming) = (Media::new(10, Duration::ZERO), Naming::default());
        media.absorb(&[path(1, 100, 98, 0, 1)], &naming, seconds(1), Duration::ZERO);
        let ticks = media.absorb(&[path(1, 100, 98, 0, 1)], &naming, seconds(6), seconds(1));
        assert_eq!(ticks[0].media_age, Some(seconds(5)));
        assert_eq!(ticks[0].counts.packets, 0);
    }

    /// At each look some packets are on their way, and never the same.
    #[test]
    fn what_is_on_its_way_at_each_of_two_looks_was_never_published_as_lost() {
        let (mut media, naming) = (Media::new(10, Duration::ZERO), Naming::default());
        for (look, missed, late) in [(1, 3, 0), (2, 5, 3), (3, 9, 5), (4, 9, 9), (5, 9, 9)] {
            let mut path = path(1, 100 * look, 100 * look - missed, missed, look);
            path.quality[Direction::Receive as usize].trouble[Event::Late as usize] = late;
            media.absorb(&[path], &naming, seconds(look), seconds(look - 1));
            let (_, series) = media.series().iter().next().unwrap();
            assert_eq!(series.totals.lost, 0, "look {look}");
        }
    }

    #[test]
    fn what_came_late_after_all_is_taken_back_from_what_is_lost_next() {
        let (mut media, naming) = (Media::new(10, Duration::ZERO), Naming::default());
        media.absorb(&[path(1, 100, 97, 3, 1)], &naming, seconds(1), Duration::ZERO);
        let mut late = path(1, 102, 99, 3, 2);
        late.quality[Direction::Receive as usize].trouble[Event::Late as usize] = 2;
        late.quality[Direction::Receive as usize].bursts[0] = 1;
        let counts = |ticks: &[LegTick]| (ticks[0].counts.lost, ticks[0].counts.bursts[0]);
        assert_eq!(counts(&media.absorb(&[late], &naming, seconds(2), seconds(1))), (0, 0));
        late.quality[Direction::Receive as usize].trouble[Event::Missed as usize] = 6;
        late.quality[Direction::Receive as usize].bursts[0] = 4;
        assert_eq!(counts(&media.absorb(&[late], &naming, seconds(3), seconds(2))), (1, 1), "four in all");
        media.absorb(&[late], &naming, seconds(4), seconds(3));
        let (_, series) = media.series().iter().next().unwrap();
        assert_eq!((series.totals.lost, series.totals.bursts[0]), (4, 4));
    }

    #[test]
    fn a_path_that_began_anew_counts_from_zero() {
        let (mut media, naming) = (Media::new(10, Duration::ZERO), Naming::default());
        media.absorb(&[path(1, 100, 100, 0, 1)], &naming, seconds(1), Duration::ZERO);
        let ticks = media.absorb(&[path(1, 7, 7, 0, 2)], &naming, seconds(2), seconds(1));
        assert_eq!(ticks[0].counts.packets, 7);
    }
}
