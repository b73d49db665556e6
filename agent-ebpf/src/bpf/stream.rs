//! RTP streams: which one a packet belongs to, and what it changes for its path.
#![allow(unsafe_code)] // `no_mangle` for the frozen global

use aya_ebpf::{Global, bindings::__sk_buff};
use graylag_ebpf::{
    bytes::{Bytes, be16},
    counter::Direction,
    demux::{CHANNEL_HEADER, HEAD, is_channel, is_rtp},
    flow::{Direction as Half, Stream, moment},
    media::{JITTER_EVERY, MediaCounter, Traffic, burst_bucket},
    rtp::{self, Cursor, Event, Header, Sink, Tally, Time, clock},
};

use super::{
    datagram::Datagram,
    maps as counters,
    media_maps::{self as maps, SCRATCH_BYTES},
    packet::{Copied, Packet},
    table::STREAM_TABLE,
};

/// Clock of each payload type, as an index of [`clock::RATES`]; 0 where it is learned. The agent adds what the configuration
/// says.
#[unsafe(no_mangle)]
static CLOCKS: Global<[u8; 128]> = Global::new(clock::of_payload_type());

/// Segments of one offloaded datagram that are walked: the kernel makes no more (`UDP_MAX_SEGMENTS`).
const MOST_SEGMENTS: u32 = 128;
/// Segments up to this size are copied several at a time.
const SMALL: u32 = SCRATCH_BYTES as u32 / 4;
/// A TURN channel header and the fixed RTP header behind it; without a channel, the end of the UDP header.
const HEADERS: u32 = CHANNEL_HEADER + HEAD as u32;

/// Where a stream's events are counted.
struct Path {
    path: u32,
    direction: Direction,
}

impl Sink for Path {
    #[inline(always)]
    fn count(&mut self, event: Event, n: u32) {
        if matches!(event, Event::Received) {
            if let Some(traffic) = maps::traffic(self.path, self.direction) {
                traffic.received += u64::from(n);
            }
        } else if n != 0
            && let Some(quality) = maps::quality(self.path, self.direction)
        {
            counters::add(&mut quality.trouble[event as usize], u64::from(n));
            if matches!((event, self.direction), (Event::Missed, Direction::Receive)) {
                maps::count(MediaCounter::Missed, u64::from(n));
            }
        }
    }

    #[inline(always)]
    fn burst(&mut self, length: u32, n: i64) {
        count_burst(self.path, self.direction, length, n);
    }
}

#[inline(never)]
fn count_burst(path: u32, direction: Direction, length: u32, n: i64) {
    if let Some(quality) = maps::quality(path, direction) {
        maps::add_at(&mut quality.bursts, burst_bucket(length), n as u64);
    }
}

/// Takes the RTP packets of a datagram.
#[inline(always)]
pub fn packets(packet: Packet, datagram: &mut Datagram, half: &mut Half, traffic: &mut Traffic) {
    if datagram.segments != 1 {
        media_many(packet.raw(), datagram, half);
    } else if next(datagram, half) {
        traffic.received += 1;
    } else {
        media_any(datagram, half);
    }
}

/// What nearly every packet is: the next one of the first stream.
#[inline(always)]
fn next(datagram: &mut Datagram, half: &mut Half) -> bool {
    let header = datagram.rtp();
    if !half.cursor.is(header.ssrc, datagram.channel) {
        return false;
    }
    is_next(&mut half.cursor, &header, datagram)
}

/// Takes the next packet of a stream in good health.
#[inline(always)]
fn is_next(cursor: &mut Cursor, header: &Header, datagram: &mut Datagram) -> bool {
    let is_next = rtp::accept_next(cursor, header, datagram);
    if is_next {
        now_and_then(cursor, header, datagram);
    }
    is_next
}

/// Records the jitter of a stream whose clock is known: with its newest packet, from time to time.
#[inline(always)]
fn now_and_then(cursor: &Cursor, header: &Header, datagram: &Datagram) {
    if header.sequence.is_multiple_of(JITTER_EVERY) {
        sample(datagram.path, datagram.direction, cursor.jitter_ns());
    }
}

#[inline(never)]
fn sample(path: u32, direction: Direction, jitter_ns: u64) {
    if let Some(quality) = maps::quality(path, direction) {
        counters::record(&mut quality.jitter, jitter_ns);
    }
}

/// Any packet of any stream.
///
/// A global function, as all that are `extern "C"` here: the verifier looks at it once, on its own, and not anew for
/// every state in which it is called.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn media_any(datagram: *mut Datagram, half: *mut Half) -> u32 {
    // SAFETY: what the verifier lets through is null or what it says.
    if let Some((datagram, half)) = unsafe { datagram.as_mut().zip(half.as_mut()) } {
        any(datagram, half);
    }
    0
}

#[inline(always)]
fn any(datagram: &mut Datagram, half: &mut Half) {
    let header = datagram.rtp();
    let (cursor, tally) = if half.cursor.is(header.ssrc, datagram.channel) {
        (&mut half.cursor, &mut half.tally)
    } else if half.cursor.is_over(datagram.coarse()) {
        half.cursor = Cursor::of(header.ssrc, datagram.channel);
        half.tally = Tally::default();
        (&mut half.cursor, &mut half.tally)
    } else if let Some(stream) = other(&header, datagram, half) {
        stream.last = moment(datagram.coarse_ns);
        (&mut stream.cursor, &mut stream.tally)
    } else {
        return;
    };
    let mut path = Path { path: datagram.path, direction: datagram.direction };
    if is_next(cursor, &header, datagram) {
        path.count(Event::Received, 1);
        return;
    }
    let known = cursor.clock != 0;
    let newest = rtp::accept(cursor, tally, &header, maps::clock_of(&CLOCKS), datagram, &mut path);
    if newest && known {
        now_and_then(cursor, &header, datagram);
    }
}

