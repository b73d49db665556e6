//! What graylag concludes.

use std::{fmt, sync::Arc, time::Duration};

use graylag_ebpf::counter::Direction;

use super::{Leg, Process, Subject};

/// Conditions, by the names that routers and alerts use; `graylag.condition.name`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ConditionName {
    /// Attempts to or from it hang.
    HandshakeStall,
    /// It accepts and does not speak.
    FirstByteStall,
    /// Its answers take longer than its own past, network unchanged.
    ResponseSlow,
    /// It speaks regularly, and is silent.
    ReceiveSilence,
    /// It has fewer exchanges than its floor.
    RateLow,
    /// Loss above its bound, bursts counted once.
    PathLoss,
    /// Traffic is expected and nothing is proven to arrive.
    PathDown,
    /// Media still goes into a path that is down.
    NotRerouted,
    /// A controller avoids what evidence says is healthy.
    StuckAvoid,
    /// Probes arrive and do not validate.
    AuthMismatch,
    /// Media flows in one direction only.
    OneWayMedia,
    /// It takes media in and puts none out.
    RelayStall,
    /// Sessions do not become active.
    MediaActivation,
    /// This host drops.
    HostDrops,
}

impl ConditionName {
    /// All that this version concludes.
    pub const ALL: [Self; 14] = [
        Self::HandshakeStall,
        Self::FirstByteStall,
        Self::ResponseSlow,
        Self::ReceiveSilence,
        Self::RateLow,
        Self::PathLoss,
        Self::PathDown,
        Self::NotRerouted,
        Self::StuckAvoid,
        Self::AuthMismatch,
        Self::OneWayMedia,
        Self::RelayStall,
        Self::MediaActivation,
        Self::HostDrops,
    ];

    /// As it is spelled everywhere.
    pub const fn name(self) -> &'static str {
        match self {
            Self::HandshakeStall => "handshake_stall",
            Self::FirstByteStall => "first_byte_stall",
            Self::ResponseSlow => "response_slow",
            Self::ReceiveSilence => "receive_silence",
            Self::RateLow => "rate_low",
            Self::PathLoss => "path_loss",
            Self::PathDown => "path_down",
            Self::NotRerouted => "not_rerouted",
            Self::StuckAvoid => "stuck_avoid",
            Self::AuthMismatch => "auth_mismatch",
            Self::OneWayMedia => "one_way_media",
            Self::RelayStall => "relay_stall",
            Self::MediaActivation => "media_activation",
            Self::HostDrops => "host_drops",
        }
    }

    /// What it says, in a sentence.
    pub const fn says(self) -> &'static str {
        match self {
            Self::HandshakeStall => "attempts to or from it hang",
            Self::FirstByteStall => "it accepts and does not speak",
            Self::ResponseSlow => "its answers take longer than its own past, network unchanged",
            Self::ReceiveSilence => "it should have spoken by now",
            Self::RateLow => "its exchanges come more slowly than the floor that was configured or learned",
            Self::PathLoss => "more of its media or probes is lost than usual, bursts counted once",
            Self::PathDown => "it should deliver, and nothing proves that it does",
            Self::NotRerouted => "media still goes into a path that is down",
            Self::StuckAvoid => "a controller avoids it, and it is healthy",
            Self::AuthMismatch => "probes arrive and do not validate",
            Self::OneWayMedia => "its media flows in one direction only",
            Self::RelayStall => "this process takes media in and puts none out",
            Self::MediaActivation => "sessions of this node do not become active",
            Self::HostDrops => "this host drops packets for want of room",
        }
    }
}

/// Whose fault it is, as far as this host can tell; `graylag.blame`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Blame {
    /// This host: its kernel, its CPUs, its queues.
    LocalHost,
    /// A process of this host that does not read, accept or answer.
    LocalProcess,
    /// The way out.
    PathTransmit,
    /// The way in.
    PathReceive,
    /// The peer below its applications: its kernel, a balancer, a firewall in front.
    PeerHost,
    /// The peer's application.
    PeerApplication,
    /// The evidence does not say.
    Unknown,
}

