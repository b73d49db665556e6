//! What the local API says: one value for `/v1/status`, the view and `graylag status`; messages for `/v1/watch`.
//!
//! Times are RFC 3339; durations and ages are seconds. Every message carries epoch, sequence and `valid_until`: a reader
//! that hears nothing by then knows nothing any more and must fail open.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::ReflectorCounts;

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

/// A condition that stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ConditionStatus {
    /// Which.
    pub name: String,
    /// About what.
    pub target: TargetStatus,
    /// `raised`, `recovering` or `cleared`.
    pub phase: String,
    /// Culprit.
    pub blame: String,
    /// `high`, or `low` where this host itself was late.
    pub confidence: String,
    /// On what grounds.
    pub evidence: EvidenceStatus,
    /// When it was raised.
    pub since: Timestamp,
    /// Seconds since then.
    pub age: f64,
    /// Until when it holds without fresh bad evidence.
    pub valid_until: Timestamp,
    /// The pod that it is about, where one only has to do with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<PodStatus>,
}

/// A pod of Kubernetes, or a container that is in none.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct PodStatus {
    /// The pod's uid; absent of a container that is in none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
    /// Its name, where the container runtime told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its namespace, where the container runtime told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Identifier of its container, where it has one only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container_id: Option<String>,
    /// Name of that container, where the container runtime told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container_name: Option<String>,
    /// Inodes of its network namespaces (`/proc/PID/ns/net`); none where it lives in the host's.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub namespaces: Vec<u32>,
}

/// How pods and containers are told apart.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AttributionStatus {
    /// Where it is known from, and why not from more.
    pub source: String,
    /// How often a cgroup was not found.
    pub cgroups_lost: u64,
    /// How often the container runtime did not answer.
    pub unanswered: u64,
}

/// What a condition is about; fields are there as they apply.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct TargetStatus {
    /// Peer of the path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer: Option<String>,
    /// Address of the path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// Service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// `client` or `server`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// Name of the process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub process: Option<String>,
    /// Its number, in the initial namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// Drop reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// `transmit` or `receive`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub direction: Option<String>,
}

/// What a verdict rests on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct EvidenceStatus {
    /// Trials.
    pub n: u64,
    /// Of these, bad.
    pub bad: u64,
    /// 99.9 % interval of the bad share.
    pub low: f64,
    /// See `low`.
    pub high: f64,
    /// In words.
    pub text: String,
}

/// One subject, over a window of the last five to ten seconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SubjectStatus {
    /// Peer, prefix or `~other`.
    pub peer: String,
    /// Address, where each address is a path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// Service.
    pub service: String,
    /// `client` or `server`.
    pub role: String,
    /// `healthy`, `troubled` or `insufficient` (too few trials to say).
    pub standing: String,
    /// Length of the window, seconds.
    pub window: f64,
    /// Handshakes.
    pub handshake: HandshakeStatus,
    /// First bytes.
    pub first_byte: WaitStatus,
    /// Responses.
    pub response: WaitStatus,
    /// Round trips.
    pub rtt: Quantiles,
    /// Segments a second, received.
    pub segments_in: f64,
    /// Segments a second, sent.
    pub segments_out: f64,
    /// Retransmitted segments in the window, by kind.
    pub retransmitted: RetransmitStatus,
    /// Connections that a RST ended, in the window.
    pub resets: u64,
    /// Handshakes a second, one point a second, oldest first.
    pub trend: Vec<f32>,
}

