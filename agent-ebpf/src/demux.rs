//! What a datagram carries, told by its first bytes (RFC 7983, RFC 9443, RFC 5761).
//!
//! The first byte only names a candidate. Protocols with a magic number or a length of their own have to show it, so
//! that random payload does not count as STUN, DTLS or TURN; RTP has neither, which is what probation is for.

use crate::bytes::be16;

/// Bytes that [`classify`] looks at.
pub const HEAD: usize = 12;
/// Header of TURN channel data (RFC 8656 §12.4).
pub const CHANNEL_HEADER: u32 = 4;
/// Header of a STUN message (RFC 8489 §5).
pub const STUN_HEADER: u32 = 20;
/// STUN's magic cookie.
pub const STUN_COOKIE: [u8; 4] = 0x2112_a442_u32.to_be_bytes();

/// Protocol of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Kind {
    /// Connectivity checks, keep-alives, TURN requests.
    Stun = 0,
    /// Key agreement of SRTP and data channels.
    Dtls = 1,
    /// Media.
    Rtp = 2,
    /// Reports about it.
    Rtcp = 3,
    /// QUIC, long or short header.
    Quic = 4,
    /// ZRTP.
    Zrtp = 5,
    /// Anything else.
    Other = 6,
}

impl Kind {
    /// All kinds, in the order of their numbers.
    pub const ALL: [Self; 7] =
        [Self::Stun, Self::Dtls, Self::Rtp, Self::Rtcp, Self::Quic, Self::Zrtp, Self::Other];
    /// Number of kinds.
    pub const COUNT: usize = Self::ALL.len();

    /// Short name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Stun => "stun",
            Self::Dtls => "dtls",
            Self::Rtp => "rtp",
            Self::Rtcp => "rtcp",
            Self::Quic => "quic",
            Self::Zrtp => "zrtp",
            Self::Other => "other",
        }
    }

    /// Its bit in a set of kinds.
    pub const fn bit(self) -> u16 {
        1 << self as u16
    }
}

/// What [`classify`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Datagram {
    /// A protocol of its own.
    Plain(Kind),
    /// TURN channel data: `length` bytes of another datagram after [`CHANNEL_HEADER`].
    Channel {
        /// Channel number, 0x4000 to 0x4FFF.
        number: u16,
        /// Bytes of the datagram inside.
        length: u16,
    },
}

/// Classifies a datagram of `length` bytes by its head, zero-filled where the datagram is shorter.
#[inline(always)]
pub fn classify(head: &[u8; HEAD], length: u32) -> Datagram {
    // The shortest QUIC packet that can be valid (RFC 9000 §10.3 takes the same bound for a stateless reset).
    const SHORTEST_QUIC: u32 = 21;
    let plain = match head[0] {
        128..=191 => real_time(head[1], length),
        0..=3 if is_stun(head, length) => Kind::Stun,
        16..=19 => Kind::Zrtp,
        20..=63 if is_dtls(head, length) => Kind::Dtls,
        64..=79 => match channel(head, length) {
            Some(channel) => return channel,
            None => Kind::Quic,
        },
        80..=127 | 192..=255 => Kind::Quic,
        _ => Kind::Other,
    };
    Datagram::Plain(if matches!(plain, Kind::Quic) && length < SHORTEST_QUIC { Kind::Other } else { plain })
}

/// Whether what begins like this and is no shorter is RTP, as [`classify`] would say. For one of many segments.
#[inline(always)]
pub const fn is_rtp(head: &[u8; HEAD]) -> bool {
    head[0] >> 6 == 2 && !matches!(head[1], 192..=223)
}

/// Whether this is the number of a TURN channel.
#[inline(always)]
pub const fn is_channel(number: u16) -> bool {
    number >> 12 == 4
}

/// RFC 5761 §4: payload types 64 to 95 with the marker bit are RTCP packet types 192 to 223.
#[inline(always)]
fn real_time(second: u8, length: u32) -> Kind {
    const SHORTEST_RTCP: u32 = 8;
    const SHORTEST_RTP: u32 = 12;
    match second {
        192..=223 if length >= SHORTEST_RTCP => Kind::Rtcp,
        192..=223 => Kind::Other,
        _ if length >= SHORTEST_RTP => Kind::Rtp,
        _ => Kind::Other,
    }
}

/// Cookie, and a length that is a multiple of four and fits (RFC 8489 §6.3).
#[inline(always)]
fn is_stun(head: &[u8; HEAD], length: u32) -> bool {
    let body = u32::from(be16(head[2], head[3]));
    [head[4], head[5], head[6], head[7]] == STUN_COOKIE && body % 4 == 0 && STUN_HEADER + body <= length
}

/// A record header of DTLS 1.0 or 1.2 (RFC 6347 §4.1), or a unified header of DTLS 1.3 (RFC 9147 §4).
#[inline(always)]
fn is_dtls(head: &[u8; HEAD], length: u32) -> bool {
    const RECORD_HEADER: u32 = 13;
    match head[0] {
        20..=31 => head[1] == 0xfe && length > RECORD_HEADER,
        // Flags, at least one byte of sequence number, and an authentication tag.
        _ => length > 2 + 16,
    }
}

