//! Map values and the records that the iterators hand to user space.

use bytemuck::{Pod, Zeroable};

use crate::{
    bucket::Histogram,
    exchange::Exchange,
    key::{PathKey, Tuple},
    outcome::Outcome,
    rhythm::Rhythm,
};

/// Retransmission kinds, `graylag.retransmit.type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Retransmit {
    /// Loss found by acknowledgements (`TCP_CA_Recovery`; RFC 6675, RFC 8985).
    Fast = 0,
    /// Retransmission timer (`TCP_CA_Loss`; RFC 6298).
    Timeout = 1,
    /// Tail loss probe (RFC 8985 §7): sent before anything is known to be lost.
    TailLossProbe = 2,
    /// Taken back: the peer reported a duplicate (DSACK, RFC 2883), so a retransmission was needless.
    Spurious = 3,
}

impl Retransmit {
    /// All kinds, in the order of their counters.
    pub const ALL: [Self; 4] = [Self::Fast, Self::Timeout, Self::TailLossProbe, Self::Spurious];
    /// Number of kinds.
    pub const COUNT: usize = Self::ALL.len();

    /// The value of `graylag.retransmit.type`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fast => "fast",
            Self::Timeout => "timeout",
            Self::TailLossProbe => "tail_loss_probe",
            Self::Spurious => "spurious",
        }
    }
}

/// Everything the kernel counts for one [`PathKey`]. Counters only grow; histogram buckets wrap at 2³².
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct PathStats {
    /// Last change, monotonic nanoseconds. Iterators skip what did not change since the last read.
    pub touched_ns: u64,
    /// Ended handshakes by [`Outcome`].
    pub outcomes: [u64; Outcome::COUNT],
    /// Retransmitted SYNs (client) or SYN-ACKs (server).
    pub syn_retransmitted: u64,
    /// SYNs dropped because the accept queue was full (`sk_acceptq_is_full` in `tcp_conn_request`).
    pub overflow_at_syn: u64,
    /// Final ACKs dropped because the accept queue was full (`tcp_v4_syn_recv_sock`).
    pub overflow_at_ack: u64,
    /// SYNs dropped because the request queue was full and SYN cookies are off.
    pub request_queue_full: u64,
    /// SYNs answered with a cookie.
    pub cookies_sent: u64,
    /// Connections established from a valid cookie: no handshake latency is known for them.
    pub cookies_established: u64,
    /// Established connections that a RST ended.
    pub resets: u64,
    /// Segments received, `tcp_sock.segs_in`.
    pub segments_in: u64,
    /// Segments sent, retransmissions and pure ACKs included, `tcp_sock.segs_out`.
    pub segments_out: u64,
    /// Retransmitted segments by [`Retransmit`], SYNs excepted.
    pub retransmitted: [u64; Retransmit::COUNT],
    /// SYN to ESTABLISHED.
    pub handshake: Histogram,
    /// How long handshakes lasted that ended otherwise.
    pub handshake_failed: Histogram,
    /// First request to first byte back, first turn of a connection.
    pub first_byte: Histogram,
    /// How long connections waited for a first byte and ended without one.
    pub first_byte_failed: Histogram,
    /// Request to first byte back, every turn.
    pub response: Histogram,
    /// Smoothed round-trip time (`srtt_us`), at most one sample per connection and sampling interval.
    pub rtt: Histogram,
}

/// Flags of [`Conn`].
pub mod conn {
    /// The handshake is complete.
    pub const ESTABLISHED: u32 = 1;
    /// The first turn is over, or can no longer be told.
    pub const FIRST_DONE: u32 = 1 << 1;
    /// Found already established when the agent started: no handshake, no first byte.
    pub const ADOPTED: u32 = 1 << 2;
    /// The application closed while it still waited; nothing waits any more.
    pub const GIVEN_UP: u32 = 1 << 3;
    /// Established from a SYN cookie: the kernel has no send time of the SYN-ACK, its first round trip is bogus.
    pub const COOKIE: u32 = 1 << 4;
}

/// One connection, keyed by the address of its `struct sock`, which is unique while the connection lives and
/// costs no helper call (socket cookies reach tracing programs only from Linux 5.12 on).
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Conn {
    /// Where its events are counted.
    pub path: PathKey,
    /// Bits of [`conn`].
    pub flags: u32,
    /// SYN sent (client) or connection established (server), monotonic nanoseconds.
    pub began_ns: u64,
    /// Last time its counters were added to the path.
    pub sampled_ns: u64,
    /// The turn under way.
    pub exchange: Exchange,
    /// When it was last heard, and how regularly it is.
    pub rhythm: Rhythm,
    /// `segs_in` already counted.
    pub segments_in: u32,
    /// `segs_out` already counted.
    pub segments_out: u32,
    /// `dsack_dups` already counted.
    pub dsack: u32,
    /// SYN retransmissions of this attempt.
    pub syn_retransmitted: u32,
    /// Last ICMP error of this attempt: an application that reads `SO_ERROR` clears the socket's own.
    pub soft_error: u32,
    /// Remote port, host order: with the state it tells whether the socket is still the same.
    pub remote_port: u16,
    /// Zero.
    pub reserved: u16,
}

