//! Test packets of RFC 8762, 4.2 and 4.3, with the SSID of RFC 8972, 3. Octets in, values out; nothing here knows a key.
//!
//! A reply has the size of its request (RFC 8762, 4.3): what follows the base packet is [`super::tlv`]'s.

use std::time::Duration;

use thiserror::Error;

/// Octets that the digest covers (RFC 8762, 4.4): everything before it.
pub const COVERED: usize = 96;
/// Octets of a digest: HMAC-SHA-256 truncated to 128 bits.
pub const DIGEST: usize = 16;

/// How a session is protected (RFC 8762, 4.2.1 and 4.2.2). Both ends must agree: nothing in a packet says which it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// 44 octets.
    Unauthenticated,
    /// 112 octets, of which the last 16 are the digest.
    Authenticated,
}

impl Mode {
    /// Size of the base packet, of either kind.
    pub const fn base(self) -> usize {
        match self {
            Self::Unauthenticated => 44,
            Self::Authenticated => COVERED + DIGEST,
        }
    }
}

/// A datagram shorter than the base packet of its mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{0} octets are no test packet")]
pub struct TooShort(pub usize);

/// A timestamp as it stands in a packet: 64 bits, NTP's format or PTP's (RFC 8762, 4.2.1; RFC 8877, 4.2 and 4.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timestamp(pub u64);

/// Seconds from 1900, where NTP's era 0 begins, to 1970 (RFC 5905, 6).
const EPOCH_OFFSET: u64 = 2_208_988_800;
const NANOS: u64 = 1_000_000_000;

impl Timestamp {
    /// NTP's format of a time since 1970, rounded up so that [`Self::nanos`] gives the same nanosecond back. Era 1 begins in
    /// 2036: seconds wrap.
    pub fn ntp(since_1970: Duration) -> Self {
        let seconds = since_1970.as_secs().wrapping_add(EPOCH_OFFSET) << 32;
        let fraction = (u64::from(since_1970.subsec_nanos()) << 32).div_ceil(NANOS);
        Self(seconds | fraction)
    }

    /// Nanoseconds since the format's own epoch; of use only in differences. Where `ptp`, the low half is nanoseconds, else a
    /// binary fraction.
    pub const fn nanos(self, ptp: bool) -> i64 {
        let (seconds, low) = (self.0 >> 32, self.0 & 0xffff_ffff);
        let below = if ptp { low } else { (low * NANOS) >> 32 };
        // At most 2³² · 10⁹ + 2³²: fits.
        (seconds * NANOS + below) as i64
    }
}

/// Error Estimate (RFC 8762, 4.2.1; S, scale and multiplier as in RFC 4656, 4.1.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErrorEstimate {
    /// S: the clock is synchronised with UTC by an external source.
    pub synchronized: bool,
    /// Z: timestamps are PTP's truncated format, not NTP's.
    pub ptp: bool,
    /// 0 to 63.
    pub scale: u8,
    /// 1 to 255; 0 is not allowed on the wire.
    pub multiplier: u8,
}

impl ErrorEstimate {
    /// What this host claims: NTP's format, synchronised with nobody it knows of, one second off.
    pub const UNKNOWN: Self = Self { synchronized: false, ptp: false, scale: 32, multiplier: 1 };

    /// From its 16 bits.
    pub const fn from_bits(bits: u16) -> Self {
        Self {
            synchronized: bits & 0x8000 != 0,
            ptp: bits & 0x4000 != 0,
            scale: (bits >> 8) as u8 & 0x3f,
            multiplier: bits as u8,
        }
    }

    /// As its 16 bits.
    pub const fn bits(self) -> u16 {
        (self.synchronized as u16) << 15
            | (self.ptp as u16) << 14
            | ((self.scale & 0x3f) as u16) << 8
            | self.multiplier as u16
    }
}

/// A Session-Sender test packet (RFC 8762, 4.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// Sequence Number; from 0, wraps.
    pub sequence: u32,
    /// Timestamp.
    pub timestamp: Timestamp,
    /// Error Estimate, its 16 bits.
    pub error: u16,
    /// STAMP Session Identifier (RFC 8972, 3); 0 for none.
    pub ssid: u16,
}

