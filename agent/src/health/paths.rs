//! States of all paths, each direction for itself, from everything that is known of it: probes, media, TCP.

use std::{collections::BTreeMap, time::Duration};

use super::{
    Bernoulli, Settings,
    learned::Learning,
    lifecycle::{Lifecycle, Look},
    path_life::PathLife,
    shares::{Back, Shares, Trials},
};
use crate::model::{Direction, Expectation, Leg, Path, PathEvidence, PathState, Phase, ProbeTick};

/// A path without evidence for this long is forgotten.
const FORGET: Duration = Duration::from_secs(900);
/// So many probes without proof are too many …
const PROBES: u32 = 6;
/// … and no shorter time is.
const LEAST_PATIENCE: Duration = Duration::from_millis(500);
/// A path's usual share of lost probes is known after so many.
const LEARNING: Learning = Learning { least: 5_000, most: 100_000, highest_p0: 0.05 };
/// The last losses of an outage are found out this much after its end: probes have a second to be answered in.
const OUTAGE: Duration = Duration::from_secs(2);
/// A host tells of ports that are not open once a second to each other host (`icmp_ratelimit`), after a burst of six.
const REFUSED: Duration = Duration::from_secs(3);
/// So many packets that do not validate, and none that does in between, are no accident.
const MISMATCHES: u64 = 2;

/// All paths.
#[derive(Default)]
pub struct PathJudge {
    legs: BTreeMap<Leg, LegState>,
    mismatches: BTreeMap<Path, Mismatch>,
    /// When probes were last looked at.
    probes_at: Duration,
}

/// One direction of a path.
#[derive(Default)]
pub struct LegState {
    life: PathLife,
    /// By source, as last said.
    passive: PathEvidence,
    probes: PathEvidence,
    /// Whether it has probes of its own.
    probed: Option<Probed>,
    last_seen: Duration,
}

/// What probes say of one direction, beyond that it delivers.
#[derive(Default)]
struct Probed {
    interval: Duration,
    loss: Shares,
    trials: (u64, u64),
    lasting: Lasting,
    /// When something was last found lost.
    lost_at: Duration,
    in_run: bool,
    /// What is found lost until then was lost while the path was down.
    outage_until: Duration,
    /// The peer's own test packets say what it gets.
    reports: bool,
}

/// What was lost since the alarm, times in between that were well included where it came back soon: the share that recovery has to
/// refute. A fifth of the probes lost for a while is refuted by some forty that arrive; for one in fifty it takes hundreds, and with fewer
/// it would come and go for ever.
#[derive(Default)]
struct Lasting {
    /// Events, and trials up to the last of them.
    events: u64,
    trials: u64,
    /// Arrived since.
    clean: u64,
}

impl Lasting {
    fn add(&mut self, arrived: u64, events: u64) {
        if events > 0 {
            self.events += events;
            self.trials += self.clean + arrived + events;
            self.clean = 0;
        } else {
            self.clean += arrived;
        }
    }

    /// The share, less its standard deviation, for few events are chance; between four times the good one and the one that must be
    /// found.
    fn share(&self, test: &Bernoulli) -> f64 {
        let least = (test.p0 * 4.0).min(test.p1);
        let events = self.events as f64;
        let share = (events - events.sqrt()) / self.trials.max(1) as f64;
        share.clamp(least, test.p1)
    }
}

/// Packets that arrive and do not validate.
#[derive(Default)]
struct Mismatch {
    life: Lifecycle,
    in_a_row: u64,
    received: Option<Duration>,
}

/// What is to be told of a leg.
pub struct LegFacts<'a> {
    /// Which.
    pub leg: &'a Leg,
    /// Its state's life.
    pub life: &'a PathLife,
    /// Time between two probes, where it has any.
    pub interval: Option<Duration>,
    /// Whether the peer's own packets say what it gets.
    pub reports: bool,
}

impl PathJudge {
    /// Takes what was seen of a leg's own traffic; it counts from now on until something else is said.
    pub fn passive(&mut self, leg: &Leg, at: Duration, evidence: PathEvidence) {
        let state = self.legs.entry(leg.clone()).or_default();
        if evidence.proven > state.passive.proven {
            state.last_seen = at;
        }
        // A proof does not vanish because nothing is said of it again.
        let proven = evidence.proven.max(state.passive.proven);
        state.passive = PathEvidence { proven, ..evidence };
    }

    /// Takes a proof of delivery for a leg that is known already.
    pub fn proof(&mut self, leg: &Leg, at: Duration) {
        if let Some(state) = self.legs.get_mut(leg) {
            state.passive.proven = state.passive.proven.max(Some(at));
            state.last_seen = at;
        }
    }

