//! The datagram at hand: where it is, whose it is, and when it came. One of these lives on the stack of a program, and
//! everything is handed a reference to it, for the stack of a program and all that it calls is 512 bytes.
#![allow(unsafe_code)] // `no_mangle` for the frozen global

use core::mem::MaybeUninit;

use aya_ebpf::Global;
use graylag_ebpf::{
    counter::Direction,
    demux::{self, CHANNEL_HEADER, HEAD, Kind},
    key::{Address, V4_MAPPED},
    rtp::{Header, Time, Turns, clock},
};

use super::{kptr, media_maps as maps, packet::Packet};

/// Inode of the namespace whose interfaces these programs are attached to.
#[unsafe(no_mangle)]
pub static MEDIA_NETNS: Global<u32> = Global::new(0);

/// A datagram, or several of one size that the kernel passes on as one.
pub struct Datagram {
    /// Its flow's key as it is hashed and compared: the words of a [`graylag_ebpf::key::Tuple`].
    pub words: [u32; 10],
    /// First bytes of the segment at hand, TURN's framing taken off; zero-filled.
    pub head: [u8; HEAD],
    /// First byte of the payload, in the packet.
    pub start: u32,
    /// Bytes of all segments.
    pub bytes: u32,
    /// Segments.
    pub segments: u32,
    /// From the beginning of a segment to that of the next.
    pub step: u32,
    /// First byte of the segment at hand, TURN's framing taken off.
    pub at: u32,
    /// First byte behind it.
    pub end: u32,
    /// TURN channel of the segment at hand, 0 for none.
    pub channel: u16,
    /// Its way.
    pub direction: Direction,
    /// Low half of the flow's `created_ns`.
    pub created: u32,
    /// The flow's path.
    pub path: u32,
    /// When it came, monotonic nanoseconds, as near as a tick of the kernel.
    pub coarse_ns: u64,
    /// The same exactly, in units of [`clock::UNIT_NS`]; 0 while not asked for.
    exact: u32,
    /// Place of its flow in the flow table.
    pub flow: u32,
}

/// Streams of one SSRC, of many senders, do not all have their turn at once: the flow's place is theirs.
impl Time for Datagram {
    #[inline(always)]
    fn coarse(&mut self) -> u32 {
        clock::units(self.coarse_ns)
    }

    #[inline(always)]
    fn exact(&mut self) -> u32 {
        if self.exact == 0 {
            self.exact = clock::units(kptr::now());
        }
        self.exact
    }

    #[inline(always)]
    fn turns(&self) -> Turns {
        Turns { others: maps::timed_with_others(), place: self.flow }
    }
}

impl Datagram {
    /// Nothing known but its way and the time.
    #[inline(always)]
    pub fn begin(memory: &mut MaybeUninit<Self>, direction: Direction) -> &mut Self {
        maps::clear(memory.as_mut_ptr());
        // SAFETY: zeros are a datagram.
        let datagram = unsafe { memory.assume_init_mut() };
        datagram.segments = 1;
        datagram.direction = direction;
        datagram.coarse_ns = maps::coarse_now();
        datagram
    }

    /// Sets the addresses, which the key holds as this host sees them. `direction` is its own, here and below: a constant of
    /// the program where the compiler sees it as one.
    #[inline(always)]
    pub fn set_addresses(&mut self, direction: Direction, source: Address, destination: Address) {
        let (local, remote) = match direction {
            Direction::Receive => (destination, source),
            Direction::Transmit => (source, destination),
        };
        [self.words[0], self.words[1], self.words[2], self.words[3]] = local;
        [self.words[4], self.words[5], self.words[6], self.words[7]] = remote;
        self.words[8] = MEDIA_NETNS.load();
    }

    /// The same for IPv4.
    #[inline(always)]
    pub fn set_ipv4(&mut self, direction: Direction, source: u32, destination: u32) {
        self.set_addresses(direction, [0, 0, V4_MAPPED, source], [0, 0, V4_MAPPED, destination]);
    }

    /// Sets the ports.
    #[inline(always)]
    pub fn set_ports(&mut self, direction: Direction, source: u16, destination: u16) {
        let (local, remote) = match direction {
            Direction::Receive => (destination, source),
            Direction::Transmit => (source, destination),
        };
        self.words[9] = u32::from(local) | u32::from(remote) << 16;
    }

    /// Turns the key round: this datagram as it would be seen on an interface that sends what another received.
    #[inline(always)]
    pub fn mirror(&mut self) {
        let [l0, l1, l2, l3, r0, r1, r2, r3, netns, ports] = self.words;
        self.words = [r0, r1, r2, r3, l0, l1, l2, l3, netns, ports.rotate_left(16)];
    }

    /// Finds the segments, and what the first one is, TURN's framing taken off.
    #[inline(always)]
    pub fn open(&mut self, packet: Packet) -> Kind {
        self.step = packet.segment_size();
        let mut length = self.bytes;
        if self.step != 0 && self.bytes > self.step {
            self.segments = (self.bytes - 1) / self.step + 1;
            length = self.step;
        }
        self.at = self.start;
        let mut kind = self.look(packet, length);
        if let demux::Datagram::Channel { number, length } = kind {
            self.channel = number;
            self.at += CHANNEL_HEADER;
            kind = self.look(packet, u32::from(length));
        }
        match kind {
            demux::Datagram::Plain(Kind::Rtp) if !self.is_rtp(packet) => Kind::Other,
            demux::Datagram::Plain(kind) => kind,
            demux::Datagram::Channel { .. } => Kind::Other,
        }
    }

    /// Reads the head of the `length` bytes at [`Self::at`]. Nothing shorter than the shortest RTCP packet is of interest.
    #[inline(always)]
    fn look(&mut self, packet: Packet, length: u32) -> demux::Datagram {
        const SHORTEST: usize = 8;
        self.end = self.at + length;
        if length >= HEAD as u32 {
            packet.read_to(self.at, &mut self.head);
        } else if length >= SHORTEST as u32 {
            let mut short = [0; SHORTEST];
            packet.read_to(self.at, &mut short);
            self.head = [0; HEAD];
            let mut i = 0;
            while i < SHORTEST {
                self.head[i] = short[i];
                i += 1;
            }
        } else {
            return demux::Datagram::Plain(Kind::Other);
        }
        demux::classify(&self.head, length)
    }

    /// Whether CSRCs and extension fit.
    #[inline(always)]
    fn is_rtp(&self, packet: Packet) -> bool {
        Header::parse(&self.head).is_some_and(|header| header.length(&packet, self.at, self.end).is_some())
    }

    /// The RTP header of the segment at hand.
    #[inline(always)]
    pub fn rtp(&self) -> Header {
        Header::parse(&self.head).unwrap_or_default()
    }
}
