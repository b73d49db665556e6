//! The state of one path in one direction: a state machine over proofs, each look.
//!
//! Bad states are leases that only fresh bad evidence renews; they end in `recovering`, never silently in `healthy`. Quick down,
//! staged up: one second of steady delivery, doubled twice at most where trouble comes back. No state is held by old news: from
//! any state whatsoever, a direction that delivers is healthy within `lease` and that time (a property test).

use std::time::Duration;

use super::{Settings, back_off::BackOff};
use crate::model::{Expectation, PathEvidence, PathState, Phase};

/// Delivery must be steady for this long before a direction is healthy.
const STEADY: Duration = Duration::from_secs(1);
/// Delivery is steady where proofs are no further apart than this, and no further than they are expected.
const GAP: Duration = Duration::from_secs(2);

/// Life of one direction.
#[derive(Clone, Copy, Debug, Default)]
pub struct PathLife {
    state: PathState,
    since: Duration,
    proven: Option<Duration>,
    /// Since when something has been expected without a pause.
    expected_since: Option<Duration>,
    last_bad: Duration,
    /// Since when it has delivered steadily.
    steady_since: Option<Duration>,
    /// Whether it recovers from having been down.
    was_down: bool,
    back_off: BackOff,
}

impl PathLife {
    /// Takes one look at `at`; this host was `late` by so much, for which nobody is blamed. Returns the state before, where it
    /// changed.
    pub fn look(
        &mut self,
        settings: &Settings,
        at: Duration,
        late: Duration,
        evidence: &PathEvidence,
    ) -> Option<PathState> {
        // What comes from the future is wrong, and would hold a state for ever.
        let proven = evidence.proven.map(|proven| proven.min(at));
        let fresh = proven > self.proven;
        self.proven = self.proven.map(|known| known.min(at)).max(proven);
        let widen = if late >= settings.late { late } else { Duration::ZERO };
        let overdue = self.is_overdue(at, widen, evidence);
        if overdue || evidence.impaired {
            self.last_bad = at;
        }
        self.keep_steady(at, fresh, widen, evidence.expected);
        let next = self.next(settings, at, overdue, fresh, evidence);
        self.enter(settings, at, next)
    }

    fn is_overdue(&mut self, at: Duration, widen: Duration, evidence: &PathEvidence) -> bool {
        let Expectation::Within(patience) = evidence.expected else {
            self.expected_since = None;
            return false;
        };
        let since = self.expected_since.map_or(at, |since| since.min(at));
        self.expected_since = Some(since);
        // Never seen is unknown, not down.
        let Some(proven) = self.proven else { return false };
        let newest = proven.max(since).max(evidence.arrived.unwrap_or_default().min(at));
        at.saturating_sub(newest) >= patience + widen
    }

    fn keep_steady(&mut self, at: Duration, fresh: bool, widen: Duration, expected: Expectation) {
        let gap = if let Expectation::Within(patience) = expected { patience.max(GAP) } else { GAP };
        if fresh {
            self.steady_since = Some(self.steady_since.map_or(at, |since| since.min(at)));
        } else if self.proven.is_none_or(|proven| at.saturating_sub(proven) > gap + widen) {
            self.steady_since = None;
        }
    }

    fn next(
        &self,
        settings: &Settings,
        at: Duration,
        overdue: bool,
        fresh: bool,
        evidence: &PathEvidence,
    ) -> PathState {
        use PathState::{Degraded, Down, Healthy, Idle, Recovering, Unknown};
        if overdue {
            return Down;
        }
        let steady = |needed| self.steady_since.is_some_and(|since| at.saturating_sub(since) >= needed);
        let lease_over = at.saturating_sub(self.last_bad.min(at)) >= settings.lease;
        match self.state {
            Down if fresh || lease_over => Recovering,
            Down => Down,
            _ if evidence.impaired => Degraded,
            Unknown if steady(STEADY) => Healthy,
            Unknown => Unknown,
            Idle if fresh => Healthy,
            Idle => Idle,
            Recovering if steady(STEADY * self.back_off.factor()) => Healthy,
            Recovering
                if at.saturating_sub(self.proven.unwrap_or_default().max(self.since.min(at)))
                    >= settings.quiet =>
            {
                Unknown
            }
            Degraded | Recovering => Recovering,
            Healthy => {
                let silence = self.proven.map_or(Duration::MAX, |proven| at.saturating_sub(proven));
                match evidence.expected {
                    Expectation::Nothing if silence >= settings.lease => Idle,
                    Expectation::Blind if silence >= settings.lease => Unknown,
                    _ => Healthy,
                }
            }
        }
    }

