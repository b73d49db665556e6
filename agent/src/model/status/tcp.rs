//! Subjects: what TCP carries, and what the host drops.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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
