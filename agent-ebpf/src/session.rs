//! How far an ICE session has come towards media: the milestones of all its candidate pairs together.
//!
//! A session is known by the two username fragments that its connectivity checks name (RFC 8445 §7.2.2), whoever asks. Most
//! candidate pairs are meant to fail; a session has come as far as any of its flows has.

use bytemuck::{Pod, Zeroable};

use crate::{
    bytes::Bytes,
    counter::Direction,
    demux::Kind,
    dtls,
    flow::{self, Flow, Moment},
    stun::Place,
};

/// What is noted of a session, of each direction apart, when it is first seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Milestone {
    /// A connectivity check.
    Check = 0,
    /// The answer to one.
    Answer,
    /// `ClientHello` of DTLS.
    ClientHello,
    /// `ServerHello`, or the server's flight.
    ServerHello,
    /// An encrypted record of DTLS: this side has finished its part of the handshake.
    Finished,
    /// An RTP packet.
    Rtp,
    /// A report about RTP.
    Rtcp,
}

impl Milestone {
    /// Number of milestones.
    pub const COUNT: usize = 7;
}

/// A session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Session {
    /// When its first check was seen: monotonic nanoseconds.
    pub began_ns: u64,
    /// When each milestone was first seen, of the receiving direction and then of the sending one; 0: not yet.
    pub at: [[Moment; 2]; Milestone::COUNT],
}

/// What a pass over all sessions tells of each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct SessionRecord {
    /// Names the session: [`key`].
    pub key: u64,
    /// The session.
    pub session: Session,
}

const _: () = assert!(size_of::<Session>() == 64);

impl Session {
    /// Notes a milestone; what was noted before stays.
    #[inline(always)]
    pub const fn note(&mut self, milestone: Milestone, direction: Direction, now: Moment) {
        let at = &mut self.at[milestone as usize][direction as usize];
        if *at == 0 {
            *at = now;
        }
    }

    /// Notes how far one of its flows has come.
    #[inline(always)]
    pub fn follow(&mut self, flow: &Flow, now: Moment) {
        self.follow_half(&flow.receive, Direction::Receive, now);
        self.follow_half(&flow.transmit, Direction::Transmit, now);
    }

    #[inline(always)]
    fn follow_half(&mut self, half: &flow::Direction, direction: Direction, now: Moment) {
        const SERVER: u16 = dtls::seen::SERVER_HELLO | dtls::seen::SERVER_DONE;
        const DONE: u16 = dtls::seen::FINISHED | dtls::seen::CIPHERTEXT | dtls::seen::APPLICATION;
        if half.stun_request != 0 {
            self.note(Milestone::Check, direction, half.stun_request);
        }
        if half.stun_success != 0 {
            self.note(Milestone::Answer, direction, half.stun_success);
        }
        if half.dtls & dtls::seen::CLIENT_HELLO != 0 {
            self.note(Milestone::ClientHello, direction, half.dtls_first);
        }
        if half.dtls & SERVER != 0 {
            self.note(Milestone::ServerHello, direction, half.dtls_first);
        }
        if half.dtls & DONE != 0 {
            self.note(Milestone::Finished, direction, now);
        }
        if half.media_first != 0 {
            self.note(Milestone::Rtp, direction, half.media_first);
        }
        if half.kinds & Kind::Rtcp.bit() != 0 {
            self.note(Milestone::Rtcp, direction, now);
        }
    }

    /// When a milestone was first seen in one direction.
    pub const fn first(&self, milestone: Milestone, direction: Direction) -> Option<Moment> {
        match self.at[milestone as usize][direction as usize] {
            0 => None,
            at => Some(at),
        }
    }
}

/// Bytes of a user name that are looked at: twice the longest fragment in use (RFC 8445 allows more).
const MOST: u16 = 96;
/// FNV-1a's.
const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const PRIME: u64 = 0x0100_0000_01b3;

