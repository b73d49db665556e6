//! Response times against their own past: a CUSUM over the logarithm, one term per look.
//!
//! Answers that come together share their delay (a pause of the server makes thirty slow at once), so samples of one look
//! are one piece of evidence: their mean excess in standard deviations, each sample winsorised. A step accumulates and
//! alarms; a slow drift moves the learned past with it; while an excursion or an alarm lasts nothing is learned.

use std::time::Duration;

use super::{
    Settings,
    lifecycle::{Lifecycle, Look},
};
use crate::model::{Distribution, Phase};

/// One sample moves a look by no more than this many deviations up …
const CEILING: f64 = 4.0;
/// … and down.
const FLOOR: f64 = -2.0;
/// Deviations of the logarithm (base 2) are taken for at least this: a third of an octave.
const LEAST_DEVIATION: f64 = 0.35;
/// Samples that make a look; with fewer it waits for more …
const SAMPLES: u64 = 5;
/// … up to this long.
const PATIENCE: Duration = Duration::from_secs(5);
/// The past is an exponential mean over about this many samples.
const MEMORY: f64 = 2000.0;
/// Looks' worth of "as it used to be" that ends a condition.
const RECOVERED: f64 = 4.0;

/// The detector for one subject.
#[derive(Clone, Debug, Default)]
pub struct Shift {
    mean: f64,
    variance: f64,
    samples: u64,
    looks: u64,
    score: f64,
    batch: Distribution,
    batch_since: Option<Duration>,
    /// Samples of the excursion, their excess and the median of its last look.
    excursion: (u64, u64),
    current: Option<Duration>,
    life: Lifecycle,
}

impl Shift {
    /// Takes the responses of one look; `network` says that the path itself has slowed or loses. Returns the phase
    /// before, where it changed.
    pub fn look(
        &mut self,
        settings: &Settings,
        at: Duration,
        responses: &Distribution,
        network: bool,
    ) -> Option<Phase> {
        if !responses.is_empty() {
            self.batch.add(responses);
            self.batch_since.get_or_insert(at);
        }
        let patience_over = self.batch_since.is_some_and(|since| at.saturating_sub(since) >= PATIENCE);
        if self.batch.count() < SAMPLES && !patience_over {
            return self.life.look(settings, at, Look::default());
        }
        let batch = std::mem::take(&mut self.batch);
        self.batch_since = None;
        if !self.learned(settings) {
            self.learn(&batch);
            return None;
        }
        let limits = settings.shift;
        let excess = self.excess(&batch);
        self.current = batch.quantile(0.5);
        self.score = (self.score + excess - limits.slack).clamp(0.0, limits.threshold);
        if self.score == 0.0 {
            self.excursion = (0, 0);
            if self.life.phase() == Phase::Cleared {
                self.learn(&batch);
            }
        } else {
            let usual = self.usual();
            let slow =
                batch.iter().filter(|(d, _)| *d > usual.mul_f64(limits.factor)).map(|(_, n)| n).sum::<u64>();
            self.excursion = (self.excursion.0 + batch.count(), self.excursion.1 + slow);
        }
        let matters = self.current.is_some_and(|median| {
            median >= self.usual().mul_f64(limits.factor) && median >= self.usual() + limits.least
        });
        let bad = excess > limits.slack && matters && !network;
        let look = Look {
            alarm: self.score >= limits.threshold && bad,
            bad,
            any: true,
            // A quarter of what recovery takes, for a look no worse than the past used to be.
            good: if matters { -1.0 } else { settings.recovery / RECOVERED },
        };
        let before = self.life.look(settings, at, look)?;
        match self.life.phase() {
            Phase::Raised => {}
            Phase::Recovering => self.score /= 2.0,
            Phase::Cleared => (self.score, self.excursion) = (0.0, (0, 0)),
        }
        Some(before)
    }

    /// Mean excess over the past, in standard deviations.
    fn excess(&self, batch: &Distribution) -> f64 {
        let deviation = self.variance.sqrt().max(LEAST_DEVIATION);
        let (mut sum, mut n) = (0.0, 0.0);
        for (duration, count) in batch.iter() {
            let z = (duration.as_secs_f64().log2() - self.mean) / deviation;
            sum += z.clamp(FLOOR, CEILING) * count as f64;
            n += count as f64;
        }
        sum / n
    }

