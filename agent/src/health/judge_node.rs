//! The judge's part about this node as a whole: which conditions say that its users are not served.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use super::{
    Judge,
    node::{Culprit, Seen},
};
use crate::model::{
    Blame, Condition, ConditionName, MediaOutcome, MediaStage, NodeReport, NodeTransition, Outcome, Path,
    Phase, Role, Served, Target, Tick,
};

impl Judge {
    /// How this node stands at `at`.
    pub fn node(&self, at: Duration) -> NodeReport {
        self.node.report(&self.settings, at)
    }

    /// Takes what happened to users since the last tick.
    pub(super) fn count_for_node(&mut self, tick: &Tick) {
        let mut seen = Seen::default();
        for subject in tick.subjects.iter().filter(|seen| seen.subject.role == Role::Server) {
            let (counts, bound) = (&subject.counts, self.settings.first_byte_bound);
            add(&mut seen.checks, counts.outcome(Outcome::Established), counts.handshakes());
            if self.declared.get(&subject.subject.service).is_some_and(|declared| declared.is_asking) {
                continue;
            }
            let slow = counts.first_byte.at_least(bound);
            let given_up = counts.first_byte_failed.at_least(bound / 2);
            let good = counts.first_byte.count() - slow;
            add(&mut seen.served[Served::Answers as usize], good, good + slow + given_up);
            seen.waiting += subject.pending.first_byte.at_least(bound);
        }
        for session in &tick.activation.decided {
            let is_checked = session.outcome != MediaOutcome::Failed || session.stage != MediaStage::Stun;
            // Checks that nobody answered may be a stranger's.
            add(&mut seen.checks, u64::from(is_checked), u64::from(is_checked));
            if is_checked && session.outcome != MediaOutcome::Idle {
                let is_active = session.outcome == MediaOutcome::Active;
                add(&mut seen.served[Served::Sessions as usize], u64::from(is_active), 1);
            }
        }
        let (active, stalled) = self.relays.active(tick.at);
        add(&mut seen.served[Served::Relays as usize], active - stalled, active);
        self.node.count(tick.at, &seen);
    }

    /// Looks at the conditions that stand now.
    pub(super) fn look_at_node(&mut self, at: Duration) {
        let serving = self.of_users(at);
        let culprit = |condition: &&Condition| {
            let evidence = &condition.evidence;
            // Where this host was late, it may have missed what went well.
            (condition.phase == Phase::Raised && !evidence.low_confidence).then(|| Culprit {
                text: format!(
                    "{} of {}: {}; blame {}",
                    condition.key.name.name(),
                    condition.key.target,
                    evidence.text,
                    condition.blame.name()
                ),
                valid_until: condition.valid_until,
            })
        };
        let culprits: Vec<Culprit> = serving.iter().filter_map(culprit).collect();
        let recovering = serving.iter().any(|condition| condition.phase == Phase::Recovering);
        if let Some(from) = self.node.look(&self.settings, at, &culprits, recovering) {
            let node = self.node(at);
            self.changes.push(super::Change::Node(NodeTransition { from, node, at }));
        }
    }

    /// Conditions that say that users of this node, and not only those of one path, are not served by it.
    fn of_users(&self, at: Duration) -> Vec<&Condition> {
        // There may be one for each of very many paths: the services are few.
        let mut services: BTreeMap<(ConditionName, &Arc<str>), bool> = BTreeMap::new();
        let mut of_users = Vec::new();
        for condition in self.conditions.iter() {
            let local = matches!(condition.blame, Blame::LocalHost | Blame::LocalProcess);
            let is_of_users = match (condition.key.name, &condition.key.target) {
                (ConditionName::MediaActivation | ConditionName::RelayStall, _) => true,
                (
                    name @ (ConditionName::FirstByteStall | ConditionName::HandshakeStall),
                    Target::Subject(of),
                ) if of.role == Role::Server && local => {
                    let known = services.entry((name, &of.service));
                    *known.or_insert_with(|| self.is_of_most_paths(name, &of.service, at))
                }
                _ => false,
            };
            if is_of_users {
                of_users.push(condition);
            }
        }
        of_users
    }

    /// Whether the condition stands for at least half of the paths that lately used a service of this node.
    fn is_of_most_paths(&self, name: ConditionName, service: &Arc<str>, at: Duration) -> bool {
        let standing: BTreeSet<&Path> = self
            .conditions
            .iter()
            .filter(|condition| condition.key.name == name)
            .filter_map(|condition| match &condition.key.target {
                Target::Subject(of) if of.role == Role::Server && of.service == *service => Some(&of.path),
                _ => None,
            })
            .collect();
        self.paths_of_service(service, at).difference(&standing).count() <= standing.len()
    }
}

fn add(sum: &mut (u64, u64), good: u64, n: u64) {
    *sum = (sum.0 + good, sum.1 + n);
}
