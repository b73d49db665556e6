//! Sequence numbers (RFC 3550 A.1), with a window in which late packets are told from lost ones and from duplicates.
//!
//! A number that is not there when a higher one comes counts as missed at once, and the numbers skipped as a burst:
//! detection cannot wait. If one arrives while it is still in the window it counts as late, its burst is taken back, and what
//! is left of it on either side counts instead. So loss and bursts are exact at any time, for what is known then.
//!
//! Two things differ from A.1. A stream proves itself by two packets near each other rather than by two in
//! order, so that the first two may be swapped; as a stream is known by its SSRC, chance has no more room than there. And a
//! packet before the first one of the stream extends it downwards while it fits the window.

use super::{Cursor, Event, Sink, Tally, state};

/// Numbers in the window.
pub const WINDOW: u32 = 64;
/// Larger steps ahead are no loss but a restart, or a stray packet (RFC 3550 A.1).
pub const MAX_DROPOUT: u32 = 3000;
/// Larger steps back are. More than A.1's 100: at video rates a retransmission comes several hundred numbers late.
pub const MAX_MISORDER: u32 = 512;

/// Takes a number that is the next, where nothing is missing and nothing leaves the window but what arrived. False, and
/// nothing changed, for any other.
#[inline(always)]
pub fn advance_next(cursor: &mut Cursor, sequence: u16) -> bool {
    let is_next = sequence == (cursor.highest as u16).wrapping_add(1);
    if !is_next || cursor.state != state::VALID || cursor.window >> 63 == 0 || cursor.run != 0 {
        return false;
    }
    // The bit that leaves is set, so the window is full: `span` stays.
    cursor.window = cursor.window << 1 | 1;
    cursor.highest = cursor.highest.wrapping_add(1);
    cursor.received = cursor.received.wrapping_add(1);
    true
}

/// Takes one number; whether it is the newest of its stream, or the first.
#[inline(always)]
pub fn advance(cursor: &mut Cursor, tally: &mut Tally, sequence: u16, sink: &mut impl Sink) -> bool {
    let ahead = u32::from(sequence.wrapping_sub(cursor.highest as u16));
    match cursor.state {
        state::EMPTY => {
            begin(cursor, sequence);
            return true;
        }
        state::PROBATION => {
            if !is_near(ahead) {
                // Nothing of it was counted anywhere.
                tally.duplicated = 0;
                begin(cursor, sequence);
                return true;
            }
            if ahead == 0 {
                tally.duplicated = tally.duplicated.wrapping_add(1);
                return false;
            }
            cursor.state = state::VALID;
            // The first packet, and copies of it.
            sink.count(Event::Received, 1);
            sink.count(Event::Duplicated, tally.duplicated);
        }
        _ => {
            let behind = 0x1_0000 - ahead;
            if ahead > MAX_DROPOUT && behind > MAX_MISORDER {
                return jump(cursor, tally, sequence, sink);
            }
            if cursor.state == state::JUMPED {
                // That packet was a stray.
                cursor.state = state::VALID;
                tally.stale = tally.stale.wrapping_add(1);
                sink.count(Event::Stale, 1);
            }
        }
    }
    place(cursor, tally, ahead, sink)
}

/// Whether a number lies within a window's width of the highest.
#[inline(always)]
const fn is_near(ahead: u32) -> bool {
    ahead <= WINDOW || ahead > 0x1_0000 - WINDOW
}

/// Begins with a first packet. Numbers start in the second cycle, so that there is room below.
#[inline(always)]
fn begin(cursor: &mut Cursor, sequence: u16) {
    cursor.highest = 0x1_0000 | u32::from(sequence);
    cursor.window = 1;
    cursor.received = 1;
    cursor.run = 0;
    cursor.span = 1;
    cursor.state = state::PROBATION;
}

