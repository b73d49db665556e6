//! Which subjects are published by themselves: those in trouble first, then those with most traffic; the rest is
//! `~other`. Totals are cumulative from when a subject began to be published, so that no series ever shrinks.
//!
//! Metrics are published by subject, by path or by service; each of the three has a set of its own, for a total over
//! subjects that come and go would shrink when one goes.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use serde::{Deserialize, Serialize};

use crate::model::{Counts, Leg, MediaCounts, OTHER, Path, Pending, Subject, fade};

use super::window::Window;

/// A newcomer without trouble needs this many times the traffic of the one it displaces.
const CLEARLY_MORE: f64 = 2.0;
/// Traffic is remembered with this half-life.
const HALF_LIFE: Duration = Duration::from_secs(60);
/// How long a series that ended is announced as such, so that every exporter sees it once.
const ANNOUNCED: Duration = Duration::from_secs(300);

/// What series are told apart by.
pub trait SeriesKey: Clone + Ord {
    /// The one that takes this one's place where there is no room for it.
    fn folded(&self) -> Self;
}

impl SeriesKey for Subject {
    fn folded(&self) -> Self {
        Self { path: Path::other(), service: OTHER.into(), role: self.role }
    }
}

impl SeriesKey for Path {
    fn folded(&self) -> Self {
        Self::other()
    }
}

impl SeriesKey for Arc<str> {
    fn folded(&self) -> Self {
        OTHER.into()
    }
}

impl SeriesKey for Leg {
    fn folded(&self) -> Self {
        Self { path: Path::other(), direction: self.direction }
    }
}

/// What a series adds up.
pub trait Tally: Clone + Default {
    /// Adds another.
    fn add(&mut self, other: &Self);
    /// How busy it is: what ranking goes by.
    fn traffic(&self) -> f64;
    /// What the sparkline shows.
    fn shown(&self) -> f64;
}

impl Tally for Counts {
    fn add(&mut self, other: &Self) {
        self.add(other);
    }

    fn traffic(&self) -> f64 {
        (self.handshakes() + self.segments_in + self.segments_out + self.response.count()) as f64
    }

    fn shown(&self) -> f64 {
        self.handshakes() as f64
    }
}

impl Tally for MediaCounts {
    fn add(&mut self, other: &Self) {
        self.add(other);
    }

    fn traffic(&self) -> f64 {
        self.datagrams.iter().sum::<u64>() as f64
    }

    fn shown(&self) -> f64 {
        self.packets as f64
    }
}

/// One published subject.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Series<T = Counts> {
    /// When its totals began, on the ticks' clock.
    pub since: Duration,
    /// Everything since then.
    pub totals: T,
    /// What is pending now.
    #[serde(skip)]
    pub pending: Pending,
    /// The recent past.
    #[serde(skip)]
    pub window: Window<T>,
    traffic: f64,
}

/// All published subjects, paths or services.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(bound(deserialize = "K: Ord + Deserialize<'de>, T: Default + Deserialize<'de>"))]
pub struct SeriesSet<K, T = Counts> {
    #[serde(skip)]
    limit: usize,
    since: Duration,
    shown: BTreeMap<K, Series<T>>,
    other: BTreeMap<K, Series<T>>,
    /// Traffic of those that are not shown.
    hidden: BTreeMap<K, f64>,
    ended: Vec<Ended<K>>,
    /// When traffic last faded; nothing before the first ranking, which is what it is for.
    #[serde(skip)]
    faded_at: Option<Duration>,
    #[serde(skip)]
    folded: u64,
    /// How often a series has begun or ended.
    #[serde(skip)]
    changes: u64,
}

/// A series that ended.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Ended<K> {
    /// Whose.
    pub key: K,
    /// When its totals began, on the ticks' clock.
    pub since: Duration,
    at: Duration,
}

impl<K: SeriesKey, T: Tally> SeriesSet<K, T> {
    /// Publishes at most `limit` by themselves; totals of `~other` begin at `at`.
    pub fn new(limit: usize, at: Duration) -> Self {
        Self {
            limit,
            since: at,
            shown: BTreeMap::new(),
            other: BTreeMap::new(),
            hidden: BTreeMap::new(),
            ended: Vec::new(),
            faded_at: None,
            folded: 0,
            changes: 0,
        }
    }

