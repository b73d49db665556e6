//! What is judged of media, by path and direction.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{
    Settings,
    lifecycle::Lifecycle,
    loss::{PathLoss, Sample},
    one_way::OneWay,
    verdict::Verdict,
};
use crate::model::{Blame, ConditionName, Direction, Flows, Leg, LegTick, MediaCounts, Phase};

/// A leg without packets and without conditions for this long is forgotten.
const FORGET: Duration = Duration::from_secs(900);

/// All detectors of media.
#[derive(Default)]
pub struct MediaJudge {
    legs: BTreeMap<Leg, LegState>,
}

#[derive(Default)]
struct LegState {
    loss: PathLoss,
    one_way: OneWay,
    last_seen: Duration,
}

/// About which leg, what, and the detector's life.
type Concluded = (Leg, Verdict, Lifecycle);

impl MediaJudge {
    /// Takes the legs of one look; `dropped_here` are UDP datagrams that this host dropped meanwhile for want of room.
    pub fn observe(
        &mut self,
        settings: &Settings,
        at: Duration,
        legs: &[LegTick],
        dropped_here: u64,
    ) -> Vec<Concluded> {
        let mut verdicts = Vec::new();
        let mut quiet: BTreeSet<Leg> = self.standing().cloned().collect();
        // Which path the datagrams were of that this host dropped is not known: shared out by what each lost.
        let lost: u64 =
            legs.iter().filter(|l| l.leg.direction == Direction::Receive).map(|l| l.counts.lost).sum();
        for tick in legs {
            quiet.remove(&tick.leg);
            let here = (dropped_here * tick.counts.lost).div_ceil(lost.max(1)).min(tick.counts.lost);
            self.observe_leg(settings, at, tick, here, &mut verdicts);
        }
        for leg in quiet {
            let nothing = LegTick {
                leg,
                counts: MediaCounts::default(),
                flows: Flows::default(),
                age: None,
                media_age: None,
            };
            self.observe_leg(settings, at, &nothing, 0, &mut verdicts);
        }
        self.legs.retain(|_, state| {
            at.saturating_sub(state.last_seen) < FORGET
                || !(state.loss.life().is_idle(settings, at) && state.one_way.life().is_idle(settings, at))
        });
        verdicts
    }

    /// Whether loss of a leg's media stands as a condition.
    pub fn has_loss(&self, leg: &Leg) -> bool {
        self.legs.get(leg).is_some_and(|state| state.loss.life().phase() != Phase::Cleared)
    }

    fn standing(&self) -> impl Iterator<Item = &Leg> {
        let stands = |state: &LegState| {
            [state.loss.life(), state.one_way.life()].iter().any(|life| life.phase() != Phase::Cleared)
        };
        self.legs.iter().filter(move |(_, state)| stands(state)).map(|(leg, _)| leg)
    }

    fn observe_leg(
        &mut self,
        settings: &Settings,
        at: Duration,
        tick: &LegTick,
        dropped_here: u64,
        verdicts: &mut Vec<Concluded>,
    ) {
        let state = self.legs.entry(tick.leg.clone()).or_default();
        if tick.counts.packets > 0 {
            state.last_seen = at;
        }
        // Gaps in what this host sends were there when it took the packets over, or made: they are not the path's.
        if tick.leg.direction == Direction::Receive {
            let sample = Sample {
                arrived: tick.counts.packets,
                lost: tick.counts.lost,
                events: tick.counts.events(),
                dropped_here,
            };
            let changed = state.loss.look(settings, at, sample);
            if changed.is_some() || state.loss.life().phase() != Phase::Cleared {
                let (n, bad) = state.loss.evidence();
                let verdict = Verdict {
                    name: ConditionName::PathLoss,
                    blame: Blame::PathReceive,
                    n,
                    bad,
                    text: format!("{:.1}% of packets lost, in {bad} bursts", 100.0 * state.loss.share()),
                };
                verdicts.push((tick.leg.clone(), verdict, *state.loss.life()));
            }
        }
        let changed = state.one_way.look(settings, at, tick.flows);
        if changed.is_some() || state.one_way.life().phase() != Phase::Cleared {
            let (n, bad) = state.one_way.evidence();
            let (blame, what) = match tick.leg.direction {
                Direction::Receive => (Blame::PathReceive, "nothing comes back on them"),
                Direction::Transmit => (Blame::LocalProcess, "this host sends nothing on them"),
            };
            let text = format!("{bad} of {n} media flows have fallen silent one way: {what}");
            let verdict = Verdict { name: ConditionName::OneWayMedia, blame, n, bad, text };
            verdicts.push((tick.leg.clone(), verdict, *state.one_way.life()));
        }
    }
}