    fn enter(&mut self, settings: &Settings, at: Duration, next: PathState) -> Option<PathState> {
        let before = self.state;
        if next == before {
            return None;
        }
        let is_bad = |state| matches!(state, PathState::Down | PathState::Degraded);
        if is_bad(next) && !is_bad(before) {
            self.back_off.begin(settings, at, before == PathState::Recovering);
        }
        match next {
            PathState::Down => (self.was_down, self.steady_since) = (true, None),
            // What lost too much delivered all the while, and has proven by its own test that it no longer does.
            PathState::Recovering if before == PathState::Down => {
                self.steady_since = self.steady_since.and(Some(at));
            }
            PathState::Healthy if before == PathState::Recovering => self.back_off.end(at),
            _ => {}
        }
        if !matches!(next, PathState::Down | PathState::Recovering) {
            self.was_down = false;
        }
        (self.state, self.since) = (next, at);
        Some(before)
    }

    /// The state.
    pub const fn state(&self) -> PathState {
        self.state
    }

    /// Since when it is that.
    pub const fn since(&self) -> Duration {
        self.since
    }

    /// When it was last proven to deliver.
    pub const fn proven(&self) -> Option<Duration> {
        self.proven
    }

    /// Until when the state holds without fresh evidence; `None` where it is not a bad one.
    pub fn valid_until(&self, settings: &Settings) -> Option<Duration> {
        match self.state {
            PathState::Down | PathState::Degraded => Some(self.last_bad + settings.lease),
            PathState::Recovering => Some(self.since + settings.quiet),
            _ => None,
        }
    }

