//! UDP flows: one record for a 5-tuple, with a half for each direction.
//!
//! Everything a packet does is done to the half of its own direction ([`Direction`]), which the functions here are handed
//! and the only thing they can reach. What both share is fixed when the flow begins, but for the cached path.

use bytemuck::{Pod, Zeroable};

use crate::{
    bytes::Bytes,
    counter,
    demux::Kind,
    dtls,
    key::Tuple,
    rtp::{Cursor, Tally},
    stun,
};

/// A point of monotonic time in 32 bits, never 0: two milliseconds fine, and good for differences of up to 52 days.
pub type Moment = u32;

/// Nanoseconds to a unit of [`Moment`].
pub const MOMENT_NS: u64 = 1 << 20;

/// The moment of a monotonic time.
#[inline(always)]
pub const fn moment(ns: u64) -> Moment {
    (ns / MOMENT_NS) as u32 | 1
}

/// Nanoseconds from `then` to `now`; nothing where `then` is 0, "never".
#[inline(always)]
pub const fn age_ns(now: Moment, then: Moment) -> Option<u64> {
    if then == 0 {
        return None;
    }
    let age = now.wrapping_sub(then);
    // The one may be read while the other CPU writes: a little ahead is no age at all.
    Some(if age > u32::MAX / 2 { 0 } else { age as u64 * MOMENT_NS })
}

/// What a direction has carried in STUN, as bits.
pub mod seen {
    /// Binding request.
    pub const REQUEST: u16 = 1;
    /// Binding success: the answer to a request of the other direction.
    pub const SUCCESS: u16 = 1 << 1;
    /// Binding error.
    pub const ERROR: u16 = 1 << 2;
    /// Binding indication: a keep-alive.
    pub const INDICATION: u16 = 1 << 3;
    /// TURN's requests and answers.
    pub const TURN: u16 = 1 << 4;
    /// TURN's send and data indications, which carry datagrams that are not looked at.
    pub const TURN_DATA: u16 = 1 << 5;
}

/// Bit in [`Direction::kinds`] beside those of [`Kind`]: carried TURN channel data.
pub const IN_CHANNEL: u16 = 1 << 15;

/// One direction of a flow. What every packet changes comes first, and is one cache line.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Direction {
    /// Bytes of UDP payload.
    pub bytes: u64,
    /// Datagrams, the segments of offloaded ones each; wraps.
    pub packets: u32,
    /// Of these, RTP, up to the most that fits.
    pub media: u16,
    /// Bits of [`Kind::bit`] and [`IN_CHANNEL`].
    pub kinds: u16,
    /// Last datagram; 0: none yet. Right to a tick of the kernel.
    pub last: Moment,
    /// Last RTP packet; 0: none yet.
    pub last_media: Moment,
    /// The first of its streams. Others are in the stream table.
    pub cursor: Cursor,
    /// What went wrong with that stream.
    pub tally: Tally,
    /// Bits of [`seen`].
    pub stun: u16,
    /// Bits of [`dtls::seen`].
    pub dtls: u16,
    /// First datagram.
    pub first: Moment,
    /// First binding request; 0: none. The same for the rest.
    pub stun_request: Moment,
    /// First binding success.
    pub stun_success: Moment,
    /// First DTLS record.
    pub dtls_first: Moment,
    /// First record that shows this side of the handshake finished.
    pub dtls_finished: Moment,
    /// First RTP packet.
    pub media_first: Moment,
    /// Streams beside the first that found a place in the stream table; wraps.
    pub more_streams: u32,
    /// Zero.
    pub reserved: [u32; 2],
}

/// One flow, as the flow table holds it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Flow {
    /// Whose it is. `local` is the source of what is transmitted and the destination of what is received.
    pub tuple: Tuple,
    /// When its entry was made, monotonic nanoseconds. With its place in the table it names this flow and no later one.
    pub created_ns: u64,
    /// Index of its path, [`crate::media::OTHER_PATH`] for the one that takes what finds no room.
    pub path: u32,
    /// Generation of the peers that `path` was looked up in.
    pub generation: u32,
    /// The ICE session that its connectivity checks named first ([`crate::session::key`]); 0 for none.
    pub session: u64,
    /// Towards this host.
    pub receive: Direction,
    /// Away from it.
    pub transmit: Direction,
}