impl Blame {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::LocalHost,
        Self::LocalProcess,
        Self::PathTransmit,
        Self::PathReceive,
        Self::PeerHost,
        Self::PeerApplication,
        Self::Unknown,
    ];

    /// As it is spelled everywhere.
    pub const fn name(self) -> &'static str {
        match self {
            Self::LocalHost => "local_host",
            Self::LocalProcess => "local_process",
            Self::PathTransmit => "path_transmit",
            Self::PathReceive => "path_receive",
            Self::PeerHost => "peer_host",
            Self::PeerApplication => "peer_application",
            Self::Unknown => "unknown",
        }
    }
}

/// What a condition is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Target {
    /// A service on a path.
    Subject(Subject),
    /// A service, on all its paths.
    Service(Arc<str>),
    /// A path in one direction.
    Leg(Leg),
    /// This node, in all that it does.
    Node,
    /// A process of this host.
    Process(Process),
    /// This node, for a drop reason of its kernel.
    Drops {
        /// The reason.
        reason: String,
        /// Which way the packets went.
        direction: Direction,
    },
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Subject(s) => write!(f, "{} {} ({})", s.path, s.service, s.role_name()),
            Self::Service(service) => f.write_str(service),
            Self::Leg(leg) => write!(f, "{} ({})", leg.path, leg.direction.name()),
            Self::Node => f.write_str("this node"),
            Self::Process(process) => process.fmt(f),
            Self::Drops { reason, direction } => write!(f, "{reason} ({})", direction.name()),
        }
    }
}

/// Identity of a condition: at most one stands for each.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConditionKey {
    /// Which.
    pub name: ConditionName,
    /// About what.
    pub target: Target,
}

/// Where a condition is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Phase {
    /// It does not stand.
    Cleared,
    /// It stands: bad evidence is fresh.
    Raised,
    /// Its lease ran out without fresh bad evidence; good evidence is not yet enough.
    Recovering,
}

impl Phase {
    /// As it is spelled everywhere.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cleared => "cleared",
            Self::Raised => "raised",
            Self::Recovering => "recovering",
        }
    }
}

/// A confidence interval of a share, 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

impl Interval {
    /// Wilson's score interval of `bad` in `n` at z = 3.29 (99.9 %).
    pub fn wilson(bad: u64, n: u64) -> Self {
        const Z: f64 = 3.29;
        if n == 0 {
            return Self { low: 0.0, high: 1.0 };
        }
        let (n, p) = (n as f64, bad as f64 / n as f64);
        let z2 = Z * Z;
        let centre = (p + z2 / (2.0 * n)) / (1.0 + z2 / n);
        let half = Z / (1.0 + z2 / n) * (p * (1.0 - p) / n + z2 / (4.0 * n * n)).sqrt();
        Self { low: (centre - half).max(0.0), high: (centre + half).min(1.0) }
    }
}

/// What a verdict rests on.
#[derive(Clone, Debug, PartialEq)]
pub struct Evidence {
    /// Trials: attempts, connections, samples or looks, as the condition counts.
    pub n: u64,
    /// Of these, bad.
    pub bad: u64,
    /// Their share, with its uncertainty.
    pub interval: Interval,
    /// In words, with numbers, for a person.
    pub text: String,
    /// Whether this host itself was late while the evidence was gathered.
    pub low_confidence: bool,
}

/// A condition that stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Condition {
    /// Which, about what.
    pub key: ConditionKey,
    /// Raised or recovering.
    pub phase: Phase,
    /// Whose fault.
    pub blame: Blame,
    /// On what grounds, most recent.
    pub evidence: Evidence,
    /// When it was raised, on the ticks' clock.
    pub since: Duration,
    /// Until when it holds without fresh bad evidence, on the ticks' clock.
    pub valid_until: Duration,
}

/// A change of phase.
#[derive(Clone, Debug, PartialEq)]
pub struct Transition {
    /// The condition as it is now.
    pub condition: Condition,
    /// Phase before.
    pub from: Phase,
    /// Phase now.
    pub to: Phase,
    /// When, on the ticks' clock.
    pub at: Duration,
}
