//! Packets made by hand, with their Ethernet header: right ones, to be spoiled by whoever wants wrong ones.

use std::net::{IpAddr, SocketAddr};

/// Length of an Ethernet header.
pub const ETHERNET: usize = 14;
/// Where the IPv4 header's flags and fragment offset are.
pub const FRAGMENT: usize = ETHERNET + 6;
/// Where the UDP header's length is, behind an IPv4 header without options.
pub const UDP_LENGTH: usize = ETHERNET + 20 + 4;

const UDP: u8 = 17;

/// A UDP datagram, its lengths and headers as they should be. Checksums are zero: nobody looks at them.
pub fn datagram(from: SocketAddr, to: SocketAddr, payload: &[u8]) -> Vec<u8> {
    behind(from, to, &[], payload)
}

/// The same over IPv6, behind these extension headers: type, and what it consists of without its first byte.
pub fn behind(from: SocketAddr, to: SocketAddr, extensions: &[(u8, Vec<u8>)], payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
    let udp = (8 + payload.len()) as u16;
    match (from.ip(), to.ip()) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            frame.extend([0x08, 0x00, 0x45, 0]);
            frame.extend((20 + udp).to_be_bytes());
            frame.extend([0, 1, 0x40, 0, 64, UDP, 0, 0]);
            frame.extend(source.octets());
            frame.extend(destination.octets());
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let between: usize = extensions.iter().map(|(_, rest)| 1 + rest.len()).sum();
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
            frame.extend((between as u16 + udp).to_be_bytes());
            frame.extend([extensions.first().map_or(UDP, |(kind, _)| *kind), 64]);
            frame.extend(source.octets());
            frame.extend(destination.octets());
        }
        _ => panic!("addresses of two families"),
    }
    for (i, (_, rest)) in extensions.iter().enumerate() {
        frame.push(extensions.get(i + 1).map_or(UDP, |(kind, _)| *kind));
        frame.extend(rest);
    }
    frame.extend(from.port().to_be_bytes());
    frame.extend(to.port().to_be_bytes());
    frame.extend(udp.to_be_bytes());
    frame.extend([0, 0]);
    frame.extend(payload);
    frame
}

/// With VLAN tags of these types, outermost first.
pub fn tagged(frame: &[u8], tags: &[u16]) -> Vec<u8> {
    let mut tagged = frame[..12].to_vec();
    for tag in tags {
        tagged.extend(tag.to_be_bytes());
        tagged.extend([0, 7]);
    }
    tagged.extend(&frame[12..]);
    tagged
}

/// Two bytes of it changed.
pub fn with(mut frame: Vec<u8>, at: usize, value: u16) -> Vec<u8> {
    frame[at..at + 2].copy_from_slice(&value.to_be_bytes());
    frame
}

/// One byte of it changed.
pub fn with_byte(mut frame: Vec<u8>, at: usize, value: u8) -> Vec<u8> {
    frame[at] = value;
    frame
}

/// A STUN binding request.
pub fn stun() -> Vec<u8> {
    let mut message = vec![0, 1, 0, 8, 0x21, 0x12, 0xa4, 0x42];
    message.resize(28, 7);
    message
}

/// A connectivity check of ICE with this user name, or the answer to one.
pub fn check(username: &str, answer: bool) -> Vec<u8> {
    let padded = username.len().next_multiple_of(4);
    let mut message = vec![u8::from(answer), 1];
    message.extend((4 + padded as u16).to_be_bytes());
    message.extend([0x21, 0x12, 0xa4, 0x42]);
    message.extend([7; 12]);
    message.extend([0, 6]);
    message.extend((username.len() as u16).to_be_bytes());
    message.extend(username.as_bytes());
    message.resize(24 + padded, 0);
    message
}

/// A DTLS record in the clear: of the handshake, whose first message is of this type.
pub fn handshake(message: u8) -> Vec<u8> {
    with_byte(dtls(), 13, message)
}

/// An encrypted DTLS record of this type: 22 of the handshake, 21 an alert.
pub fn encrypted(kind: u8) -> Vec<u8> {
    with_byte(with(dtls(), 3, 1), 0, kind)
}

/// A DTLS `ClientHello`, as far as anybody looks.
pub fn dtls() -> Vec<u8> {
    let mut record = vec![22, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 30, 1];
    record.resize(43, 3);
    record
}

/// TURN channel data.
pub fn channel(number: u16, inside: &[u8]) -> Vec<u8> {
    let mut data = number.to_be_bytes().to_vec();
    data.extend((inside.len() as u16).to_be_bytes());
    data.extend(inside);
    data
}

/// RTP of payload type 0: with these many CSRCs, with an extension of these many words, and 40 bytes of payload.
pub fn rtp(sequence: u16, ssrc: u32, csrcs: u8, extension: Option<u16>) -> Vec<u8> {
    let mut packet = vec![0x80 | u8::from(extension.is_some()) << 4 | csrcs, 0];
    packet.extend(sequence.to_be_bytes());
    packet.extend((u32::from(sequence) * 160).to_be_bytes());
    packet.extend(ssrc.to_be_bytes());
    packet.resize(12 + 4 * usize::from(csrcs), 1);
    if let Some(words) = extension {
        packet.extend([0xbe, 0xde]);
        packet.extend(words.to_be_bytes());
        packet.resize(packet.len() + 4 * usize::from(words), 2);
    }
    packet.resize(packet.len() + 40, 0x5a);
    packet
}