impl Conn {
    /// What this connection waits for, one bit of [`waiting`], and since when; nothing where it waits for nothing.
    #[inline(always)]
    pub const fn waits(&self) -> Option<(u32, u64)> {
        if self.flags & conn::ESTABLISHED == 0 {
            Some((waiting::HANDSHAKE, self.began_ns))
        } else if self.exchange.asked_ns == 0 || self.flags & conn::GIVEN_UP != 0 {
            None
        } else if self.flags & conn::FIRST_DONE == 0 {
            Some((waiting::FIRST_BYTE, self.exchange.asked_ns))
        } else {
            Some((waiting::RESPONSE, self.exchange.asked_ns))
        }
    }

    /// The record of that for user space; `id` is its key.
    #[inline(always)]
    pub const fn waiting_for(&self, id: u64, kind: u32, since_ns: u64) -> Waiting {
        let syn_retransmitted = self.syn_retransmitted;
        let Rhythm { heard_ns, usual, .. } = self.rhythm;
        Waiting {
            path: self.path,
            kind,
            id,
            since_ns,
            heard_ns,
            syn_retransmitted,
            usual,
            segments_in: 0,
            reserved: 0,
        }
    }
}

/// Flags of [`HalfOpen`].
pub mod half_open {
    /// The last SYN was dropped: accept queue full.
    pub const OVERFLOW_AT_SYN: u32 = 1;
    /// The last final ACK was dropped: accept queue full.
    pub const OVERFLOW_AT_ACK: u32 = 1 << 1;
    /// The last SYN was dropped: request queue full.
    pub const REQUEST_QUEUE_FULL: u32 = 1 << 2;
}

/// One handshake that reached a listener and is not complete, keyed by [`Tuple`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct HalfOpen {
    /// Where its events are counted.
    pub path: PathKey,
    /// Bits of [`half_open`].
    pub flags: u32,
    /// First SYN, monotonic nanoseconds.
    pub began_ns: u64,
    /// Last SYN or SYN-ACK retransmission.
    pub last_ns: u64,
    /// SYN-ACK retransmissions.
    pub syn_retransmitted: u32,
    /// SYNs seen.
    pub syns: u32,
}

/// What a [`Waiting`] record waits for.
pub mod waiting {
    /// A handshake of a client: SYN sent, no answer yet.
    pub const HANDSHAKE: u32 = 1;
    /// First byte of the first answer.
    pub const FIRST_BYTE: u32 = 1 << 1;
    /// First byte of a later answer.
    pub const RESPONSE: u32 = 1 << 2;
    /// Nothing that was asked: it is spoken to regularly ([`crate::rhythm`]). A connection may wait for an answer as well.
    pub const SPOKEN: u32 = 1 << 4;
    /// Nothing: its socket is gone, and the event that should have ended it was missed.
    pub const STALE: u32 = 1 << 3;
}

/// Emitted by the iterator over connections: one that waits for something.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Waiting {
    /// Whose path.
    pub path: PathKey,
    /// One bit of [`waiting`], and perhaps [`waiting::SPOKEN`].
    pub kind: u32,
    /// Key of the connection.
    pub id: u64,
    /// Since when, monotonic nanoseconds.
    pub since_ns: u64,
    /// When data last arrived; 0 before.
    pub heard_ns: u64,
    /// SYN retransmissions so far.
    pub syn_retransmitted: u32,
    /// Its usual silence, where it is spoken to regularly: [`crate::rhythm::Rhythm::usual`].
    pub usual: u32,
    /// `segs_in` now, where it is spoken to regularly: whether anything at all still arrives.
    pub segments_in: u32,
    /// Zero.
    pub reserved: u32,
}

/// Emitted by the iterator over half-open handshakes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct HalfOpenRecord {
    /// The handshake.
    pub tuple: Tuple,
    /// Its state.
    pub state: HalfOpen,
}

/// Emitted by the iterator over paths.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct PathRecord {
    /// The path.
    pub key: PathKey,
    /// Zero.
    pub reserved: u32,
    /// Its counters.
    pub stats: PathStats,
}

/// What the iterators shall emit, written by user space before each pass.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
pub struct Scan {
    /// Only paths touched at or after this time.
    pub touched_since_ns: u64,
    /// Bits of [`waiting`].
    pub kinds: u32,
    /// Number of the pass over all open files under way.
    pub pass: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_have_no_holes() {
        assert_eq!(size_of::<PathRecord>(), 32 + size_of::<PathStats>());
        assert_eq!(size_of::<Waiting>(), 72);
        assert_eq!(size_of::<HalfOpenRecord>(), 40 + size_of::<HalfOpen>());
        assert_eq!(size_of::<Conn>(), 28 + 4 + 16 + 32 + 16 + 24);
    }
}
