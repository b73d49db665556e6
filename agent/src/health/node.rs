//! The node's own verdict: do its users get what a health check would see?
//!
//! It rests on the conditions that say that users are not served, each with its own sequential test and lease, and on both shares of
//! the recent past for how far apart they are. It is made for balancers: it fails open where evidence is thin, it never asks
//! for less than a canary's load by itself, and a node that was bad is given its load back step by step.

use std::time::Duration;

use super::{Settings, back_off::BackOff};
use crate::model::{NodeReport, NodeState, Served, Share, fade};

/// Half-life of the shares.
const RECENT: Duration = Duration::from_secs(15);
/// Fewer trials say nothing of a share.
const LEAST: f64 = 3.0;
/// A health check passes where at least this share of what it would see is well …
const PASSES: f64 = 0.9;
/// … and fails where no more than this is. In between the state stays what it was.
const FAILS: f64 = 0.5;
/// The load is doubled this often on the way back.
const STEP: Duration = Duration::from_secs(5);
/// It begins with this much, percent, where the canary's is less.
const FIRST: u8 = 5;
/// Without users for this many quiet periods nothing is known any more.
const UNUSED_PERIODS: u32 = 5;

/// Reasons that are told; a service may stall for each of very many paths.
const MOST_REASONS: usize = 8;

/// A condition that says that users are not served.
#[derive(Clone, Debug)]
pub struct Culprit {
    /// It, in words.
    pub text: String,
    /// Until when it holds, on the ticks' clock.
    pub valid_until: Duration,
}

/// What happened since the last look.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen {
    /// `(good, all)` of what a health check would see.
    pub checks: (u64, u64),
    /// The same of what users got, by [`Served`]; of relays those that there are now.
    pub served: [(u64, u64); Served::ALL.len()],
    /// Requests that wait for their answer now, longer than they should.
    pub waiting: u64,
}

/// The node.
#[derive(Clone, Debug, Default)]
pub struct NodeJudge {
    state: NodeState,
    since: Duration,
    at: Duration,
    checks: Share,
    served: [Share; Served::ALL.len()],
    /// Requests that waited too long at the last look.
    waiting: u64,
    last_served: Option<Duration>,
    last_bad: Duration,
    valid_until: Duration,
    back_off: BackOff,
    reasons: Vec<String>,
}

impl NodeJudge {
    /// Takes what was counted since the last look.
    pub fn count(&mut self, at: Duration, seen: &Seen) {
        let elapsed = at.saturating_sub(self.at);
        self.at = self.at.max(at);
        let keep = fade(elapsed, RECENT);
        let add = |share: &mut Share, keep: f64, (good, n): (u64, u64)| {
            *share = Share { good: share.good * keep + good as f64, n: share.n * keep + n as f64 };
        };
        add(&mut self.checks, keep, seen.checks);
        // One that waits is told once, and not again when it ends.
        let ended = seen.served[Served::Answers as usize];
        let bad = (ended.1 - ended.0 + seen.waiting)
            .saturating_sub(std::mem::replace(&mut self.waiting, seen.waiting));
        let mut counted = seen.served;
        counted[Served::Answers as usize].1 = ended.0 + bad;
        for kind in Served::ALL {
            // Relays are not trials: as many as there are.
            let keep = if kind == Served::Relays { 0.0 } else { keep };
            add(&mut self.served[kind as usize], keep, counted[kind as usize]);
        }
        if counted.iter().any(|(_, n)| *n > 0) {
            self.last_served = Some(at);
        }
    }

    /// Looks at the conditions that stand: the raised ones that may be relied on, and whether others of them recover. Returns the
    /// state before, where it changed.
    pub fn look(
        &mut self,
        settings: &Settings,
        at: Duration,
        culprits: &[Culprit],
        recovering: bool,
    ) -> Option<NodeState> {
        self.since = self.since.min(at);
        self.last_bad = self.last_bad.min(at);
        if let Some(latest) = culprits.iter().map(|culprit| culprit.valid_until).max() {
            (self.last_bad, self.valid_until) = (at, latest);
            self.reasons = reasons(culprits);
        }
        let next = self.next(settings, at, !culprits.is_empty(), recovering);
        let before = self.state;
        if next == before {
            return None;
        }
        if next.is_bad() && !before.is_bad() {
            self.back_off.begin(settings, at, before == NodeState::Recovering);
        }
        if before == NodeState::Recovering && !next.is_bad() {
            self.back_off.end(at);
            self.reasons.clear();
        }
        (self.state, self.since) = (next, at);
        Some(before)
    }