/// Media of one path in one direction, over a window of the last five to ten seconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct MediaStatus {
    /// Peer, prefix or `~other`.
    pub peer: String,
    /// Address, where each address is a path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// `transmit` or `receive`.
    pub direction: String,
    /// UDP datagrams a second.
    pub datagrams: f64,
    /// Bytes of UDP payload a second.
    pub bytes: f64,
    /// RTP packets a second.
    pub packets: f64,
    /// Share of the RTP packets that was lost, 0 to 1; absent where none was expected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss: Option<f64>,
    /// Bursts of loss in the window, whatever their length.
    pub bursts: u64,
    /// RTP packets in the window that came after a higher number.
    pub reordered: u64,
    /// RTP packets in the window that came again.
    pub duplicated: u64,
    /// Interarrival jitter.
    pub jitter: Quantiles,
    /// Seconds since the last datagram; absent where there never was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub age: Option<f64>,
    /// Seconds since the last RTP packet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_age: Option<f64>,
    /// RTP packets a second, one point a second, oldest first.
    pub trend: Vec<f32>,
}

/// How a path stands in one direction.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PathStatus {
    /// Peer, prefix or address.
    pub peer: String,
    /// Address, where each address is a path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// `transmit` or `receive`.
    pub direction: String,
    /// `unknown`, `idle`, `healthy`, `degraded`, `down` or `recovering`.
    pub state: String,
    /// Seconds in this state.
    pub age: f64,
    /// Seconds since the newest proof that it delivers; absent where there never was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proven: Option<f64>,
    /// Until when a bad state holds without fresh evidence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid_until: Option<Timestamp>,
    /// Its probes, where it has any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probes: Option<ProbeStatus>,
}

/// How this node serves its users, for balancers: what health checks would see against what users get.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct NodeStatus {
    /// `unknown`, `healthy`, `gray`, `failing` or `recovering`.
    pub state: String,
    /// Seconds in this state.
    pub age: f64,
    /// Until when a bad state holds without fresh evidence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid_until: Option<Timestamp>,
    /// What part of its usual load it should be given, percent.
    pub weight: u8,
    /// How much more of what health checks see is well than of what users get, 0 to 1; absent where either is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub score: Option<f64>,
    /// What a health check would see: handshakes accepted, connectivity checks answered.
    pub checks: ShareStatus,
    /// What users get.
    pub users: Vec<ShareStatus>,
    /// Why it is bad, in words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reasons: Vec<String>,
}

/// Trials of the last half minute or so, fading.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ShareStatus {
    /// `checks`, `sessions`, `answers` or `relays`.
    pub of: String,
    /// Good ones.
    pub good: f64,
    /// All.
    pub n: f64,
}

/// A target of TCP or TLS probes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TargetProbes {
    /// Host and port, as they are configured.
    pub target: String,
    /// `tcp` or `tls`.
    pub kind: String,
    /// Its addresses now.
    pub addresses: Vec<AddressProbes>,
    /// Addresses of the last lookup that were left out: too many.
    pub left_out: usize,
    /// Lookups that failed; the addresses of the one before stay.
    pub unresolved: u64,
    /// Why the last one failed, where it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Probes of one address, since it came.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AddressProbes {
    /// Address and port.
    pub address: String,
    /// Attempts.
    pub attempts: u64,
    /// Of these, those that did not connect.
    pub failed: u64,
    /// Failed ones that were made once more with the same 4-tuple.
    pub repeated: u64,
    /// Of these, those that failed again.
    pub repeated_failed: u64,
    /// Attempts that this host could not make.
    pub unsent: u64,
    /// From the SYN to the connection.
    pub connect: Quantiles,
    /// TLS handshakes.
    pub tls: Quantiles,
    /// Why TLS failed last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Probes of a path in one direction.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ProbeStatus {
    /// Whose fate is known, since the agent started.
    pub sent: u64,
    /// Of these, lost.
    pub lost: u64,
    /// Share lost lately, 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss: Option<f64>,
    /// Round trip, both directions together.
    pub round_trip: Quantiles,
}

/// Sessions at one stage of their way to media, over a window of the last five to ten seconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ActivationStatus {
    /// `stun`, `dtls` or `rtp`.
    pub stage: String,
    /// Sessions at it now.
    pub pending: u64,
    /// Of those that ended in the window, however: came through it.
    pub through: u64,
    /// Stopped at it, in the window.
    pub failed: u64,
    /// Media went one way and nothing came back, in the window.
    pub one_way: u64,
    /// Nobody sent, in the window.
    pub idle: u64,
    /// Became active, in the window.
    pub active: u64,
    /// How long it took those that came through.
    pub took: Quantiles,
}