/// Further streams of a flow, as the stream table holds them.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Stream {
    /// Its flow's place in the flow table.
    pub flow: u32,
    /// Low half of its flow's `created_ns`.
    pub created: u32,
    /// [`counter::Direction`] as its number.
    pub direction: u32,
    /// Last packet.
    pub last: Moment,
    /// Where it stands.
    pub cursor: Cursor,
    /// What went wrong.
    pub tally: Tally,
}

const _: () = assert!(size_of::<Direction>() == 128 && size_of::<Flow>() == 320 && size_of::<Stream>() == 80);

impl Direction {
    /// Counts datagrams of one kind. Whether they are the first of that kind.
    #[inline(always)]
    pub fn count(&mut self, now: Moment, packets: u32, bytes: u64, kind: Kind) -> bool {
        self.bytes = self.bytes.wrapping_add(bytes);
        self.packets = self.packets.wrapping_add(packets);
        self.last = now;
        let first = self.kinds & kind.bit() == 0;
        if first {
            self.begin(now, kind);
        }
        if matches!(kind, Kind::Rtp) {
            self.media = self.media.saturating_add(packets as u16);
            self.last_media = now;
        }
        first
    }

    /// The first datagram of its kind.
    #[inline(always)]
    fn begin(&mut self, now: Moment, kind: Kind) {
        self.kinds |= kind.bit();
        if self.first == 0 {
            self.first = now;
        }
        match kind {
            Kind::Rtp => self.media_first = now,
            Kind::Dtls => self.dtls_first = now,
            _ => {}
        }
    }

    /// Takes the header of a STUN message.
    #[inline(always)]
    pub fn stun(&mut self, now: Moment, header: &stun::Header) {
        let bit = match (header.method, header.class) {
            (stun::BINDING, stun::Class::Request) => seen::REQUEST,
            (stun::BINDING, stun::Class::Success) => seen::SUCCESS,
            (stun::BINDING, stun::Class::Error) => seen::ERROR,
            (stun::BINDING, stun::Class::Indication) => seen::INDICATION,
            (stun::SEND | stun::DATA, _) => seen::TURN_DATA,
            _ => seen::TURN,
        };
        if self.stun & bit == 0 {
            self.stun |= bit;
            match bit {
                seen::REQUEST => self.stun_request = now,
                seen::SUCCESS => self.stun_success = now,
                _ => {}
            }
        }
    }

    /// Takes the DTLS records of the datagram from `at` to `end`.
    #[inline(always)]
    pub fn dtls(&mut self, now: Moment, packet: &(impl Bytes + ?Sized), at: u32, end: u32) {
        const DONE: u16 = dtls::seen::FINISHED | dtls::seen::CIPHERTEXT;
        dtls::carried(packet, at, end, &mut self.dtls);
        if self.dtls & DONE != 0 && self.dtls_finished == 0 {
            self.dtls_finished = now;
        }
    }
}

impl Stream {
    /// What it is looked up by.
    #[inline(always)]
    pub const fn key(&self) -> [u32; 4] {
        let channel = self.cursor.channel as u32;
        [self.flow, self.created, self.direction | channel << 16, self.cursor.ssrc]
    }

    /// How long it has carried nothing.
    #[inline(always)]
    pub const fn idle_ns(&self, now: Moment) -> u64 {
        match age_ns(now, self.last) {
            Some(age) => age,
            // Never published.
            None => u64::MAX,
        }
    }
}

/// How far a flow has come towards media.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Stage {
    /// No STUN, DTLS or RTP.
    None,
    /// A connectivity check is under way.
    Checking,
    /// A check was answered.
    Connected,
    /// DTLS has begun.
    Securing,
    /// DTLS is finished on both sides.
    Secured,
    /// RTP flows one way.
    OneWay,
    /// RTP flows both ways.
    Active,
}

