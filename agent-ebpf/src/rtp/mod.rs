//! RTP streams, from the header that SRTP leaves in the clear (RFC 3550, RFC 3711).
//!
//! A stream is one SSRC in one direction. [`Cursor`] is where it stands and what every packet changes, [`Tally`] what
//! went wrong, [`accept`] takes one packet.

pub mod clock;
pub mod header;
mod jitter;
mod sequence;
#[cfg(test)]
mod tests;

use bytemuck::{Pod, Zeroable};

pub use clock::{Time, Turns};
pub use header::Header;
pub use sequence::{MAX_DROPOUT, MAX_MISORDER, WINDOW};

/// States of a [`Cursor`].
pub mod state {
    /// Nothing seen yet.
    pub const EMPTY: u8 = 0;
    /// One packet, or several that do not belong together: perhaps no RTP at all.
    pub const PROBATION: u8 = 1;
    /// A stream.
    pub const VALID: u8 = 2;
    /// A stream whose last packet was far off: lost, or the first after a restart.
    pub const JUMPED: u8 = 3;
}

/// Where a stream stands. Changed by every packet, so it shares a cache line with the flow's own counters.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Cursor {
    /// Synchronisation source.
    pub ssrc: u32,
    /// TURN channel that carries it, 0 for none.
    pub channel: u16,
    /// Payload type of the last packet in order.
    pub payload_type: u8,
    /// Index of its clock in [`clock::RATES`], 0 while not known.
    pub clock: u8,
    /// Bit `i`: whether number `highest - i` has arrived.
    pub window: u64,
    /// Highest sequence number, extended to 32 bits (RFC 3550 A.1).
    pub highest: u32,
    /// RTP timestamp of the last packet in order that brought a new one; while the clock is not known, of the packet
    /// that learning began with.
    pub timestamp: u32,
    /// When that packet arrived, in units of [`clock::UNIT_NS`], modulo 2³².
    pub arrival: u32,
    /// Interarrival jitter (RFC 3550 A.8), in sixteenths of a unit; see [`Cursor::jitter_ns`].
    pub jitter: u32,
    /// Packets that arrived, duplicates and stale ones excepted.
    pub received: u32,
    /// Missing numbers in a row that have left the window last: a burst at its far end goes on with them.
    pub run: u16,
    /// Numbers in the window that count, 1 to 64: the stream is no older.
    pub span: u8,
    /// One of [`state`].
    pub state: u8,
}

/// What went wrong with a stream. Counters wrap; user space takes differences. Lost is `missed - late`,
/// which is also the length of all bursts together.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Tally {
    /// Numbers that were not there when a higher one came.
    pub missed: u32,
    /// Of these, arrived after all while still in the window: reordered, not lost.
    pub late: u32,
    /// Arrived again.
    pub duplicated: u32,
    /// Too old or too far off to be told from anything: neither late nor duplicate.
    pub stale: u32,
    /// Bursts of loss, whatever their length; one less for each that late packets undo.
    pub bursts: u32,
    /// Restarts of the numbering by the sender.
    pub restarts: u16,
    /// Number of the packet that was far off, in [`state::JUMPED`].
    pub candidate: u16,
}

const _: () = assert!(size_of::<Cursor>() == 40 && size_of::<Tally>() == 24);

/// What a packet changes, for counters that outlive its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Event {
    /// See [`Tally::missed`].
    Missed = 0,
    /// See [`Tally::late`].
    Late = 1,
    /// See [`Tally::duplicated`].
    Duplicated = 2,
    /// See [`Tally::stale`].
    Stale = 3,
    /// See [`Tally::restarts`].
    Restart = 4,
    /// A packet of a valid stream, once each.
    Received = 5,
}

impl Event {
    /// Number of events that go wrong: all but the last.
    pub const TROUBLE: usize = 5;
}

/// Takes what packets change. At once and piece by piece: handed back as a value, the verifier would follow each combination.
pub trait Sink {
    /// `n` more of something; may be 0.
    fn count(&mut self, event: Event, n: u32);
    /// One more (`n` is 1) or one less (-1) burst of loss of `length` packets, at least one.
    fn burst(&mut self, length: u32, n: i64);
}

impl Cursor {
    /// Whether it is of this stream.
    #[inline(always)]
    pub const fn is(&self, ssrc: u32, channel: u16) -> bool {
        self.ssrc == ssrc && self.channel == channel && self.state != state::EMPTY
    }

    /// A cursor for a stream of which nothing has been seen.
    #[inline(always)]
    pub fn of(ssrc: u32, channel: u16) -> Self {
        Self { ssrc, channel, ..Self::default() }
    }

    /// Whether its place may go to another stream: nothing is there, or it has brought nothing new for long. `now` is in
    /// units of [`clock::UNIT_NS`], and may be coarse where the arrivals were exact: then the last one is ahead of it.
    #[inline(always)]
    pub const fn is_over(&self, now: u32) -> bool {
        /// More than learning may leave `arrival` behind.
        const SILENT: u32 = clock::units(10_000_000_000);
        /// More than a tick of any kernel.
        const AHEAD: u32 = clock::units(1_000_000_000);
        self.state == state::EMPTY || now.wrapping_sub(self.arrival).wrapping_add(AHEAD) >= SILENT + AHEAD
    }

    /// Interarrival jitter in nanoseconds; 0 while the clock is not known.
    #[inline(always)]
    pub const fn jitter_ns(&self) -> u64 {
        self.jitter as u64 * (clock::UNIT_NS / 16)
    }

    /// Whether the stream has proven to be one.
    #[inline(always)]
    pub const fn is_valid(&self) -> bool {
        self.state >= state::VALID
    }
}

/// Takes a packet that is simply the next of a stream in good health; false, and nothing changed, where it is any other.
/// What nearly every packet is, in few instructions.
#[inline(always)]
pub fn accept_next(cursor: &mut Cursor, header: &Header, time: &mut impl Time) -> bool {
    if cursor.clock == 0
        || header.payload_type != cursor.payload_type
        || !sequence::advance_next(cursor, header.sequence)
    {
        return false;
    }
    if header.timestamp != cursor.timestamp {
        jitter::step(cursor, header, time);
    }
    true
}

/// Takes one packet; whether it is the newest of its stream. `configured` is the clock of its payload type where it is known
/// beforehand, see [`clock::of_payload_type`].
#[inline(always)]
pub fn accept(
    cursor: &mut Cursor,
    tally: &mut Tally,
    header: &Header,
    configured: impl FnOnce(u8) -> u8,
    time: &mut impl Time,
    sink: &mut impl Sink,
) -> bool {
    let newest = sequence::advance(cursor, tally, header.sequence, sink);
    if newest {
        jitter::update(cursor, header, configured, time);
    }
    newest
}
