//! RTP streams as they arrive: an order of sequence numbers with losses, bursts, late packets and duplicates, and what an
//! observer must make of it, by definition and not by the code under test.
#![allow(unsafe_code)] // a socket option that no library of ours has

use std::{collections::BTreeSet, net::UdpSocket, ops::Add, os::fd::AsRawFd, time::Duration};

use crate::random::Random;

/// A stream.
#[derive(Clone, Copy, Debug)]
pub struct Stream {
    /// Synchronisation source.
    pub ssrc: u32,
    /// Payload type.
    pub payload_type: u8,
    /// Bytes of payload.
    pub bytes: usize,
    /// TURN channel around each packet, 0 for none.
    pub channel: u16,
    /// Ticks of its clock from one packet to the next.
    pub ticks: u32,
}

/// What an observer counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Expected {
    /// Packets, once each.
    pub received: u64,
    /// Numbers between the first and the last that never came.
    pub lost: u64,
    /// Packets that came after a higher number.
    pub reordered: u64,
    /// Packets that came again.
    pub duplicated: u64,
}

impl Add for Expected {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            received: self.received + other.received,
            lost: self.lost + other.lost,
            reordered: self.reordered + other.reordered,
            duplicated: self.duplicated + other.duplicated,
        }
    }
}

impl Stream {
    /// Opus, 20 ms a packet.
    pub const fn audio(ssrc: u32) -> Self {
        Self { ssrc, payload_type: 111, bytes: 80, channel: 0, ticks: 960 }
    }

    /// One packet; its number is taken modulo 2¹⁶.
    pub fn packet(&self, number: u64) -> Vec<u8> {
        let mut packet = Vec::with_capacity(16 + self.bytes);
        if self.channel != 0 {
            packet.extend(self.channel.to_be_bytes());
            packet.extend((12 + self.bytes as u16).to_be_bytes());
        }
        packet.extend([0x80, self.payload_type]);
        packet.extend([0; 6]);
        packet.extend(self.ssrc.to_be_bytes());
        packet.resize(packet.len() + self.bytes, 0x5a);
        self.renumber(&mut packet, number);
        packet
    }

    /// Makes a packet another one of its stream.
    pub fn renumber(&self, packet: &mut [u8], number: u64) {
        let at = if self.channel == 0 { 0 } else { 4 };
        packet[at + 2..at + 4].copy_from_slice(&(number as u16).to_be_bytes());
        packet[at + 4..at + 8].copy_from_slice(&(number as u32).wrapping_mul(self.ticks).to_be_bytes());
    }
}

/// An order of `n` numbers from `first` on, of which about `per_thousand` are lost, in bursts of up to five; some are late by
/// a few, some come twice. The same for the same seed.
pub fn order(seed: u64, first: u64, n: u64, per_thousand: u64) -> Vec<u64> {
    let mut chance = Random::new(seed);
    let mut random = |below: usize| chance.below(below) as u64;
    let mut numbers = Vec::new();
    let mut number = first;
    while number < first + n {
        // Bursts are three long on average; the first and the last packets arrive.
        if number > first + 70 && number + 70 < first + n && random(3000) < per_thousand {
            number += 1 + random(5);
            continue;
        }
        numbers.push(number);
        number += 1;
    }
    let mut i = 70;
    while i + 70 < numbers.len() {
        match random(3) {
            0 => numbers.swap(i, i + 1),
            1 => {
                let late = numbers.remove(i);
                numbers.insert(i + 2 + random(20) as usize, late);
            }
            _ => {
                let again = numbers[i];
                numbers.insert(i + 1 + random(20) as usize, again);
            }
        }
        i += 30;
    }
    numbers
}

/// What an order of numbers amounts to.
pub fn expected(order: &[u64]) -> Expected {
    let mut seen = BTreeSet::new();
    let mut expected = Expected::default();
    for number in order {
        let late = seen.last().is_some_and(|highest| number < highest);
        if seen.insert(*number) {
            expected.received += 1;
            expected.reordered += u64::from(late);
        } else {
            expected.duplicated += 1;
        }
    }
    if let (Some(first), Some(last)) = (seen.first(), seen.last()) {
        expected.lost = last - first + 1 - expected.received;
    }
    expected
}

/// Sends a stream's packets in this order, slowly enough for any queue on the way.
pub fn send(socket: &UdpSocket, stream: &Stream, order: &[u64]) {
    for (i, number) in order.iter().enumerate() {
        socket.send(&stream.packet(*number)).expect("send");
        if i % 20 == 19 {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// The same, `batch` packets to a call, as one datagram that the kernel cuts up later.
pub fn send_batches(socket: &UdpSocket, stream: &Stream, order: &[u64], batch: usize) {
    cut_up(socket, stream);
    for numbers in order.chunks(batch) {
        let together: Vec<u8> = numbers.iter().flat_map(|number| stream.packet(*number)).collect();
        socket.send(&together).expect("send");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// What a socket sends at once is packets of this stream, which the kernel cuts up later (`UDP_SEGMENT`).
pub fn cut_up(socket: &UdpSocket, stream: &Stream) {
    const UDP_SEGMENT: libc::c_int = 103;
    let size = libc::c_int::try_from(stream.packet(0).len()).expect("size");
    // SAFETY: an option of the size of an int, of a socket that is open.
    let outcome = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_UDP,
            UDP_SEGMENT,
            (&raw const size).cast(),
            size_of_val(&size) as libc::socklen_t,
        )
    };
    assert_eq!(outcome, 0, "UDP_SEGMENT: {}", std::io::Error::last_os_error());
}
