//! Exchanges of a service that come more slowly than they should: a sweeper or a dispatcher slowing down, long before its backlog hurts.
//!
//! A sequential test over the looks: a Poisson process at the configured floor against one at half of it. A look adds
//! floor ÷ 2 for each second that passed and takes ln 2 away for each exchange, so that what keeps to its floor drifts down.

use std::time::Duration;

use super::{
    Settings,
    lifecycle::{Lifecycle, Look},
    rate_past::RatePast,
};
use crate::model::Phase;

/// Alarm at this log-likelihood ratio: at the very floor once in e¹² looks or more, above it practically never.
const THRESHOLD: f64 = 12.0;

/// How many exchanges a service should have at least.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Floor {
    /// So many a second.
    Configured(f64),
    /// As its past says.
    Learned,
}

/// The detector for one service.
#[derive(Clone, Debug, Default)]
pub struct RateLow {
    score: f64,
    life: Lifecycle,
    /// Nothing is expected of a service that was never used.
    known: bool,
    /// Exchanges and time since it last kept to its floor.
    exchanges: u64,
    time: Duration,
    past: RatePast,
    /// Exchanges a second that there should be, now.
    floor: Option<f64>,
}

impl RateLow {
    /// Takes the exchanges of a look after `elapsed`, of which there should be as many as `floor` says; none where nothing is asked any
    /// more.
    pub fn look(
        &mut self,
        settings: &Settings,
        at: Duration,
        elapsed: Duration,
        floor: Option<Floor>,
        exchanges: u64,
    ) {
        self.known |= exchanges > 0;
        self.floor = match floor {
            Some(Floor::Configured(floor)) => Some(floor),
            // What is suspected now is not learned as usual.
            Some(Floor::Learned) => {
                let suspected = self.life.phase() != Phase::Cleared || self.score >= THRESHOLD / 2.0;
                let frozen = suspected || !self.known;
                self.past.look(elapsed, exchanges, frozen);
                self.past.floor()
            }
            None => None,
        };
        let Some(floor) = self.floor.filter(|_| self.known) else {
            self.score = 0.0;
            let look = Look { alarm: false, bad: false, any: false, good: settings.recovery };
            let _ = self.life.look(settings, at, look);
            return;
        };
        let step = floor / 2.0 * elapsed.as_secs_f64() - exchanges as f64 * std::f64::consts::LN_2;
        self.score = (self.score + step).clamp(0.0, THRESHOLD * 2.0);
        (self.exchanges, self.time) = if self.score > 0.0 {
            (self.exchanges + exchanges, self.time + elapsed)
        } else {
            (0, Duration::ZERO)
        };
        let alarm = self.score >= THRESHOLD;
        let _ = self.life.look(settings, at, Look { alarm, bad: step > 0.0, any: true, good: -step });
    }

    /// Its life.
    pub const fn life(&self) -> &Lifecycle {
        &self.life
    }

    /// Exchanges a second that there should be; 0 where nothing is asked.
    pub fn floor(&self) -> f64 {
        self.floor.unwrap_or(0.0)
    }

    /// Exchanges since it last kept to its floor, and in what time.
    pub const fn evidence(&self) -> (u64, Duration) {
        (self.exchanges, self.time)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{RngExt, SeedableRng, rngs::StdRng};

    const LOOK: Duration = Duration::from_millis(500);

    struct World {
        rate: RateLow,
        settings: Settings,
        at: Duration,
        random: StdRng,
        floor: Floor,
    }

    impl World {
        fn new(seed: u64) -> Self {
            Self {
                rate: RateLow::default(),
                settings: Settings::default(),
                at: Duration::from_secs(1000),
                random: StdRng::seed_from_u64(seed),
                floor: Floor::Configured(10.0),
            }
        }

        /// Runs at a rate with a floor of 10 a second; looks until it is raised, where it is.
        fn run(&mut self, seconds: u32, rate: f64) -> Option<u32> {
            let mut raised = None;
            for look in 0..seconds * 2 {
                self.at += LOOK;
                // Knuth's Poisson numbers.
                let (mut exchanges, mut product) = (0, self.random.random::<f64>());
                while product > (-rate * LOOK.as_secs_f64()).exp() {
                    exchanges += 1;
                    product *= self.random.random::<f64>();
                }
                self.rate.look(&self.settings, self.at, LOOK, Some(self.floor), exchanges);
                if self.rate.life().phase() == Phase::Raised {
                    raised = raised.or(Some(look));
                }
            }
            raised
        }
    }

    #[test]
    fn what_stops_is_found_in_seconds_and_what_slows_in_half_a_minute() {
        for seed in 0..100 {
            let mut world = World::new(seed);
            assert_eq!(world.run(600, 12.0), None, "{seed}");
            assert!(world.run(10, 0.0).is_some_and(|look| look <= 8), "{seed}");
            let mut world = World::new(seed);
            world.run(60, 15.0);
            assert!(world.run(60, 4.0).is_some(), "{seed}");
        }
    }

    #[test]
    fn a_day_at_its_floor_is_no_alarm_and_it_clears_by_itself() {
        let mut world = World::new(1);
        assert_eq!(world.run(86_400, 10.0), None);
        world.run(30, 2.0);
        assert_eq!(world.rate.life().phase(), Phase::Raised);
        world.run(30, 15.0);
        assert_eq!(world.rate.life().phase(), Phase::Cleared);
    }

    /// Weeks of a sweeper that has a third of its day's work at night, and less at weekends.
    #[test]
    fn a_learned_floor_knows_nights_and_weekends_after_it_has_seen_them() {
        let rate = |hour: u32| {
            let (day, hour) = (hour / 24 % 7, hour % 24);
            let of_day = if (7..22).contains(&hour) { 6.0 } else { 2.0 };
            if day >= 5 { of_day * 0.7 } else { of_day }
        };
        for seed in 0..3 {
            let mut world = World { floor: Floor::Learned, ..World::new(seed) };
            // The agent starts at midnight before a Monday.
            for hour in 0..24 * 14 {
                assert_eq!(world.run(3600, rate(hour)), None, "hour {hour}");
            }
            // Half of the least five minutes, which are a little less than a weekend's night.
            assert!((0.4..0.7).contains(&world.rate.floor()), "{}", world.rate.floor());
            assert!(world.run(300, 0.0).is_some_and(|look| look <= 2 * 90), "it is dead");
            world.run(600, 6.0);
            assert_eq!(world.rate.life().phase(), Phase::Cleared);
        }
        // On its first day it is not judged; nor is who has nothing to do now and then.
        let mut world = World { floor: Floor::Learned, ..World::new(9) };
        assert_eq!(world.run(80_000, 6.0), None);
        assert_eq!(world.run(3600, 0.0), None);
        for _ in 0..48 {
            assert_eq!(world.run(3600, 6.0), None);
        }
        assert_eq!(world.run(3600, 0.0), None);
    }

    #[test]
    fn what_was_never_used_owes_nothing_and_a_floor_that_is_gone_asks_nothing() {
        let mut world = World::new(1);
        assert_eq!(world.run(600, 0.0), None);
        world.run(10, 20.0);
        assert!(world.run(30, 0.0).is_some());
        world.at += LOOK;
        world.rate.look(&world.settings, world.at, LOOK, None, 0);
        assert_eq!(world.rate.life().phase(), Phase::Cleared);
    }
}