    fn next(&self, settings: &Settings, at: Duration, bad: bool, recovering: bool) -> NodeState {
        use NodeState::{Failing, Gray, Healthy, Recovering, Unknown};
        let unused = self
            .last_served
            .is_none_or(|last| at.saturating_sub(last.min(at)) >= settings.quiet * UNUSED_PERIODS);
        let usual = if unused { Unknown } else { Healthy };
        match self.state {
            state if bad => match self.checks.of_at_least(LEAST) {
                Some(share) if share <= FAILS => Failing,
                Some(share) if share < PASSES && state.is_bad() => state,
                _ => Gray,
            },
            state @ (Gray | Failing) => {
                // What came back soon is kept away for longer.
                let held = settings.lease * (self.back_off.factor() - 1);
                if at.saturating_sub(self.last_bad) >= held { Recovering } else { state }
            }
            Recovering if self.ramp(settings, at) < 100 || recovering => Recovering,
            _ => usual,
        }
    }

    /// The load on the way back, percent.
    fn ramp(&self, settings: &Settings, at: Duration) -> u8 {
        let step = STEP * self.back_off.factor();
        let steps = at.saturating_sub(self.since).div_duration_f64(step) as i32;
        // From 5 % on a hundred is reached in five steps: a float takes whatever comes after.
        (f64::from(settings.canary.max(FIRST)) * 2f64.powi(steps)).min(100.0) as u8
    }

    /// How it stands at `at`.
    pub fn report(&self, settings: &Settings, at: Duration) -> NodeReport {
        let users = self.served.iter().filter_map(|share| share.of_at_least(LEAST)).reduce(f64::min);
        NodeReport {
            state: self.state,
            since: self.since,
            valid_until: self.state.is_bad().then_some(self.valid_until),
            weight: match self.state {
                NodeState::Gray | NodeState::Failing => settings.canary,
                NodeState::Recovering => self.ramp(settings, at),
                NodeState::Unknown | NodeState::Healthy => 100,
            },
            score: self.checks.of_at_least(LEAST).zip(users).map(|(checks, users)| (checks - users).max(0.0)),
            checks: self.checks,
            served: self.served,
            reasons: self.reasons.clone(),
        }
    }
}

