//! Interarrival jitter (RFC 3550 §6.4.1, A.8), in integers.
//!
//! As libwebrtc and aiortc do, packets that repeat a timestamp (the rest of a video frame) are passed over: they were
//! not sampled when they were sent, and would measure the sender's pacing.
//!
//! Reading the clock costs more than all else about a packet. Where very many come, streams take turns ([`Turns`]): each is
//! measured for a quarter of a second, packet by packet as A.8 has it, and again after the others have been.

use super::{
    Cursor, Header,
    clock::{self, Learned, Time, Turns, ticks_to_units, units},
};

/// A step that no network makes: a pause without timestamps, another clock (libwebrtc takes the same bound).
const LARGEST_STEP: u64 = units(5_000_000_000) as u64;

/// A stream that had no packet in its last turn is timed now.
const FORGOTTEN: i32 = (Turns::LENGTH * (Turns::MOST_OTHERS + 2)).cast_signed();

/// Takes a packet that is the newest of its stream.
#[inline(always)]
pub fn update(cursor: &mut Cursor, header: &Header, configured: impl FnOnce(u8) -> u8, time: &mut impl Time) {
    if header.payload_type != cursor.payload_type || cursor.received <= 1 {
        cursor.payload_type = header.payload_type;
        cursor.clock = configured(header.payload_type) & 7;
        cursor.timestamp = header.timestamp;
        cursor.arrival = if cursor.clock == 0 { time.coarse() } else { time.exact() };
    } else if cursor.clock == 0 {
        learn(cursor, header, time);
    } else if header.timestamp != cursor.timestamp {
        step(cursor, header, time);
    }
}

/// Takes a packet that is the newest of its stream and brings a new timestamp, of a known clock.
#[inline(always)]
pub fn step(cursor: &mut Cursor, header: &Header, time: &mut impl Time) {
    let turns = time.turns();
    if turns.others != 0 {
        // Exact arrivals are ahead of the coarse time by up to a tick.
        let age = time.coarse().wrapping_sub(cursor.arrival).cast_signed();
        if !turns.is_on(time.coarse()) && age < FORGOTTEN {
            return;
        }
        if age >= Turns::LENGTH.cast_signed() {
            // The first of its turn. What came meanwhile may have changed the delay by and by, which is no jitter.
            cursor.timestamp = header.timestamp;
            cursor.arrival = time.exact();
            return;
        }
    }
    let arrival = time.exact();
    let sent = ticks_to_units(header.timestamp.wrapping_sub(cursor.timestamp) as i32, cursor.clock);
    // A gap of more than half the range of `arrival`, 36 minutes, is read as negative, and is too large either way.
    let came = i64::from(arrival.wrapping_sub(cursor.arrival) as i32);
    cursor.timestamp = header.timestamp;
    cursor.arrival = arrival;
    let step = (came - sent).unsigned_abs();
    if step < LARGEST_STEP {
        // A.8's scaled form: never above 16 times the largest step, which fits.
        cursor.jitter = cursor.jitter + step as u32 - ((cursor.jitter + 8) >> 4);
    }
}

#[inline(always)]
fn learn(cursor: &mut Cursor, header: &Header, time: &mut impl Time) {
    let ticks = header.timestamp.wrapping_sub(cursor.timestamp);
    match clock::learn(ticks, time.coarse().wrapping_sub(cursor.arrival)) {
        Learned::NotYet => return,
        Learned::Nothing => cursor.arrival = time.coarse(),
        Learned::Clock(index) => {
            cursor.clock = index;
            cursor.arrival = time.exact();
        }
    }
    cursor.timestamp = header.timestamp;
}
