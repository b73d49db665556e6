//! Paths, probes, the node.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Quantiles;

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
