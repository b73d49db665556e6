//! ICE sessions, each decided once.

use std::{collections::HashMap, time::Duration};

use graylag_ebpf::session::SessionRecord;

use serde::{Deserialize, Serialize};

use super::{
    Tally,
    standing::{Standing, standing, took},
    window::Window,
};
use crate::model::{ActivationCounts, ActivationTick, DecidedSession, MediaStage};

/// Sessions that are first seen this soon after the start may be older than the agent, which saw nothing of how they came about.
const STARTING: Duration = Duration::from_secs(20);

impl Tally for ActivationCounts {
    fn add(&mut self, other: &Self) {
        Self::add(self, other);
    }

    fn traffic(&self) -> f64 {
        self.sessions.iter().flatten().sum::<u64>() as f64
    }

    fn shown(&self) -> f64 {
        self.traffic()
    }
}

/// Sessions and what became of them.
#[derive(Serialize, Deserialize)]
pub struct Activation {
    since: Duration,
    began: Option<u64>,
    /// Those that are decided and still shown by the kernel, with the look that saw them last.
    decided: HashMap<u64, u64>,
    looks: u64,
    totals: ActivationCounts,
    #[serde(skip)]
    window: Window<ActivationCounts>,
    #[serde(skip)]
    pending: [u64; MediaStage::ALL.len()],
}

impl Activation {
    /// Totals begin at `since`.
    pub fn new(since: Duration) -> Self {
        Self {
            since,
            began: None,
            decided: HashMap::new(),
            looks: 0,
            totals: ActivationCounts::default(),
            window: Window::default(),
            pending: [0; MediaStage::ALL.len()],
        }
    }

    /// When the totals began.
    pub const fn since(&self) -> Duration {
        self.since
    }

    /// All sessions since then.
    pub const fn totals(&self) -> &ActivationCounts {
        &self.totals
    }

    /// The last five to ten seconds.
    pub const fn window(&self) -> &Window<ActivationCounts> {
        &self.window
    }

    /// Sessions under way, by [`MediaStage`].
    pub const fn pending(&self) -> [u64; MediaStage::ALL.len()] {
        self.pending
    }

    /// Whether there never was a session.
    pub fn is_empty(&self) -> bool {
        self.totals.traffic() == 0.0 && self.pending.iter().all(|n| *n == 0)
    }

    /// Takes the sessions of a look at `at_ns` that came `late`, `elapsed` after the last.
    pub fn absorb(
        &mut self,
        seen: &[SessionRecord],
        at_ns: u64,
        elapsed: Duration,
        late: Duration,
    ) -> ActivationTick {
        let began = *self.began.get_or_insert(at_ns);
        self.looks += 1;
        let (mut tick, mut counts) = (ActivationTick::default(), ActivationCounts::default());
        for record in seen {
            if let Some(last) = self.decided.get_mut(&record.key) {
                *last = self.looks;
                continue;
            }
            if record.session.began_ns < began + STARTING.as_nanos() as u64 {
                self.decided.insert(record.key, self.looks);
                continue;
            }
            match standing(&record.session, at_ns, late) {
                Standing::Pending(stage) => tick.pending[stage as usize] += 1,
                Standing::Decided { outcome, stage, blame } => {
                    counts.sessions[stage as usize][outcome as usize] += 1;
                    for stage in MediaStage::ALL {
                        if let Some(duration) = took(&record.session, stage) {
                            counts.took[stage as usize].record(duration);
                        }
                    }
                    tick.decided.push(DecidedSession { outcome, stage, blame });
                    self.decided.insert(record.key, self.looks);
                }
            }
        }
        let looks = self.looks;
        self.decided.retain(|_, last| *last == looks);
        self.totals.add(&counts);
        self.window.add(Some(&counts), elapsed);
        self.pending = tick.pending;
        tick
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Direction, MediaOutcome};
    use graylag_ebpf::{
        flow::moment,
        session::{Milestone, Session},
    };

    const SECOND: u64 = 1_000_000_000;
    const LOOK: Duration = Duration::from_millis(500);

    fn checked(key: u64, began_ns: u64) -> SessionRecord {
        let mut session = Session { began_ns, ..Session::default() };
        session.note(Milestone::Check, Direction::Receive, moment(began_ns));
        session.note(Milestone::Answer, Direction::Transmit, moment(began_ns));
        SessionRecord { key, session }
    }

    #[test]
    fn a_session_is_decided_once() {
        let mut activation = Activation::new(Duration::ZERO);
        activation.absorb(&[], 100 * SECOND, LOOK, Duration::ZERO);
        let session = checked(1, 130 * SECOND);
        let tick = activation.absorb(&[session], 130 * SECOND + SECOND / 2, LOOK, Duration::ZERO);
        assert_eq!((tick.decided.len(), tick.pending), (0, [0, 1, 0]));
        let tick = activation.absorb(&[session], 132 * SECOND, LOOK, Duration::ZERO);
        assert_eq!((tick.decided.len(), tick.pending), (1, [0, 0, 0]));
        let tick = activation.absorb(&[session], 133 * SECOND, LOOK, Duration::ZERO);
        assert_eq!(tick.decided.len(), 0);
        let failed = activation.totals().sessions[MediaStage::Dtls as usize][MediaOutcome::Failed as usize];
        assert_eq!(failed, 1);
    }

    #[test]
    fn sessions_that_may_be_older_than_the_agent_say_nothing() {
        let mut activation = Activation::new(Duration::ZERO);
        activation.absorb(&[], 100 * SECOND, LOOK, Duration::ZERO);
        for second in 110..140 {
            let tick = activation.absorb(&[checked(1, 110 * SECOND)], second * SECOND, LOOK, Duration::ZERO);
            assert!(tick.decided.is_empty());
        }
    }
}
