//! Conditions that stand, and what they are about.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::PodStatus;

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
