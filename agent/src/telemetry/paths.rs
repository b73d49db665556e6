//! Values for the part of the catalog about paths and probes.

use super::{
    PathPoint,
    catalog::{Id, attribute as a},
    points::{Attributes, Known, Point, Value, distribution, of_leg, of_path, text},
};
use crate::{
    aggregate::PathProbes,
    model::{Direction, Leg, Path, PathState, StampCounts},
};

const DIRECTIONS: [Direction; 2] = [Direction::Receive, Direction::Transmit];

impl Known<'_> {
    /// The points of one metric of paths or probes.
    pub(super) fn paths(&self, id: Id) -> Vec<Point> {
        match id {
            Id::PathEvidenceAge => {
                let age = |path: &PathPoint| {
                    Some(self.point(of_leg(&path.leg), Value::Gauge(path.age?.as_secs_f64())))
                };
                self.paths.iter().filter_map(age).collect()
            }
            Id::PathState => {
                let states = |path: &PathPoint| {
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
            Id::ProbeDuration => self.of_probes(|path, probes| {
                let with_kind = |(_, value)| {
                    let mut attributes = of_path(path);
                    attributes.push((a::KIND, text("stamp")));
                    (attributes, value)
                };
                distribution(&probes.totals.round_trip).into_iter().map(with_kind).collect()
            }),
            _ => Vec::new(),
        }
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
            DIRECTIONS.into_iter().filter_map(loss).collect()
        })
    }

    fn of_ways(&self, count: impl Fn(&StampCounts) -> u64) -> Vec<Point> {
        self.of_probes(|path, probes| {
            let point = |direction: Direction| {
                let leg = Leg { path: path.clone(), direction };
                (of_leg(&leg), Value::Count(count(&probes.totals.counts[direction as usize])))
            };
            DIRECTIONS.map(point).into()
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
