//! A status as the rest of the room may use it: every text in it is safe to draw.

use std::ops::Deref;

use super::text::clean;
use crate::model::status::{ConditionStatus, Status, SubjectStatus};

/// A cleaned [`Status`]. There is no other way to one than through [`Snapshot::new`], so nothing unsafe gets drawn.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot(Status);

impl Snapshot {
    /// Takes everything out of the texts that a terminal might act upon.
    pub fn new(mut status: Status) -> Self {
        tidy([&mut status.node, &mut status.version, &mut status.kernel]);
        status.conditions.iter_mut().for_each(condition);
        status.subjects.iter_mut().for_each(subject);
        for leg in &mut status.media {
            tidy([&mut leg.peer, &mut leg.direction]);
            tidy(&mut leg.address);
        }
        for stage in &mut status.activation {
            tidy([&mut stage.stage]);
        }
        for relay in &mut status.relays {
            tidy([&mut relay.process]);
        }
        for drop in &mut status.drops {
            tidy([&mut drop.reason, &mut drop.side, &mut drop.direction, &mut drop.transport]);
        }
        for signal in &mut status.signals {
            tidy([&mut signal.name]);
            tidy(&mut signal.reason);
        }
        for map in &mut status.maps {
            tidy([&mut map.name]);
        }
        tidy(&mut status.agent.export_to);
        tidy(&mut status.agent.export_error);
        Self(status)
    }
}

impl Deref for Snapshot {
    type Target = Status;

    fn deref(&self) -> &Status {
        &self.0
    }
}

fn condition(condition: &mut ConditionStatus) {
    tidy([
        &mut condition.name,
        &mut condition.phase,
        &mut condition.blame,
        &mut condition.confidence,
        &mut condition.evidence.text,
    ]);
    let target = &mut condition.target;
    tidy(&mut target.peer);
    tidy(&mut target.address);
    tidy(&mut target.service);
    tidy(&mut target.role);
    tidy(&mut target.process);
    tidy(&mut target.reason);
    tidy(&mut target.direction);
}

fn subject(subject: &mut SubjectStatus) {
    tidy([&mut subject.peer, &mut subject.service, &mut subject.role, &mut subject.standing]);
    tidy(&mut subject.address);
}

fn tidy<'a>(texts: impl IntoIterator<Item = &'a mut String>) {
    for text in texts {
        *text = clean(text);
    }
}
