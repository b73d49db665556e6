//! The judge's part about paths: evidence in, states and what follows from them out.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{
    Change, Judge, Settings,
    blame::{DownFacts, blame_path_down},
    conditions::Held,
    paths::LegFacts,
    verdict::Verdict,
};
use crate::model::{
    Blame, ConditionName, Direction, Expectation, Leg, Outcome, Path, PathEvidence, PathReport, PathState,
    PathTransition, Phase, ProbeTick, Target, Tick, Transition,
};

/// Media of a path that has fallen silent one way should have come at least this often.
const MEDIA_PATIENCE: Duration = Duration::from_secs(2);
/// What was proven within this delivers.
const STEADY: Duration = Duration::from_secs(1);

impl Judge {
    /// How every path stands, each direction for itself.
    pub fn paths(&self) -> impl Iterator<Item = PathReport> {
        self.paths.legs().map(|facts| report(&facts, &self.settings))
    }

    /// Paths of which too much is lost on the way in.
    pub fn losing(&self) -> impl Iterator<Item = &Path> {
        let degraded = |facts: &LegFacts<'_>| facts.life.state() == PathState::Degraded;
        let received = self.paths.legs().filter(|facts| facts.leg.direction == Direction::Receive);
        received.filter(degraded).map(|facts| &facts.leg.path)
    }

    /// Takes what traffic says of its paths.
    pub(super) fn observe_paths(&mut self, tick: &Tick, transitions: &mut Vec<Transition>) {
        // Of paths that carry neither media nor probes no state is kept: there may be very many, and their conditions say more.
        for seen in tick.media.iter().filter(|seen| seen.media_age.is_some()) {
            let target = Target::Leg(seen.leg.clone());
            let is_raised =
                |name| self.conditions.get(name, &target).is_some_and(|c| c.phase == Phase::Raised);
            let one_way = is_raised(ConditionName::OneWayMedia);
            // What this host sends proves nothing.
            let age = seen.age.filter(|_| seen.leg.direction == Direction::Receive);
            let evidence = PathEvidence {
                proven: age.map(|age| tick.at.saturating_sub(age)),
                arrived: None,
                expected: if one_way { Expectation::Within(MEDIA_PATIENCE) } else { Expectation::Nothing },
                impaired: one_way || is_raised(ConditionName::PathLoss),
            };
            self.paths.passive(&seen.leg, tick.at, evidence);
        }
        for seen in &tick.subjects {
            let (counts, path) = (&seen.counts, &seen.subject.path);
            // An acknowledgement that makes a round trip, or an answer, proves both directions; a segment the way in.
            let answered =
                counts.rtt.count() + counts.response.count() + counts.outcome(Outcome::Established);
            let mut proof = |direction| self.paths.proof(&Leg { path: path.clone(), direction }, tick.at);
            if answered > 0 {
                proof(Direction::Transmit);
            }
            if answered + counts.segments_in > 0 {
                proof(Direction::Receive);
            }
        }
        let changed = self.paths.look(&self.settings, tick.at, tick.late);
        self.settle_paths(tick.at, tick.late, &changed, transitions);
    }

    /// Takes what probes saw since the last look, which came `late`: these are looked at more often than the rest.
    pub fn observe_probes(&mut self, at: Duration, late: Duration, ticks: &[ProbeTick]) -> Vec<Transition> {
        let mut transitions = Vec::new();
        self.paths.probes(&self.settings, at, ticks);
        let changed = self.paths.look_at_probed(&self.settings, at, late);
        self.settle_paths(at, late, &changed, &mut transitions);
        transitions
    }

