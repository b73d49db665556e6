//! A detector of bad trials: the sequential test, the share that is usual for its subject, and the life of its condition.

use std::time::Duration;

use super::{
    Bernoulli, Cusum, Settings,
    learned::{Learned, Learning},
    lifecycle::{Lifecycle, Look},
};
use crate::model::Phase;

/// Trials of one look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Trials {
    /// Good ones.
    pub good: u64,
    /// Bad ones.
    pub bad: u64,
    /// Of the bad ones, those that may add to the test.
    pub counted: u64,
}

/// How a condition ends.
#[derive(Clone, Copy, Debug)]
pub struct Back {
    /// From the share that recovery has to refute to the good one.
    pub test: Bernoulli,
    /// Whether trials of which none is bad renew the lease as well, while they do not yet suffice for an end: at a small share bad
    /// ones are further apart than a lease.
    pub undecided: bool,
}

/// What detectors that count trials have in common.
#[derive(Clone, Debug, Default)]
pub struct Shares {
    cusum: Cusum,
    life: Lifecycle,
    learned: Learned,
}

impl Shares {
    /// The test with the learned share of this subject, frozen while its condition stands.
    pub fn test(&self, learning: &Learning, default: Bernoulli) -> Bernoulli {
        self.learned.test(learning, default)
    }

    /// Learns from trials that are not judged: `(trials, bad)`.
    pub fn learn(&mut self, learning: &Learning, trials: (u64, u64)) {
        self.learned.add(learning, trials);
    }

    /// Takes the trials of one look. Returns the phase before, where it changed.
    pub fn look(
        &mut self,
        settings: &Settings,
        at: Duration,
        learning: &Learning,
        test: &Bernoulli,
        trials: Trials,
    ) -> Option<Phase> {
        self.look_back(settings, at, learning, test, None, trials)
    }

    /// The same where what recovery has to refute is not what raises it.
    pub fn look_back(
        &mut self,
        settings: &Settings,
        at: Duration,
        learning: &Learning,
        test: &Bernoulli,
        back: Option<&Back>,
        Trials { good, bad, counted }: Trials,
    ) -> Option<Phase> {
        let finished = self.cusum.observe(test, good, counted);
        let alarm = self.cusum.alarmed(test);
        self.cusum.cap(test);
        if self.life.phase() == Phase::Cleared && !alarm {
            self.learned.add(learning, finished);
        }
        let any = good + bad > 0;
        let undecided = back.is_some_and(|back| back.undecided) && any && self.life.phase() == Phase::Raised;
        let back = back.map_or(test, |back| &back.test);
        let look = Look {
            alarm,
            bad: bad > 0 || undecided,
            any,
            good: good as f64 * back.down() - bad as f64 * back.up(),
        };
        let before = self.life.look(settings, at, look)?;
        self.cusum.follow(self.life.phase());
        Some(before)
    }

    /// `(trials, bad)` of the excursion.
    pub const fn excursion(&self) -> (u64, u64) {
        (self.cusum.n, self.cusum.bad)
    }

    /// Whether there was nothing to suspect before this look, which returned `changed`, nor is there now.
    pub fn is_quiet(&self, changed: Option<Phase>) -> bool {
        changed.is_none() && self.life.phase() == Phase::Cleared && self.cusum.n == 0
    }

    /// Its life.
    pub const fn life(&self) -> &Lifecycle {
        &self.life
    }
}
