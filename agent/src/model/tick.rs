//! What happened since the last look, ready to be judged.

use serde::{Deserialize, Serialize};
use std::{sync::Arc, time::Duration};

use graylag_ebpf::{
    counter::{Direction, Transport},
    outcome::Outcome,
    record::Retransmit,
};

use super::{ActivationTick, Distribution, LegTick, Subject};

/// One look at the host.
#[derive(Clone, Debug, Default)]
pub struct Tick {
    /// Monotonic time since an arbitrary start.
    pub at: Duration,
    /// Time since the last look.
    pub elapsed: Duration,
    /// How much later than planned this look was: this host, or this agent, is short of CPU.
    pub late: Duration,
    /// Subjects that had traffic, or have something pending.
    pub subjects: Vec<SubjectTick>,
    /// Connections that are regularly spoken to; on some looks only.
    pub spoken: Option<Vec<SpokenTick>>,
    /// Paths that carry media, by direction.
    pub media: Vec<LegTick>,
    /// Sessions on their way to media.
    pub activation: ActivationTick,
    /// This host's own drops.
    pub host: HostTick,
}

/// What one subject did.
#[derive(Clone, Debug)]
pub struct SubjectTick {
    /// Who.
    pub subject: Subject,
    /// What was counted since the last look.
    pub counts: Counts,
    /// What is pending now.
    pub pending: Pending,
}

/// Counts of one subject, of a tick or since a start.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Counts {
    /// Ended handshakes, by [`Outcome`].
    pub outcomes: [u64; Outcome::COUNT],
    /// SYNs (client) or SYN-ACKs (server) retransmitted.
    pub syn_retransmitted: u64,
    /// Handshakes that found the accept queue full, at their SYN or at their final ACK.
    pub accept_queue_overflow: u64,
    /// SYNs that found the request queue full.
    pub request_queue_overflow: u64,
    /// SYNs answered with a cookie.
    pub cookies_sent: u64,
    /// Connections established from a cookie.
    pub cookies_established: u64,
    /// Established connections that a RST ended.
    pub resets: u64,
    /// Segments received.
    pub segments_in: u64,
    /// Segments sent.
    pub segments_out: u64,
    /// Retransmitted segments, by [`Retransmit`].
    pub retransmitted: [u64; Retransmit::COUNT],
    /// SYN to ESTABLISHED.
    pub handshake: Distribution,
    /// Duration of handshakes that ended otherwise.
    pub handshake_failed: Distribution,
    /// First request to first byte back.
    pub first_byte: Distribution,
    /// Waits for a first byte that ended without one.
    pub first_byte_failed: Distribution,
    /// Request to first byte back, every turn.
    pub response: Distribution,
    /// Round-trip times.
    pub rtt: Distribution,
}

impl Counts {
    /// Adds another set of counts.
    pub fn add(&mut self, other: &Self) {
        self.outcomes.iter_mut().zip(other.outcomes).for_each(|(a, b)| *a += b);
        self.retransmitted.iter_mut().zip(other.retransmitted).for_each(|(a, b)| *a += b);
        self.syn_retransmitted += other.syn_retransmitted;
        self.accept_queue_overflow += other.accept_queue_overflow;
        self.request_queue_overflow += other.request_queue_overflow;
        self.cookies_sent += other.cookies_sent;
        self.cookies_established += other.cookies_established;
        self.resets += other.resets;
        self.segments_in += other.segments_in;
        self.segments_out += other.segments_out;
        self.handshake.add(&other.handshake);
        self.handshake_failed.add(&other.handshake_failed);
        self.first_byte.add(&other.first_byte);
        self.first_byte_failed.add(&other.first_byte_failed);
        self.response.add(&other.response);
        self.rtt.add(&other.rtt);
    }

    /// Ended handshakes of one outcome.
    pub fn outcome(&self, outcome: Outcome) -> u64 {
        self.outcomes[outcome as usize]
    }

    /// Retransmitted segments of one kind.
    pub fn retransmit(&self, kind: Retransmit) -> u64 {
        self.retransmitted[kind as usize]
    }

    /// Ended handshakes.
    pub fn handshakes(&self) -> u64 {
        self.outcomes.iter().sum()
    }

    /// Segments known to have been lost or late enough to look so: fast retransmissions and timeouts, less those taken
    /// back. A tail loss probe is no loss.
    pub fn lost(&self) -> u64 {
        (self.retransmit(Retransmit::Fast) + self.retransmit(Retransmit::Timeout))
            .saturating_sub(self.retransmit(Retransmit::Spurious))
    }
}

/// Ages of things that have begun and not ended; few at any time.
#[derive(Clone, Debug, Default)]
pub struct Ages(Vec<Duration>);

impl Ages {
    /// One more.
    pub fn push(&mut self, age: Duration) {
        self.0.push(age);
    }

    /// All of another.
    pub fn extend(&mut self, other: &Self) {
        self.0.extend_from_slice(&other.0);
    }

    /// How many.
    pub fn count(&self) -> u64 {
        self.0.len() as u64
    }

    /// How many are this old or older.
    pub fn at_least(&self, bound: Duration) -> u64 {
        self.0.iter().filter(|age| **age >= bound).count() as u64
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// What has begun and not ended.
#[derive(Clone, Debug, Default)]
pub struct Pending {
    /// Handshakes.
    pub handshake: Ages,
    /// First bytes.
    pub first_byte: Ages,
    /// Of the server's handshakes, those whose SYN came again: the SYN-ACK did not reach the client.
    pub syn_repeated: u64,
    /// Longest wait for any answer, first or later.
    pub longest_wait: Option<Duration>,
}

impl Pending {
    /// Adds what another subject has pending.
    pub fn add(&mut self, other: &Self) {
        self.handshake.extend(&other.handshake);
        self.first_byte.extend(&other.first_byte);
        self.syn_repeated += other.syn_repeated;
        self.longest_wait = self.longest_wait.max(other.longest_wait);
    }

    /// Whether nothing is pending.
    pub fn is_empty(&self) -> bool {
        self.handshake.is_empty() && self.first_byte.is_empty() && self.longest_wait.is_none()
    }
}

/// Connections of one subject whose peer speaks of itself, and regularly.
#[derive(Clone, Debug)]
pub struct SpokenTick {
    /// Who should speak.
    pub subject: Subject,
    /// The connections that are open both ways.
    pub connections: Vec<Spoken>,
}

/// One of them.
#[derive(Clone, Copy, Debug)]
pub struct Spoken {
    /// Its number while it lives.
    pub id: u64,
    /// When it last said something, on the ticks' clock.
    pub heard: Duration,
    /// The silence that is usual with it.
    pub usual: Duration,
    /// Segments that have come, acknowledgements and keep-alives among them; modulo 2³².
    pub segments_in: u32,
}

/// What this host dropped.
#[derive(Clone, Debug, Default)]
pub struct HostTick {
    /// Packets dropped since the last look, by reason.
    pub drops: Vec<Drops>,
    /// Datagrams lost to a full receive buffer, by service.
    pub udp_receive_buffer: Vec<(Arc<str>, u64)>,
    /// Packets this host's interfaces received and sent meanwhile, where known.
    pub packets: Option<u64>,
}

/// Packets dropped for one reason.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Drops {
    /// As the running kernel names it.
    pub reason: Arc<str>,
    /// Which way they went.
    pub direction: Direction,
    /// What they carried.
    pub transport: Transport,
    /// How many.
    pub packets: u64,
}