    /// Keeps the conditions in step with the lives of paths, of which `changed` have just done so.
    fn settle_paths(
        &mut self,
        at: Duration,
        late: Duration,
        changed: &BTreeMap<Leg, PathState>,
        transitions: &mut Vec<Transition>,
    ) {
        for facts in self.paths.legs() {
            if let Some(from) = changed.get(facts.leg) {
                let path = report(&facts, &self.settings);
                self.changes.push(Change::Path(PathTransition { from: *from, path, at }));
            }
        }
        let late = late >= self.settings.late;
        let probed = self.paths.legs().filter(|facts| facts.interval.is_some());
        let (mut down, mut all) = (0, 0);
        for facts in probed {
            all += 1;
            down += usize::from(facts.life.state() == PathState::Down);
        }
        let host_drops = self.conditions.is_raised(ConditionName::HostDrops);
        for facts in self.paths.legs() {
            if facts.life.down() == Phase::Cleared && !changed.contains_key(facts.leg) {
                continue;
            }
            let target = Target::Leg(facts.leg.clone());
            let before = self.conditions.get(ConditionName::PathDown, &target);
            let held = Held {
                phase: facts.life.down(),
                since: before.map_or(facts.life.since(), |before| before.since),
                valid_until: facts.life.valid_until(&self.settings).unwrap_or(at),
            };
            let blame = blame_path_down(&DownFacts {
                direction: facts.leg.direction,
                host_drops,
                down,
                probed: all,
                other_delivers: self.other_delivers(facts.leg),
            });
            let verdict = down_verdict(&facts, at, blame);
            transitions.extend(self.conditions.settle(at, target, verdict, held, late));
        }
        let lossy: BTreeSet<Leg> = self.legs_with(ConditionName::PathLoss).cloned().collect();
        for (leg, life, (n, bad)) in self.paths.loss() {
            // Media of the path has raised it already, or will clear it. Of most there is nothing to say.
            if self.media.has_loss(leg) || life.phase() == Phase::Cleared && !lossy.contains(leg) {
                continue;
            }
            let verdict = Verdict {
                name: ConditionName::PathLoss,
                blame: match leg.direction {
                    Direction::Receive => Blame::PathReceive,
                    Direction::Transmit => Blame::PathTransmit,
                },
                n,
                bad,
                text: format!("{bad} of {n} probes lost"),
            };
            let (target, held) = (Target::Leg(leg.clone()), Held::of(life, &self.settings));
            transitions.extend(self.conditions.settle(at, target, verdict, held, late));
        }
        let mismatched: BTreeSet<Path> =
            self.legs_with(ConditionName::AuthMismatch).map(|leg| leg.path.clone()).collect();
        for (path, life, n) in self.paths.mismatches() {
            if life.phase() == Phase::Cleared && !mismatched.contains(path) {
                continue;
            }
            let verdict = Verdict {
                name: ConditionName::AuthMismatch,
                blame: Blame::Unknown,
                n,
                bad: n,
                text: if n > 0 {
                    format!(
                        "{n} probes in a row arrived and did not validate: the keys of the two ends differ"
                    )
                } else {
                    "probes validate again".to_owned()
                },
            };
            let target = Target::Leg(Leg { path: path.clone(), direction: Direction::Receive });
            let held = Held::of(life, &self.settings);
            transitions.extend(self.conditions.settle(at, target, verdict, held, late));
        }
    }

    /// Legs of which a condition of this name stands.
    fn legs_with(&self, name: ConditionName) -> impl Iterator<Item = &Leg> {
        let standing = self.conditions.iter().filter(move |condition| condition.key.name == name);
        standing.filter_map(|condition| match &condition.key.target {
            Target::Leg(leg) => Some(leg),
            _ => None,
        })
    }

    /// Whether the other direction of this leg's path has been proven to deliver since this one last was.
    fn other_delivers(&self, leg: &Leg) -> bool {
        /// Proofs of both directions often come with one packet.
        const SINCE: Duration = Duration::from_millis(250);
        let proven = |direction| self.paths.life(&Leg { path: leg.path.clone(), direction })?.proven();
        proven(leg.direction.other()) > proven(leg.direction).map(|proven| proven + SINCE)
    }
}

fn report(facts: &LegFacts<'_>, settings: &Settings) -> PathReport {
    PathReport {
        leg: facts.leg.clone(),
        state: facts.life.state(),
        since: facts.life.since(),
        proven: facts.life.proven(),
        valid_until: facts.life.valid_until(settings),
        probed: facts.interval.is_some(),
    }
}

fn down_verdict(facts: &LegFacts<'_>, at: Duration, blame: Blame) -> Verdict {
    let silence = facts.life.proven().map_or(Duration::ZERO, |proven| at.saturating_sub(proven));
    let n = facts.interval.map_or(1, |interval| silence.div_duration_f64(interval) as u64);
    let what = match facts.leg.direction {
        Direction::Receive => "nothing has come",
        Direction::Transmit => "nothing is known to have arrived there",
    };
    let word = if facts.reports && facts.leg.direction == Direction::Transmit {
        "; the peer is heard, and says so"
    } else {
        ""
    };
    let text = match facts.life.state() {
        PathState::Down => format!("{what} for {:.1}s{word}", silence.as_secs_f64()),
        _ if silence < STEADY => "it delivers again".to_owned(),
        _ => "whether it delivers cannot be known now".to_owned(),
    };
    Verdict { name: ConditionName::PathDown, blame, n, bad: n, text }
}