/// RFC 8656 §12.5: over UDP the padding to a multiple of four may be there or not.
#[inline(always)]
fn channel(head: &[u8; HEAD], length: u32) -> Option<Datagram> {
    let (number, inside) = (be16(head[0], head[1]), be16(head[2], head[3]));
    let used = CHANNEL_HEADER + u32::from(inside);
    if used <= length && length - used < 4 {
        Some(Datagram::Channel { number, length: inside })
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    fn head_of(datagram: &[u8]) -> [u8; HEAD] {
        core::array::from_fn(|i| datagram.get(i).copied().unwrap_or(0))
    }

    fn of(datagram: &[u8]) -> Datagram {
        classify(&head_of(datagram), datagram.len() as u32)
    }

    fn stun(body: u16) -> Vec<u8> {
        let mut message = std::vec![0, 1];
        message.extend(body.to_be_bytes());
        message.extend(STUN_COOKIE);
        message.resize(20 + usize::from(body), 7);
        message
    }

    #[test]
    fn each_protocol_is_known_by_its_head() {
        assert_eq!(of(&stun(0)), Datagram::Plain(Kind::Stun));
        assert_eq!(of(&stun(8)), Datagram::Plain(Kind::Stun));
        assert_eq!(of(&[0x80; 12]), Datagram::Plain(Kind::Rtp));
        assert_eq!(of(&[0x80, 200, 0, 1, 1, 2, 3, 4]), Datagram::Plain(Kind::Rtcp));
        assert_eq!(of(&[22, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1]), Datagram::Plain(Kind::Dtls));
        assert_eq!(of(&[0x2f; 40]), Datagram::Plain(Kind::Dtls));
        assert_eq!(of(&[0xc3; 1200]), Datagram::Plain(Kind::Quic));
        assert_eq!(of(&[0x7f; 30]), Datagram::Plain(Kind::Quic));
        assert_eq!(of(&[0x10; 30]), Datagram::Plain(Kind::Zrtp));
        assert_eq!(of(&[]), Datagram::Plain(Kind::Other));
        assert_eq!(of(b"\xff"), Datagram::Plain(Kind::Other));
    }

    #[test]
    fn stun_has_to_show_cookie_and_length() {
        let spoilers: [fn(&mut Vec<u8>); 4] =
            [|m| m[4] ^= 1, |m| m[3] = 6, |m| m[3] = 12, |m| m.truncate(19)];
        for spoil in spoilers {
            let mut message = stun(8);
            spoil(&mut message);
            assert_eq!(of(&message), Datagram::Plain(Kind::Other));
        }
    }

    #[test]
    fn channel_data_is_told_from_quic_by_its_length() {
        let mut data = std::vec![0x40, 0x07, 0, 5];
        data.extend([0x80; 5]);
        assert_eq!(of(&data), Datagram::Channel { number: 0x4007, length: 5 });
        data.extend([0; 3]);
        assert_eq!(of(&data), Datagram::Channel { number: 0x4007, length: 5 }, "padded");
        data.extend([0; 20]);
        assert_eq!(of(&data), Datagram::Plain(Kind::Quic));
    }

    /// RFC 7983 §7 as amended by RFC 9443 §2, as a table.
    fn by_first_byte(byte: u8) -> &'static [Kind] {
        match byte {
            0..=3 => &[Kind::Stun],
            16..=19 => &[Kind::Zrtp],
            20..=63 => &[Kind::Dtls],
            64..=127 | 192..=255 => &[Kind::Quic],
            128..=191 => &[Kind::Rtp, Kind::Rtcp],
            _ => &[],
        }
    }

    proptest! {
        #[test]
        fn never_anything_but_what_the_first_byte_allows(datagram: Vec<u8>) {
            match of(&datagram) {
                Datagram::Plain(Kind::Other) => {}
                Datagram::Plain(kind) => prop_assert!(by_first_byte(datagram[0]).contains(&kind)),
                Datagram::Channel { number, length } => {
                    prop_assert!((0x4000..=0x4fff).contains(&number));
                    prop_assert!(4 + usize::from(length) <= datagram.len());
                }
            }
        }

        #[test]
        fn a_segment_is_what_a_datagram_would_be(head: [u8; HEAD], length in 12u32..1500) {
            prop_assert_eq!(is_rtp(&head), classify(&head, length) == Datagram::Plain(Kind::Rtp));
        }

        #[test]
        fn rtp_and_rtcp_part_by_payload_type(first in 128u8..=191, second: u8, length in 12u32..1500) {
            let head = core::array::from_fn(|i| match i { 0 => first, 1 => second, _ => 0 });
            let expected = if (192..=223).contains(&second) { Kind::Rtcp } else { Kind::Rtp };
            prop_assert_eq!(classify(&head, length), Datagram::Plain(expected));
        }
    }
}
