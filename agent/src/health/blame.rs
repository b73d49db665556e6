//! Whose fault: decided from all evidence at once. The table is in docs/verdicts.md and, row by row, in the tests.

use crate::model::{Blame, Direction, Role};

/// Share of lost segments from which a path is lossy.
const LOSSY: f64 = 0.01;
/// Segments below which nothing is said about a path's loss.
const ENOUGH_SEGMENTS: u64 = 50;
/// Paths that must be in trouble together, and share of those with traffic, before this host is suspected.
const MANY_PATHS: usize = 3;
const MOST_PATHS: f64 = 0.8;

/// Segments of a path in the recent past.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct PathFacts {
    /// Segments sent.
    pub segments: f64,
    /// Of these, lost (fast retransmissions and timeouts, less spurious ones).
    pub lost: f64,
}

impl PathFacts {
    fn lossy(&self) -> Option<bool> {
        (self.segments >= ENOUGH_SEGMENTS as f64).then(|| self.lost / self.segments >= LOSSY)
    }
}

/// What is known when handshakes stall.
#[derive(Clone, Copy, Debug)]
pub struct HandshakeFacts {
    /// Which end this host is.
    pub role: Role,
    /// Stalls in the evidence.
    pub stalls: u64,
    /// Handshakes that found the accept queue full meanwhile.
    pub accept_queue_overflow: u64,
    /// SYNs that found the request queue full meanwhile.
    pub request_queue_overflow: u64,
    /// Pending handshakes of the server whose SYN came again, and all that are pending.
    pub syn_repeated: u64,
    /// See `syn_repeated`.
    pub pending: u64,
    /// Attempts that an ICMP error ended.
    pub unreachable: u64,
    /// The path's data.
    pub path: PathFacts,
    /// A reason of this host that means "no room" is firing.
    pub host_drops: bool,
    /// Paths of this role whose handshakes stall, and paths with handshakes.
    pub stalling_paths: usize,
    /// See `stalling_paths`.
    pub active_paths: usize,
}

/// Blame for a handshake stall.
pub fn blame_handshake(facts: &HandshakeFacts) -> Blame {
    let everywhere = facts.stalling_paths >= MANY_PATHS
        && facts.stalling_paths as f64 >= MOST_PATHS * facts.active_paths as f64;
    match facts.role {
        // An application that does not accept, or not fast enough.
        Role::Server if facts.accept_queue_overflow * 2 >= facts.stalls.max(1) => Blame::LocalProcess,
        Role::Server if facts.request_queue_overflow * 2 >= facts.stalls.max(1) => Blame::LocalHost,
        _ if facts.host_drops => Blame::LocalHost,
        // The SYN arrived, so the way in works for SYNs. Did the SYN-ACK arrive? A client that got it does not repeat.
        Role::Server if facts.pending > 0 && facts.syn_repeated * 2 > facts.pending => Blame::PathTransmit,
        Role::Server if facts.pending > 0 && facts.syn_repeated * 4 < facts.pending => Blame::PathReceive,
        Role::Server => Blame::Unknown,
        Role::Client if everywhere => Blame::LocalHost,
        Role::Client if facts.unreachable * 2 >= facts.stalls.max(1) => Blame::PathTransmit,
        // Data flows and only SYNs vanish: whatever answers SYNs there.
        Role::Client => match facts.path.lossy() {
            Some(true) => Blame::PathTransmit,
            Some(false) => Blame::PeerHost,
            None => Blame::Unknown,
        },
    }
}

/// What is known when first bytes do not come.
#[derive(Clone, Copy, Debug)]
pub struct FirstByteFacts {
    /// Which end this host is.
    pub role: Role,
    /// The path's data.
    pub path: PathFacts,
    /// A reason of this host that means "no room" is firing.
    pub host_drops: bool,
}

/// Blame for a first-byte stall.
pub fn blame_first_byte(facts: &FirstByteFacts) -> Blame {
    match facts.role {
        // The request arrived in full order; only the application here can answer it.
        Role::Server => Blame::LocalProcess,
        Role::Client if facts.host_drops => Blame::LocalHost,
        Role::Client if facts.path.lossy() == Some(true) => Blame::PathTransmit,
        Role::Client => Blame::PeerApplication,
    }
}

