//! Stalls: handshakes and first bytes that do not come, one trial per attempt, counted while they hang.

use std::time::Duration;

use super::{
    Bernoulli, Settings,
    learned::Learning,
    lifecycle::Lifecycle,
    shares::{Shares, Trials},
};
use crate::model::{Ages, Distribution, Interval, Phase};

/// A raised condition's evidence is kept to about this many trials, so that it tells of now and not of yesterday.
const EVIDENCE: u64 = 2000;
/// A subject's usual share of stalls is known after so many trials.
const LEARNING: Learning = Learning { least: 400, most: 20_000, highest_p0: 0.2 };

/// What one look says about one kind of stall.
#[derive(Clone, Copy, Debug)]
pub struct Sample<'a> {
    /// Completed in this look.
    pub completed: &'a Distribution,
    /// Ended otherwise in this look.
    pub failed: &'a Distribution,
    /// Pending now.
    pub pending: &'a Ages,
    /// Hangs from this age on.
    pub bound: Duration,
}

/// The detector for one subject and kind.
#[derive(Clone, Debug, Default)]
pub struct Stall {
    shares: Shares,
    /// Stalls pending at the last look.
    pending: u64,
    recent: (u64, u64),
}

impl Stall {
    /// Takes one look. Trials count only where `judged`. Returns the phase before, where it changed.
    ///
    /// An attempt is a stall from the moment it is older than the bound, and once: stalls that ended and the growth of
    /// those that are pending are added up, so that one which ends only moves. What ends earlier without completing counts from half the bound on
    /// (callers give up at round numbers, just before it); an answer that is a refusal comes quickly and is no trial.
    pub fn look(
        &mut self,
        settings: &Settings,
        at: Duration,
        sample: Sample<'_>,
        judged: bool,
    ) -> Option<Phase> {
        let slow = sample.completed.at_least(sample.bound);
        let given_up = sample.failed.at_least(sample.bound / 2);
        let pending = sample.pending.at_least(sample.bound);
        let bad = (slow + given_up + pending).saturating_sub(self.pending);
        self.pending = pending;
        let good = sample.completed.count() - slow;

        let test = self.test(settings);
        if !judged {
            self.shares.learn(&LEARNING, (good + bad, bad));
            return None;
        }
        let trials = Trials { good, bad, counted: bad };
        let changed = self.shares.look(settings, at, &LEARNING, &test, trials);
        self.recent = (self.recent.0 + good + bad, self.recent.1 + bad);
        if self.recent.0 > EVIDENCE {
            self.recent = (self.recent.0 / 2, self.recent.1 / 2);
        }
        if changed.is_some() && self.shares.life().phase() == Phase::Raised {
            self.recent = self.shares.excursion();
        }
        changed
    }

    /// The test with the learned share of this subject, frozen while its condition stands.
    fn test(&self, settings: &Settings) -> Bernoulli {
        self.shares.test(&LEARNING, settings.stall)
    }

    /// `(trials, stalls)` of the excursion that raised it and since, or of the recent past.
    pub const fn evidence(&self) -> (u64, u64) {
        self.recent
    }

    /// Whether the recent past suffices to say that the share is normal.
    pub fn sufficient(&self, settings: &Settings) -> bool {
        let (n, bad) = self.recent;
        let interval = Interval::wilson(bad, n);
        let test = self.test(settings);
        interval.high < test.p1 || interval.low > test.p1
    }

    /// Its life.
    pub const fn life(&self) -> &Lifecycle {
        self.shares.life()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(milliseconds: &[u64]) -> Distribution {
        let mut d = Distribution::default();
        for ms in milliseconds {
            d.record(Duration::from_millis(*ms));
        }
        d
    }

    fn look(stall: &mut Stall, at: u64, completed: &[u64], failed: &[u64], pending: &[u64]) -> Option<Phase> {
        let (completed, failed) = (of(completed), of(failed));
        let mut ages = Ages::default();
        for ms in pending {
            ages.push(Duration::from_millis(*ms));
        }
        let sample =
            Sample { completed: &completed, failed: &failed, pending: &ages, bound: Duration::from_secs(1) };
        stall.look(&Settings::default(), Duration::from_millis(at), sample, true)
    }

    #[test]
    fn an_attempt_that_hangs_and_then_ends_counts_once() {
        let mut stall = Stall::default();
        look(&mut stall, 0, &[], &[], &[900]);
        assert_eq!(stall.evidence(), (0, 0));
        look(&mut stall, 500, &[], &[], &[1400]);
        look(&mut stall, 1000, &[], &[], &[1900]);
        assert_eq!(stall.evidence(), (1, 1));
        look(&mut stall, 1500, &[2400], &[], &[]);
        assert_eq!(stall.evidence(), (1, 1), "it completed late: the same stall");
        look(&mut stall, 2000, &[], &[], &[1400]);
        assert_eq!(stall.evidence(), (2, 2), "the next one is new");
        look(&mut stall, 2500, &[], &[1900], &[]);
        assert_eq!(stall.evidence(), (2, 2));
    }

    #[test]
    fn a_caller_that_gives_up_just_before_the_bound_counts_a_quick_refusal_does_not() {
        let mut stall = Stall::default();
        look(&mut stall, 0, &[], &[999, 2], &[]);
        assert_eq!(stall.evidence(), (1, 1));
    }

    #[test]
    fn all_hanging_is_found_with_the_seventh() {
        let mut stall = Stall::default();
        assert_eq!(look(&mut stall, 0, &[], &[], &[1500; 6]), None);
        assert_eq!(look(&mut stall, 500, &[], &[], &[1500; 7]), Some(Phase::Cleared));
        assert_eq!(stall.evidence(), (7, 7));
    }

    #[test]
    fn a_subject_that_always_had_some_stalls_is_judged_by_its_own_past() {
        let (mut stall, settings) = (Stall::default(), Settings::default());
        for _ in 0..1000 {
            stall.shares.learn(&LEARNING, (1, 0));
        }
        stall.shares.learn(&LEARNING, (20, 20));
        let test = stall.test(&settings);
        assert!((test.p0 - 1.5 * 20.0 / 1020.0).abs() < 1e-9 && test.p1 > 0.11);
    }
}