    /// The phase of `path_down`.
    pub const fn down(&self) -> Phase {
        match self.state {
            PathState::Down => Phase::Raised,
            PathState::Recovering if self.was_down => Phase::Recovering,
            _ => Phase::Cleared,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::back_off, *};
    use rand::{Rng, RngExt, SeedableRng, rngs::StdRng};

    const LOOK: Duration = Duration::from_millis(100);
    const PATIENCE: Duration = Duration::from_millis(600);
    const WITHIN: Expectation = Expectation::Within(PATIENCE);

    /// Looks at what happens in each; `Some(expected)` where it delivers.
    struct Run {
        life: PathLife,
        at: Duration,
        states: Vec<PathState>,
    }

    impl Run {
        fn new() -> Self {
            Self { life: PathLife::default(), at: Duration::from_secs(1000), states: Vec::new() }
        }

        fn look(&mut self, delivers: bool, expected: Expectation, impaired: bool) -> PathState {
            self.at += LOOK;
            let proven = delivers.then_some(self.at);
            let evidence = PathEvidence { proven, expected, impaired, arrived: None };
            self.life.look(&Settings::default(), self.at, Duration::ZERO, &evidence);
            if self.states.last() != Some(&self.life.state()) {
                self.states.push(self.life.state());
            }
            self.life.state()
        }

        /// How long until the state comes.
        fn until(&mut self, state: PathState, delivers: bool, expected: Expectation) -> Duration {
            let start = self.at;
            while self.look(delivers, expected, false) != state {
                assert!(self.at < start + Duration::from_secs(100), "no {state:?}: {:?}", self.states);
            }
            self.at.saturating_sub(start)
        }
    }

    #[test]
    fn a_direction_that_dies_is_down_within_a_second_and_healthy_within_two_of_its_return() {
        let mut run = Run::new();
        run.until(PathState::Healthy, true, WITHIN);
        assert!(run.until(PathState::Down, false, WITHIN) <= Duration::from_millis(700));
        (0..300).for_each(|_| assert_eq!(run.look(false, WITHIN, false), PathState::Down));
        assert!(run.until(PathState::Healthy, true, WITHIN) < Duration::from_secs(2));
        let names: Vec<_> = run.states.iter().map(|state| state.name()).collect();
        assert_eq!(names, ["unknown", "healthy", "down", "recovering", "healthy"]);
    }

    #[test]
    fn what_returns_soon_takes_longer_to_be_healthy() {
        let mut run = Run::new();
        run.until(PathState::Healthy, true, WITHIN);
        let mut took = Vec::new();
        for _ in 0..4 {
            run.until(PathState::Down, false, WITHIN);
            took.push(run.until(PathState::Healthy, true, WITHIN).as_millis());
        }
        assert_eq!(took, [1100, 2100, 4100, 4100]);
    }

    #[test]
    fn silence_of_which_nothing_is_expected_is_idle_and_not_down() {
        let mut run = Run::new();
        run.until(PathState::Healthy, true, Expectation::Nothing);
        let idle = run.until(PathState::Idle, false, Expectation::Nothing);
        assert!(idle + LOOK * 2 >= Settings::default().lease, "{idle:?}");
        (0..3000).for_each(|_| assert_eq!(run.look(false, Expectation::Nothing, false), PathState::Idle));
        // Who begins to expect something gives it time.
        assert_eq!(run.look(false, WITHIN, false), PathState::Idle);
        assert!(run.until(PathState::Down, false, WITHIN) + LOOK >= PATIENCE);
    }

    #[test]
    fn never_seen_and_not_to_be_seen_are_unknown() {
        let mut run = Run::new();
        (0..600).for_each(|_| assert_eq!(run.look(false, WITHIN, false), PathState::Unknown));
        run.until(PathState::Healthy, true, WITHIN);
        run.until(PathState::Unknown, false, Expectation::Blind);
        assert_eq!(run.states, [PathState::Unknown, PathState::Healthy, PathState::Unknown]);
    }

    #[test]
    fn loss_degrades_and_is_never_taken_for_down() {
        let mut run = Run::new();
        run.until(PathState::Healthy, true, WITHIN);
        for i in 0..300 {
            assert_eq!(run.look(i % 5 != 0, WITHIN, true), PathState::Degraded);
        }
        assert!(run.until(PathState::Healthy, true, WITHIN) <= LOOK * 2);
    }

    #[test]
    fn what_arrives_and_does_not_validate_keeps_it_up_and_does_not_bring_it_up() {
        let mut run = Run::new();
        let settings = Settings::default();
        let mismatch = |run: &mut Run| {
            run.at += LOOK;
            let evidence =
                PathEvidence { arrived: Some(run.at), expected: WITHIN, ..PathEvidence::default() };
            run.life.look(&settings, run.at, Duration::ZERO, &evidence);
            run.life.state()
        };
        (0..100).for_each(|_| assert_eq!(mismatch(&mut run), PathState::Unknown));
        run.until(PathState::Healthy, true, WITHIN);
        (0..600).for_each(|_| assert_eq!(mismatch(&mut run), PathState::Healthy));
        run.until(PathState::Down, false, WITHIN);
        (0..600).for_each(|_| assert_ne!(mismatch(&mut run), PathState::Healthy));
    }

    #[test]
    fn a_host_that_is_late_blames_nobody() {
        let mut run = Run::new();
        run.until(PathState::Healthy, true, WITHIN);
        let (settings, late) = (Settings::default(), Duration::from_secs(3));
        run.at += late;
        let evidence = PathEvidence { expected: WITHIN, ..PathEvidence::default() };
        run.life.look(&settings, run.at, late, &evidence);
        assert_eq!(run.life.state(), PathState::Healthy);
    }

    fn anything(random: &mut StdRng) -> PathLife {
        let time = |random: &mut StdRng| Duration::from_millis(random.random_range(0..1_200_000));
        let some = |random: &mut StdRng| random.random::<bool>().then(|| time(random));
        PathLife {
            state: PathState::ALL[random.random_range(0..PathState::ALL.len())],
            since: time(random),
            proven: some(random),
            expected_since: some(random),
            last_bad: time(random),
            steady_since: some(random),
            was_down: random.random(),
            back_off: BackOff::any(random.random_range(0..=back_off::MOST), some(random)),
        }
    }

    /// The rule that no state sticks: a million histories from arbitrary states, times of the future among them; then it delivers.
    #[test]
    fn from_any_state_what_delivers_is_healthy_within_lease_and_steadiness() {
        let (settings, mut random) = (Settings::default(), StdRng::seed_from_u64(4));
        let bound = settings.lease + STEADY * (1 << back_off::MOST) + LOOK * 2;
        for trace in 0..1_000_000 {
            let mut at = Duration::from_secs(1000);
            let mut life = anything(&mut random);
            for _ in 0..random.random_range(0..12) {
                at += Duration::from_millis(random.random_range(0..5000));
                let late = Duration::from_millis(random.random_range(0..600));
                let when = |random: &mut StdRng| {
                    let offset = Duration::from_millis(random.random_range(0..4000));
                    random.random::<bool>().then(|| (at + Duration::from_secs(1)).saturating_sub(offset))
                };
                let evidence = PathEvidence {
                    proven: when(&mut random),
                    arrived: when(&mut random),
                    expected: [Expectation::Nothing, WITHIN, Expectation::Blind][random.random_range(0..3)],
                    impaired: random.next_u32() % 4 == 0,
                };
                life.look(&settings, at, late, &evidence);
            }
            let end = at + bound;
            while at < end && life.state() != PathState::Healthy {
                at += LOOK;
                let evidence = PathEvidence { proven: Some(at), expected: WITHIN, ..PathEvidence::default() };
                life.look(&settings, at, Duration::ZERO, &evidence);
            }
            assert_eq!(life.state(), PathState::Healthy, "trace {trace}: {life:?}");
        }
    }
}
