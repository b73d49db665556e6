//! The share of bad trials that is usual for one subject, so that a path that always loses a little is not an incident.

use super::Bernoulli;

/// Head-room over the learned share.
const MARGIN: f64 = 1.5;
/// `p1` is at least this many times `p0`.
const CONTRAST: f64 = 4.0;

/// How a share is learned.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Learning {
    /// Trials after which the learned share replaces the default.
    pub least: u64,
    /// It forgets by half when it rests on this many trials.
    pub most: u64,
    /// It moves `p0` no further than this.
    pub highest_p0: f64,
}

/// Trials and bad ones of times without alarm.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Learned {
    n: u64,
    bad: u64,
}

impl Learned {
    /// Takes trials of a time without alarm: `(trials, bad)`.
    pub fn add(&mut self, learning: &Learning, (n, bad): (u64, u64)) {
        (self.n, self.bad) = (self.n + n, self.bad + bad);
        while self.n > learning.most {
            (self.n, self.bad) = (self.n / 2, self.bad / 2);
        }
    }

    /// The test with what was learned in place of its default.
    pub fn test(&self, learning: &Learning, default: Bernoulli) -> Bernoulli {
        if self.n < learning.least {
            return default;
        }
        let usual = MARGIN * self.bad as f64 / self.n as f64;
        let p0 = usual.clamp(default.p0, learning.highest_p0.max(default.p0));
        Bernoulli { p0, p1: default.p1.max(CONTRAST * p0), ..default }
    }
}
