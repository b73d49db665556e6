//! Map keys: which path, which handshake.

use bytemuck::{Pod, Zeroable};

/// Which end of the connection this host is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[repr(u8)]
pub enum Role {
    /// This host opened the connection.
    Client = 0,
    /// This host accepted it.
    Server = 1,
}

impl Role {
    /// From the raw byte of a key; anything but 1 is a client.
    pub const fn from_raw(raw: u8) -> Self {
        if raw == Self::Server as u8 { Self::Server } else { Self::Client }
    }
}

/// An IP address as four 32-bit words in network order; IPv4 as IPv4-mapped IPv6 (RFC 4291 §2.5.5.2).
pub type Address = [u32; 4];

/// The third word of an IPv4-mapped address, in network order.
pub const V4_MAPPED: u32 = 0xffff_u32.to_be();

/// Keeps the first `bits` (0 to 128) of an address.
#[inline(always)]
pub fn masked(address: Address, bits: u32) -> Address {
    let mut out = [0u32; 4];
    let mut i = 0;
    while i < 4 {
        let keep = bits.saturating_sub(32 * i as u32);
        let mask = if keep >= 32 {
            u32::MAX
        } else if keep == 0 {
            0
        } else {
            u32::MAX << (32 - keep)
        };
        out[i] = address[i] & mask.to_be();
        i += 1;
    }
    out
}

/// What the kernel aggregates by: one remote prefix or configured peer, one service port, one role, one namespace.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Pod, Zeroable)]
pub struct PathKey {
    /// Remote address, masked to `prefix` bits; all zero where a configured peer stands for all its addresses.
    pub address: Address,
    /// Inode number of the network namespace (`/proc/PID/ns/net`).
    pub netns: u32,
    /// Port of the service: the remote port of a client, the local port of a server. Host order.
    pub port: u16,
    /// Identifier of the configured peer, 0 for none: the value found in the `PEERS` trie.
    pub peer: u16,
    /// Significant bits of `address`, 0 to 128 (IPv4: 96 to 128).
    pub prefix: u8,
    /// [`Role`] as its raw byte.
    pub role: u8,
    /// Zero.
    pub reserved: [u8; 2],
}

impl PathKey {
    /// The entry that takes what finds no room: all zero but the role.
    pub const fn other(role: Role) -> Self {
        Self { address: [0; 4], netns: 0, port: 0, peer: 0, prefix: 0, role: role as u8, reserved: [0; 2] }
    }

    /// Whether this is one of the two [`PathKey::other`] entries.
    pub fn is_other(&self) -> bool {
        self.netns == 0 && self.port == 0
    }

    /// The role, typed.
    pub const fn role(&self) -> Role {
        Role::from_raw(self.role)
    }
}

/// One handshake that a listener has not finished: a request socket, or a SYN that the listener dropped.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Pod, Zeroable)]
pub struct Tuple {
    /// Address the SYN was sent to.
    pub local: Address,
    /// Address it came from.
    pub remote: Address,
    /// Inode number of the listener's network namespace.
    pub netns: u32,
    /// Listening port, host order.
    pub local_port: u16,
    /// Source port of the SYN, host order.
    pub remote_port: u16,
}

/// A UDP port whose receive buffer overflowed.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Pod, Zeroable)]
pub struct UdpPort {
    /// Inode number of the network namespace.
    pub netns: u32,
    /// Local port, host order.
    pub port: u16,
    /// Zero.
    pub reserved: u16,
}

/// A peer in the `PEERS` trie.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Peer {
    /// Index of the configured peer plus one.
    pub id: u16,
    /// 1: every address of the peer is a path of its own.
    pub per_address: u16,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn masking_agrees_with_128_bit_arithmetic(raw: u128, bits in 0u32..=128) {
            let words = |v: u128| { let b = v.to_be_bytes(); core::array::from_fn(|i| u32::from_ne_bytes([b[4 * i], b[4 * i + 1], b[4 * i + 2], b[4 * i + 3]])) };
            let mask = if bits == 0 { 0 } else { u128::MAX << (128 - bits) };
            prop_assert_eq!(masked(words(raw), bits), words(raw & mask));
        }
    }

    #[test]
    fn layouts_are_what_the_maps_declare() {
        assert_eq!(size_of::<PathKey>(), 28);
        assert_eq!(size_of::<Tuple>(), 40);
        assert_eq!(size_of::<UdpPort>(), 8);
        assert_eq!(size_of::<Peer>(), 4);
    }
}