/// A Session-Reflector test packet (RFC 8762, 4.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The reflector's own Sequence Number; in stateless mode a copy of the sender's.
    pub sequence: u32,
    /// Timestamp: when the reply left (T3).
    pub timestamp: Timestamp,
    /// Error Estimate of the reflector, its 16 bits.
    pub error: u16,
    /// SSID, copied; 0 from a reflector that knows none.
    pub ssid: u16,
    /// Receive Timestamp: when the request came (T2).
    pub receive_timestamp: Timestamp,
    /// The request, copied.
    pub sender: Request,
    /// TTL or hop limit with which the request came.
    pub sender_ttl: u8,
}

/// Offsets of a request's fields: sequence, timestamp, error estimate, SSID.
const fn request_offsets(mode: Mode) -> [usize; 4] {
    match mode {
        Mode::Unauthenticated => [0, 4, 12, 14],
        Mode::Authenticated => [0, 16, 24, 26],
    }
}

/// Offsets of what a reply adds: receive timestamp; the sender's sequence, timestamp and error estimate; its TTL.
const fn reply_offsets(mode: Mode) -> [usize; 5] {
    match mode {
        Mode::Unauthenticated => [16, 24, 28, 36, 40],
        Mode::Authenticated => [32, 48, 64, 72, 80],
    }
}

fn u16_at(octets: &[u8], at: usize) -> u16 {
    octets.get(at..at + 2).and_then(|o| o.try_into().ok()).map_or(0, u16::from_be_bytes)
}

fn u32_at(octets: &[u8], at: usize) -> u32 {
    octets.get(at..at + 4).and_then(|o| o.try_into().ok()).map_or(0, u32::from_be_bytes)
}

fn u64_at(octets: &[u8], at: usize) -> u64 {
    octets.get(at..at + 8).and_then(|o| o.try_into().ok()).map_or(0, u64::from_be_bytes)
}

fn put<const N: usize>(octets: &mut [u8], at: usize, value: [u8; N]) {
    if let Some(place) = octets.get_mut(at..at + N) {
        place.copy_from_slice(&value);
    }
}

fn base(octets: &[u8], mode: Mode) -> Result<&[u8], TooShort> {
    octets.get(..mode.base()).ok_or(TooShort(octets.len()))
}

impl Request {
    /// Reads the base packet at the beginning of a datagram. What must be zero is ignored, as the RFC says.
    pub fn parse(octets: &[u8], mode: Mode) -> Result<Self, TooShort> {
        let octets = base(octets, mode)?;
        let [sequence, timestamp, error, ssid] = request_offsets(mode);
        Ok(Self {
            sequence: u32_at(octets, sequence),
            timestamp: Timestamp(u64_at(octets, timestamp)),
            error: u16_at(octets, error),
            ssid: u16_at(octets, ssid),
        })
    }

    /// Replaces `out` by the base packet; where there is a digest, its place is zero.
    pub fn write(&self, mode: Mode, out: &mut Vec<u8>) {
        out.clear();
        out.resize(mode.base(), 0);
        let [sequence, timestamp, error, ssid] = request_offsets(mode);
        put(out, sequence, self.sequence.to_be_bytes());
        put(out, timestamp, self.timestamp.0.to_be_bytes());
        put(out, error, self.error.to_be_bytes());
        put(out, ssid, self.ssid.to_be_bytes());
    }
}

impl Reply {
    /// Reads the base packet at the beginning of a datagram.
    pub fn parse(octets: &[u8], mode: Mode) -> Result<Self, TooShort> {
        let own = Request::parse(octets, mode)?;
        let [receive, sequence, timestamp, error, ttl] = reply_offsets(mode);
        Ok(Self {
            sequence: own.sequence,
            timestamp: own.timestamp,
            error: own.error,
            ssid: own.ssid,
            receive_timestamp: Timestamp(u64_at(octets, receive)),
            sender: Request {
                sequence: u32_at(octets, sequence),
                timestamp: Timestamp(u64_at(octets, timestamp)),
                error: u16_at(octets, error),
                ssid: own.ssid,
            },
            sender_ttl: octets.get(ttl).copied().unwrap_or(0),
        })
    }