/// A walk over the segments of an offloaded datagram.
struct Walk<'a> {
    packet: Packet,
    datagram: &'a mut Datagram,
    half: &'a mut Half,
    /// Four bytes before the segment's RTP header: TURN's header, where there is one.
    at: u32,
    /// Segments walked.
    walked: u32,
    /// Where segments are copied to, and what it holds.
    scratch: &'a mut [u8; SCRATCH_BYTES],
    copied: u32,
    copied_to: u32,
    /// Packets that were simply the next.
    received: u32,
}

impl Walk<'_> {
    /// Makes the next segment the one at hand; false where there is none.
    #[inline(always)]
    fn look(&mut self) -> bool {
        let datagram = &mut *self.datagram;
        let end = datagram.start + datagram.bytes;
        if self.walked >= datagram.segments || self.at + HEADERS > end {
            return false;
        }
        if datagram.step > SMALL {
            if datagram.channel != 0 {
                let Some([a, b]) = Copied(self.packet).read(self.at) else { return false };
                datagram.channel = be16(a, b);
            }
            return self.packet.read_to(self.at + CHANNEL_HEADER, &mut datagram.head);
        }
        if self.at + HEADERS > self.copied_to {
            let Some(length) = maps::fill_scratch(self.scratch, self.packet, self.at, end - self.at) else {
                return false;
            };
            (self.copied, self.copied_to) = (self.at, self.at + length);
        }
        let at = self.at - self.copied;
        if datagram.channel != 0 {
            let Some([a, b]) = maps::read_scratch(self.scratch, at) else { return false };
            datagram.channel = be16(a, b);
        }
        // Where it stays, in as few stores as it is read: what is taken apart into bytes is slow to read back as words.
        let Some(head) = maps::read_scratch(self.scratch, at + CHANNEL_HEADER) else { return false };
        datagram.head = head;
        true
    }
}

/// Walks the segments of an offloaded datagram.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn media_many(skb: *mut __sk_buff, datagram: *mut Datagram, half: *mut Half) -> u32 {
    // SAFETY: what the verifier lets through is null or what it says.
    if let Some((datagram, half)) = unsafe { datagram.as_mut().zip(half.as_mut()) } {
        many(Packet::new(skb), datagram, half);
    }
    0
}

#[inline(always)]
fn many(packet: Packet, datagram: &mut Datagram, half: &mut Half) {
    let Some(scratch) = maps::scratch() else { return };
    let (at, segments) = (datagram.at - 4, datagram.segments);
    let mut walk =
        Walk { packet, datagram, half, at, walked: 0, scratch, copied: 0, copied_to: 0, received: 0 };
    maps::repeat(if segments < MOST_SEGMENTS { segments } else { MOST_SEGMENTS }, one, &mut walk);
    if let Some(traffic) = maps::traffic(walk.datagram.path, walk.datagram.direction) {
        traffic.received += u64::from(walk.received);
    }
    if walk.walked < segments {
        maps::count(MediaCounter::Segment, u64::from(segments - walk.walked));
    }
}

/// One step of a walk; true where it is over.
#[inline(always)]
fn one(walk: &mut Walk<'_>) -> bool {
    if !walk.look() {
        return true;
    }
    // The kernel joins datagrams of one flow whatever they carry: a report may follow the media that it is about.
    if !is_rtp(&walk.datagram.head) || (walk.datagram.channel != 0 && !is_channel(walk.datagram.channel)) {
        // Nothing of a stream.
    } else if next(walk.datagram, walk.half) {
        walk.received += 1;
    } else {
        media_any(walk.datagram, walk.half);
    }
    walk.at += walk.datagram.step;
    walk.walked += 1;
    false
}

/// A stream that is not the first of its flow and direction; nothing where there is no room for it.
#[inline(always)]
fn other(header: &Header, datagram: &Datagram, half: &mut Half) -> Option<&'static mut Stream> {
    let (flow, created, direction) = (datagram.flow, datagram.created, datagram.direction as u32);
    let hash = maps::hash_of(&[flow, created, direction | u32::from(datagram.channel) << 16, header.ssrc]);
    let found = STREAM_TABLE.find(hash, |stream| {
        (stream.flow ^ flow) | (stream.created ^ created) | (stream.direction ^ direction) == 0
            && stream.cursor.is(header.ssrc, datagram.channel)
    });
    if let Some((_, stream)) = found {
        return Some(stream);
    }
    let Some((number, stream, _)) = STREAM_TABLE.take(datagram.coarse_ns) else {
        maps::count(MediaCounter::StreamRefused, 1);
        return None;
    };
    (stream.flow, stream.created, stream.direction) = (flow, created, direction);
    stream.cursor = Cursor::of(header.ssrc, datagram.channel);
    if !STREAM_TABLE.publish(hash, number) {
        maps::count(MediaCounter::StreamRefused, 1);
        return None;
    }
    half.more_streams = half.more_streams.wrapping_add(1);
    maps::count(MediaCounter::StreamCreated, 1);
    Some(stream)
}