/// Names the session of a connectivity check by its user name, `asked:asking`: the same for both who ask. 0 where it is no
/// user name of ICE.
#[inline(always)]
pub fn key(packet: &(impl Bytes + ?Sized), place: Place) -> u64 {
    let (mut hash, mut first) = (OFFSET, 0);
    let mut i = 0;
    while i < MOST {
        if i >= place.length {
            break;
        }
        let Some([byte]) = packet.read(place.at + u32::from(i)) else { return 0 };
        if byte == b':' && first == 0 {
            first = hash | 1;
            hash = OFFSET;
        } else {
            hash = (hash ^ u64::from(byte)).wrapping_mul(PRIME);
        }
        i += 1;
    }
    // Addition does not care which came first.
    if first == 0 { 0 } else { first.wrapping_add(hash | 1) | 1 << 63 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::{format, string::String};

    fn of(name: &str) -> u64 {
        key(name.as_bytes(), Place { at: 0, length: name.len() as u16 })
    }

    #[test]
    fn both_who_ask_name_the_same_session() {
        assert_eq!(of("evtj:h6vY"), of("h6vY:evtj"));
        assert_ne!(of("evtj:h6vY"), of("evtj:h6vZ"));
        assert_ne!(of("evtj:h6vY"), 0);
        assert_eq!(of("user@example.org"), 0, "a user name of TURN");
        assert_eq!(of(""), 0);
    }

    #[test]
    fn what_was_first_stays() {
        let mut session = Session::default();
        session.note(Milestone::Check, Direction::Receive, 7);
        session.note(Milestone::Check, Direction::Receive, 9);
        assert_eq!(session.first(Milestone::Check, Direction::Receive), Some(7));
        assert_eq!(session.first(Milestone::Check, Direction::Transmit), None);
    }

    #[test]
    fn a_session_comes_as_far_as_its_flows_do() {
        let (mut session, mut one, mut other) = (Session::default(), Flow::zeroed(), Flow::zeroed());
        (one.receive.stun_request, other.transmit.stun_success) = (3, 5);
        session.follow(&one, 3);
        session.follow(&other, 5);
        assert_eq!(session.first(Milestone::Check, Direction::Receive), Some(3));
        assert_eq!(session.first(Milestone::Answer, Direction::Transmit), Some(5));
        other.receive.count(9, 1, 100, Kind::Rtp);
        other.transmit.dtls = dtls::seen::SERVER_HELLO | dtls::seen::FINISHED;
        other.transmit.dtls_first = 7;
        session.follow(&other, 9);
        assert_eq!(session.first(Milestone::Rtp, Direction::Receive), Some(9));
        assert_eq!(session.first(Milestone::ServerHello, Direction::Transmit), Some(7));
        assert_eq!(session.first(Milestone::Finished, Direction::Transmit), Some(9));
    }

    proptest! {
        #[test]
        fn fragments_tell_sessions_apart(a in "[a-zA-Z0-9+/]{4,32}", b in "[a-zA-Z0-9+/]{4,32}", c in "[a-zA-Z0-9+/]{4,32}") {
            let name = |x: &String, y: &String| of(&format!("{x}:{y}"));
            prop_assert_eq!(name(&a, &b), name(&b, &a));
            prop_assert_eq!(name(&a, &b) == name(&a, &c), b == c);
        }

        /// No milestone of one direction touches the other's.
        #[test]
        fn directions_are_apart(milestones in proptest::collection::vec((0usize..7, 1u32..1000), 0..50)) {
            const ALL: [Milestone; 7] = [Milestone::Check, Milestone::Answer, Milestone::ClientHello, Milestone::ServerHello,
                Milestone::Finished, Milestone::Rtp, Milestone::Rtcp];
            let mut session = Session::default();
            for (i, now) in milestones {
                session.note(ALL[i], Direction::Receive, now);
            }
            prop_assert!(session.at.iter().all(|[_, transmit]| *transmit == 0));
        }
    }
}
