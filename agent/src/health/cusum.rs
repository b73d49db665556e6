//! The Bernoulli CUSUM: did the share of bad trials rise from `p0` to `p1`?
//!
//! Each trial adds the log-likelihood ratio of `p1` against `p0`, never below zero; at `threshold` it is an alarm
//! (Page 1954; Reynolds & Stoumbos 1999 for Bernoulli trials). One addition, one clamp, one comparison per trial, and no
//! window: a bad share of any size is found as soon as the evidence allows.

use crate::model::Phase;

/// Parameters of the test.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bernoulli {
    /// Share of bad trials that is normal, 0 to 1.
    pub p0: f64,
    /// Share that must be found, above `p0`.
    pub p1: f64,
    /// Alarm at this log-likelihood ratio.
    pub threshold: f64,
}

impl Bernoulli {
    /// What a bad trial adds.
    pub fn up(&self) -> f64 {
        (self.p1 / self.p0).ln()
    }

    /// What a good trial takes away.
    pub fn down(&self) -> f64 {
        ((1.0 - self.p0) / (1.0 - self.p1)).ln()
    }
}

/// State of the test since its last zero: the excursion, whose start estimates when the change happened.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Cusum {
    score: f64,
    /// Trials of the excursion.
    pub n: u64,
    /// Of these, bad.
    pub bad: u64,
}

impl Cusum {
    /// Takes trials whose order is not known, spread evenly. Returns what a finished excursion, one that came to
    /// nothing, consisted of: `(trials, bad)`.
    pub fn observe(&mut self, test: &Bernoulli, good: u64, bad: u64) -> (u64, u64) {
        let (up, down) = (test.up(), test.down());
        let mut finished = (0, 0);
        let mut given = 0;
        for i in 0..bad {
            let upto = good * (i + 1) / (bad + 1);
            self.good(upto - given, down, &mut finished);
            given = upto;
            self.score += up;
            self.n += 1;
            self.bad += 1;
        }
        self.good(good - given, down, &mut finished);
        finished
    }

    fn good(&mut self, n: u64, down: f64, finished: &mut (u64, u64)) {
        let needed = (self.score / down).ceil() as u64;
        if n >= needed {
            *finished = (finished.0 + self.n + n, finished.1 + self.bad);
            *self = Self::default();
        } else {
            self.score -= n as f64 * down;
            self.n += n;
        }
    }

    /// The log-likelihood ratio, never negative.
    pub const fn score(&self) -> f64 {
        self.score
    }

    /// Keeps the score from growing beyond an alarm, so that its end is not put off by how long it lasted.
    pub fn cap(&mut self, test: &Bernoulli) {
        self.score = self.score.min(test.threshold);
    }

    /// Follows its condition into a new phase: what is left counts half in recovery, and not at all once it is cleared.
    pub fn follow(&mut self, phase: Phase) {
        match phase {
            Phase::Raised => {}
            Phase::Recovering => {
                self.score /= 2.0;
                self.n /= 2;
                self.bad /= 2;
            }
            Phase::Cleared => *self = Self::default(),
        }
    }

    /// Whether it is an alarm.
    pub fn alarmed(&self, test: &Bernoulli) -> bool {
        self.score >= test.threshold
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TEST: Bernoulli = Bernoulli { p0: 0.005, p1: 0.04, threshold: 14.0 };

    #[test]
    fn seven_in_a_row_is_an_alarm_six_is_not() {
        let mut c = Cusum::default();
        c.observe(&TEST, 0, 6);
        assert!(!c.alarmed(&TEST));
        c.observe(&TEST, 0, 1);
        assert!(c.alarmed(&TEST));
        assert_eq!((c.n, c.bad), (7, 7));
    }

    proptest! {
        /// A batch of good trials is the same as one at a time.
        #[test]
        fn batches_of_good_trials_are_exact(start in 0u64..6, good in 0u64..2000) {
            let mut batch = Cusum::default();
            batch.observe(&TEST, 0, start);
            let mut single = batch;
            batch.observe(&TEST, good, 0);
            for _ in 0..good { single.observe(&TEST, 1, 0); }
            prop_assert!((batch.score() - single.score()).abs() < 1e-9);
        }

        #[test]
        fn the_score_is_never_negative_and_nothing_is_lost(batches in proptest::collection::vec((0u64..50, 0u64..5), 1..50)) {
            let (mut c, mut n, mut bad, mut done) = (Cusum::default(), 0, 0, (0, 0));
            for (g, b) in batches {
                let finished = c.observe(&TEST, g, b);
                (n, bad, done) = (n + g + b, bad + b, (done.0 + finished.0, done.1 + finished.1));
                prop_assert!(c.score() >= 0.0);
                prop_assert!(c.bad <= c.n);
            }
            prop_assert_eq!((done.0 + c.n, done.1 + c.bad), (n, bad));
        }
    }
}
