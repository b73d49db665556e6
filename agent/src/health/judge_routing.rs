//! The judge's part about routing: whether traffic left what is down, and whether a controller still avoids what is well.

use std::{collections::BTreeMap, time::Duration};

use super::{Judge, conditions::Held, routing::Standing, verdict::Verdict};
use crate::model::{Blame, ConditionName, Direction, Leg, Target, Tick, Transition};

impl Judge {
    /// Takes what a controller avoids, all of it, until `until`; nothing is avoided after that.
    pub fn avoid(&mut self, at: Duration, legs: Vec<Leg>, until: Duration) {
        self.routing.avoid(at, legs, until);
    }

    /// Whether a direction is avoided though it is well.
    pub fn is_stuck(&self, leg: &Leg) -> bool {
        self.routing.is_stuck(leg)
    }

    pub(super) fn observe_routing(&mut self, tick: &Tick, late: bool, transitions: &mut Vec<Transition>) {
        let at = tick.at;
        let sent: BTreeMap<&Leg, u64> = tick
            .media
            .iter()
            .filter(|seen| seen.leg.direction == Direction::Transmit)
            .map(|seen| (&seen.leg, seen.counts.packets))
            .collect();
        let standing =
            |leg: &Leg| -> Standing { self.paths.life(leg).map(|life| (life.state(), life.since())) };
        let legs =
            self.paths.legs().map(|facts| facts.leg).filter(|leg| leg.direction == Direction::Transmit);
        let legs = legs.map(|leg| (leg, standing(leg), sent.get(leg).copied().unwrap_or(0)));
        self.routing.sent(&self.settings, at, legs);
        self.routing.look_at_avoided(&self.settings, at, standing);
        for (leg, into) in self.routing.downs() {
            let down_for = into.down_for.as_secs_f64();
            let text = format!(
                "{} packets of media sent into a path that has been down for {down_for:.1}s",
                into.packets
            );
            let (n, bad) = (into.packets, into.packets);
            let verdict = Verdict { name: ConditionName::NotRerouted, blame: Blame::LocalHost, n, bad, text };
            let held = Held::of(&into.life, &self.settings);
            transitions.extend(self.conditions.settle(at, Target::Leg(leg.clone()), verdict, held, late));
        }
        for (leg, avoided) in self.routing.avoided() {
            let well_for = avoided.well_for.as_secs_f64();
            let n = avoided.well_for.as_secs();
            let text = format!("avoided by a controller, and healthy for {well_for:.0}s meanwhile");
            let verdict = Verdict { name: ConditionName::StuckAvoid, blame: Blame::Unknown, n, bad: n, text };
            let held = Held::of(&avoided.life, &self.settings);
            transitions.extend(self.conditions.settle(at, Target::Leg(leg.clone()), verdict, held, late));
        }
        self.routing.forget(&self.settings, at);
    }
}
