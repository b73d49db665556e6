//! Media: paths, sessions on their way to it, relays.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Quantiles;

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