fn reasons(culprits: &[Culprit]) -> Vec<String> {
    let mut reasons: Vec<String> =
        culprits.iter().take(MOST_REASONS).map(|culprit| culprit.text.clone()).collect();
    if culprits.len() > MOST_REASONS {
        reasons.push(format!("and {} more", culprits.len() - MOST_REASONS));
    }
    reasons
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LOOK: Duration = Duration::from_millis(500);

    fn seconds(s: u64) -> Duration {
        Duration::from_secs(s)
    }

    struct World {
        node: NodeJudge,
        settings: Settings,
        at: Duration,
    }

    impl World {
        fn new() -> Self {
            Self { node: NodeJudge::default(), settings: Settings::default(), at: seconds(1000) }
        }

        /// Looks for so long, with so many of ten sessions a look active, and checks of which so many of ten pass.
        fn run(&mut self, time: Duration, bad: bool, active: u64, pass: u64) -> (NodeState, u8) {
            let end = self.at + time;
            while self.at < end {
                self.at += LOOK;
                let mut seen = Seen { checks: (pass, 10), ..Seen::default() };
                seen.served[Served::Sessions as usize] = (active, 10);
                self.node.count(self.at, &seen);
                let culprit =
                    Culprit { text: "media_activation".into(), valid_until: self.at + self.settings.lease };
                let culprits: &[Culprit] = if bad { &[culprit] } else { &[] };
                self.node.look(&self.settings, self.at, culprits, false);
            }
            let report = self.node.report(&self.settings, self.at);
            (report.state, report.weight)
        }
    }

    #[test]
    fn without_evidence_it_is_unknown_and_takes_all() {
        let world = World::new();
        let report = world.node.report(&world.settings, world.at);
        assert_eq!((report.state, report.weight, report.score), (NodeState::Unknown, 100, None));
    }

    #[test]
    fn users_that_get_nothing_where_checks_pass_make_it_gray() {
        let mut world = World::new();
        assert_eq!(world.run(seconds(20), false, 10, 10), (NodeState::Healthy, 100));
        assert_eq!(world.run(seconds(60), true, 0, 10), (NodeState::Gray, 5));
        let report = world.node.report(&world.settings, world.at);
        assert!(report.score > Some(0.9), "{report:?}");
        assert_eq!(report.reasons, ["media_activation"]);
        assert_eq!(report.valid_until, Some(world.at + world.settings.lease));
    }

    #[test]
    fn where_checks_fail_as_well_it_is_failing_and_does_not_flap() {
        let mut world = World::new();
        assert_eq!(world.run(seconds(60), true, 0, 4), (NodeState::Failing, 5));
        assert_eq!(world.run(seconds(60), true, 0, 7), (NodeState::Failing, 5));
        assert_eq!(world.run(seconds(90), true, 0, 10), (NodeState::Gray, 5));
        assert_eq!(world.run(seconds(60), true, 0, 7), (NodeState::Gray, 5));
    }

    #[test]
    fn it_comes_back_step_by_step_and_more_slowly_each_time() {
        let mut world = World::new();
        let mut took = Vec::new();
        for _ in 0..4 {
            world.run(seconds(10), true, 0, 10);
            let begun = world.at;
            let mut loads = vec![];
            while world.run(LOOK, false, 10, 10).1 < 100 {
                loads.push(world.node.report(&world.settings, world.at).weight);
                assert!(world.at < begun + seconds(200));
            }
            loads.dedup();
            assert_eq!(loads, [5, 10, 20, 40, 80]);
            took.push(world.at.saturating_sub(begun).as_secs());
        }
        assert_eq!(took, [25, 60, 130, 130]);
    }

    #[test]
    fn a_request_that_hangs_is_one_however_long_and_however_it_ends() {
        let mut node = NodeJudge::default();
        let mut look = |(good, n): (u64, u64), waiting| {
            let mut seen = Seen { waiting, ..Seen::default() };
            seen.served[Served::Answers as usize] = (good, n);
            node.count(Duration::ZERO, &seen);
            let share = node.served[Served::Answers as usize];
            (share.good as u64, share.n as u64)
        };
        assert_eq!(look((3, 3), 0), (3, 3));
        assert_eq!(look((0, 0), 2), (3, 5));
        assert_eq!(look((0, 0), 2), (3, 5));
        // One is given up, the other goes on, a third begins to be late.
        assert_eq!(look((0, 1), 2), (3, 6));
        assert_eq!(look((0, 2), 0), (3, 6));
        assert_eq!(look((1, 1), 0), (4, 7));
    }

    #[test]
    fn of_very_many_reasons_the_first_are_told_and_the_rest_is_counted() {
        let culprit = |i: u64| Culprit { text: i.to_string(), valid_until: seconds(i) };
        let culprits: Vec<Culprit> = (0..500).map(culprit).collect();
        assert_eq!(reasons(&culprits).len(), 9);
        assert_eq!(reasons(&culprits).last().map(String::as_str), Some("and 492 more"));
        assert_eq!(reasons(&culprits[..8]).last().map(String::as_str), Some("7"));
    }

    #[test]
    fn a_node_that_nobody_uses_is_unknown_again() {
        let mut world = World::new();
        world.run(seconds(20), false, 10, 10);
        for _ in 0..700 {
            world.at += LOOK;
            world.node.count(world.at, &Seen::default());
            world.node.look(&world.settings, world.at, &[], false);
        }
        assert_eq!(world.node.report(&world.settings, world.at).state, NodeState::Unknown);
    }

    proptest! {
        /// From any state whatsoever, where no condition stands any more the node has all its load back within a bounded time.
        #[test]
        fn nothing_stays(
            history in proptest::collection::vec((any::<bool>(), any::<bool>(), 0u64..11, 1u64..40, 0u64..100), 0..40),
        ) {
            let mut world = World::new();
            for (bad, recovering, pass, step, skew) in history {
                // Clocks jump back, too.
                world.at = (world.at + seconds(step)).saturating_sub(seconds(skew / 2));
                world.run(LOOK, bad, 5, pass);
                world.node.look(&world.settings, world.at, &[], recovering);
            }
            let end = world.at + world.settings.lease * 3 + STEP * 4 * 5 + LOOK * 4;
            while world.at < end {
                world.run(LOOK, false, 10, 10);
            }
            let report = world.node.report(&world.settings, world.at);
            prop_assert_eq!((report.state, report.weight), (NodeState::Healthy, 100));
        }
    }
}
