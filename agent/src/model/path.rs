//! How a path stands in one direction, and what that is judged by.

use std::time::Duration;

use super::{Leg, Path};

/// State of a path in one direction; `graylag.path.state`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PathState {
    /// No evidence, or none that is still good for anything.
    #[default]
    Unknown,
    /// It delivered, and nothing is expected of it now.
    Idle,
    /// It delivers.
    Healthy,
    /// It delivers, and loses too much or leaves much of its media out.
    Degraded,
    /// It should deliver and does not.
    Down,
    /// It was degraded or down, and has not delivered for long enough since.
    Recovering,
}

impl PathState {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Unknown, Self::Idle, Self::Healthy, Self::Degraded, Self::Down, Self::Recovering];

    /// As it is spelled everywhere.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Idle => "idle",
            Self::Healthy => "healthy",
            Self::Degraded => "degraded",
            Self::Down => "down",
            Self::Recovering => "recovering",
        }
    }
}

/// Whether a direction should be delivering now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Expectation {
    /// Nobody sends: silence is right.
    #[default]
    Nothing,
    /// Something should be proven at least this often.
    Within(Duration),
    /// It should, and the way by which the proof would come is itself silent: nothing can be said.
    Blind,
}

/// What is known of a path in one direction at a look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PathEvidence {
    /// When it was last proven to deliver, on the ticks' clock. A packet that arrived proves *receive*; that we sent proves
    /// nothing, only an answer or the peer's word proves *transmit*.
    pub proven: Option<Duration>,
    /// When something last came that does not validate: it proves the wire and earns no trust.
    pub arrived: Option<Duration>,
    /// Whether it should deliver.
    pub expected: Expectation,
    /// It loses too much, or leaves much of its media out: a condition stands that says so.
    pub impaired: bool,
}

impl PathEvidence {
    /// Takes in what another source says of the same direction.
    pub fn add(&mut self, other: &Self) {
        self.proven = self.proven.max(other.proven);
        self.arrived = self.arrived.max(other.arrived);
        self.impaired |= other.impaired;
        self.expected = match (self.expected, other.expected) {
            (Expectation::Within(a), Expectation::Within(b)) => Expectation::Within(a.max(b)),
            (within @ Expectation::Within(_), _) | (_, within @ Expectation::Within(_)) => within,
            (Expectation::Blind, _) | (_, Expectation::Blind) => Expectation::Blind,
            (Expectation::Nothing, Expectation::Nothing) => Expectation::Nothing,
        };
    }
}

/// How one direction of a path stands, for whoever asks.
#[derive(Clone, Debug)]
pub struct PathReport {
    /// Which.
    pub leg: Leg,
    /// How.
    pub state: PathState,
    /// Since when, on the ticks' clock.
    pub since: Duration,
    /// Newest proof that it delivers, on the ticks' clock.
    pub proven: Option<Duration>,
    /// Until when a bad state holds without fresh evidence.
    pub valid_until: Option<Duration>,
    /// Whether it has probes.
    pub probed: bool,
}

impl PathReport {
    /// Of a direction that nothing is known of.
    pub const fn unknown(leg: Leg, now: Duration) -> Self {
        Self { leg, state: PathState::Unknown, since: now, proven: None, valid_until: None, probed: false }
    }
}

/// A change of a path's state in one direction.
#[derive(Clone, Debug)]
pub struct PathTransition {
    /// State before.
    pub from: PathState,
    /// How it stands now.
    pub path: PathReport,
    /// When, on the ticks' clock.
    pub at: Duration,
}

/// What a STAMP session saw since the last look.
#[derive(Clone, Debug)]
pub struct ProbeTick {
    /// Of which path.
    pub path: Path,
    /// Time between two test packets.
    pub interval: Duration,
    /// Test packets that reached the peer, and those that did not.
    pub transmit: (u64, u64),
    /// Replies that came back, and those that were lost.
    pub receive: (u64, u64),
    /// Runs of lost ones, by [`Direction`].
    pub runs: [u64; 2],
    /// Packets that came and did not validate.
    pub mismatched: u64,
    /// When the newest valid packet came, on the ticks' clock.
    pub received: Option<Duration>,
    /// When the newest packet that is known to have reached the peer was under way.
    pub delivered: Option<Duration>,
    /// When the newest packet came that did not validate.
    pub mismatch: Option<Duration>,
    /// When the newest test packet was under way whose answer came and did not validate.
    pub echoed: Option<Duration>,
    /// When the peer's host last said that nobody listens there (ICMP port unreachable): its agent restarts, the path is well.
    pub refused: Option<Duration>,
    /// Whether the peer says what it gets, in test packets of its own.
    pub reports: bool,
    /// When it last said that it loses too much of what this host sends, on the ticks' clock; `None` where its newest word is another.
    pub told_lossy: Option<Duration>,
}