    fn learn(&mut self, batch: &Distribution) {
        for (duration, count) in batch.iter() {
            let x = duration.as_secs_f64().log2();
            for _ in 0..count.min(MEMORY as u64) {
                self.samples += 1;
                let weight = 1.0 / (self.samples as f64).min(MEMORY);
                let difference = x - self.mean;
                self.mean += weight * difference;
                self.variance = (1.0 - weight) * (self.variance + weight * difference * difference);
            }
        }
        self.looks += 1;
    }

    /// Whether the past is known well enough to judge by.
    pub fn learned(&self, settings: &Settings) -> bool {
        self.samples >= settings.shift.learn_samples && self.looks >= settings.shift.learn_looks
    }

    /// The past's median.
    pub fn usual(&self) -> Duration {
        Duration::from_secs_f64(self.mean.exp2())
    }

    /// Median of the last look.
    pub const fn current(&self) -> Option<Duration> {
        self.current
    }

    /// `(samples, slow ones)` of the excursion.
    pub const fn evidence(&self) -> (u64, u64) {
        self.excursion
    }

    /// Its life.
    pub const fn life(&self) -> &Lifecycle {
        &self.life
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

    /// A service that answers in 4 to 8 ms, ten times a look, for `looks` looks of half a second.
    fn learned(looks: u64) -> (Shift, Duration) {
        let (mut shift, settings) = (Shift::default(), Settings::default());
        let mut at = Duration::ZERO;
        for _ in 0..looks {
            at += Duration::from_millis(500);
            assert_eq!(shift.look(&settings, at, &of(&[4, 5, 6, 7, 8, 5, 6, 4, 6, 5]), false), None);
        }
        (shift, at)
    }

    fn until_change(shift: &mut Shift, at: &mut Duration, answers: &[u64], network: bool) -> Option<u32> {
        (1..=200).find(|_| {
            *at += Duration::from_millis(500);
            shift.look(&Settings::default(), *at, &of(answers), network).is_some()
        })
    }

    #[test]
    fn a_step_is_found_in_three_looks_and_clears_in_four() {
        let (mut shift, mut at) = learned(60);
        assert_eq!(until_change(&mut shift, &mut at, &[2000; 10], false), Some(3));
        assert_eq!(shift.life().phase(), Phase::Raised);
        assert_eq!(until_change(&mut shift, &mut at, &[5; 10], false), Some(4));
        assert_eq!(shift.life().phase(), Phase::Cleared);
    }

    #[test]
    fn a_pause_that_makes_one_look_slow_is_no_alarm() {
        let (mut shift, mut at) = learned(60);
        for _ in 0..20 {
            for _ in 0..4 {
                at += Duration::from_millis(500);
                shift.look(&Settings::default(), at, &of(&[5; 10]), false);
            }
            at += Duration::from_millis(500);
            assert_eq!(shift.look(&Settings::default(), at, &of(&[400; 30]), false), None);
        }
    }

    #[test]
    fn a_slow_drift_moves_the_past() {
        let (mut shift, mut at) = learned(60);
        // A hundred-fold over an hour and a half.
        for i in 0..10_000u64 {
            at += Duration::from_millis(500);
            let ms = 5.0 * 100f64.powf(i as f64 / 10_000.0);
            assert_eq!(shift.look(&Settings::default(), at, &of(&[ms as u64; 10]), false), None);
        }
        assert!(shift.usual() > Duration::from_millis(400));
    }

    #[test]
    fn what_the_network_explains_is_not_blamed_on_the_service() {
        let (mut shift, mut at) = learned(60);
        assert_eq!(until_change(&mut shift, &mut at, &[2000; 10], true), None);
    }

    #[test]
    fn a_step_too_small_to_matter_is_none() {
        let (mut shift, mut at) = learned(60);
        assert_eq!(until_change(&mut shift, &mut at, &[30; 10], false), None, "25 ms more");
    }

    #[test]
    fn sparse_traffic_is_judged_too() {
        let (mut shift, mut at) = learned(60);
        let change = (1..100).find(|_| {
            at += Duration::from_secs(1);
            shift.look(&Settings::default(), at, &of(&[2000]), false).is_some()
        });
        assert_eq!(change, Some(15), "three looks of five samples");
    }
}