/// Processes of one name that carry media, over a window of the last five to ten seconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RelayStatus {
    /// Their name, or `~other` for the sockets that no process has open.
    pub process: String,
    /// How many there are now.
    pub processes: u64,
    /// Their sockets that carry media, now.
    pub sockets: u64,
    /// RTP packets a second that reached them.
    pub received: f64,
    /// RTP packets a second that they sent.
    pub sent: f64,
    /// Datagrams in the window that found a receive buffer full.
    pub dropped: u64,
    /// Memory of what waits in their receive queues now, bytes.
    pub queued: u64,
    /// RTP packets sent a second, one point a second, oldest first.
    pub trend: Vec<f32>,
}

/// Handshakes of a subject.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct HandshakeStatus {
    /// Ended a second.
    pub rate: f64,
    /// By outcome, in the window.
    pub established: u64,
    /// See `established`.
    pub refused: u64,
    /// See `established`.
    pub reset: u64,
    /// See `established`.
    pub timed_out: u64,
    /// See `established`.
    pub unreachable: u64,
    /// See `established`.
    pub abandoned: u64,
    /// Under way now.
    pub pending: u64,
    /// Of these, stalled.
    pub stalled: u64,
    /// Retransmitted SYNs or SYN-ACKs in the window.
    pub syn_retransmitted: u64,
    /// Found the accept queue full, in the window.
    pub accept_queue_overflow: u64,
    /// Latency.
    pub latency: Quantiles,
}

/// Something that is waited for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct WaitStatus {
    /// Completed a second.
    pub rate: f64,
    /// Waiting now.
    pub pending: u64,
    /// Of these, stalled.
    pub stalled: u64,
    /// Longest wait right now, seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub longest: Option<f64>,
    /// Latency.
    pub latency: Quantiles,
}

/// Quantiles in seconds; absent where there was nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Quantiles {
    /// Median.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p50: Option<f64>,
    /// 99th percentile.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p99: Option<f64>,
}

/// Retransmitted segments by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RetransmitStatus {
    /// Loss found by acknowledgements.
    pub fast: u64,
    /// Timer.
    pub timeout: u64,
    /// Tail loss probe.
    pub tail_loss_probe: u64,
    /// Taken back.
    pub spurious: u64,
}

/// Drops for one reason.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DropStatus {
    /// The kernel's reason.
    pub reason: String,
    /// `host` or `path`.
    pub side: String,
    /// `transmit` or `receive`.
    pub direction: String,
    /// `tcp`, `udp` or `other`.
    pub transport: String,
    /// Since the agent started.
    pub packets: u64,
    /// A second, now.
    pub rate: f64,
}

/// One signal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SignalStatus {
    /// Its name.
    pub name: String,
    /// Whether a program provides it.
    pub available: bool,
    /// Share of what there was to be seen that was seen, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub coverage: Option<f64>,
    /// Why it is missing or only partial.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// One table of the kernel half.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct MapStatus {
    /// Its name.
    pub name: String,
    /// Entries in use.
    pub used: u64,
    /// Entries there is room for.
    pub limit: u64,
    /// Entries that found no room.
    pub evicted: u64,
}

/// The agent itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AgentStatus {
    /// How late the last look was, seconds.
    pub late: f64,
    /// Points and records that could not be exported.
    pub export_dropped: u64,
    /// Where telemetry goes, where it goes anywhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub export_to: Option<String>,
    /// Why the last export failed, where it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub export_error: Option<String>,
    /// Events that could not be told to anybody.
    pub events_lost: u64,
    /// Where the kernel half is pinned: whether this agent `goes on` where an earlier one stopped, or `began`, and why anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pins: Option<String>,
    /// How pods are told apart, where they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attribution: Option<AttributionStatus>,
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
