//! Values for the part of the catalog about paths and probes.

use super::{
    catalog::{Id, attribute as a},
    points::{Attributes, Known, Point, Value, of_leg, of_path, text},
};
use crate::{
    aggregate::{AddressTotals, PathProbes},
    model::{AddressOutcome, Direction, Leg, Path, PathReport, PathState, StampCounts},
};

impl Known<'_> {
    /// The points of one metric of paths or probes.
    pub(super) fn paths(&self, id: Id) -> Vec<Point> {
        match id {
            Id::PathEvidenceAge => {
                let age = |path: &PathReport| {
                    Some(self.point(
                        of_leg(&path.leg),
                        Value::Gauge(self.now.saturating_sub(path.proven?).as_secs_f64()),
                    ))
                };
                self.paths.iter().filter_map(age).collect()
            }
            Id::PathState => {
                let states = |path: &PathReport| {
                    PathState::ALL.map(|state| {
                        let mut attributes = of_leg(&path.leg);
                        attributes.push((a::STATE, text(state.name())));
                        self.point(attributes, Value::Level(i64::from(state == path.state)))
                    })
                };
                self.paths.iter().flat_map(states).collect()
            }
            Id::ProbePacketSent => self.of_ways(|counts| counts.sent),
            Id::ProbePacketLost => self.of_ways(|counts| counts.lost),
            Id::ProbePacketDuplicated => self.of_ways(|counts| counts.duplicated),
            Id::ProbeAuthMismatch => self.of_probes(|path, probes| {
                let leg = Leg { path: path.clone(), direction: Direction::Receive };
                vec![(of_leg(&leg), Value::Count(probes.totals.mismatched))]
            }),
            Id::ProbeDuration => {
                let of_stamp = self.of_probes(|path, probes| {
                    let value = Value::Distribution(probes.totals.round_trip.clone());
                    vec![(of_kind(path, "stamp"), value)]
                });
                of_stamp.into_iter().chain(self.address_durations()).collect()
            }
            Id::ProbeCount => self.address_counts(),
            _ => Vec::new(),
        }
    }

    fn address_durations(&self) -> impl Iterator<Item = Point> {
        self.aggregate.addresses().iter().map(|known| {
            let took = if known.tls { &known.seen.tls } else { &known.seen.connect };
            let value = Value::Distribution(took.distribution.clone());
            Point { attributes: of_kind(&known.path, kind(known.tls)), since: known.since, value }
        })
    }

    fn address_counts(&self) -> Vec<Point> {
        let points = |known: &AddressTotals| {
            let (path, tls, since) = (known.path.clone(), known.tls, known.since);
            let counts = known.seen.counts;
            AddressOutcome::ALL.into_iter().map(move |outcome| {
                let mut attributes = of_kind(&path, kind(tls));
                attributes.push((a::OUTCOME, text(outcome.name())));
                Point { attributes, since, value: Value::Count(counts.of(outcome)) }
            })
        };
        self.aggregate.addresses().iter().flat_map(points).collect()
    }

    /// Share of the probes that was lost, by direction.
    pub(super) fn probe_loss(&self) -> Vec<Point> {
        self.of_probes(|path, probes| {
            let loss = |direction: Direction| {
                let (arrived, lost) = probes.recent[direction as usize];
                let mut attributes = of_leg(&Leg { path: path.clone(), direction });
                attributes.push((a::METHOD, text("stamp")));
                (arrived + lost >= 1.0).then(|| (attributes, Value::Gauge(lost / (arrived + lost))))
            };
            Direction::BOTH.into_iter().filter_map(loss).collect()
        })
    }

    fn of_ways(&self, count: impl Fn(&StampCounts) -> u64) -> Vec<Point> {
        self.of_probes(|path, probes| {
            let point = |direction: Direction| {
                let leg = Leg { path: path.clone(), direction };
                (of_leg(&leg), Value::Count(count(&probes.totals.counts[direction as usize])))
            };
            Direction::BOTH.map(point).into()
        })
    }

    /// Points of every path that has probes, all sessions of each together.
    fn of_probes(&self, values: impl Fn(&Path, &PathProbes) -> Vec<(Attributes, Value)>) -> Vec<Point> {
        let point = |(path, probes): (&Path, PathProbes)| {
            let since = probes.since;
            let values = values(path, &probes).into_iter();
            values.map(move |(attributes, value)| Point { attributes, since, value })
        };
        self.aggregate.probes().by_path().into_iter().flat_map(point).collect()
    }
}

fn of_kind(path: &Path, kind: &str) -> Attributes {
    let mut attributes = of_path(path);
    attributes.push((a::KIND, text(kind)));
    attributes
}

const fn kind(tls: bool) -> &'static str {
    if tls { "tls" } else { "tcp" }
}
