//! What happened at the sockets of processes that carry media.

use serde::{Deserialize, Serialize};
use std::{fmt, sync::Arc};

/// A process of this host.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Process {
    /// Name of its main thread, as `ps` shows it; `graylag.process`.
    pub name: Arc<str>,
    /// Its number in the initial namespace; 0 for sockets that no process has open; `process.pid`.
    pub id: u32,
}

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} [{}]", self.name, self.id)
    }
}

/// Counts of a process, of a look or since a start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelayCounts {
    /// RTP packets that reached its sockets, those for which there was no room included.
    pub received: u64,
    /// RTP packets that they sent.
    pub sent: u64,
    /// Datagrams that found a receive buffer of theirs full.
    pub dropped: u64,
}

impl RelayCounts {
    /// Adds another set of counts.
    pub const fn add(&mut self, other: &Self) {
        self.received += other.received;
        self.sent += other.sent;
        self.dropped += other.dropped;
    }
}

/// What a process did in a look, and how it stands.
#[derive(Clone, Debug)]
pub struct RelayTick {
    /// Which.
    pub process: Process,
    /// What was counted.
    pub counts: RelayCounts,
    /// Memory of what waits in its receive queues, bytes.
    pub queued: u64,
    /// Where media came from lately: remote addresses and ports, each at each socket, at most 64 of them told apart.
    pub sources: u64,
    /// Sockets that carry media.
    pub sockets: u64,
}