impl Flow {
    /// Its half of one direction.
    pub const fn half(&self, direction: counter::Direction) -> &Direction {
        match direction {
            counter::Direction::Receive => &self.receive,
            counter::Direction::Transmit => &self.transmit,
        }
    }

    /// The same, to be changed.
    #[inline(always)]
    pub const fn half_mut(&mut self, direction: counter::Direction) -> &mut Direction {
        match direction {
            counter::Direction::Receive => &mut self.receive,
            counter::Direction::Transmit => &mut self.transmit,
        }
    }

    /// Whether it is more than a scan or a stray packet: it has gone both ways, or goes on.
    #[inline(always)]
    pub const fn is_settled(&self) -> bool {
        const MANY: u32 = 32;
        let (received, transmitted) = (self.receive.packets, self.transmit.packets);
        (received != 0 && transmitted != 0) || received >= MANY || transmitted >= MANY
    }

    /// How long neither direction has carried anything.
    #[inline(always)]
    pub const fn idle_ns(&self, now: Moment) -> u64 {
        match (age_ns(now, self.receive.last), age_ns(now, self.transmit.last)) {
            (Some(a), Some(b)) => {
                if a < b {
                    a
                } else {
                    b
                }
            }
            (Some(age), None) | (None, Some(age)) => age,
            (None, None) => now.wrapping_sub(moment(self.created_ns)) as u64 * MOMENT_NS,
        }
    }