/// Blame for slow responses; the network has been excluded before.
pub const fn blame_response(role: Role) -> Blame {
    match role {
        Role::Client => Blame::PeerApplication,
        Role::Server => Blame::LocalProcess,
    }
}

/// What is known when those are silent who speak of themselves.
#[derive(Clone, Copy, Debug)]
pub struct SilenceFacts {
    /// A reason of this host that means "no room" is firing.
    pub host_drops: bool,
    /// Paths and services that are silent, and all that are spoken to regularly.
    pub silent: usize,
    /// See `silent`.
    pub judged: usize,
    /// Whether `path_down` is raised for the way in.
    pub path_is_down: bool,
    /// Silent connections at which segments have come since: keep-alives and acknowledgements.
    pub arriving: u64,
}

/// Blame for silence.
pub fn blame_silence(facts: &SilenceFacts) -> Blame {
    let everywhere = facts.silent >= MANY_PATHS && facts.silent as f64 >= MOST_PATHS * facts.judged as f64;
    if facts.host_drops || everywhere {
        Blame::LocalHost
    } else if facts.path_is_down {
        Blame::PathReceive
    } else if facts.arriving > 0 {
        // Its kernel is heard, on this very connection: the way is well and the application says nothing.
        Blame::PeerApplication
    } else {
        Blame::Unknown
    }
}

/// What is known when a direction of a path is down.
#[derive(Clone, Copy, Debug)]
pub struct DownFacts {
    /// Which direction.
    pub direction: Direction,
    /// A reason of this host that means "no room" is firing.
    pub host_drops: bool,
    /// Directions with probes that are down, and all of them.
    pub down: usize,
    /// See `down`.
    pub probed: usize,
    /// Whether the other direction of this path has been proven to deliver since this one last was.
    pub other_delivers: bool,
}