/// Takes a number of a valid stream, at most [`MAX_DROPOUT`] ahead or [`MAX_MISORDER`] behind.
#[inline(always)]
fn place(cursor: &mut Cursor, tally: &mut Tally, ahead: u32, sink: &mut impl Sink) -> bool {
    if ahead != 0 && ahead <= MAX_DROPOUT {
        miss(tally, ahead - 1, sink);
        go_on(cursor, ahead);
        receive(cursor, sink);
        return true;
    }
    let behind = 0x1_0000 - ahead;
    if ahead != 0 && behind >= WINDOW {
        tally.stale = tally.stale.wrapping_add(1);
        sink.count(Event::Stale, 1);
        return false;
    }
    if ahead == 0 || cursor.window >> (behind & 63) & 1 != 0 {
        tally.duplicated = tally.duplicated.wrapping_add(1);
        sink.count(Event::Duplicated, 1);
        return false;
    }
    let span = u32::from(cursor.span);
    if behind >= span {
        // Before the first packet: the numbers from here to there were missed, and so was this one.
        miss(tally, behind - span, sink);
        tally.missed = tally.missed.wrapping_add(1);
        sink.count(Event::Missed, 1);
        cursor.span = (behind + 1) as u8;
    } else {
        split(cursor, tally, behind, sink);
    }
    cursor.window |= 1 << (behind & 63);
    tally.late = tally.late.wrapping_add(1);
    sink.count(Event::Late, 1);
    receive(cursor, sink);
    false
}

#[inline(always)]
fn receive(cursor: &mut Cursor, sink: &mut impl Sink) {
    cursor.received = cursor.received.wrapping_add(1);
    sink.count(Event::Received, 1);
}

/// Counts numbers that are not there, in a row.
#[inline(always)]
fn miss(tally: &mut Tally, length: u32, sink: &mut impl Sink) {
    tally.missed = tally.missed.wrapping_add(length);
    sink.count(Event::Missed, length);
    add_burst(tally, length, sink);
}

#[inline(always)]
fn add_burst(tally: &mut Tally, length: u32, sink: &mut impl Sink) {
    if length != 0 {
        tally.bursts = tally.bursts.wrapping_add(1);
        sink.burst(length, 1);
    }
}

/// Moves the window on by `ahead`.
#[inline(always)]
fn go_on(cursor: &mut Cursor, ahead: u32) {
    let span = u32::from(cursor.span);
    if ahead >= WINDOW {
        // Of the numbers skipped, those that do not fit the window have left it.
        cursor.run = (ahead - WINDOW) as u16;
        cursor.window = 1;
    } else {
        let leaving = (span + ahead).saturating_sub(WINDOW);
        let missing = (cursor.window >> ((WINDOW - ahead) & 63)).trailing_zeros();
        cursor.run = if missing < leaving { missing as u16 } else { cursor.run.wrapping_add(leaving as u16) };
        cursor.window = cursor.window << ahead | 1;
    }
    let wider = span + ahead;
    cursor.span = if wider < WINDOW { wider } else { WINDOW } as u8;
    cursor.highest = cursor.highest.wrapping_add(ahead);
}

/// A missing number in the window arrives: its burst becomes what is left on either side of it.
#[inline(always)]
fn split(cursor: &Cursor, tally: &mut Tally, behind: u32, sink: &mut impl Sink) {
    // The highest number has arrived, and so has the first of the stream: a run ends there at the latest, or at the window's
    // far end, behind which it goes on.
    let newer = (cursor.window << ((WINDOW - behind) & 63)).leading_zeros();
    let above = cursor.window >> (behind & 63) >> 1;
    let older = if above == 0 { WINDOW - 1 - behind + u32::from(cursor.run) } else { above.trailing_zeros() };
    tally.bursts = tally.bursts.wrapping_sub(1);
    sink.burst(newer + 1 + older, -1);
    add_burst(tally, newer, sink);
    add_burst(tally, older, sink);
}

/// A number that is far off: a second one near it proves that the sender has begun anew.
#[inline(always)]
fn jump(cursor: &mut Cursor, tally: &mut Tally, sequence: u16, sink: &mut impl Sink) -> bool {
    let ahead = u32::from(sequence.wrapping_sub(tally.candidate));
    if cursor.state != state::JUMPED {
        cursor.state = state::JUMPED;
        tally.candidate = sequence;
        return false;
    }
    if ahead == 0 {
        return false;
    }
    if !is_near(ahead) {
        tally.candidate = sequence;
        tally.stale = tally.stale.wrapping_add(1);
        sink.count(Event::Stale, 1);
        return false;
    }
    let received = cursor.received;
    begin(cursor, tally.candidate);
    cursor.received = received;
    cursor.state = state::VALID;
    tally.restarts = tally.restarts.wrapping_add(1);
    sink.count(Event::Restart, 1);
    receive(cursor, sink);
    place(cursor, tally, ahead, sink)
}
