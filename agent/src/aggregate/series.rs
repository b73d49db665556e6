//! Which subjects are published by themselves: those in trouble first, then those with most traffic; the rest is one
//! `~other` to a role. Totals are cumulative from when a subject began to be published, so that no series ever shrinks.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use crate::model::{Counts, OTHER, Path, Pending, Role, Subject};

use super::window::Window;

/// A newcomer without trouble needs this many times the traffic of the one it displaces.
const CLEARLY_MORE: f64 = 2.0;
/// Traffic is remembered with this half-life.
const HALF_LIFE: Duration = Duration::from_secs(60);
/// How long a series that ended is announced as such, so that every exporter sees it once.
const ANNOUNCED: Duration = Duration::from_secs(300);

/// One published subject.
#[derive(Clone, Debug, Default)]
pub struct Series {
    /// When its totals began, on the ticks' clock.
    pub since: Duration,
    /// Everything since then.
    pub totals: Counts,
    /// What is pending now.
    pub pending: Pending,
    /// The recent past.
    pub window: Window,
    traffic: f64,
}

/// All published subjects.
#[derive(Debug)]
pub struct SeriesSet {
    limit: usize,
    shown: BTreeMap<Subject, Series>,
    other: [Series; 2],
    /// Traffic of those that are not shown.
    hidden: BTreeMap<Subject, f64>,
    ended: Vec<(Subject, Duration, Duration)>,
    folded: u64,
}

impl SeriesSet {
    /// Publishes at most `limit` subjects by themselves; totals begin at `at`.
    pub fn new(limit: usize, at: Duration) -> Self {
        let other = || Series { since: at, ..Series::default() };
        Self {
            limit,
            shown: BTreeMap::new(),
            other: [other(), other()],
            hidden: BTreeMap::new(),
            ended: Vec::new(),
            folded: 0,
        }
    }

    /// Begins a look.
    pub fn begin(&mut self, at: Duration, elapsed: Duration) {
        let factor = (-elapsed.as_secs_f64() / HALF_LIFE.as_secs_f64() * std::f64::consts::LN_2).exp();
        for series in self.shown.values_mut().chain(&mut self.other) {
            series.traffic *= factor;
            series.pending = Pending::default();
        }
        self.hidden.retain(|_, traffic| {
            *traffic *= factor;
            *traffic > 0.01
        });
        self.ended.retain(|(_, _, end)| at.saturating_sub(*end) < ANNOUNCED);
    }

    /// Takes what a subject did in a look that began at `since`.
    pub fn add(&mut self, subject: &Subject, counts: &Counts, pending: &Pending, since: Duration) {
        let traffic = (counts.handshakes() + counts.segments_in + counts.segments_out + counts.response.count()) as f64;
        let room = self.shown.len() < self.limit;
        let is_other = &*subject.path.peer == OTHER;
        let series = if is_other {
            &mut self.other[subject.role as usize]
        } else if let Some(shown) = self.shown.get_mut(subject) {
            shown
        } else if room {
            self.hidden.remove(subject);
            self.shown.entry(subject.clone()).or_insert(Series { since, ..Series::default() })
        } else {
            match self.hidden.get_mut(subject) {
                Some(hidden) => *hidden += traffic,
                None => {
                    self.hidden.insert(subject.clone(), traffic);
                    self.folded += 1;
                }
            }
            &mut self.other[subject.role as usize]
        };
        series.traffic += traffic;
        series.totals.add(counts);
        series.pending.add(pending);
    }

    /// Ends a look: moves the windows on.
    pub fn end(&mut self, elapsed: Duration, of_look: &BTreeMap<Subject, Counts>) {
        for (subject, series) in &mut self.shown {
            series.window.add(of_look.get(subject), elapsed);
        }
        let mut rest = [Counts::default(), Counts::default()];
        for (subject, counts) in of_look {
            if !self.shown.contains_key(subject) {
                rest[subject.role as usize].add(counts);
            }
        }
        for (series, counts) in self.other.iter_mut().zip(&rest) {
            series.window.add(Some(counts), elapsed);
        }
    }