    /// Begins a look.
    pub fn begin(&mut self, at: Duration) {
        for series in self.shown.values_mut().chain(self.other.values_mut()) {
            series.pending = Pending::default();
        }
        self.ended.retain(|ended| at.saturating_sub(ended.at) < ANNOUNCED);
    }

    /// Takes what happened in a look that began at `since`.
    pub fn add(&mut self, key: &K, counts: &T, pending: &Pending, since: Duration) {
        let traffic = counts.traffic();
        let series = self.place(key, traffic, since);
        series.traffic += traffic;
        series.totals.add(counts);
        series.pending.add(pending);
    }

    /// What is pending of something in this look.
    pub fn pending(&mut self, key: &K, since: Duration) -> &mut Pending {
        &mut self.place(key, 0.0, since).pending
    }

    /// The same, to be gone on with apart: totals stay, what shows the recent past does not.
    pub fn apart(&self) -> Self {
        let mut apart = self.clone();
        for series in apart.shown.values_mut().chain(apart.other.values_mut()) {
            series.window = Window::default();
        }
        apart
    }

    /// Whether it has a series of its own.
    pub fn shows(&self, key: &K) -> bool {
        self.shown.contains_key(key)
    }

    /// Where something is counted: its own series, or `~other`.
    fn place(&mut self, key: &K, traffic: f64, since: Duration) -> &mut Series<T> {
        let folded = key.folded();
        let fresh = |since| Series { since, ..Series::default() };
        if folded != *key {
            if self.shown.contains_key(key) || self.shown.len() < self.limit {
                self.hidden.remove(key);
                let changes = &mut self.changes;
                return self.shown.entry(key.clone()).or_insert_with(|| {
                    *changes += 1;
                    fresh(since)
                });
            }
            if let Some(hidden) = self.hidden.get_mut(key) {
                *hidden += traffic;
            } else {
                self.hidden.insert(key.clone(), traffic);
                self.folded += 1;
                self.changes += 1;
            }
        }
        let since = self.since;
        self.other.entry(folded).or_insert_with(|| fresh(since))
    }

    /// Ends a look: moves the windows on.
    pub fn end(&mut self, elapsed: Duration, of_look: &BTreeMap<&K, &T>) {
        for (key, series) in &mut self.shown {
            series.window.add(of_look.get(key).copied(), elapsed);
        }
        let mut rest: BTreeMap<K, T> = BTreeMap::new();
        for (key, counts) in of_look.iter().filter(|(key, _)| !self.shown.contains_key(**key)) {
            rest.entry(key.folded()).or_default().add(counts);
        }
        for (key, series) in &mut self.other {
            series.window.add(rest.get(key), elapsed);
        }
    }

    /// Lets those in trouble, and those with clearly more traffic, take the place of the least busy.
    pub fn rank(&mut self, at: Duration, troubled: &BTreeSet<K>) {
        self.fade(at);
        while let Some((newcomer, traffic)) = self.newcomer(troubled) {
            if self.shown.len() >= self.limit {
                let least = self
                    .shown
                    .iter()
                    .filter(|(key, _)| !troubled.contains(*key))
                    .min_by(|a, b| a.1.traffic.total_cmp(&b.1.traffic))
                    .map(|(key, series)| (key.clone(), series.traffic, series.since));
                let Some((key, least, since)) = least else { return };
                if !troubled.contains(&newcomer) && traffic < CLEARLY_MORE * least {
                    return;
                }
                self.shown.remove(&key);
                self.hidden.insert(key.clone(), least);
                self.folded += 1;
                self.ended.push(Ended { key, since, at });
            }
            self.changes += 1;
            self.hidden.remove(&newcomer);
            self.ended.retain(|ended| ended.key != newcomer);
            self.shown.insert(newcomer, Series { since: at, traffic, ..Series::default() });
        }
    }