    /// Takes what the probes of all sessions saw since the last look.
    pub fn probes(&mut self, settings: &Settings, at: Duration, ticks: &[ProbeTick]) {
        self.probes_at = at;
        // A session that ended says nothing more.
        for state in self.legs.values_mut() {
            state.probes = PathEvidence { proven: state.probes.proven, ..PathEvidence::default() };
        }
        let mut paths: BTreeMap<&Path, (u64, Option<Duration>)> = BTreeMap::new();
        for tick in ticks {
            let sum = paths.entry(&tick.path).or_default();
            *sum = (sum.0 + tick.mismatched, sum.1.max(tick.received));
            for (direction, evidence) in evidence(at, tick) {
                let leg = Leg { path: tick.path.clone(), direction };
                let state = self.legs.entry(leg).or_default();
                state.probes.add(&evidence);
                state.last_seen = at;
                let probed = state.probed.get_or_insert_default();
                (probed.interval, probed.reports) = (tick.interval, probed.reports || tick.reports);
                let (arrived, lost) = match direction {
                    Direction::Receive => tick.receive,
                    Direction::Transmit => tick.transmit,
                };
                if state.life.down() != Phase::Cleared {
                    probed.outage_until = at + OUTAGE;
                }
                probed.look(settings, at, arrived, lost, tick.runs[direction as usize]);
                let stands = probed.loss.life().phase() == Phase::Raised;
                state.probes.impaired |= stands || direction == Direction::Transmit && is_told(at, tick);
            }
        }
        // Of a session that ended no evidence comes any more: what stands because of it runs out.
        for (leg, state) in &mut self.legs {
            if let Some(probed) = state.probed.as_mut().filter(|_| !paths.contains_key(&leg.path)) {
                probed.look(settings, at, 0, 0, 0);
            }
        }
        for (path, (mismatched, received)) in &paths {
            let known = self.mismatches.entry((*path).clone()).or_default();
            known.look(settings, at, *mismatched, *received);
        }
        for (_, known) in self.mismatches.iter_mut().filter(|(path, _)| !paths.contains_key(path)) {
            known.look(settings, at, 0, None);
        }
    }

    /// Lets every leg look at its evidence, and forgets those that have had none for long. Returns the state before of those
    /// whose state changed.
    pub fn look(&mut self, settings: &Settings, at: Duration, late: Duration) -> BTreeMap<Leg, PathState> {
        // What came since probes were last looked at is here, and not known yet.
        let unseen = at.saturating_sub(self.probes_at);
        let changed = look(self.legs.iter_mut(), settings, at, late, unseen);
        self.legs.retain(|_, state| {
            at.saturating_sub(state.last_seen) < FORGET || state.life.valid_until(settings).is_some()
        });
        self.mismatches.retain(|path, known| {
            let is_known = |direction| self.legs.contains_key(&Leg { path: path.clone(), direction });
            !known.life.is_idle(settings, at) || Direction::BOTH.into_iter().any(is_known)
        });
        changed
    }

    /// The same of legs with probes only: these are looked at often, the others may be many.
    pub fn look_at_probed(
        &mut self,
        settings: &Settings,
        at: Duration,
        late: Duration,
    ) -> BTreeMap<Leg, PathState> {
        look(
            self.legs.iter_mut().filter(|(_, state)| state.probed.is_some()),
            settings,
            at,
            late,
            Duration::ZERO,
        )
    }

    /// The life of one leg.
    pub fn life(&self, leg: &Leg) -> Option<&PathLife> {
        self.legs.get(leg).map(|state| &state.life)
    }

    /// Every leg, in order.
    pub fn legs(&self) -> impl Iterator<Item = LegFacts<'_>> {
        self.legs.iter().map(|(leg, state)| LegFacts {
            leg,
            life: &state.life,
            interval: state.probed.as_ref().map(|probed| probed.interval),
            reports: state.probed.as_ref().is_some_and(|probed| probed.reports),
        })
    }

    /// Loss of probes by leg: the detector's life, `(probes, lost)` of the excursion and since.
    pub fn loss(&self) -> impl Iterator<Item = (&Leg, &Lifecycle, (u64, u64))> {
        self.legs.iter().filter_map(|(leg, state)| {
            let probed = state.probed.as_ref()?;
            Some((leg, probed.loss.life(), probed.trials))
        })
    }

    /// Packets that do not validate, by path.
    pub fn mismatches(&self) -> impl Iterator<Item = (&Path, &Lifecycle, u64)> {
        self.mismatches.iter().map(|(path, known)| (path, &known.life, known.in_a_row))
    }
}

