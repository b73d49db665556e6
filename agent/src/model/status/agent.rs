//! The agent itself, and what it takes of the host.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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

/// The part of media that is measured in turns where there are very many packets: less than all of it is no trouble.
pub const JITTER: &str = "jitter";

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
