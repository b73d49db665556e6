//! From alarms to conditions: raised on a lease, recovering, cleared; the same for every detector.
//!
//! A condition stands only while fresh bad evidence renews its lease. When that runs out it recovers; it is cleared by
//! enough good evidence, or, where no traffic is left to give any, after [`Settings::quiet`]. Nothing stays, and what
//! comes back soon needs more to clear the next time (RFC 5882 §3: quick down, staged up, bounded back-off).

use std::time::Duration;

use super::{Settings, back_off::BackOff};
use crate::model::Phase;

/// A lease covers at least this many of the usual gaps between trials, so that sparse traffic does not flap.
const GAPS: u32 = 3;
/// No lease is longer than this, however sparse the traffic.
const LONGEST_LEASE: Duration = Duration::from_secs(300);

/// Evidence of one look, as a detector sees it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Look {
    /// The detector crossed its threshold.
    pub alarm: bool,
    /// There was bad evidence.
    pub bad: bool,
    /// There was any evidence.
    pub any: bool,
    /// Log-likelihood for "good again" that this look adds (negative: against).
    pub good: f64,
}

/// Life of one condition.
#[derive(Clone, Copy, Debug)]
pub struct Lifecycle {
    phase: Phase,
    since: Duration,
    last_bad: Duration,
    last_any: Option<Duration>,
    gap: Duration,
    good: f64,
    back_off: BackOff,
}

impl Default for Lifecycle {
    fn default() -> Self {
        Self {
            phase: Phase::Cleared,
            since: Duration::ZERO,
            last_bad: Duration::ZERO,
            last_any: None,
            gap: Duration::ZERO,
            good: 0.0,
            back_off: BackOff::default(),
        }
    }
}

impl Lifecycle {
    /// Takes one look at time `at`. Returns the phase before, where it changed.
    pub fn look(&mut self, settings: &Settings, at: Duration, look: Look) -> Option<Phase> {
        if look.any
            && let Some(last) = self.last_any.replace(at)
        {
            // An eighth of the newest gap: RFC 6298's smoothing.
            self.gap = (self.gap * 7 + at.saturating_sub(last)) / 8;
        }
        if look.bad {
            self.last_bad = at;
        }
        let before = self.phase;
        match self.phase {
            Phase::Cleared if look.alarm => self.raise(settings, at),
            Phase::Cleared => {}
            Phase::Raised | Phase::Recovering => {
                self.good = (self.good + look.good).max(0.0);
                if self.good >= self.needed(settings) {
                    self.clear(at);
                } else if self.phase == Phase::Recovering && look.alarm && look.bad {
                    self.phase = Phase::Raised;
                } else if self.phase == Phase::Raised && at >= self.valid_until(settings) {
                    self.phase = Phase::Recovering;
                } else if self.phase == Phase::Recovering
                    && at >= self.last_bad + self.lease(settings) + settings.quiet
                {
                    self.clear(at);
                }
            }
        }
        (self.phase != before).then_some(before)
    }

    fn raise(&mut self, settings: &Settings, at: Duration) {
        self.back_off.begin(settings, at, false);
        self.phase = Phase::Raised;
        self.since = at;
        self.last_bad = at;
        self.good = 0.0;
    }

    fn clear(&mut self, at: Duration) {
        self.phase = Phase::Cleared;
        self.back_off.end(at);
    }

    fn needed(&self, settings: &Settings) -> f64 {
        settings.recovery * f64::from(self.back_off.factor())
    }

    fn lease(&self, settings: &Settings) -> Duration {
        settings.lease.max(self.gap * GAPS).min(LONGEST_LEASE.max(settings.lease))
    }

    /// Until when it holds without fresh bad evidence; in recovery, when it ends at the latest.
    pub fn valid_until(&self, settings: &Settings) -> Duration {
        let lease = self.last_bad + self.lease(settings);
        if self.phase == Phase::Recovering { lease + settings.quiet } else { lease }
    }

    /// The phase.
    pub const fn phase(&self) -> Phase {
        self.phase
    }

    /// When it was raised.
    pub const fn since(&self) -> Duration {
        self.since
    }

    /// Whether nothing would be lost by forgetting it.
    pub fn is_idle(&self, settings: &Settings, at: Duration) -> bool {
        self.phase == Phase::Cleared && self.back_off.is_forgotten(settings, at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn seconds(s: u64) -> Duration {
        Duration::from_secs(s)
    }
    const BAD: Look = Look { alarm: true, bad: true, any: true, good: -1.0 };
    const GOOD: Look = Look { alarm: false, bad: false, any: true, good: 1.0 };
    const NONE: Look = Look { alarm: false, bad: false, any: false, good: 0.0 };

    #[test]
    fn good_evidence_clears_it() {
        let (settings, mut life) = (Settings::default(), Lifecycle::default());
        assert_eq!(life.look(&settings, seconds(1), BAD), Some(Phase::Cleared));
        for s in 2..7 {
            assert_eq!(life.look(&settings, seconds(s), GOOD), None);
        }
        assert_eq!(life.look(&settings, seconds(7), GOOD), Some(Phase::Raised));
        assert_eq!(life.phase(), Phase::Cleared);
    }

    #[test]
    fn silence_ends_the_lease_and_then_the_recovery() {
        let (settings, mut life) = (Settings::default(), Lifecycle::default());
        life.look(&settings, seconds(1), BAD);
        assert_eq!(life.look(&settings, seconds(10), NONE), None);
        assert_eq!(life.look(&settings, seconds(11), NONE), Some(Phase::Raised));
        assert_eq!(life.phase(), Phase::Recovering);
        assert_eq!(life.look(&settings, seconds(70), NONE), None);
        assert_eq!(life.look(&settings, seconds(71), NONE), Some(Phase::Recovering));
        assert_eq!(life.phase(), Phase::Cleared);
    }

    #[test]
    fn sparse_bad_evidence_does_not_flap() {
        let (settings, mut life) = (Settings::default(), Lifecycle::default());
        for s in 0..600 {
            let look = if s % 20 == 0 { BAD } else { NONE };
            let change = life.look(&settings, seconds(s), look);
            assert!(change.is_none() || s < 120, "at {s}: {change:?}");
        }
        assert_eq!(life.phase(), Phase::Raised);
    }

    #[test]
    fn a_relapse_needs_more_to_clear() {
        let (settings, mut life) = (Settings::default(), Lifecycle::default());
        let mut at = 0;
        let mut needed = Vec::new();
        for _ in 0..4 {
            at += 1;
            life.look(&settings, seconds(at), BAD);
            let mut n = 0;
            while life.phase() != Phase::Cleared {
                at += 1;
                n += 1;
                life.look(&settings, seconds(at), GOOD);
            }
            needed.push(n);
        }
        assert_eq!(needed, [6, 12, 24, 24]);
    }

    proptest! {
        /// From any state whatsoever, good evidence or none at all ends in `cleared`, within lease and quiet period.
        #[test]
        fn nothing_stays(history in proptest::collection::vec((0u8..3, 1u64..40), 0..60), silent: bool) {
            let (settings, mut life) = (Settings::default(), Lifecycle::default());
            let mut at = 0;
            for (kind, step) in history {
                at += step;
                life.look(&settings, seconds(at), [BAD, GOOD, NONE][usize::from(kind)]);
            }
            let end = at + LONGEST_LEASE.as_secs() + settings.quiet.as_secs() + 1;
            while at < end {
                at += 1;
                life.look(&settings, seconds(at), if silent { NONE } else { GOOD });
            }
            prop_assert_eq!(life.phase(), Phase::Cleared);
        }
    }
}
