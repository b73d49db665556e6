//! The judge's part about connections on which somebody should have spoken by now.

use std::collections::BTreeMap;

use super::{
    Judge,
    blame::{SilenceFacts, blame_silence},
    conditions::Held,
    verdict::Verdict,
};
use crate::model::{ConditionName, Direction, Leg, Phase, Target, Tick, Transition};

impl Judge {
    pub(super) fn observe_silences(&mut self, tick: &Tick, late: bool, transitions: &mut Vec<Transition>) {
        let Some(spoken) = &tick.spoken else { return };
        let mut connections_of = BTreeMap::new();
        for seen in spoken {
            self.silences.entry(seen.subject.clone()).or_default();
            connections_of.insert(&seen.subject, seen.connections.as_slice());
        }
        for (subject, silence) in &mut self.silences {
            let connections = connections_of.get(subject).copied().unwrap_or_default();
            silence.look(&self.settings, tick.at, tick.late, connections);
        }
        let judged = self.silences.values().filter(|silence| silence.evidence().0 > 0).count();
        let silent = self.silences.values().filter(|silence| silence.life().phase() == Phase::Raised).count();
        let mut verdicts = Vec::new();
        for (subject, silence) in &self.silences {
            let (all, bad, arriving) = silence.evidence();
            let (least, bound) = silence.silence();
            let leg = Leg { path: subject.path.clone(), direction: Direction::Receive };
            let down = self.conditions.get(ConditionName::PathDown, &Target::Leg(leg));
            let blame = blame_silence(&SilenceFacts {
                host_drops: self.conditions.is_raised(ConditionName::HostDrops),
                silent,
                judged,
                path_is_down: down.is_some_and(|condition| condition.phase == Phase::Raised),
                arriving,
            });
            let text = format!(
                "{bad} of {all} connections silent for {:.0}s or more, where {:.0}s would be long; segments still come at {arriving}",
                least.as_secs_f64(),
                bound.as_secs_f64()
            );
            let verdict = Verdict { name: ConditionName::ReceiveSilence, blame, n: all, bad, text };
            verdicts.push((subject.clone(), verdict, *silence.life()));
        }
        for (subject, verdict, life) in verdicts {
            let held = Held::of(&life, &self.settings);
            let target = Target::Subject(subject);
            transitions.extend(self.conditions.settle(tick.at, target, verdict, held, late));
        }
        self.silences.retain(|_, silence| !silence.is_idle(&self.settings, tick.at));
    }
}
