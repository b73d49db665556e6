//! How this node serves, seen from both sides: what a health check would see, and what users get.

use std::time::Duration;

/// State of a node; `graylag.state` of `graylag.node.state`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum NodeState {
    /// Nobody used it, or too few did to tell.
    #[default]
    Unknown,
    /// Users get what they ask for.
    Healthy,
    /// Health checks pass and users do not get what they ask for.
    Gray,
    /// Neither do health checks pass.
    Failing,
    /// It was gray or failing, and takes on users again step by step.
    Recovering,
}

impl NodeState {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Unknown, Self::Healthy, Self::Gray, Self::Failing, Self::Recovering];

    /// As it is spelled everywhere.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Healthy => "healthy",
            Self::Gray => "gray",
            Self::Failing => "failing",
            Self::Recovering => "recovering",
        }
    }

    /// Whether a balancer should send new users elsewhere.
    pub const fn is_bad(self) -> bool {
        matches!(self, Self::Gray | Self::Failing)
    }
}

/// What users get from a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Served {
    /// Sessions that become active.
    Sessions,
    /// Requests that are answered.
    Answers,
    /// Relays that put out what they take in.
    Relays,
}

impl Served {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Sessions, Self::Answers, Self::Relays];

    /// As it is spelled everywhere.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sessions => "sessions",
            Self::Answers => "answers",
            Self::Relays => "relays",
        }
    }
}

/// Trials of the recent past, fading.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Share {
    /// Good ones.
    pub good: f64,
    /// All.
    pub n: f64,
}

impl Share {
    /// Good ones of all, 0 to 1; nothing where there are fewer than `least`.
    pub fn of_at_least(self, least: f64) -> Option<f64> {
        (self.n >= least).then(|| self.good / self.n)
    }
}

/// How the node stands.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeReport {
    /// How.
    pub state: NodeState,
    /// Since when, on the ticks' clock.
    pub since: Duration,
    /// Until when a bad state holds without fresh evidence, on the ticks' clock.
    pub valid_until: Option<Duration>,
    /// What part of its usual load it should be given, percent.
    pub weight: u8,
    /// How much more of what health checks see is well than of what users get, 0 to 1; nothing where either is not known.
    pub score: Option<f64>,
    /// What a health check would see: handshakes accepted, connectivity checks answered.
    pub checks: Share,
    /// What users get, by [`Served`].
    pub served: [Share; Served::ALL.len()],
    /// Why it is bad, in words.
    pub reasons: Vec<String>,
}

/// A change of the node's state.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeTransition {
    /// State before.
    pub from: NodeState,
    /// How it stands now.
    pub node: NodeReport,
    /// When, on the ticks' clock.
    pub at: Duration,
}
