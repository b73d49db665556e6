//! Counters of the programs themselves, and the layout of the drop counters.

/// Counters in the per-CPU map `COUNTERS`: what could not be done, so that nothing is lost in silence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Counter {
    /// Attempts and connections seen, the denominator of coverage.
    ConnectionSeen = 0,
    /// Of these, not tracked: the connection table was full.
    ConnectionFull,
    /// Handshakes that reached a listener.
    HalfOpenSeen,
    /// Of these, not tracked: the half-open table was full.
    HalfOpenFull,
    /// Paths folded into `~other`: the path table was full.
    PathFull,
    /// `connect` calls that failed on this host before a SYN left it.
    NotAttempted,
    /// Retransmissions of connections that are not in the table.
    RetransmitUntracked,
    /// Dropped packets whose reason or port found no room.
    DropFull,
    /// Iterator records that did not fit; the pass is incomplete.
    ScanTruncated,
    /// Entries that passes over the paths have seen: the difference over one pass is how many there are.
    ScannedPath,
    /// The same of connections.
    ScannedConnection,
}

impl Counter {
    /// Number of counters.
    pub const COUNT: usize = 11;
}

/// Transport of a dropped packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[repr(u8)]
pub enum Transport {
    /// TCP.
    Tcp = 0,
    /// UDP.
    Udp = 1,
    /// Anything else, or not known.
    Other = 2,
}

/// Direction of a packet as the host's interface sees it (`network.io.direction`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[repr(u8)]
pub enum Direction {
    /// Towards this host.
    Receive = 0,
    /// Away from it.
    Transmit = 1,
}

impl Direction {
    /// Both of them, in the order of their numbers.
    pub const BOTH: [Self; 2] = [Self::Receive, Self::Transmit];

    /// The other one.
    pub const fn other(self) -> Self {
        match self {
            Self::Receive => Self::Transmit,
            Self::Transmit => Self::Receive,
        }
    }

    /// The value of `network.io.direction`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Receive => "receive",
            Self::Transmit => "transmit",
        }
    }
}

/// Drop reasons with a slot of their own; higher numbers and those of other subsystems share the last one.
pub const REASONS: u32 = 256;
/// Slots to a reason: directions times transports.
pub const DROP_SLOTS: u32 = 6;

/// Key of the map `DROPS`.
#[inline(always)]
pub const fn drop_index(reason: u32, direction: Direction, transport: Transport) -> u32 {
    let reason = if reason < REASONS { reason } else { REASONS - 1 };
    reason * DROP_SLOTS + direction as u32 * 3 + transport as u32
}

/// The reverse of [`drop_index`].
pub const fn drop_of_index(index: u32) -> (u32, Direction, Transport) {
    let direction = if (index % DROP_SLOTS) / 3 == 0 { Direction::Receive } else { Direction::Transmit };
    let transport = match index % 3 {
        0 => Transport::Tcp,
        1 => Transport::Udp,
        _ => Transport::Other,
    };
    (index / DROP_SLOTS, direction, transport)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drop_index_round_trips() {
        for i in 0..REASONS * DROP_SLOTS {
            let (reason, direction, transport) = drop_of_index(i);
            assert_eq!(drop_index(reason, direction, transport), i);
        }
        assert_eq!(drop_of_index(drop_index(70_000, Direction::Transmit, Transport::Udp)).0, REASONS - 1);
    }
}
