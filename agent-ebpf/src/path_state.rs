//! How paths stand, for a data plane: key and value of the pinned map `path_state` (`[api] path_map`).
//!
//! This is a contract with programs that are not graylag's: a BPF program that looks its destination up, or any process. Hence it has a
//! version of its own, numbers that never change their meaning, and one rule for readers: an entry that is absent, of another
//! version, or past its time says nothing, and who hears nothing does as if graylag were not there.
//! docs/verdicts.md has the same for readers in C.

use core::net::IpAddr;

use bytemuck::{Pod, Zeroable};

use crate::{
    counter::Direction,
    key::{Address, V4_MAPPED, masked},
};

/// Name of the map in the kernel (`bpftool map`).
pub const NAME: &str = "path_state";
/// Version of [`Key`] and [`Entry`]. A field that is added where `reserved` is now leaves it as it is.
pub const VERSION: u32 = 1;

/// What it is looked up by: `struct bpf_lpm_trie_key` with an IPv6 address, IPv4 mapped into it (RFC 4291 §2.5.5.2).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Pod, Zeroable)]
pub struct Key {
    /// Significant bits of `address`, of IPv4 plus 96; 128 to look an address up.
    pub bits: u32,
    /// Remote address, in network order.
    pub address: Address,
}

impl Key {
    /// Of a prefix. What lies beyond its bits is left out.
    pub fn new(address: IpAddr, bits: u8) -> Self {
        let bits = u32::from(bits);
        let (bits, address) = match address {
            IpAddr::V4(v4) => (bits + 96, [0, 0, V4_MAPPED, u32::from_ne_bytes(v4.octets())]),
            IpAddr::V6(v6) => (bits, bytemuck::cast(v6.octets())),
        };
        Self { bits, address: masked(address, bits) }
    }

    /// Of one address.
    pub fn host(address: IpAddr) -> Self {
        Self::new(address, if address.is_ipv4() { 32 } else { 128 })
    }

    /// Whether all of the other prefix lies in this one.
    pub fn holds(&self, other: &Self) -> bool {
        self.bits <= other.bits && masked(other.address, self.bits) == self.address
    }
}

/// State of a path in one direction; `graylag.path.state`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u32)]
pub enum State {
    /// Nothing is known.
    #[default]
    Unknown = 0,
    /// It delivered, and nothing is expected of it now.
    Idle = 1,
    /// It delivers.
    Healthy = 2,
    /// It delivers, and loses too much.
    Degraded = 3,
    /// It should deliver and does not.
    Down = 4,
    /// It delivers again, and not for long enough yet.
    Recovering = 5,
}

impl State {
    /// From its number. One that a reader does not know tells it nothing.
    pub const fn from_raw(raw: u32) -> Self {
        match raw {
            1 => Self::Idle,
            2 => Self::Healthy,
            3 => Self::Degraded,
            4 => Self::Down,
            5 => Self::Recovering,
            _ => Self::Unknown,
        }
    }
}

/// One direction of a path.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Leg {
    /// [`State`] as its number.
    pub state: u32,
    /// Zero.
    pub reserved: u32,
    /// Since when it is that, `CLOCK_MONOTONIC` nanoseconds; 0 where it is unknown from the start.
    pub since_ns: u64,
    /// When it was last proven to deliver, on the same clock; 0 for never.
    pub proven_ns: u64,
}

/// A path. An update replaces the whole of it: a reader never sees half of one.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Entry {
    /// [`VERSION`].
    pub version: u32,
    /// Zero.
    pub reserved: u32,
    /// Which agent wrote it: the `epoch` of its local API. Another one knows nothing of what this one said.
    pub epoch: u64,
    /// From this moment of `CLOCK_MONOTONIC` (`bpf_ktime_get_ns`) on it says nothing.
    pub valid_until_ns: u64,
    /// Towards this host.
    pub receive: Leg,
    /// Away from it.
    pub transmit: Leg,
}

const _: () = assert!(size_of::<Key>() == 20 && size_of::<Leg>() == 24 && size_of::<Entry>() == 72);

impl Entry {
    /// One of its directions.
    pub const fn leg(&self, direction: Direction) -> &Leg {
        match direction {
            Direction::Receive => &self.receive,
            Direction::Transmit => &self.transmit,
        }
    }

    /// The same, to be changed.
    pub const fn leg_mut(&mut self, direction: Direction) -> &mut Leg {
        match direction {
            Direction::Receive => &mut self.receive,
            Direction::Transmit => &mut self.transmit,
        }
    }

    /// What a reader may take it for at `now_ns`.
    #[inline(always)]
    pub const fn state(&self, direction: Direction, now_ns: u64) -> State {
        if self.version != VERSION || now_ns >= self.valid_until_ns {
            return State::Unknown;
        }
        State::from_raw(self.leg(direction).state)
    }
}

#[cfg(test)]
mod tests {
    use core::mem::offset_of;

    use super::*;

    #[test]
    fn the_layout_is_what_the_document_says() {
        assert_eq!((offset_of!(Key, bits), offset_of!(Key, address)), (0, 4));
        let leg = (offset_of!(Leg, state), offset_of!(Leg, since_ns), offset_of!(Leg, proven_ns));
        assert_eq!(leg, (0, 8, 16));
        assert_eq!((offset_of!(Entry, version), offset_of!(Entry, epoch)), (0, 8));
        assert_eq!(offset_of!(Entry, valid_until_ns), 16);
        assert_eq!((offset_of!(Entry, receive), offset_of!(Entry, transmit)), (24, 48));
    }

    #[test]
    fn numbers_of_states_are_fixed() {
        for raw in 0..=5 {
            assert_eq!(State::from_raw(raw) as u32, raw);
        }
        assert_eq!(State::from_raw(6), State::Unknown);
    }

    #[test]
    fn what_is_old_or_of_another_version_says_nothing() {
        let down = Leg { state: State::Down as u32, ..Leg::default() };
        let entry = Entry { version: VERSION, valid_until_ns: 100, transmit: down, ..Entry::default() };
        assert_eq!(entry.state(Direction::Transmit, 99), State::Down);
        assert_eq!(entry.state(Direction::Receive, 99), State::Unknown);
        assert_eq!(entry.state(Direction::Transmit, 100), State::Unknown);
        let other = Entry { version: VERSION + 1, ..entry };
        assert_eq!(other.state(Direction::Transmit, 0), State::Unknown);
    }

    #[test]
    fn prefixes_hold_what_lies_in_them() {
        let key = |text: &str, bits| Key::new(text.parse().unwrap(), bits);
        let net = key("10.1.2.3", 8);
        assert_eq!((net.bits, net.address[3]), (104, u32::from_ne_bytes([10, 0, 0, 0])));
        assert!(net.holds(&key("10.9.0.0", 16)) && net.holds(&net));
        assert!(!net.holds(&key("11.0.0.1", 32)) && !key("10.9.0.0", 16).holds(&net));
        // As in the trie: IPv4 is a part of IPv6.
        assert!(key("::", 0).holds(&net) && !key("2001:db8::", 32).holds(&net));
        assert_eq!(Key::host("2001:db8::1".parse().unwrap()).bits, 128);
    }
}
