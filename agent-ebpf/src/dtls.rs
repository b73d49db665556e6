//! How far a DTLS handshake has come, from its record headers alone (RFC 6347, RFC 9147).
//!
//! Each direction keeps the set of what it carried; [`stage`] reads both sets. Nothing is decrypted and nothing is
//! reassembled: a handshake record names its first message, and a record of epoch 1 or later is encrypted.

use crate::bytes::{Bytes, be16};

/// What one direction has carried, as bits.
pub mod seen {
    /// `ClientHello`: this direction is the client's.
    pub const CLIENT_HELLO: u16 = 1;
    /// `HelloVerifyRequest`: the server wants the cookie first.
    pub const HELLO_VERIFY: u16 = 1 << 1;
    /// `ServerHello` (or `HelloRetryRequest`, which is one): this direction is the server's.
    pub const SERVER_HELLO: u16 = 1 << 2;
    /// A certificate, key exchange or any other message in the clear.
    pub const FLIGHT: u16 = 1 << 3;
    /// `ServerHelloDone`: the server waits for the client's flight.
    pub const SERVER_DONE: u16 = 1 << 4;
    /// `ChangeCipherSpec`.
    pub const CHANGE_CIPHER: u16 = 1 << 5;
    /// An encrypted handshake record: in 1.2 that is `Finished`.
    pub const FINISHED: u16 = 1 << 6;
    /// An encrypted record of DTLS 1.3, which does not tell what it is.
    pub const CIPHERTEXT: u16 = 1 << 7;
    /// Application data: data channels.
    pub const APPLICATION: u16 = 1 << 8;
    /// An alert.
    pub const ALERT: u16 = 1 << 9;
}

/// Records of one datagram that are looked at.
const MOST_RECORDS: u32 = 8;

const RECORD_HEADER: u32 = 13;

/// Adds what the datagram from `at` to `end` carries to a set of [`seen`]. The set is where the caller keeps it: as a value
/// of its own the verifier would follow each of its combinations.
#[inline(always)]
pub fn carried(packet: &(impl Bytes + ?Sized), at: u32, end: u32, set: &mut u16) {
    let (mut next, mut walked) = (at, 0);
    while walked < MOST_RECORDS {
        if next >= end {
            break;
        }
        let Some([kind]) = packet.read(next) else { break };
        if matches!(kind, 0x20..=0x3f) {
            // Its length is optional, and nothing that matters follows it.
            *set |= seen::CIPHERTEXT;
            break;
        }
        // One byte further than the header: the type of the first handshake message.
        let Some(record) = packet.read::<14>(next) else { break };
        if next + RECORD_HEADER >= end || record[1] != 0xfe {
            break;
        }
        *set |= of_record(kind, be16(record[3], record[4]), record[13]);
        next += RECORD_HEADER + u32::from(be16(record[11], record[12]));
        walked += 1;
    }
}

#[inline(always)]
fn of_record(kind: u8, epoch: u16, message: u8) -> u16 {
    match (kind, epoch) {
        (20, _) => seen::CHANGE_CIPHER,
        (21, _) => seen::ALERT,
        (22, 0) => match message {
            1 => seen::CLIENT_HELLO,
            2 => seen::SERVER_HELLO,
            3 => seen::HELLO_VERIFY,
            14 => seen::FLIGHT | seen::SERVER_DONE,
            _ => seen::FLIGHT,
        },
        (22, _) => seen::FINISHED,
        (23, _) => seen::APPLICATION,
        _ => 0,
    }
}

/// How far the handshake of a flow has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// No DTLS yet.
    None,
    /// One side has said hello.
    Started,
    /// The server has answered.
    Answered,
    /// One side has finished its part.
    HalfFinished,
    /// Both have: keys are agreed.
    Finished,
}

/// Who is the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Client {
    /// This host.
    Local,
    /// The peer.
    Remote,
    /// Not seen: the flow is older than the agent.
    Unknown,
}

/// Stage of a handshake from what each direction carried.
#[inline(always)]
pub const fn stage(receive: u16, transmit: u16) -> Stage {
    // In 1.3 the server's first ciphertext is its own flight; the client sends none before it has read that.
    const DONE: u16 = seen::FINISHED | seen::APPLICATION | seen::CIPHERTEXT;
    const ANSWER: u16 = seen::SERVER_HELLO | seen::SERVER_DONE;
    match (receive & DONE != 0, transmit & DONE != 0) {
        (true, true) => Stage::Finished,
        (false, false) if (receive | transmit) & ANSWER != 0 => Stage::Answered,
        (false, false) if receive | transmit == 0 => Stage::None,
        (false, false) => Stage::Started,
        _ => Stage::HalfFinished,
    }
}

