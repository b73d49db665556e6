//! Values for the media part of the catalog.

use std::sync::Arc;

use super::{
    catalog::{Id, attribute as a},
    points::{Attributes, Known, Lengths, Point, Value, count, distribution, of_leg, of_series, text},
};
use crate::{
    aggregate::Series,
    model::{Condition, Direction, Leg, MediaCounts, MediaOutcome, MediaStage, Phase, RelayCounts, Target},
};

/// How a session can end at a stage.
const fn ended_at(stage: MediaStage) -> &'static [MediaOutcome] {
    match stage {
        MediaStage::Stun | MediaStage::Dtls => &[MediaOutcome::Failed],
        MediaStage::Rtp => &[MediaOutcome::Active, MediaOutcome::OneWay, MediaOutcome::Idle],
    }
}

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
            Id::PathLossRatio => {
                let loss = |(leg, series): (&Leg, &Series<MediaCounts>)| {
                    let mut attributes = of_leg(leg);
                    attributes.push((a::METHOD, text("rtp")));
                    Some(self.point(attributes, Value::Gauge(series.window.counts().loss()?)))
                };
                self.media_legs().filter_map(loss).chain(self.probe_loss()).collect()
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
            Id::ActivationDuration => self.of_stages(|stage| {
                let took = self.aggregate.activation().totals().took[stage as usize].clone();
                vec![(Vec::new(), Value::Distribution(took))]
            }),
            Id::ActivationCount => self.of_stages(|stage| {
                let sessions = self.aggregate.activation().totals().sessions[stage as usize];
                let count = |outcome: MediaOutcome| {
                    (vec![(a::OUTCOME, text(outcome.name()))], Value::Count(sessions[outcome as usize]))
                };
                ended_at(stage).iter().copied().map(count).collect()
            }),
            Id::ActivationPending => self.of_stages(|stage| {
                let pending = self.aggregate.activation().pending()[stage as usize];
                vec![(Vec::new(), Value::Level(pending as i64))]
            }),
            _ => Vec::new(),
        }
    }

    /// Points of the three stages; none before there was a session.
    fn of_stages(&self, values: impl Fn(MediaStage) -> Vec<(Attributes, Value)>) -> Vec<Point> {
        let activation = self.aggregate.activation();
        if activation.is_empty() {
            return Vec::new();
        }
        let of_stage = |stage: MediaStage| {
            values(stage).into_iter().map(move |(more, value)| {
                let mut attributes = vec![(a::STAGE, text(stage.name()))];
                attributes.extend(more);
                Point { attributes, since: activation.since(), value }
            })
        };
        MediaStage::ALL.into_iter().flat_map(of_stage).collect()
    }

    fn of_relays(&self, values: impl Fn(&RelayCounts) -> Vec<(Attributes, Value)>) -> Vec<Point> {
        let relays = self.part().map_or_else(|| self.aggregate.relays().series(), |part| &part.relays);
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
