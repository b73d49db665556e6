//! The fixed header of RTP (RFC 3550 §5.1).

use crate::bytes::{Bytes, be16};

/// Bytes of the fixed header.
pub const LENGTH: u32 = 12;

/// The fixed header, as SRTP leaves it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// Whether the payload ends in padding. How much is encrypted under SRTP.
    pub padding: bool,
    /// Whether a header extension follows the CSRCs.
    pub extension: bool,
    /// Contributing sources that follow, 0 to 15.
    pub csrcs: u8,
    /// Marker bit.
    pub marker: bool,
    /// Payload type.
    pub payload_type: u8,
    /// Sequence number.
    pub sequence: u16,
    /// Timestamp.
    pub timestamp: u32,
    /// Synchronisation source.
    pub ssrc: u32,
}

impl Header {
    /// Reads it; nothing where the version is not 2.
    #[inline(always)]
    pub const fn parse(b: &[u8; LENGTH as usize]) -> Option<Self> {
        if b[0] >> 6 != 2 {
            return None;
        }
        Some(Self {
            padding: b[0] & 0x20 != 0,
            extension: b[0] & 0x10 != 0,
            csrcs: b[0] & 0xf,
            marker: b[1] & 0x80 != 0,
            payload_type: b[1] & 0x7f,
            sequence: be16(b[2], b[3]),
            timestamp: u32::from_be_bytes([b[4], b[5], b[6], b[7]]),
            ssrc: u32::from_be_bytes([b[8], b[9], b[10], b[11]]),
        })
    }

    /// Length of the whole header of the packet from `at` to `end`, CSRCs and extension included; nothing where it does
    /// not fit.
    #[inline(always)]
    pub fn length(&self, packet: &(impl Bytes + ?Sized), at: u32, end: u32) -> Option<u32> {
        let mut length = LENGTH + 4 * u32::from(self.csrcs);
        if self.extension {
            if at + length + 4 > end {
                return None;
            }
            let [_, _, a, b] = packet.read(at + length)?;
            length += 4 + 4 * u32::from(be16(a, b));
        }
        if at + length > end { None } else { Some(length) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    /// The other way round, by the figure of RFC 3550 §5.1.
    pub(crate) fn bytes(h: &Header) -> Vec<u8> {
        let mut all = Vec::from([
            0x80 | u8::from(h.padding) << 5 | u8::from(h.extension) << 4 | h.csrcs,
            u8::from(h.marker) << 7 | h.payload_type,
        ]);
        all.extend(h.sequence.to_be_bytes());
        all.extend(h.timestamp.to_be_bytes());
        all.extend(h.ssrc.to_be_bytes());
        all
    }

    proptest! {
        #[test]
        fn round_trips(
            flags: (bool, bool, bool), csrcs in 0u8..16, payload_type in 0u8..128, sequence: u16,
            timestamp: u32, ssrc: u32, words in 0u16..20, cut in 0usize..200,
        ) {
            let (padding, extension, marker) = flags;
            let header = Header { padding, extension, csrcs, marker, payload_type, sequence, timestamp, ssrc };
            let mut packet = bytes(&header);
            prop_assert_eq!(Header::parse(&packet.read(0).unwrap()), Some(header));
            packet.resize(packet.len() + usize::from(csrcs) * 4, 1);
            if extension {
                packet.extend([0xbe, 0xde]);
                packet.extend(words.to_be_bytes());
                packet.resize(packet.len() + usize::from(words) * 4, 2);
            }
            let whole = packet.len();
            packet.resize(whole + 9, 3);
            let found = header.length(&*packet, 0, packet.len() as u32);
            prop_assert_eq!(found, Some(whole as u32));
            let cut = cut.min(whole);
            let found = header.length(&packet[..cut], 0, cut as u32);
            prop_assert_eq!(found.is_some(), cut == whole);
        }

        #[test]
        fn other_versions_are_refused(first: u8) {
            let mut packet = [0; 12];
            packet[0] = first;
            prop_assert_eq!(Header::parse(&packet).is_some(), first >> 6 == 2);
        }
    }
}
