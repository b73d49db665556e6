//! What the local API says: one value for `/v1/status`, the view and `graylag status`; messages for `/v1/watch`.
//!
//! Times are RFC 3339; durations and ages are seconds. Every message carries epoch, sequence and `valid_until`: a reader
//! that hears nothing by then knows nothing any more and must fail open.

mod agent;
mod condition;
mod media;
mod path;
mod tcp;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::ReflectorCounts;

pub use agent::{AgentStatus, AttributionStatus, JITTER, MapStatus, PodStatus, SignalStatus};
pub use condition::{ConditionStatus, EvidenceStatus, TargetStatus};
pub use media::{ActivationStatus, MediaStatus, RelayStatus};
pub use path::{AddressProbes, NodeStatus, PathStatus, ProbeStatus, ShareStatus, TargetProbes};
pub use tcp::{DropStatus, HandshakeStatus, Quantiles, RetransmitStatus, SubjectStatus, WaitStatus};

/// Version of these types; changes when a field changes its meaning or goes.
pub const SCHEMA: u32 = 1;

/// Identity of a message.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Stamp {
    /// [`SCHEMA`].
    pub schema: u32,
    /// Changes with every start of the agent; sequences of two epochs cannot be compared.
    pub epoch: u64,
    /// Grows by one with every transition; gaps tell of messages not seen.
    pub sequence: u64,
    /// When it was said.
    pub time: Timestamp,
    /// Until when it may be relied on.
    pub valid_until: Timestamp,
}

/// Everything about this node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Status {
    /// Identity.
    #[serde(flatten)]
    pub stamp: Stamp,
    /// Name of the node.
    pub node: String,
    /// Version of the agent.
    pub version: String,
    /// Release of the running kernel.
    pub kernel: String,
    /// Seconds since the agent started.
    pub uptime: f64,
    /// How this node serves its users.
    #[serde(default)]
    pub health: NodeStatus,
    /// Conditions that stand.
    pub conditions: Vec<ConditionStatus>,
    /// Subjects: path × service × role.
    pub subjects: Vec<SubjectStatus>,
    /// Paths that carry media, by direction.
    #[serde(default)]
    pub media: Vec<MediaStatus>,
    /// Paths with media or probes, each direction for itself.
    #[serde(default)]
    pub paths: Vec<PathStatus>,
    /// Targets of TCP and TLS probes.
    #[serde(default)]
    pub targets: Vec<TargetProbes>,
    /// What this node's STAMP reflector has done; where STAMP runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reflector: Option<ReflectorCounts>,
    /// Sessions on their way to media, by stage; none where there were none.
    #[serde(default)]
    pub activation: Vec<ActivationStatus>,
    /// Processes that carry media.
    #[serde(default)]
    pub relays: Vec<RelayStatus>,
    /// This host's drops, busiest first.
    pub drops: Vec<DropStatus>,
    /// Pods and containers whose traffic is told apart.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pods: Vec<PodStatus>,
    /// Signals: which are there, from how much of the traffic.
    pub signals: Vec<SignalStatus>,
    /// Tables of the kernel half.
    pub maps: Vec<MapStatus>,
    /// The agent itself.
    pub agent: AgentStatus,
}

/// One message of `/v1/watch`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
#[allow(clippy::large_enum_variant)] // one at a time, and most of them are transitions
pub enum Message {
    /// The conditions that stand, all of them: first, and after messages were missed.
    State {
        /// Identity.
        #[serde(flatten)]
        stamp: Stamp,
        /// Name of the node.
        node: String,
        /// The conditions.
        conditions: Vec<ConditionStatus>,
        /// Paths with probes, in trouble, or whose media is published; each direction for itself.
        #[serde(default)]
        paths: Vec<PathStatus>,
        /// How the node serves its users.
        #[serde(default)]
        health: NodeStatus,
    },
    /// One condition changed its phase.
    Transition {
        /// Identity.
        #[serde(flatten)]
        stamp: Stamp,
        /// Phase before.
        from: String,
        /// Phase now.
        to: String,
        /// The condition as it is now.
        condition: ConditionStatus,
    },
    /// One direction of a path changed its state. Of paths without probes only changes to or from `degraded`, `down` and
    /// `recovering` are told.
    Path {
        /// Identity.
        #[serde(flatten)]
        stamp: Stamp,
        /// State before.
        from: String,
        /// State now.
        to: String,
        /// The path as it is now.
        path: PathStatus,
    },
    /// The node changed its state.
    Node {
        /// Identity.
        #[serde(flatten)]
        stamp: Stamp,
        /// State before.
        from: String,
        /// State now.
        to: String,
        /// The node as it is now.
        health: NodeStatus,
    },
    /// Nothing changed; the last sequence is still the last.
    Heartbeat {
        /// Identity.
        #[serde(flatten)]
        stamp: Stamp,
    },
}

impl Message {
    /// Its identity.
    pub const fn stamp(&self) -> &Stamp {
        match self {
            Self::State { stamp, .. }
            | Self::Transition { stamp, .. }
            | Self::Path { stamp, .. }
            | Self::Node { stamp, .. }
            | Self::Heartbeat { stamp } => stamp,
        }
    }
}