    /// Lets those in trouble, and those with clearly more traffic, take the place of the least busy.
    pub fn rank(&mut self, at: Duration, troubled: &BTreeSet<Subject>) {
        while let Some((newcomer, traffic)) = self.newcomer(troubled) {
            let least = self
                .shown
                .iter()
                .filter(|(subject, _)| !troubled.contains(*subject))
                .min_by(|a, b| a.1.traffic.total_cmp(&b.1.traffic))
                .map(|(subject, series)| (subject.clone(), series.traffic, series.since));
            if self.shown.len() >= self.limit {
                let Some((subject, least, since)) = least else { return };
                if !troubled.contains(&newcomer) && traffic < CLEARLY_MORE * least {
                    return;
                }
                self.shown.remove(&subject);
                self.hidden.insert(subject.clone(), least);
                self.folded += 1;
                self.ended.push((subject, since, at));
            }
            self.hidden.remove(&newcomer);
            self.ended.retain(|(subject, ..)| *subject != newcomer);
            self.shown.insert(newcomer, Series { since: at, traffic, ..Series::default() });
        }
    }

    fn newcomer(&self, troubled: &BTreeSet<Subject>) -> Option<(Subject, f64)> {
        self.hidden
            .iter()
            .max_by(|a, b| troubled.contains(a.0).cmp(&troubled.contains(b.0)).then(a.1.total_cmp(b.1)))
            .map(|(subject, traffic)| (subject.clone(), *traffic))
    }

    /// Published subjects, `~other` last.
    pub fn iter(&self) -> impl Iterator<Item = (Subject, &Series)> {
        let other = [Role::Client, Role::Server].into_iter().zip(&self.other);
        let other = other.filter(|(_, s)| s.traffic > 0.0 || s.totals.handshakes() > 0 || s.totals.segments_in > 0);
        let other =
            other.map(|(role, s)| (Subject { path: Path::other(), service: OTHER.into(), role }, s));
        self.shown.iter().map(|(subject, series)| (subject.clone(), series)).chain(other)
    }

    /// Subjects that were published and no longer are, with the start of their totals: their series end.
    pub fn ended(&self) -> impl Iterator<Item = (&Subject, Duration)> {
        self.ended.iter().map(|(subject, since, _)| (subject, *since))
    }

    /// How often a subject was put into `~other`.
    pub const fn folded(&self) -> u64 {
        self.folded
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subject(i: usize) -> Subject {
        Subject { path: Path { peer: format!("p{i}").into(), address: None }, service: "tcp/1".into(), role: Role::Client }
    }

    fn counts(n: u64) -> Counts {
        Counts { outcomes: [n, 0, 0, 0, 0, 0], ..Counts::default() }
    }

    fn look(set: &mut SeriesSet, at: u64, traffic: &[(usize, u64)]) {
        let (at, elapsed) = (Duration::from_secs(at), Duration::from_secs(1));
        set.begin(at, elapsed);
        for (i, n) in traffic {
            set.add(&subject(*i), &counts(*n), &Pending::default(), at - elapsed);
        }
        set.end(elapsed, &traffic.iter().map(|(i, n)| (subject(*i), counts(*n))).collect());
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
        assert!(set.iter().any(|(s, _)| s == subject(2)), "the busiest is shown");
        assert_eq!(set.iter().count(), 3);
        assert!(set.folded() >= 2);
    }

    #[test]
    fn trouble_goes_first() {
        let mut set = SeriesSet::new(2, Duration::ZERO);
        look(&mut set, 1, &[(0, 1000), (1, 1000), (2, 1)]);
        set.rank(Duration::from_secs(1), &BTreeSet::from([subject(2)]));
        assert!(set.iter().any(|(s, _)| s == subject(2)));
        assert_eq!(set.ended().count(), 1);
    }

    #[test]
    fn equals_do_not_take_turns() {
        let mut set = SeriesSet::new(2, Duration::ZERO);
        for at in 1..100 {
            look(&mut set, at, &[(0, 10), (1, 10), (2, 11), (3, 12)]);
            set.rank(Duration::from_secs(at), &BTreeSet::new());
        }
        assert_eq!(set.ended().count(), 0);
    }
}
