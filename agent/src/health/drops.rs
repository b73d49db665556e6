//! This host's own drops: is a reason firing look after look?

use std::time::Duration;

use super::{
    Cusum, Settings,
    lifecycle::{Lifecycle, Look},
};
use crate::model::Phase;

/// The detector for one reason and direction. A look is one trial, so that a burst counts once.
#[derive(Clone, Debug, Default)]
pub struct HostDrops {
    cusum: Cusum,
    life: Lifecycle,
    /// Packets dropped, and looks, since the excursion began.
    packets: u64,
}

impl HostDrops {
    /// Takes one look: `dropped` of `all` packets. Returns the phase before, where it changed.
    pub fn look(
        &mut self,
        settings: &Settings,
        at: Duration,
        dropped: u64,
        all: Option<u64>,
    ) -> Option<Phase> {
        let share = all.map_or(1.0, |all| dropped as f64 / (all.max(dropped).max(1)) as f64);
        let bad = dropped >= settings.drops_least && share >= settings.drops_share;
        let test = settings.drops;
        self.cusum.observe(&test, u64::from(!bad), u64::from(bad));
        let alarm = self.cusum.alarmed(&test);
        self.cusum.cap(&test);
        self.packets = if self.cusum.n == 0 { 0 } else { self.packets + dropped };
        let look = Look { alarm, bad, any: true, good: if bad { -test.up() } else { test.down() } };
        let before = self.life.look(settings, at, look)?;
        self.cusum.follow(self.life.phase());
        Some(before)
    }

    /// `(looks, bad looks, packets dropped)` of the excursion.
    pub const fn evidence(&self) -> (u64, u64, u64) {
        (self.cusum.n, self.cusum.bad, self.packets)
    }

    /// Its life.
    pub const fn life(&self) -> &Lifecycle {
        &self.life
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(drops: &[u64]) -> Vec<Phase> {
        let (settings, mut detector) = (Settings::default(), HostDrops::default());
        drops
            .iter()
            .enumerate()
            .map(|(i, n)| {
                let at = Duration::from_millis(500 * i as u64);
                detector.look(&settings, at, *n, Some(1000));
                detector.life().phase()
            })
            .collect()
    }

    #[test]
    fn four_looks_in_a_row_raise_it() {
        assert_eq!(run(&[0, 100, 100, 100, 100])[2..], [Phase::Cleared, Phase::Cleared, Phase::Raised]);
    }

    #[test]
    fn a_single_burst_does_not_however_big() {
        let phases = run(&[0, 500, 0, 0, 0, 0, 0, 0, 0, 0, 500, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert!(phases.iter().all(|p| *p == Phase::Cleared));
    }

    #[test]
    fn a_few_packets_of_many_are_none() {
        assert!(run(&[4; 100]).iter().all(|p| *p == Phase::Cleared));
    }

    #[test]
    fn it_clears_when_the_drops_end() {
        let mut drops = vec![100; 5];
        drops.extend([0; 12]);
        assert_eq!(run(&drops).last(), Some(&Phase::Cleared));
    }
}
