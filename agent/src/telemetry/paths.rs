//! Values for the part of the catalog about paths and probes.

use super::{
    catalog::{Id, attribute as a},
    points::{Attributes, Known, Point, Value, of_leg, of_path, text},
};
use crate::{
    aggregate::PathProbes,
    model::{
        AddressOutcome, AddressPath, AddressTarget, Direction, Leg, NodeState, Path, PathReport, PathState,
        StampCounts,
    },
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
            Id::NodeState => {
                let point = |state: NodeState| {
                    self.point(
                        vec![(a::STATE, text(state.name()))],
                        Value::Level(i64::from(state == self.node.state)),
                    )
                };
                NodeState::ALL.map(point).into()
            }
            Id::NodeWeight => vec![self.point(Vec::new(), Value::Gauge(f64::from(self.node.weight) / 100.0))],
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

    fn address_durations(&self) -> Vec<Point> {
        self.of_addresses(|target, seen, attributes| {
            let took = if target.tls { &seen.tls } else { &seen.connect };
            vec![(attributes, Value::Distribution(took.distribution.clone()))]
        })
    }

    fn address_counts(&self) -> Vec<Point> {
        self.of_addresses(|_, seen, attributes| {
            let count = |outcome: AddressOutcome| {
                let mut attributes = attributes.clone();
                attributes.push((a::OUTCOME, text(outcome.name())));
                (attributes, Value::Count(seen.counts.of(outcome)))
            };
            AddressOutcome::ALL.map(count).into()
        })
    }

    fn of_addresses(
        &self,
        values: impl Fn(&AddressTarget, &AddressPath, Attributes) -> Vec<(Attributes, Value)>,
    ) -> Vec<Point> {
        let addresses = self.aggregate.addresses();
        let mut points = Vec::new();
        for target in addresses.targets() {
            for seen in &target.paths {
                let path = Path { peer: target.target.as_str().into(), address: Some(seen.address.ip()) };
                let since = addresses.since(target, seen.address);
                let values = values(target, seen, of_kind(&path, target.kind()));
                points.extend(values.into_iter().map(|(attributes, value)| Point {
                    attributes,
                    since,
                    value,
                }));
            }
        }
        points
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
