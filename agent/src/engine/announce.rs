//! What changed, as it is told.

use std::{collections::BTreeMap, time::Duration};

use super::{Announcement, Inner, News, pods};
use crate::{
    aggregate::PathProbes,
    health::Change,
    model::{
        Condition, NodeTransition, Path, PathState, PathTransition, Phase, Transition,
        status::{ConditionStatus, Message, Stamp},
    },
};

impl Inner {
    /// What looks between the ticks found.
    pub(super) fn announce_quick(&mut self, at: Duration, transitions: Vec<Transition>) -> Vec<Announcement> {
        if !transitions.is_empty() {
            let ended = |t: &Transition| (t.to == Phase::Cleared).then(|| t.condition.clone());
            let ended: Vec<Condition> = transitions.iter().filter_map(ended).collect();
            self.remember_cleared(at, &ended);
        }
        self.announce(transitions)
    }

    /// Tells of conditions first: they are why states change.
    pub(super) fn announce(&mut self, transitions: Vec<Transition>) -> Vec<Announcement> {
        let mut told: Vec<Announcement> =
            transitions.into_iter().map(|transition| self.announce_condition(transition)).collect();
        let changes: Vec<Change> = self.judge.take_changes().into_iter().filter(is_told).collect();
        if changes.is_empty() {
            return told;
        }
        // Once for all: where many paths go down together there is no time to put the probes together for each.
        let probes = self.aggregator.probes().by_path();
        let messages: Vec<Message> = (self.sequence + 1..)
            .zip(&changes)
            .map(|(sequence, change)| self.of_change(change, sequence, &probes))
            .collect();
        drop(probes);
        self.sequence += messages.len() as u64;
        let news = messages.into_iter().zip(changes);
        told.extend(news.map(|(message, change)| Announcement {
            message,
            news: News::State(change),
            pod: None,
        }));
        told
    }

    fn of_change(&self, change: &Change, sequence: u64, probes: &BTreeMap<&Path, PathProbes>) -> Message {
        let stamp = |at: Duration| Stamp { sequence, ..self.stamp(at) };
        match change {
            Change::Path(PathTransition { from, path, at }) => Message::Path {
                stamp: stamp(*at),
                from: from.name().into(),
                to: path.state.name().into(),
                path: self.path(path, probes, *at),
            },
            Change::Node(NodeTransition { from, node, at }) => Message::Node {
                stamp: stamp(*at),
                from: from.name().into(),
                to: node.state.name().into(),
                health: self.node_status(node, *at),
            },
        }
    }

    fn announce_condition(&mut self, transition: Transition) -> Announcement {
        self.sequence += 1;
        let pod = self.pod_of(&transition.condition, transition.to);
        let condition = self.condition(&transition.condition, transition.to, transition.at);
        let message = Message::Transition {
            stamp: self.stamp(transition.at),
            from: transition.from.name().into(),
            to: transition.to.name().into(),
            // One that is cleared is no longer known to be a pod's.
            condition: ConditionStatus { pod: pod.as_deref().map(pods::status), ..condition },
        };
        Announcement { message, news: News::Condition(transition), pod }
    }
}

/// Clients come and go: their paths fall idle and are healthy again all the time, which is nobody's news.
fn is_told(change: &Change) -> bool {
    let is_trouble = |state| matches!(state, PathState::Degraded | PathState::Down | PathState::Recovering);
    match change {
        Change::Path(change) => {
            change.path.probed || is_trouble(change.from) || is_trouble(change.path.state)
        }
        Change::Node(_) => true,
    }
}
