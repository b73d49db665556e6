//! Media activation: of the sessions that could connect, too many do not come to carry media.
//!
//! One trial is one ICE session, whatever candidate pairs it tried. It is good when media flows both ways, or one way with
//! reports the other; bad when its keys are not agreed in time, or when media goes one way and nothing comes back. Sessions
//! whose checks nobody answered are no trial, for anybody can send those, nor are sessions on which nobody sends.

use std::{collections::BTreeMap, time::Duration};

use super::{
    Settings,
    learned::Learning,
    lifecycle::Lifecycle,
    shares::{Shares, Trials},
    verdict::Verdict,
};
use crate::model::{ActivationTick, Blame, ConditionName, DecidedSession, MediaOutcome, MediaStage, Phase};

/// The node's usual share of bad sessions is known after so many.
const LEARNING: Learning = Learning { least: 200, most: 5000, highest_p0: 0.2 };

/// The detector for this node.
#[derive(Clone, Debug, Default)]
pub struct Activation {
    shares: Shares,
    /// Where and by whose doing the bad sessions of the excursion stopped.
    stopped: BTreeMap<(MediaStage, Blame), u64>,
}

impl Activation {
    /// Takes the sessions decided in one look. Returns the phase before, where it changed.
    pub fn look(&mut self, settings: &Settings, at: Duration, tick: &ActivationTick) -> Option<Phase> {
        let mut trials = Trials::default();
        for session in &tick.decided {
            if is_bad(*session) {
                *self.stopped.entry((session.stage, session.blame)).or_default() += 1;
                trials.bad += 1;
            } else {
                trials.good += u64::from(session.outcome == MediaOutcome::Active);
            }
        }
        trials.counted = trials.bad;
        let test = self.shares.test(&LEARNING, settings.activation);
        let changed = self.shares.look(settings, at, &LEARNING, &test, trials);
        if self.shares.is_quiet(changed) {
            self.stopped.clear();
        }
        changed
    }

    /// Its life.
    pub const fn life(&self) -> &Lifecycle {
        self.shares.life()
    }

    /// What it concludes.
    pub fn verdict(&self) -> Verdict {
        let worst = self.stopped.iter().max_by_key(|(_, n)| **n).map(|((stage, blame), _)| (*stage, *blame));
        let (stage, blame) = worst.unwrap_or((MediaStage::Dtls, Blame::Unknown));
        let there: u64 = self.stopped.iter().filter(|((s, _), _)| *s == stage).map(|(_, n)| n).sum();
        let how = match (stage, blame) {
            (MediaStage::Dtls, Blame::LocalProcess) => "this host does not answer the other side's handshake",
            (MediaStage::Dtls, Blame::PathTransmit) => "this host answers and the other side goes on asking",
            (MediaStage::Dtls, _) => "keys are not agreed in time",
            (_, Blame::LocalProcess) => "media comes in and this host sends none",
            _ => "this host sends media and nothing comes back",
        };
        let (n, bad) = self.shares.excursion();
        let text = if n == 0 {
            "sessions become active again".to_owned()
        } else {
            let stage = stage.name();
            format!("{bad} of {n} sessions did not become active, {there} stopped at {stage}: {how}")
        };
        Verdict { name: ConditionName::MediaActivation, blame, n, bad, text }
    }
}

fn is_bad(session: DecidedSession) -> bool {
    match session.outcome {
        MediaOutcome::Failed => session.stage != MediaStage::Stun,
        MediaOutcome::OneWay => true,
        MediaOutcome::Active | MediaOutcome::Idle => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{RngExt, SeedableRng, rngs::StdRng};

    const ACTIVE: DecidedSession =
        DecidedSession { outcome: MediaOutcome::Active, stage: MediaStage::Rtp, blame: Blame::Unknown };
    const STUCK: DecidedSession =
        DecidedSession { outcome: MediaOutcome::Failed, stage: MediaStage::Dtls, blame: Blame::PathTransmit };

    fn run(sessions: impl IntoIterator<Item = DecidedSession>) -> (Vec<Phase>, Activation) {
        let (settings, mut detector) = (Settings::default(), Activation::default());
        let mut phases = Vec::new();
        for (i, session) in sessions.into_iter().enumerate() {
            let tick = ActivationTick { decided: vec![session], ..ActivationTick::default() };
            detector.look(&settings, Duration::from_secs(i as u64), &tick);
            phases.push(detector.life().phase());
        }
        (phases, detector)
    }

    #[test]
    fn the_sixth_that_fails_raises_it_and_names_the_stage() {
        let (phases, detector) = run([ACTIVE; 50].into_iter().chain([STUCK; 6]));
        assert_eq!(phases[54..], [Phase::Cleared, Phase::Raised]);
        let verdict = detector.verdict();
        assert_eq!(verdict.blame, Blame::PathTransmit);
        assert!(
            verdict.text.starts_with("6 of 6 sessions did not become active, 6 stopped at dtls"),
            "{}",
            verdict.text
        );
    }

    #[test]
    fn half_of_them_are_found_within_twenty_sessions_and_it_clears_by_itself() {
        let half = (0..40).map(|i| if i % 2 == 0 { STUCK } else { ACTIVE });
        let (phases, _) = run(half.chain([ACTIVE; 60]));
        assert!(phases[..20].contains(&Phase::Raised));
        assert_eq!(phases.last(), Some(&Phase::Cleared));
    }

    #[test]
    fn what_nobody_answers_and_who_does_not_send_is_no_trial() {
        let unanswered = DecidedSession {
            outcome: MediaOutcome::Failed,
            stage: MediaStage::Stun,
            blame: Blame::LocalProcess,
        };
        let idle =
            DecidedSession { outcome: MediaOutcome::Idle, stage: MediaStage::Rtp, blame: Blame::Unknown };
        let (phases, _) = run([unanswered; 100].into_iter().chain([idle; 100]));
        assert!(phases.iter().all(|phase| *phase == Phase::Cleared));
    }

    /// Two million sessions of which three in a hundred fail, as is normal, in eight runs.
    #[test]
    fn three_in_a_hundred_is_normal() {
        let mut raised = 0;
        for seed in 0..8 {
            let mut rng = StdRng::seed_from_u64(seed);
            let (phases, _) = run((0..250_000).map(|_| if rng.random_bool(0.03) { STUCK } else { ACTIVE }));
            raised += usize::from(phases.contains(&Phase::Raised));
        }
        assert!(raised <= 1, "{raised}");
    }
}
