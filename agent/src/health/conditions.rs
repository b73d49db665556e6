//! The conditions that stand, kept in step with what detectors conclude.

use std::{collections::BTreeMap, time::Duration};

use super::{Settings, lifecycle::Lifecycle, verdict::Verdict};
use crate::model::{
    Blame, Condition, ConditionKey, ConditionName, Evidence, Interval, Phase, Target, Transition,
};

/// Where a condition is in its life, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct Held {
    /// The phase.
    pub phase: Phase,
    /// When it was raised.
    pub since: Duration,
    /// Until when it holds without fresh bad evidence.
    pub valid_until: Duration,
}

impl Held {
    /// As a detector's life says.
    pub fn of(life: &Lifecycle, settings: &Settings) -> Self {
        Self { phase: life.phase(), since: life.since(), valid_until: life.valid_until(settings) }
    }
}

/// At most one for each key.
#[derive(Default)]
pub struct Conditions(BTreeMap<ConditionKey, Condition>);

impl Conditions {
    /// All that stand.
    pub fn iter(&self) -> impl Iterator<Item = &Condition> {
        self.0.values()
    }

    /// One of them.
    pub fn get(&self, name: ConditionName, target: &Target) -> Option<&Condition> {
        self.0.get(&ConditionKey { name, target: target.clone() })
    }

    /// Whether any of this name is raised.
    pub fn is_raised(&self, name: ConditionName) -> bool {
        self.iter().any(|condition| condition.key.name == name && condition.phase == Phase::Raised)
    }

    /// Takes what a detector concludes, at `at`; `late` where this host was. Returns what changed.
    pub fn settle(
        &mut self,
        at: Duration,
        target: Target,
        verdict: Verdict,
        held: Held,
        late: bool,
    ) -> Option<Transition> {
        let key = ConditionKey { name: verdict.name, target };
        let previous = self.0.get(&key);
        let from = previous.map_or(Phase::Cleared, |previous| previous.phase);
        if from == Phase::Cleared && held.phase == Phase::Cleared {
            return None;
        }
        let has_changed = from != held.phase;
        // A blame, once certain, is not lost because the evidence for it ages while the condition stands.
        let blame = match (verdict.blame, previous) {
            (Blame::Unknown, Some(previous)) => previous.blame,
            (blame, _) => blame,
        };
        let low_confidence = late || previous.is_some_and(|p| p.evidence.low_confidence && !has_changed);
        let condition = Condition {
            key: key.clone(),
            phase: held.phase,
            blame,
            evidence: Evidence {
                n: verdict.n,
                bad: verdict.bad,
                interval: Interval::wilson(verdict.bad, verdict.n),
                text: verdict.text,
                low_confidence,
            },
            since: held.since,
            valid_until: held.valid_until,
        };
        let transition =
            has_changed.then(|| Transition { condition: condition.clone(), from, to: held.phase, at });
        if held.phase == Phase::Cleared {
            self.0.remove(&key);
        } else {
            self.0.insert(key, condition);
        }
        transition
    }
}
