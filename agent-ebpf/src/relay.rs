//! What the UDP sockets of a process take in and put out: the balance of a relay.

use bytemuck::{Pod, Zeroable};

/// Where media comes from, as a sketch: a bit for each remote address and port that fell on it, over the current epoch and
/// the one before. Sixty-four sources or more look like about sixty-four; fewer are told apart well enough to say
/// whether they are still there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Sources {
    /// Of the current epoch.
    pub now: u64,
    /// Of the one before.
    pub before: u64,
    /// Which epoch is the current one, in units of 2²⁶ ns (67 ms): three packets of voice.
    pub epoch: u32,
    reserved: u32,
}

impl Sources {
    /// The epoch of a moment.
    #[inline(always)]
    pub const fn epoch(ns: u64) -> u32 {
        (ns >> 26) as u32
    }

    /// Notes a packet from the source with this hash.
    #[inline(always)]
    pub const fn note(&mut self, now_ns: u64, hash: u32) {
        let epoch = Self::epoch(now_ns);
        if self.epoch != epoch {
            self.before = if self.epoch.wrapping_add(1) == epoch { self.now } else { 0 };
            self.now = 0;
            self.epoch = epoch;
        }
        self.now |= 1 << (hash & 63);
    }

    /// How many there were in the last 67 to 134 ms, at least.
    pub const fn count(&self, now_ns: u64) -> u32 {
        match Self::epoch(now_ns).wrapping_sub(self.epoch) {
            0 => (self.now | self.before).count_ones(),
            1 => self.now.count_ones(),
            _ => 0,
        }
    }
}

/// Hash of a remote address and port, for [`Sources`].
#[inline(always)]
pub const fn source_hash(address: [u32; 4], port: u16) -> u32 {
    let words =
        address[0] ^ address[1].rotate_left(8) ^ address[2].rotate_left(16) ^ address[3].rotate_left(24);
    // Fibonacci hashing: the upper bits are the well-mixed ones.
    ((words ^ port as u32).wrapping_mul(0x9e37_79b9)) >> 26
}

/// A UDP socket that carries media. Made with the first RTP packet, in TURN channel data or plain; gone with the socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct SocketMedia {
    /// When the first packet was seen: monotonic nanoseconds.
    pub began_ns: u64,
    /// RTP packets that reached it, those for which it had no room included.
    pub received: u64,
    /// RTP packets that it sent.
    pub sent: u64,
    /// Datagrams that found its receive buffer full.
    pub dropped: u64,
    /// Where what it received came from.
    pub sources: Sources,
    /// The process that has it open, as of the pass: the thread group's identifier in the initial namespace.
    pub process: u32,
    /// The pass over all open files that found it; 0 for none.
    pub pass: u32,
    /// `task_struct.comm` of the process, zero-filled.
    pub command: [u8; 16],
}

/// What a pass over all such sockets tells of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct SocketRecord {
    /// Tells sockets apart that are there at the same time.
    pub id: u64,
    /// Memory of the packets in its receive queue, bytes (`udp_rqueue_get`): some 800 for a packet of voice.
    pub queued: u32,
    /// Zero.
    pub reserved: u32,
    /// The socket.
    pub media: SocketMedia,
}

const _: () = assert!(size_of::<SocketMedia>() == 80 && size_of::<SocketRecord>() == 96);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn sources_are_those_of_the_last_tenth_of_a_second_or_so() {
        let mut sources = Sources::default();
        for port in 0..10 {
            sources.note(5 * SECOND, source_hash([0, 0, 0xffff, 0x0a4d_0001], 6000 + port));
        }
        let seen = sources.count(5 * SECOND);
        assert!((8..=10).contains(&seen), "{seen}");
        assert_eq!(sources.count(5 * SECOND + SECOND / 16), seen);
        assert_eq!(sources.count(5 * SECOND + SECOND / 5), 0);
        sources.note(7 * SECOND, 1);
        assert_eq!(sources.count(7 * SECOND), 1, "what was before is over");
    }

    proptest! {
        #[test]
        fn never_more_than_there_are(hashes in proptest::collection::vec(0u32..1000, 0..100), at in SECOND..1000 * SECOND) {
            let mut sources = Sources::default();
            let mut distinct = std::collections::BTreeSet::new();
            for hash in hashes {
                sources.note(at, hash);
                distinct.insert(hash);
            }
            prop_assert!(sources.count(at) as usize <= distinct.len());
        }
    }
}