    /// How far it has come. Media without STUN or DTLS is media: SDES and SIP need neither.
    pub const fn stage(&self) -> Stage {
        let (receive, transmit) = (&self.receive, &self.transmit);
        match (receive.media_first != 0, transmit.media_first != 0) {
            (true, true) => return Stage::Active,
            (false, false) => {}
            _ => return Stage::OneWay,
        }
        match dtls::stage(receive.dtls, transmit.dtls) {
            dtls::Stage::None => {}
            dtls::Stage::Finished => return Stage::Secured,
            _ => return Stage::Securing,
        }
        let stun = receive.stun | transmit.stun;
        if stun & seen::SUCCESS != 0 {
            Stage::Connected
        } else if stun & (seen::REQUEST | seen::ERROR) != 0 {
            Stage::Checking
        } else {
            Stage::None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rtp::{self, Header, Sink, Time, clock};
    use proptest::prelude::*;
    use std::vec::Vec;

    struct Ignored;
    impl Sink for Ignored {
        fn count(&mut self, _: rtp::Event, _: u32) {}
        fn burst(&mut self, _: u32, _: i64) {}
    }
    impl Time for u64 {
        fn coarse(&mut self) -> u32 {
            clock::units(*self)
        }
        fn exact(&mut self) -> u32 {
            clock::units(*self)
        }
    }

    /// What a packet can do to its direction.
    #[derive(Clone, Debug)]
    enum Packet {
        Count(u8, u32, u64),
        Stun([u8; 4]),
        Dtls(Vec<u8>),
        Rtp(u16, u32, u8),
    }

    /// Handshake records of any type and epoch.
    fn records() -> impl Strategy<Value = Vec<u8>> {
        let record = (20u8..24, 0u8..2, 0u8..20);
        proptest::collection::vec(record, 0..5).prop_map(|records| {
            records.iter().flat_map(|(kind, epoch, message)| record_of(*kind, *epoch, *message)).collect()
        })
    }

    fn record_of(kind: u8, epoch: u8, message: u8) -> [u8; 15] {
        [kind, 0xfe, 0xfd, 0, epoch, 0, 0, 0, 0, 0, 0, 0, 2, message, 0]
    }

    fn packet() -> impl Strategy<Value = Packet> {
        prop_oneof![
            (0u8..7, any::<u32>(), any::<u64>()).prop_map(|(kind, n, bytes)| Packet::Count(kind, n, bytes)),
            any::<[u8; 4]>().prop_map(Packet::Stun),
            records().prop_map(Packet::Dtls),
            (any::<u16>(), any::<u32>(), 0u8..128).prop_map(|(s, t, p)| Packet::Rtp(s, t, p)),
        ]
    }

    fn apply(half: &mut Direction, now_ns: u64, packet: &Packet) {
        let now = moment(now_ns);
        match packet {
            Packet::Count(kind, n, bytes) => _ = half.count(now, *n, *bytes, Kind::ALL[usize::from(*kind)]),
            Packet::Stun(head) => half.stun(now, &stun::Header::parse(*head)),
            Packet::Dtls(datagram) => half.dtls(now, &**datagram, 0, datagram.len() as u32),
            Packet::Rtp(sequence, timestamp, payload_type) => {
                let header = Header {
                    sequence: *sequence,
                    timestamp: *timestamp,
                    payload_type: *payload_type,
                    ..Header::default()
                };
                let mut time = now_ns;
                let clocks = clock::of_payload_type();
                let clock = |pt: u8| clocks[usize::from(pt)];
                rtp::accept(&mut half.cursor, &mut half.tally, &header, clock, &mut time, &mut Ignored);
            }
        }
    }

    fn empty() -> Flow {
        Flow::zeroed()
    }

    proptest! {
        /// Packets of both directions, interleaved in any way, leave each half as its own packets alone would.
        #[test]
        fn no_packet_changes_the_other_direction(
            packets in proptest::collection::vec((any::<bool>(), packet(), 0u64..1 << 40), 0..120),
        ) {
            let (mut both, mut received, mut transmitted) = (empty(), empty(), empty());
            for (receives, packet, now) in &packets {
                if *receives {
                    apply(&mut both.receive, *now, packet);
                    apply(&mut received.receive, *now, packet);
                } else {
                    apply(&mut both.transmit, *now, packet);
                    apply(&mut transmitted.transmit, *now, packet);
                }
                prop_assert_eq!(both.receive, received.receive);
                prop_assert_eq!(both.transmit, transmitted.transmit);
            }
            prop_assert_eq!(received.transmit, Direction::default());
            prop_assert_eq!(transmitted.receive, Direction::default());
            prop_assert_eq!(both.tuple, empty().tuple);
        }

        /// No packet takes a flow back.
        #[test]
        fn a_stage_is_never_lost(packets in proptest::collection::vec((any::<bool>(), packet()), 0..60)) {
            let mut flow = empty();
            for (i, (receives, packet)) in packets.iter().enumerate() {
                let before = flow.stage();
                let half = if *receives { &mut flow.receive } else { &mut flow.transmit };
                apply(half, i as u64 * 1_000_000, packet);
                prop_assert!(before <= flow.stage());
            }
        }

        #[test]
        fn ages_survive_the_wrap(now in 0u64..1 << 60, age in 0u64..1 << 50) {
            let (then_moment, now_moment) = (moment(now), moment(now + age));
            let found = age_ns(now_moment, then_moment).unwrap();
            prop_assert!(found.abs_diff(age) <= 2 * MOMENT_NS, "{found} {age}");
        }
    }

    #[test]
    fn a_session_comes_up_step_by_step() {
        let mut flow = empty();
        let now = moment(1 << 40);
        assert_eq!(flow.stage(), Stage::None);
        flow.receive.stun(now, &stun::Header::parse([0, 1, 0, 0]));
        assert_eq!(flow.stage(), Stage::Checking);
        flow.transmit.stun(now, &stun::Header::parse([1, 1, 0, 0]));
        assert_eq!(flow.stage(), Stage::Connected);
        flow.transmit.dtls(now, &record_of(22, 0, 1)[..], 0, 15);
        assert_eq!(flow.stage(), Stage::Securing);
        flow.transmit.dtls(now, &record_of(22, 1, 0)[..], 0, 15);
        flow.receive.dtls(now, &record_of(22, 1, 0)[..], 0, 15);
        assert_eq!(flow.stage(), Stage::Secured);
        flow.receive.count(now, 1, 160, Kind::Rtp);
        assert_eq!(flow.stage(), Stage::OneWay);
        flow.transmit.count(now, 1, 160, Kind::Rtp);
        assert_eq!(flow.stage(), Stage::Active);
    }
}
