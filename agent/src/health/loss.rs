//! Loss of one path in one direction: a test over loss *events*.
//!
//! A burst of lost packets is one event however long it is: losses come together, and a test over packets that supposes
//! them independent cries wolf a thousand times more often (docs/verdicts.md). What this host dropped itself is taken away
//! first, for that is not the path's doing.

use std::time::Duration;

use super::{
    Settings,
    learned::Learning,
    lifecycle::Lifecycle,
    shares::{Shares, Trials},
};
use crate::model::Phase;

/// What one look may add to the test, so that three are needed: a hiccup of the way costs each of many flows a burst, and is one
/// event all the same.
const SURGE: f64 = 4.5;
/// A raised condition's evidence is kept to about this many trials, so that it tells of now.
const EVIDENCE: u64 = 50_000;
/// A path's usual share of events is known after so many packets.
const LEARNING: Learning = Learning { least: 20_000, most: 1_000_000, highest_p0: 0.03 };

/// Packets of one look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    /// Arrived.
    pub arrived: u64,
    /// Did not, and will not any more.
    pub lost: u64,
    /// Runs of them.
    pub events: u64,
    /// Of the lost ones, those that this host is known to have dropped.
    pub dropped_here: u64,
}

impl Sample {
    /// `(packets that arrived, events of the path)`.
    fn trials(&self) -> (u64, u64) {
        let lost = self.lost.saturating_sub(self.dropped_here);
        // Which of the events were this host's is not known: the share of the packets stands in, rounded up.
        let events = (self.events * lost).div_ceil(self.lost.max(1));
        (self.arrived, events.min(lost))
    }
}

/// The detector for one path and direction.
#[derive(Clone, Debug, Default)]
pub struct PathLoss {
    shares: Shares,
    /// Trials and events, packets that arrived and that were lost, of the excursion and since.
    recent: (u64, u64),
    packets: (u64, u64),
}

impl PathLoss {
    /// Takes one look. Returns the phase before, where it changed.
    pub fn look(&mut self, settings: &Settings, at: Duration, sample: Sample) -> Option<Phase> {
        let (good, bad) = sample.trials();
        let test = self.shares.test(&LEARNING, settings.loss);
        let most = (SURGE + good as f64 * test.down()) / test.up();
        let trials = Trials { good, bad, counted: bad.min((most as u64).max(1)) };
        let changed = self.shares.look(settings, at, &LEARNING, &test, trials);
        if self.shares.is_quiet(changed) {
            (self.recent, self.packets) = ((0, 0), (0, 0));
        }
        self.recent = (self.recent.0 + good + bad, self.recent.1 + bad);
        self.packets = (self.packets.0 + sample.arrived, self.packets.1 + sample.lost);
        if self.recent.0 > EVIDENCE {
            self.recent = (self.recent.0 / 2, self.recent.1 / 2);
            self.packets = (self.packets.0 / 2, self.packets.1 / 2);
        }
        changed
    }

    /// `(packets and events, events)`.
    pub const fn evidence(&self) -> (u64, u64) {
        self.recent
    }

    /// Share of the packets that was lost in the same time, 0 to 1.
    pub fn share(&self) -> f64 {
        let (arrived, lost) = self.packets;
        lost as f64 / (arrived + lost).max(1) as f64
    }

    /// Its life.
    pub const fn life(&self) -> &Lifecycle {
        self.shares.life()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(samples: impl IntoIterator<Item = Sample>) -> (PathLoss, Vec<Phase>) {
        let (settings, mut detector) = (Settings::default(), PathLoss::default());
        let mut phases = Vec::new();
        for (i, sample) in samples.into_iter().enumerate() {
            detector.look(&settings, Duration::from_millis(500 * i as u64), sample);
            phases.push(detector.life().phase());
        }
        (detector, phases)
    }

    fn looks(n: usize, arrived: u64, lost: u64, events: u64) -> impl Iterator<Item = Sample> {
        std::iter::repeat_n(Sample { arrived, lost, events, dropped_here: 0 }, n)
    }

    #[test]
    fn five_percent_is_found_within_a_few_hundred_packets() {
        let (detector, phases) = run(looks(10, 95, 5, 5));
        let raised = phases.iter().position(|p| *p == Phase::Raised).unwrap();
        assert!(raised < 6, "{phases:?}");
        assert!((detector.share() - 0.05).abs() < 0.001);
    }

    #[test]
    fn one_long_burst_is_one_event() {
        let (_, phases) = run(looks(1, 100, 400, 1).chain(looks(20, 500, 0, 0)));
        assert!(phases.iter().all(|p| *p == Phase::Cleared), "{phases:?}");
    }

    #[test]
    fn a_hiccup_that_costs_each_of_many_flows_a_burst_is_one_event() {
        let (_, phases) = run(looks(2, 500, 3000, 60).chain(looks(20, 2500, 0, 0)));
        assert!(phases.iter().all(|p| *p == Phase::Cleared), "{phases:?}");
    }

    #[test]
    fn what_this_host_dropped_is_not_the_paths_loss() {
        let here = Sample { arrived: 90, lost: 10, events: 10, dropped_here: 10 };
        assert!(run(std::iter::repeat_n(here, 50)).1.iter().all(|p| *p == Phase::Cleared));
        assert_eq!(Sample { dropped_here: 5, ..here }.trials(), (90, 5));
        assert_eq!(Sample { dropped_here: 50, ..here }.trials(), (90, 0));
    }

    #[test]
    fn a_path_that_always_loses_a_little_is_no_incident_and_more_of_it_is() {
        let usual = looks(400, 497, 2, 2);
        let (_, phases) = run(looks(200, 998, 1, 1).chain(usual).chain(looks(20, 450, 50, 50)));
        assert_eq!(phases.last(), Some(&Phase::Raised));
    }

    #[test]
    fn it_clears_when_packets_arrive() {
        let (_, phases) = run(looks(5, 90, 10, 10).chain(looks(10, 500, 0, 0)));
        assert!(phases.contains(&Phase::Raised));
        assert_eq!(phases.last(), Some(&Phase::Cleared));
    }
}
