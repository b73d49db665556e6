//! Packets as the parsers see them: something that bytes can be copied out of.
//!
//! On the host that is a slice, in the kernel a packet whose payload may lie in fragments that only a helper can reach.

/// A run of bytes, addressed from its start.
pub trait Bytes {
    /// Copies `N` bytes from `at` on; nothing where they are not all there.
    fn read<const N: usize>(&self, at: u32) -> Option<[u8; N]>;
}

impl Bytes for [u8] {
    fn read<const N: usize>(&self, at: u32) -> Option<[u8; N]> {
        self.get(at as usize..)?.first_chunk().copied()
    }
}

/// Two bytes in network order.
#[inline(always)]
pub const fn be16(a: u8, b: u8) -> u16 {
    u16::from_be_bytes([a, b])
}
