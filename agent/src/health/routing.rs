//! What routing makes of the states of paths: traffic that still goes into one that is down, and a path that is avoided and well.

use std::{collections::BTreeMap, time::Duration};

use super::{
    Settings,
    lifecycle::{Lifecycle, Look},
};
use crate::model::{Leg, PathState, Phase};

/// Media that ended for this long has been moved.
const MOVED: Duration = Duration::from_secs(1);
/// Fewer packets are what was under way, or a probe of somebody else's.
const LEAST_PACKETS: u64 = 20;

/// How a direction stands, and since when.
pub type Standing = Option<(PathState, Duration)>;

/// All directions that matter for this.
#[derive(Debug, Default)]
pub struct Routing {
    into: BTreeMap<Leg, IntoDown>,
    avoided: BTreeMap<Leg, Avoided>,
}

/// Traffic into a direction that is down.
#[derive(Clone, Copy, Debug, Default)]
pub struct IntoDown {
    /// Its condition's life.
    pub life: Lifecycle,
    /// Packets sent since there was time enough to move them.
    pub packets: u64,
    /// For how long it has been down.
    pub down_for: Duration,
    last_packet: Duration,
}

/// A direction that a controller avoids.
#[derive(Clone, Copy, Debug, Default)]
pub struct Avoided {
    /// Its condition's life.
    pub life: Lifecycle,
    /// For how long it has been avoided and healthy.
    pub well_for: Duration,
    since: Duration,
    until: Duration,
}

impl IntoDown {
    fn look(&mut self, settings: &Settings, at: Duration, standing: Standing, packets: u64) {
        let since = standing.filter(|(state, _)| *state == PathState::Down).map(|(_, since)| since);
        self.down_for = since.map_or(Duration::ZERO, |since| at.saturating_sub(since));
        let into = packets > 0 && since.is_some() && self.down_for >= settings.reroute;
        if packets > 0 {
            self.last_packet = at;
        }
        self.packets = match since {
            Some(_) => self.packets + if into { packets } else { 0 },
            None => 0,
        };
        let moved = at.saturating_sub(self.last_packet) >= MOVED;
        let look = Look {
            alarm: into && self.packets >= LEAST_PACKETS,
            bad: into,
            any: true,
            good: if since.is_none() || moved { settings.recovery } else { 0.0 },
        };
        let _ = self.life.look(settings, at, look);
    }
}

impl Avoided {
    fn look(&mut self, settings: &Settings, at: Duration, standing: Standing) {
        let is_avoided = at < self.until;
        let well = standing.filter(|(state, _)| is_avoided && *state == PathState::Healthy);
        self.well_for = well.map_or(Duration::ZERO, |(_, since)| at.saturating_sub(since.max(self.since)));
        let stuck = well.is_some() && self.well_for >= settings.lease;
        let good = if well.is_none() { settings.recovery } else { 0.0 };
        let _ = self.life.look(settings, at, Look { alarm: stuck, bad: stuck, any: true, good });
    }
}

impl Routing {
    /// Takes what was sent in each direction that is down, or was: `(direction, how it stands, packets of media)`.
    pub fn sent<'a>(
        &mut self,
        settings: &Settings,
        at: Duration,
        legs: impl Iterator<Item = (&'a Leg, Standing, u64)>,
    ) {
        for (leg, standing, packets) in legs {
            let is_down = standing.is_some_and(|(state, _)| state == PathState::Down);
            if is_down || self.into.contains_key(leg) {
                self.into.entry(leg.clone()).or_default().look(settings, at, standing, packets);
            }
        }
    }

    /// Lets go of directions that no longer matter, once their end has been told.
    pub fn forget(&mut self, settings: &Settings, at: Duration) {
        self.into.retain(|_, into| into.down_for > Duration::ZERO || !into.life.is_idle(settings, at));
        self.avoided.retain(|_, avoided| at < avoided.until || !avoided.life.is_idle(settings, at));
    }

    /// What a controller avoids now, all of it, until when it says so again.
    pub fn avoid(&mut self, at: Duration, legs: Vec<Leg>, until: Duration) {
        for avoided in self.avoided.values_mut() {
            avoided.until = avoided.until.min(at);
        }
        for leg in legs {
            let avoided = self.avoided.entry(leg).or_default();
            if avoided.until < at || avoided.since == Duration::ZERO {
                avoided.since = at;
            }
            avoided.until = until;
        }
    }

    /// Looks at what is avoided.
    pub fn look_at_avoided(
        &mut self,
        settings: &Settings,
        at: Duration,
        standing: impl Fn(&Leg) -> Standing,
    ) {
        for (leg, avoided) in &mut self.avoided {
            avoided.look(settings, at, standing(leg));
        }
    }

