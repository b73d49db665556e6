//! Values for the media part of the catalog.

use std::sync::Arc;

use super::{
    catalog::{Id, attribute as a},
    points::{Attributes, Known, Lengths, Point, Value, count, distribution, of_leg, of_series, text},
};
use crate::{
    aggregate::Series,
    model::{Condition, Direction, Leg, MediaCounts, Phase, RelayCounts, Target},
};

#[allow(clippy::ptr_arg)] // a key of its series
fn of_process(name: &Arc<str>) -> Attributes {
    vec![(a::PROCESS, text(name))]
}

impl Known<'_> {
    /// The points of one metric of media.
    pub(super) fn media(&self, id: Id) -> Vec<Point> {
        match id {
            Id::RtpPacketCount => self.of_legs(|c| count(c.packets)),
            Id::RtpPacketLost => self.of_legs(|c| count(c.lost)),
            Id::RtpPacketReordered => self.of_legs(|c| count(c.reordered)),
            Id::RtpPacketDuplicated => self.of_legs(|c| count(c.duplicated)),
            Id::RtpLossBurst => self.of_legs(|c| {
                let lengths = Lengths { sum: c.lost, counts: c.bursts.to_vec() };
                vec![(Vec::new(), Value::Lengths(lengths))]
            }),
            Id::RtpJitter => self.of_legs(|c| distribution(&c.jitter)),
            Id::PathEvidenceAge => {
                let last = self.aggregate.media().last();
                let age = |(leg, _)| {
                    let age = self.now.saturating_sub(last.get(leg)?.0?);
                    Some(self.point(of_leg(leg), Value::Gauge(age.as_secs_f64())))
                };
                self.media_legs().filter_map(age).collect()
            }
            Id::PathLossRatio => {
                let loss = |(leg, series): (&Leg, &Series<MediaCounts>)| {
                    let mut attributes = of_leg(leg);
                    attributes.push((a::METHOD, text("rtp")));
                    Some(self.point(attributes, Value::Gauge(series.window.counts().loss()?)))
                };
                self.media_legs().filter_map(loss).collect()
            }
            Id::RelayPacketCount => self.of_relays(|c| {
                [(Direction::Receive, c.received), (Direction::Transmit, c.sent)]
                    .map(|(direction, n)| (vec![(a::DIRECTION, text(direction.name()))], Value::Count(n)))
                    .into()
            }),
            Id::RelayStalled => {
                let stalled = |name: &Arc<str>| {
                    let is = |c: &&&Condition| {
                        c.phase == Phase::Raised
                            && matches!(&c.key.target, Target::Process(p) if p.name == *name)
                    };
                    self.conditions.iter().filter(is).count()
                };
                let point = |(name, _)| self.point(of_process(name), Value::Level(stalled(name) as i64));
                self.aggregate.relays().series().iter().map(point).collect()
            }
            _ => Vec::new(),
        }
    }

    fn of_relays(&self, values: impl Fn(&RelayCounts) -> Vec<(Attributes, Value)>) -> Vec<Point> {
        let relays = self.aggregate.relays().series();
        of_series(relays.iter(), relays.ended(), of_process, values)
    }

    fn of_legs(&self, values: impl Fn(&MediaCounts) -> Vec<(Attributes, Value)>) -> Vec<Point> {
        of_series(self.media_legs(), self.aggregate.media().series().ended(), of_leg, values)
    }

    /// Legs that have carried media; other UDP is counted and not published.
    fn media_legs(&self) -> impl Iterator<Item = (&Leg, &Series<MediaCounts>)> {
        self.aggregate.media().series().iter().filter(|(_, series)| series.totals.packets > 0)
    }
}
