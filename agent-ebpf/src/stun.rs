//! STUN messages (RFC 8489): who asks, who answers, and for which ICE session.

use crate::{
    bytes::{Bytes, be16},
    demux::STUN_HEADER,
};

/// Class of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Class {
    /// Wants an answer.
    Request = 0,
    /// Wants none.
    Indication = 1,
    /// The answer, granted.
    Success = 2,
    /// The answer, refused.
    Error = 3,
}

/// Method of a connectivity check (RFC 8489 §3).
pub const BINDING: u16 = 1;
/// Method of TURN's data messages (RFC 8656 §17): what they carry is not looked at.
pub const SEND: u16 = 6;
/// See [`SEND`].
pub const DATA: u16 = 7;

/// Attributes that are walked before a message is given up.
const MOST_ATTRIBUTES: u32 = 12;
/// `USERNAME`.
const USERNAME: u16 = 6;
/// RFC 8489 §14.3: fewer than 509 bytes.
const LONGEST_USERNAME: u16 = 508;

/// The header of a message; cookie and length are [`crate::demux::classify`]'s to check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Request, indication or answer.
    pub class: Class,
    /// E.g. [`BINDING`].
    pub method: u16,
    /// Bytes of attributes.
    pub length: u16,
}

impl Header {
    /// Reads the first four bytes of a message.
    #[inline(always)]
    pub const fn parse(head: [u8; 4]) -> Self {
        let kind = be16(head[0], head[1]);
        // The two class bits lie between the method's (RFC 8489 §5, figure 3).
        let class = match (kind >> 4 & 1) | (kind >> 7 & 2) {
            0 => Class::Request,
            1 => Class::Indication,
            2 => Class::Success,
            _ => Class::Error,
        };
        let method = (kind & 0xf) | (kind >> 1 & 0x70) | (kind >> 2 & 0xf80);
        Self { class, method, length: be16(head[2], head[3]) }
    }
}

/// Where an attribute's value lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// First byte, in the packet.
    pub at: u32,
    /// Bytes.
    pub length: u16,
}

/// Finds USERNAME in the message that starts at `at` and has `length` bytes of attributes. ICE writes it first or nearly so: a message with more attributes
/// before it than are walked has none.
#[inline(always)]
pub fn username(packet: &(impl Bytes + ?Sized), at: u32, length: u16) -> Option<Place> {
    let end = at + STUN_HEADER + u32::from(length);
    let mut next = at + STUN_HEADER;
    let mut walked = 0;
    while walked < MOST_ATTRIBUTES {
        if next + 4 > end {
            return None;
        }
        let [a, b, c, d] = packet.read(next)?;
        let (kind, length) = (be16(a, b), be16(c, d));
        if kind == USERNAME {
            let fits = next + 4 + u32::from(length) <= end && length <= LONGEST_USERNAME;
            return if fits { Some(Place { at: next + 4, length }) } else { None };
        }
        next += 4 + ((u32::from(length) + 3) & !3);
        walked += 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    fn message(class: Class, method: u16, attributes: &[(u16, Vec<u8>)]) -> Vec<u8> {
        let class = class as u16;
        let kind = (method & 0xf)
            | (method & 0x70) << 1
            | (method & 0xf80) << 2
            | (class & 1) << 4
            | (class & 2) << 7;
        let mut body = Vec::new();
        for (kind, value) in attributes {
            body.extend(kind.to_be_bytes());
            body.extend((value.len() as u16).to_be_bytes());
            body.extend(value);
            body.resize(body.len().next_multiple_of(4), 0);
        }
        let mut all = kind.to_be_bytes().to_vec();
        all.extend((body.len() as u16).to_be_bytes());
        all.extend(crate::demux::STUN_COOKIE);
        all.extend([9; 12]);
        all.extend(body);
        all
    }

    fn header(message: &[u8]) -> Header {
        Header::parse(message.read(0).unwrap())
    }

    #[test]
    fn a_binding_request_of_rfc_5769() {
        // Test vector §2.1: PRIORITY and others stand before and after USERNAME "evtj:h6vY".
        let packet = message(
            Class::Request,
            BINDING,
            &[
                (0x8022, b"STUN test client".to_vec()),
                (0x0024, std::vec![0x6e, 0, 1, 0xff]),
                (0x8029, std::vec![1; 8]),
                (USERNAME, b"evtj:h6vY".to_vec()),
                (0x0008, std::vec![0; 20]),
            ],
        );
        assert_eq!(packet[..2], [0, 1]);
        let header = header(&packet);
        assert_eq!((header.class, header.method), (Class::Request, BINDING));
        let place = username(&*packet, 0, header.length).unwrap();
        let at = place.at as usize;
        assert_eq!(&packet[at..at + usize::from(place.length)], b"evtj:h6vY");
    }

    #[test]
    fn known_types() {
        for (kind, class, method) in [
            (0x0001u16, Class::Request, BINDING),
            (0x0101, Class::Success, BINDING),
            (0x0111, Class::Error, BINDING),
            (0x0011, Class::Indication, BINDING),
            (0x0016, Class::Indication, SEND),
            (0x0017, Class::Indication, DATA),
            (0x0103, Class::Success, 3),
        ] {
            let [a, b] = kind.to_be_bytes();
            assert_eq!(Header::parse([a, b, 0, 0]), Header { class, method, length: 0 });
        }
    }

    proptest! {
        #[test]
        fn type_round_trips(class in 0u8..4, method in 0u16..0x1000) {
            let class = [Class::Request, Class::Indication, Class::Success, Class::Error][usize::from(class)];
            let parsed = header(&message(class, method, &[]));
            prop_assert_eq!((parsed.class, parsed.method), (class, method));
        }

        #[test]
        fn username_is_found_behind_any_attributes(
            before in proptest::collection::vec((7u16..0x9000, proptest::collection::vec(any::<u8>(), 0..40)), 0..11),
            name in proptest::collection::vec(any::<u8>(), 0..300),
        ) {
            let mut attributes = before;
            attributes.push((USERNAME, name.clone()));
            let packet = message(Class::Request, BINDING, &attributes);
            let place = username(&*packet, 0, header(&packet).length).unwrap();
            prop_assert_eq!(&packet[place.at as usize..][..usize::from(place.length)], &*name);
        }

        #[test]
        fn whatever_is_found_lies_inside(mut packet: Vec<u8>, length: u16) {
            packet.resize(packet.len().max(20), 0);
            if let Some(place) = username(&*packet, 0, length) {
                prop_assert!(place.at + u32::from(place.length) <= 20 + u32::from(length));
            }
        }
    }
}
