//! Sessions on their way to media: the stages, what became of them, and how many.

use serde::{Deserialize, Serialize};

use super::{Blame, Distribution};

/// A part of the way; `graylag.media.stage`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum MediaStage {
    /// Connectivity checks: until one is answered.
    Stun,
    /// Keys: until both sides have finished.
    Dtls,
    /// Media: until it flows, or is reported on, both ways.
    Rtp,
}

impl MediaStage {
    /// All of them, in order.
    pub const ALL: [Self; 3] = [Self::Stun, Self::Dtls, Self::Rtp];

    /// As it is spelled everywhere.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Stun => "stun",
            Self::Dtls => "dtls",
            Self::Rtp => "rtp",
        }
    }
}

/// What became of a session; `graylag.outcome`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum MediaOutcome {
    /// Media flows both ways, or one way with reports the other.
    Active,
    /// It stopped at a stage.
    Failed,
    /// Media flows one way and nothing comes back.
    OneWay,
    /// It could, and nobody sends: muted, or alone.
    Idle,
}

impl MediaOutcome {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Active, Self::Failed, Self::OneWay, Self::Idle];

    /// As it is spelled everywhere.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Failed => "failed",
            Self::OneWay => "one_way",
            Self::Idle => "idle",
        }
    }
}

/// A session that was decided in a look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecidedSession {
    /// What became of it.
    pub outcome: MediaOutcome,
    /// At which stage it stopped.
    pub stage: MediaStage,
    /// Who stopped.
    pub blame: Blame,
}

/// What happened to sessions in a look.
#[derive(Clone, Debug, Default)]
pub struct ActivationTick {
    /// Decided now.
    pub decided: Vec<DecidedSession>,
    /// Under way, by [`MediaStage`].
    pub pending: [u64; MediaStage::ALL.len()],
}

/// Sessions since a start.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ActivationCounts {
    /// By [`MediaStage`] and [`MediaOutcome`].
    pub sessions: [[u64; MediaOutcome::ALL.len()]; MediaStage::ALL.len()],
    /// How long each stage took those that came through.
    pub took: [Distribution; MediaStage::ALL.len()],
}

impl ActivationCounts {
    /// Adds another set of counts.
    pub fn add(&mut self, other: &Self) {
        for (all, other) in self.sessions.iter_mut().zip(other.sessions) {
            all.iter_mut().zip(other).for_each(|(a, b)| *a += b);
        }
        self.took.iter_mut().zip(&other.took).for_each(|(a, b)| a.add(b));
    }
}