    /// Directions that are down, or were, and what goes into them.
    pub fn downs(&self) -> impl Iterator<Item = (&Leg, &IntoDown)> {
        self.into.iter()
    }

    /// Directions that are avoided, or were.
    pub fn avoided(&self) -> impl Iterator<Item = (&Leg, &Avoided)> {
        self.avoided.iter()
    }

    /// Whether a direction is avoided though it is well.
    pub fn is_stuck(&self, leg: &Leg) -> bool {
        self.avoided.get(leg).is_some_and(|avoided| avoided.life.phase() == Phase::Raised)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Direction, Path};

    const LOOK: Duration = Duration::from_millis(500);

    fn leg() -> Leg {
        Leg { path: Path { peer: "b".into(), address: None }, direction: Direction::Transmit }
    }

    struct World {
        routing: Routing,
        settings: Settings,
        at: Duration,
    }

    impl World {
        fn new() -> Self {
            let at = Duration::from_secs(1000);
            Self { routing: Routing::default(), settings: Settings::default(), at }
        }

        fn run(&mut self, seconds: u32, standing: Standing, packets: u64) -> (Phase, Phase) {
            for _ in 0..seconds * 2 {
                self.at += LOOK;
                let leg = leg();
                self.routing.sent(&self.settings, self.at, [(&leg, standing, packets)].into_iter());
                self.routing.look_at_avoided(&self.settings, self.at, |_| standing);
                self.routing.forget(&self.settings, self.at);
            }
            let into = self.routing.downs().next().map(|(_, into)| into.life.phase());
            let avoided = self.routing.avoided().next().map(|(_, avoided)| avoided.life.phase());
            (into.unwrap_or(Phase::Cleared), avoided.unwrap_or(Phase::Cleared))
        }
    }

    #[test]
    fn media_that_is_not_moved_in_time_is_told_until_it_is() {
        let mut world = World::new();
        let down = Some((PathState::Down, world.at));
        assert_eq!(world.run(4, down, 25).0, Phase::Cleared);
        assert_eq!(world.run(2, down, 25).0, Phase::Raised);
        assert_eq!(world.run(30, down, 25).0, Phase::Raised);
        assert_eq!(world.run(2, down, 0).0, Phase::Cleared);
    }

    #[test]
    fn the_twin_media_that_is_moved_and_a_trickle_are_not_told() {
        let mut world = World::new();
        let down = Some((PathState::Down, world.at));
        assert_eq!(world.run(4, down, 25).0, Phase::Cleared);
        assert_eq!(world.run(60, down, 0).0, Phase::Cleared);
        let healthy = Some((PathState::Healthy, world.at));
        assert_eq!(world.run(60, healthy, 25).0, Phase::Cleared);
    }

    #[test]
    fn a_path_that_is_well_again_clears_it() {
        let mut world = World::new();
        let down = Some((PathState::Down, world.at));
        assert_eq!(world.run(10, down, 25).0, Phase::Raised);
        let recovering = Some((PathState::Recovering, world.at));
        assert_eq!(world.run(1, recovering, 25).0, Phase::Cleared);
    }

    #[test]
    fn what_is_avoided_and_well_for_longer_than_a_lease_is_stuck() {
        let mut world = World::new();
        let down = Some((PathState::Down, world.at));
        let avoid = |world: &mut World| {
            world.routing.avoid(world.at, vec![leg()], world.at + Duration::from_secs(10));
        };
        avoid(&mut world);
        assert_eq!(world.run(8, down, 0).1, Phase::Cleared);
        let healthy = Some((PathState::Healthy, world.at));
        avoid(&mut world);
        assert_eq!(world.run(9, healthy, 0).1, Phase::Cleared);
        avoid(&mut world);
        assert_eq!(world.run(2, healthy, 0).1, Phase::Raised);
        assert!(world.routing.is_stuck(&leg()));
        // It no longer says so.
        world.routing.avoid(world.at, Vec::new(), world.at);
        assert_eq!(world.run(1, healthy, 0).1, Phase::Cleared);
    }

    #[test]
    fn a_controller_that_is_gone_avoids_nothing() {
        let mut world = World::new();
        let healthy = Some((PathState::Healthy, world.at));
        world.routing.avoid(world.at, vec![leg()], world.at + Duration::from_secs(12));
        assert_eq!(world.run(11, healthy, 0).1, Phase::Raised);
        assert_eq!(world.run(2, healthy, 0).1, Phase::Cleared);
    }
}
