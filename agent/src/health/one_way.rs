//! Media in one direction only: of a path's flows that had media both ways, many have fallen silent in one direction while
//! the other goes on.
//!
//! One flow is no evidence, for it may be muted, on hold, or a subscriber's: a path is judged by its flows together, each
//! look one trial. What raises is that many fall silent within seconds; what keeps it raised is that they stay so. Calls that
//! end fall silent both ways and are not counted at all.

use std::time::Duration;

use super::{
    Cusum, Settings,
    lifecycle::{Lifecycle, Look},
};
use crate::model::{Flows, Phase};

/// Fewer flows say nothing by their silence.
const LEAST_FLOWS: u64 = 5;
/// Share of them that must have fallen silent one way.
const SHARE: f64 = 0.6;

/// The detector for one path and direction.
#[derive(Clone, Debug, Default)]
pub struct OneWay {
    cusum: Cusum,
    life: Lifecycle,
    flows: (u64, u64),
}

impl OneWay {
    /// Takes one look. Returns the phase before, where it changed.
    pub fn look(&mut self, settings: &Settings, at: Duration, flows: Flows) -> Option<Phase> {
        let silent = if self.life.phase() == Phase::Raised { flows.one_way } else { flows.fell };
        let expected = flows.fresh + silent;
        let enough = expected >= LEAST_FLOWS;
        let bad = silent >= LEAST_FLOWS && silent as f64 >= SHARE * expected as f64;
        let test = settings.one_way;
        if enough {
            self.cusum.observe(&test, u64::from(!bad), u64::from(bad));
            self.flows = (expected, silent);
        }
        let alarm = self.cusum.alarmed(&test);
        self.cusum.cap(&test);
        let good = match (enough, bad) {
            (false, _) => 0.0,
            (true, true) => -test.up(),
            (true, false) => test.down(),
        };
        let before = self.life.look(settings, at, Look { alarm: alarm && bad, bad, any: enough, good })?;
        self.cusum.follow(self.life.phase());
        Some(before)
    }

    /// `(flows that should carry media, of these silent in this direction alone)`, most recently.
    pub const fn evidence(&self) -> (u64, u64) {
        self.flows
    }

    /// Its life.
    pub const fn life(&self) -> &Lifecycle {
        &self.life
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(looks: impl IntoIterator<Item = (u64, u64)>) -> Vec<Phase> {
        let (settings, mut detector) = (Settings::default(), OneWay::default());
        let mut phases = Vec::new();
        for (i, (fresh, one_way)) in looks.into_iter().enumerate() {
            let flows = Flows { fresh, one_way, fell: one_way };
            detector.look(&settings, Duration::from_millis(500 * i as u64), flows);
            phases.push(detector.life().phase());
        }
        phases
    }

    #[test]
    fn many_flows_at_once_are_found_in_three_looks_and_clear_by_themselves() {
        let phases = run([(20, 0); 3].into_iter().chain([(2, 18); 5]).chain([(20, 0); 30]));
        assert_eq!(phases[4..6], [Phase::Cleared, Phase::Raised]);
        assert_eq!(phases.last(), Some(&Phase::Cleared));
    }

    #[test]
    fn a_muted_caller_is_none() {
        assert!(run([(0, 1); 50]).iter().all(|p| *p == Phase::Cleared), "one flow is no evidence");
        assert!(run([(19, 1); 50]).iter().all(|p| *p == Phase::Cleared));
        assert!(run([(14, 6); 50]).iter().all(|p| *p == Phase::Cleared), "a third of a meeting is muted");
    }

    #[test]
    fn it_stays_raised_while_they_stay_silent() {
        let (settings, mut detector) = (Settings::default(), OneWay::default());
        for i in 0..200 {
            let fell = if (10..17).contains(&i) { 20 } else { 0 };
            let one_way = if i >= 10 { 20 } else { 0 };
            let flows = Flows { fresh: 20 - one_way, one_way, fell };
            detector.look(&settings, Duration::from_millis(500 * i), flows);
            assert_eq!(detector.life().phase() == Phase::Raised, i >= 12, "look {i}");
        }
    }

    #[test]
    fn a_single_look_is_none() {
        let once = [(20, 0), (4, 16), (20, 0), (20, 0), (20, 0), (20, 0), (20, 0), (20, 0), (20, 0)];
        assert!(run(once.into_iter().cycle().take(90)).iter().all(|p| *p == Phase::Cleared));
    }
}