fn look<'a>(
    legs: impl Iterator<Item = (&'a Leg, &'a mut LegState)>,
    settings: &Settings,
    at: Duration,
    late: Duration,
    unseen: Duration,
) -> BTreeMap<Leg, PathState> {
    let changed = legs.filter_map(|(leg, state)| {
        let mut evidence = state.passive;
        let mut probes = state.probes;
        if let Expectation::Within(patience) = &mut probes.expected {
            *patience += unseen;
        }
        evidence.add(&probes);
        state.life.look(settings, at, late, &evidence).map(|before| (leg.clone(), before))
    });
    changed.collect()
}

impl Probed {
    fn look(&mut self, settings: &Settings, at: Duration, arrived: u64, lost: u64, runs: u64) {
        let test = self.loss.test(&LEARNING, settings.probe_loss);
        // A run of lost probes is one event, however many looks it lasts; an outage has a condition of its own.
        let events = if at < self.outage_until { 0 } else { runs.min(arrived + u64::from(!self.in_run)) };
        self.in_run = arrived == 0 && (lost > 0 || self.in_run);
        let trials = Trials { good: arrived, bad: events, counted: events };
        if events > 0 {
            self.lost_at = at;
        }
        let back = Back {
            test: Bernoulli { p1: self.lasting.share(&test), ..test },
            undecided: at.saturating_sub(self.lost_at) < settings.quiet,
        };
        let changed = self.loss.look_back(settings, at, &LEARNING, &test, Some(&back), trials);
        if self.loss.is_quiet(changed) {
            self.trials = (0, 0);
        }
        if self.loss.life().is_idle(settings, at) {
            self.lasting = Lasting::default();
        } else if changed != Some(Phase::Cleared) {
            // What made it an alarm says nothing of how much is lost: it is picked out of all that came before.
            self.lasting.add(arrived, events);
        }
        self.trials = (self.trials.0 + arrived + lost, self.trials.1 + lost);
    }
}

impl Mismatch {
    fn look(&mut self, settings: &Settings, at: Duration, mismatched: u64, received: Option<Duration>) {
        let valid = received > self.received;
        self.received = self.received.max(received);
        let bad = mismatched > 0;
        self.in_a_row = match (bad, valid) {
            (true, true) => mismatched,
            (true, false) => self.in_a_row + mismatched,
            (false, true) => 0,
            (false, false) => self.in_a_row,
        };
        let good = if valid && !bad { settings.recovery } else { 0.0 };
        let alarm = bad && self.in_a_row >= MISMATCHES;
        let _ = self.life.look(settings, at, Look { alarm, bad, any: bad || valid, good });
    }
}

/// What a session's probes say of both directions.
fn evidence(at: Duration, tick: &ProbeTick) -> [(Direction, PathEvidence); 2] {
    let patience = patience(tick.interval);
    let is_within = |when: Option<Duration>, time| when.is_some_and(|when| at.saturating_sub(when) < time);
    let both = |receive, transmit| [(Direction::Receive, receive), (Direction::Transmit, transmit)];
    let evidence = |proven, arrived, expected| PathEvidence { proven, arrived, expected, impaired: false };
    if is_within(tick.refused, REFUSED) && tick.refused > tick.received {
        // The host there answers for an agent that is gone: nothing can be expected, and nothing is wrong with the path.
        let nothing = |proven| evidence(proven, tick.refused, Expectation::Nothing);
        return both(nothing(tick.received), nothing(tick.delivered));
    }
    let expected = Expectation::Within(patience);
    // That ours arrive is told by what comes back. A peer that speaks by itself is heard where the way in is well, and its
    // silence says nothing of the way out; of one that only answers, no answer says as much of either.
    // Heard a good while after the last proof, that is: the two end together where both came with one packet.
    let speaks = tick.reports || is_within(tick.mismatch, patience);
    let is_told = is_within(tick.received, patience / 2) || !speaks;
    // An answer that does not validate is an answer all the same: ours arrived, if not where it should.
    let is_echoed = is_within(tick.echoed, patience);
    let transmit = if is_told || is_echoed { expected } else { Expectation::Blind };
    both(evidence(tick.received, tick.mismatch, expected), evidence(tick.delivered, tick.echoed, transmit))
}

/// Whether the peer says that it loses too much of what comes from here. It knows sooner: it gets test packets and replies, and perhaps
/// media, and is where they go astray.
fn is_told(at: Duration, tick: &ProbeTick) -> bool {
    tick.told_lossy.is_some_and(|told| at.saturating_sub(told) < patience(tick.interval))
}

/// How long probes of this interval may go without proof.
fn patience(interval: Duration) -> Duration {
    (interval * PROBES).max(LEAST_PATIENCE)
}