    /// Replaces `out` by the base packet; where there is a digest, its place is zero.
    pub fn write(&self, mode: Mode, out: &mut Vec<u8>) {
        let Self { sequence, timestamp, error, ssid, .. } = *self;
        Request { sequence, timestamp, error, ssid }.write(mode, out);
        let [receive, sequence, timestamp, error, ttl] = reply_offsets(mode);
        put(out, receive, self.receive_timestamp.0.to_be_bytes());
        put(out, sequence, self.sender.sequence.to_be_bytes());
        put(out, timestamp, self.sender.timestamp.0.to_be_bytes());
        put(out, error, self.sender.error.to_be_bytes());
        put(out, ttl, [self.sender_ttl]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MODES: [Mode; 2] = [Mode::Unauthenticated, Mode::Authenticated];

    #[test]
    fn fields_stand_where_the_rfc_has_them() {
        let sender =
            Request { sequence: 0x0102_0304, timestamp: Timestamp(0x1112), error: 0x2122, ssid: 0x3132 };
        let reply = Reply {
            sequence: 0x4142_4344,
            timestamp: Timestamp(0x51),
            error: 0x61,
            ssid: 0x3132,
            receive_timestamp: Timestamp(0x71),
            sender,
            sender_ttl: 0x81,
        };
        let mut out = Vec::new();
        // RFC 8762, figures 5 and 7 (unauthenticated); 6 and 8 (authenticated).
        reply.write(Mode::Unauthenticated, &mut out);
        let octet = |out: &[u8], expected: u8| out.iter().position(|o| *o == expected);
        assert_eq!(out.len(), 44);
        assert_eq!(
            [0x51, 0x61, 0x71, 0x04, 0x12, 0x22, 0x81].map(|e| octet(&out, e)),
            [Some(11), Some(13), Some(23), Some(27), Some(35), Some(37), Some(40)]
        );
        reply.write(Mode::Authenticated, &mut out);
        assert_eq!(out.len(), 112);
        assert_eq!(
            [0x51, 0x61, 0x71, 0x04, 0x12, 0x22, 0x81].map(|e| octet(&out, e)),
            [Some(23), Some(25), Some(39), Some(51), Some(71), Some(73), Some(80)]
        );
    }

    #[test]
    fn an_error_estimate_is_what_rfc_4656_says() {
        let one_second = ErrorEstimate::UNKNOWN;
        // Multiplier · 2⁻³² · 2^scale.
        let seconds = f64::from(one_second.multiplier) * f64::from(i32::from(one_second.scale) - 32).exp2();
        assert!((seconds - 1.0).abs() < 1e-9);
        let bits = ErrorEstimate { synchronized: true, ptp: true, scale: 63, multiplier: 255 }.bits();
        assert_eq!(bits, 0xffff);
        assert_eq!(one_second.bits(), 0x2001);
    }

    #[test]
    fn short_datagrams_are_no_packets() {
        for mode in MODES {
            assert_eq!(Request::parse(&vec![0; mode.base() - 1], mode), Err(TooShort(mode.base() - 1)));
            assert!(Reply::parse(&vec![0; mode.base()], mode).is_ok());
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(sequence: u32, timestamp: u64, error: u16, ssid: u16, own: u32, left: u64, came: u64, ttl: u8) {
            let sender = Request { sequence, timestamp: Timestamp(timestamp), error, ssid };
            let reply = Reply {
                sequence: own, timestamp: Timestamp(left), error, ssid,
                receive_timestamp: Timestamp(came), sender, sender_ttl: ttl,
            };
            let mut out = vec![7; 300];
            for mode in MODES {
                sender.write(mode, &mut out);
                prop_assert_eq!(Request::parse(&out, mode), Ok(sender));
                reply.write(mode, &mut out);
                prop_assert_eq!(Reply::parse(&out, mode), Ok(reply));
            }
            prop_assert_eq!(ErrorEstimate::from_bits(error).bits(), error);
        }

        #[test]
        fn a_timestamp_keeps_its_nanosecond(seconds in 0u64..2_000_000_000, nanos in 0u32..1_000_000_000) {
            let written = Timestamp::ntp(Duration::new(seconds, nanos)).nanos(false);
            let expected = (seconds + EPOCH_OFFSET) * NANOS + u64::from(nanos);
            prop_assert_eq!(written, expected as i64);
        }

        #[test]
        fn any_octets_are_read_without_harm(octets in proptest::collection::vec(any::<u8>(), 0..200)) {
            for mode in MODES {
                prop_assert_eq!(Request::parse(&octets, mode).is_ok(), octets.len() >= mode.base());
                prop_assert_eq!(Reply::parse(&octets, mode).is_ok(), octets.len() >= mode.base());
            }
        }
    }
}