/// Blame for a direction that is down.
pub fn blame_path_down(facts: &DownFacts) -> Blame {
    let everywhere = facts.down >= MANY_PATHS && facts.down as f64 >= MOST_PATHS * facts.probed as f64;
    match facts.direction {
        _ if facts.host_drops || everywhere => Blame::LocalHost,
        // Where nothing comes either way, it may as well be the peer.
        _ if !facts.other_delivers => Blame::Unknown,
        Direction::Receive => Blame::PathReceive,
        Direction::Transmit => Blame::PathTransmit,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLEAN: PathFacts = PathFacts { segments: 1000.0, lost: 1.0 };
    const LOSSY_PATH: PathFacts = PathFacts { segments: 1000.0, lost: 30.0 };
    const UNKNOWN_PATH: PathFacts = PathFacts { segments: 10.0, lost: 5.0 };

    fn client() -> HandshakeFacts {
        HandshakeFacts {
            role: Role::Client,
            stalls: 10,
            accept_queue_overflow: 0,
            request_queue_overflow: 0,
            syn_repeated: 0,
            pending: 0,
            unreachable: 0,
            path: CLEAN,
            host_drops: false,
            stalling_paths: 1,
            active_paths: 6,
        }
    }

    fn server() -> HandshakeFacts {
        HandshakeFacts { role: Role::Server, ..client() }
    }

    /// The rows of docs/verdicts.md, in its order.
    #[test]
    fn handshake_stall_row_by_row() {
        let rows = [
            (
                "accept queue full",
                HandshakeFacts { accept_queue_overflow: 9, ..server() },
                Blame::LocalProcess,
            ),
            (
                "request queue full",
                HandshakeFacts { request_queue_overflow: 9, ..server() },
                Blame::LocalHost,
            ),
            (
                "host drops, server",
                HandshakeFacts { host_drops: true, pending: 4, ..server() },
                Blame::LocalHost,
            ),
            ("SYN repeated", HandshakeFacts { pending: 4, syn_repeated: 4, ..server() }, Blame::PathTransmit),
            ("SYN not repeated", HandshakeFacts { pending: 4, ..server() }, Blame::PathReceive),
            ("some repeated", HandshakeFacts { pending: 4, syn_repeated: 2, ..server() }, Blame::Unknown),
            ("nothing pending", server(), Blame::Unknown),
            ("host drops, client", HandshakeFacts { host_drops: true, ..client() }, Blame::LocalHost),
            ("everywhere", HandshakeFacts { stalling_paths: 5, ..client() }, Blame::LocalHost),
            ("two of six", HandshakeFacts { stalling_paths: 2, ..client() }, Blame::PeerHost),
            (
                "the only two",
                HandshakeFacts { stalling_paths: 2, active_paths: 2, ..client() },
                Blame::PeerHost,
            ),
            ("ICMP", HandshakeFacts { unreachable: 8, ..client() }, Blame::PathTransmit),
            ("data lost too", HandshakeFacts { path: LOSSY_PATH, ..client() }, Blame::PathTransmit),
            ("data flows", client(), Blame::PeerHost),
            ("no data", HandshakeFacts { path: UNKNOWN_PATH, ..client() }, Blame::Unknown),
        ];
        for (name, facts, blame) in rows {
            assert_eq!(blame_handshake(&facts), blame, "{name}");
        }
    }

    #[test]
    fn first_byte_stall_row_by_row() {
        let client = FirstByteFacts { role: Role::Client, path: CLEAN, host_drops: false };
        let rows = [
            ("server", FirstByteFacts { role: Role::Server, ..client }, Blame::LocalProcess),
            ("host drops", FirstByteFacts { host_drops: true, ..client }, Blame::LocalHost),
            ("request lost", FirstByteFacts { path: LOSSY_PATH, ..client }, Blame::PathTransmit),
            ("request acknowledged", client, Blame::PeerApplication),
            ("little data", FirstByteFacts { path: UNKNOWN_PATH, ..client }, Blame::PeerApplication),
        ];
        for (name, facts, blame) in rows {
            assert_eq!(blame_first_byte(&facts), blame, "{name}");
        }
    }

    #[test]
    fn receive_silence_row_by_row() {
        let silent =
            SilenceFacts { host_drops: false, silent: 1, judged: 6, path_is_down: false, arriving: 0 };
        let rows = [
            ("host drops", SilenceFacts { host_drops: true, arriving: 3, ..silent }, Blame::LocalHost),
            ("most of them", SilenceFacts { silent: 5, ..silent }, Blame::LocalHost),
            ("the only two", SilenceFacts { silent: 2, judged: 2, ..silent }, Blame::Unknown),
            ("nothing comes in", SilenceFacts { path_is_down: true, ..silent }, Blame::PathReceive),
            ("keep-alives come", SilenceFacts { arriving: 1, ..silent }, Blame::PeerApplication),
            ("nothing known", silent, Blame::Unknown),
        ];
        for (name, facts, blame) in rows {
            assert_eq!(blame_silence(&facts), blame, "{name}");
        }
    }

    #[test]
    fn path_down_row_by_row() {
        let out = DownFacts {
            direction: Direction::Transmit,
            host_drops: false,
            down: 1,
            probed: 20,
            other_delivers: true,
        };
        let back = DownFacts { direction: Direction::Receive, ..out };
        let rows = [
            ("host drops", DownFacts { host_drops: true, ..out }, Blame::LocalHost),
            ("most of them", DownFacts { down: 16, ..out }, Blame::LocalHost),
            (
                "most, and both directions",
                DownFacts { down: 20, other_delivers: false, ..back },
                Blame::LocalHost,
            ),
            ("fewer than most", DownFacts { down: 15, ..out }, Blame::PathTransmit),
            ("the only two", DownFacts { down: 2, probed: 2, other_delivers: false, ..out }, Blame::Unknown),
            ("both directions of one", DownFacts { down: 2, other_delivers: false, ..back }, Blame::Unknown),
            ("the way out", out, Blame::PathTransmit),
            ("the way in", back, Blame::PathReceive),
        ];
        for (name, facts, blame) in rows {
            assert_eq!(blame_path_down(&facts), blame, "{name}");
        }
    }
}