    fn fade(&mut self, at: Duration) {
        let factor = fade(at.saturating_sub(self.faded_at.replace(at).unwrap_or(at)), HALF_LIFE);
        self.shown.values_mut().chain(self.other.values_mut()).for_each(|series| series.traffic *= factor);
        self.hidden.retain(|_, traffic| {
            *traffic *= factor;
            *traffic > 0.01
        });
    }

    fn newcomer(&self, troubled: &BTreeSet<K>) -> Option<(K, f64)> {
        self.hidden
            .iter()
            .max_by(|a, b| troubled.contains(a.0).cmp(&troubled.contains(b.0)).then(a.1.total_cmp(b.1)))
            .map(|(key, traffic)| (key.clone(), *traffic))
    }

    /// What is published, `~other` last.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &Series<T>)> {
        self.shown.iter().chain(&self.other)
    }

    /// What was published and no longer is: these series end.
    pub fn ended(&self) -> &[Ended<K>] {
        &self.ended
    }

    /// How often a series has begun or ended: until then totals follow from what was kept and the kernel's counters.
    pub const fn changes(&self) -> u64 {
        self.changes
    }

    /// Publishes at most `limit` by themselves from the next review on.
    pub const fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
    }

    /// How often something was put into `~other`.
    pub const fn folded(&self) -> u64 {
        self.folded
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Role;

    fn subject(i: usize) -> Subject {
        Subject {
            path: Path { peer: format!("p{i}").into(), address: None },
            service: "tcp/1".into(),
            role: Role::Client,
        }
    }

    fn counts(n: u64) -> Counts {
        Counts { outcomes: [n, 0, 0, 0, 0, 0], ..Counts::default() }
    }

    fn look(set: &mut SeriesSet<Subject>, at: u64, traffic: &[(usize, u64)]) {
        let (at, elapsed) = (Duration::from_secs(at), Duration::from_secs(1));
        set.begin(at);
        for (i, n) in traffic {
            set.add(&subject(*i), &counts(*n), &Pending::default(), at.saturating_sub(elapsed));
        }
        let of_look: Vec<_> = traffic.iter().map(|(i, n)| (subject(*i), counts(*n))).collect();
        set.end(elapsed, &of_look.iter().map(|(subject, counts)| (subject, counts)).collect());
    }

    #[test]
    fn nothing_is_lost_whoever_is_shown() {
        let mut set = SeriesSet::new(2, Duration::ZERO);
        let mut shown_total = 0;
        for at in 1..200 {
            look(&mut set, at, &[(0, 10), (1, 10), (2, at), (3, 1)]);
            let before: u64 = set.iter().map(|(_, s)| s.totals.handshakes()).sum();
            set.rank(Duration::from_secs(at), &BTreeSet::new());
            let after: u64 = set.iter().map(|(_, s)| s.totals.handshakes()).sum();
            shown_total += before - after; // what left with a series that ended was published in it
        }
        let left: u64 = set.iter().map(|(_, s)| s.totals.handshakes()).sum();
        assert_eq!(left + shown_total, (1..200).map(|at| 21 + at).sum::<u64>());
        assert!(set.iter().any(|(s, _)| *s == subject(2)), "the busiest is shown");
        assert_eq!(set.iter().count(), 3);
        assert!(set.folded() >= 2);
    }

    #[test]
    fn trouble_goes_first() {
        let mut set = SeriesSet::new(2, Duration::ZERO);
        look(&mut set, 1, &[(0, 1000), (1, 1000), (2, 1)]);
        set.rank(Duration::from_secs(1), &BTreeSet::from([subject(2)]));
        assert!(set.iter().any(|(s, _)| *s == subject(2)));
        assert_eq!(set.ended().len(), 1);
    }

    #[test]
    fn equals_do_not_take_turns() {
        let mut set = SeriesSet::new(2, Duration::ZERO);
        for at in 1..100 {
            look(&mut set, at, &[(0, 10), (1, 10), (2, 11), (3, 12)]);
            set.rank(Duration::from_secs(at), &BTreeSet::new());
        }
        assert_eq!(set.ended().len(), 0);
    }
}