/// Who is the client, from what each direction carried.
#[inline(always)]
pub const fn client(receive: u16, transmit: u16) -> Client {
    const SERVER: u16 = seen::SERVER_HELLO | seen::HELLO_VERIFY | seen::SERVER_DONE;
    if transmit & seen::CLIENT_HELLO != 0 || receive & SERVER != 0 {
        Client::Local
    } else if receive & seen::CLIENT_HELLO != 0 || transmit & SERVER != 0 {
        Client::Remote
    } else {
        Client::Unknown
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::{vec, vec::Vec};

    fn record(kind: u8, epoch: u16, body: &[u8]) -> Vec<u8> {
        let mut all = vec![kind, 0xfe, 0xfd];
        all.extend(epoch.to_be_bytes());
        all.extend([0; 6]);
        all.extend((body.len() as u16).to_be_bytes());
        all.extend(body);
        all
    }

    fn all(datagram: &[u8]) -> u16 {
        part(datagram, datagram.len() as u32)
    }

    fn part(datagram: &[u8], end: u32) -> u16 {
        let mut set = 0;
        carried(datagram, 0, end, &mut set);
        set
    }

    #[test]
    fn a_handshake_of_dtls_1_2() {
        let client_hello = record(22, 0, &[1; 60]);
        let server_flight: Vec<u8> = [
            record(22, 0, &[2; 60]),
            record(22, 0, &[11; 300]),
            record(22, 0, &[12; 90]),
            record(22, 0, &[14; 12]),
        ]
        .concat();
        let client_flight: Vec<u8> = [
            record(22, 0, &[11; 300]),
            record(22, 0, &[16; 70]),
            record(20, 0, &[1]),
            record(22, 1, &[0; 40]),
        ]
        .concat();
        let server_end = [record(20, 0, &[1]), record(22, 1, &[0; 40])].concat();
        let (mut receive, mut transmit) = (0, 0);
        assert_eq!(stage(receive, transmit), Stage::None);
        receive |= all(&client_hello);
        assert_eq!((stage(receive, transmit), client(receive, transmit)), (Stage::Started, Client::Remote));
        transmit |= all(&server_flight);
        assert_eq!(transmit, seen::SERVER_HELLO | seen::FLIGHT | seen::SERVER_DONE);
        assert_eq!(stage(receive, transmit), Stage::Answered);
        receive |= all(&client_flight);
        assert_eq!(stage(receive, transmit), Stage::HalfFinished);
        transmit |= all(&server_end);
        assert_eq!((stage(receive, transmit), client(receive, transmit)), (Stage::Finished, Client::Remote));
    }

    #[test]
    fn a_handshake_of_dtls_1_3() {
        let (mut receive, mut transmit) = (0, 0);
        transmit |= all(&record(22, 0, &[1; 60]));
        receive |= all(&[record(22, 0, &[2; 90]), vec![0x2e; 200]].concat());
        assert_eq!(receive, seen::SERVER_HELLO | seen::CIPHERTEXT);
        assert_eq!(
            (stage(receive, transmit), client(receive, transmit)),
            (Stage::HalfFinished, Client::Local)
        );
        transmit |= all(&[0x2e; 60]);
        assert_eq!(stage(receive, transmit), Stage::Finished);
    }

    proptest! {
        #[test]
        fn more_evidence_never_sets_a_handshake_back(a in 0u16..1024, b in 0u16..1024, more in 0u16..1024) {
            prop_assert!(stage(a, b) <= stage(a | more, b));
            prop_assert!(stage(a, b) <= stage(a, b | more));
        }

        #[test]
        fn every_datagram_ends(datagram: Vec<u8>) {
            let _ = all(&datagram);
        }

        #[test]
        fn records_beyond_the_end_are_not_read(cut in 0usize..200) {
            let flight = [record(22, 0, &[2; 60]), record(22, 0, &[14; 12])].concat();
            let bits = part(&flight, cut.min(flight.len()) as u32);
            prop_assert_eq!(bits & seen::SERVER_HELLO != 0, cut > 13);
            prop_assert_eq!(bits & seen::SERVER_DONE != 0, cut > 73 + 13);
        }
    }
}
