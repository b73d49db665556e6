//! What may follow the base packet: TLVs of RFC 8972, 4, and graylag's own, the peer's report.
//!
//! The reflector copies TLVs as they came and only sets their flags, so that the reply has the request's size and unknown ones
//! go back with U (4: "unrecognized").

use std::time::Duration;

use super::{keys::Keys, packet::DIGEST};

/// Flag U: not understood. The sender sets it, a reflector that understands clears it.
pub const UNRECOGNIZED: u8 = 0x80;
/// Flag M: the length cannot be.
pub const MALFORMED: u8 = 0x40;
/// Flag I: the digest over the TLVs does not verify.
pub const INTEGRITY: u8 = 0x20;

/// Extra Padding (4.1).
const PADDING: u8 = 1;
/// HMAC (4.8).
const HMAC: u8 = 8;
/// The peer's report: the first of the range for Private Use (RFC 8972, 5.1: 252 to 254).
const REPORT: u8 = 252;

/// Octets of a TLV's flags, type and length.
const HEAD: usize = 4;
/// Says that a private TLV 252 is this one, and its form: others may use the number for something else.
const MAGIC: u32 = u32::from_be_bytes(*b"glr1");
/// Octets of a report's value: magic, count, age.
const REPORT_VALUE: usize = 4 + 8 + 8;

/// That too much of what the peer sends is lost: there where it is so, else left out. The next of the range for Private Use.
const LOSSY: u8 = 253;
/// Says that a private TLV 253 is this one.
const LOSSY_MAGIC: [u8; 4] = *b"gll1";

/// What this node has received of the peer it is told to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Valid test packets from the peer's address since this node started.
    pub received: u64,
    /// Age of the newest; in milliseconds on the wire. `None`: never.
    pub newest: Option<Duration>,
    /// Whether too much of what comes from there is lost.
    pub lossy: bool,
}

/// What the TLVs of a packet come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extension {
    /// The peer's report, where there is one that can be used.
    pub report: Option<Report>,
    /// Whether the other end knew graylag's TLV: of a reply, its U flag was cleared.
    pub understood: bool,
    /// Whether a TLV's length cannot be.
    pub malformed: bool,
    /// Whether the digest that ought to cover the TLVs is missing, misplaced or wrong. Nothing in them may be used then.
    pub unverified: bool,
}

struct Tlv<'a> {
    /// Where its head is.
    at: usize,
    flags: u8,
    kind: u8,
    value: &'a [u8],
}

/// Walks over TLVs; `Err` is where one runs over the end.
fn walk(octets: &[u8]) -> impl Iterator<Item = Result<Tlv<'_>, usize>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        if at >= octets.len() {
            return None;
        }
        let begin = at;
        let tlv = octets.get(begin..begin + HEAD).and_then(|head| {
            let length = usize::from(u16::from_be_bytes([head[2], head[3]]));
            let value = octets.get(begin + HEAD..begin + HEAD + length)?;
            Some(Tlv { at: begin, flags: head[0], kind: head[1], value })
        });
        at = tlv.as_ref().map_or(octets.len(), |tlv| tlv.at + HEAD + tlv.value.len());
        Some(tlv.ok_or(begin))
    })
}

/// Whether a length can be that type's. A type that is not known may have any.
const fn fits(kind: u8, length: usize) -> bool {
    match kind {
        HMAC => length == DIGEST,
        _ => true,
    }
}

fn report_of(value: &[u8]) -> Option<Report> {
    let value: &[u8; REPORT_VALUE] = value.try_into().ok()?;
    let (magic, rest) = value.split_first_chunk::<4>()?;
    let (received, age) = rest.split_first_chunk::<8>()?;
    let age = u64::from_be_bytes(age.try_into().ok()?);
    (u32::from_be_bytes(*magic) == MAGIC).then(|| Report {
        received: u64::from_be_bytes(*received),
        newest: (age != u64::MAX).then(|| Duration::from_millis(age)),
        lossy: false,
    })
}

/// Reads the TLVs of a packet with this sequence number. With `keys` they must be covered by an HMAC TLV (RFC 8972, 4.8):
/// one that verifies, behind all others but padding.
pub fn read(octets: &[u8], sequence: u32, keys: Option<&Keys>) -> Extension {
    let mut found = Extension::default();
    let mut covered = false;
    let mut only_padding = true;
    let mut lossy = false;
    for tlv in walk(octets) {
        let Ok(tlv) = tlv else {
            found.malformed = true;
            break;
        };
        if !fits(tlv.kind, tlv.value.len()) {
            found.malformed = true;
            break;
        }
        found.unverified |= tlv.flags & INTEGRITY != 0 || (covered && tlv.kind != PADDING);
        only_padding &= tlv.kind == PADDING;
        match tlv.kind {
            HMAC => {
                covered = true;
                if let Some(keys) = keys {
                    let preceding = octets.get(..tlv.at).unwrap_or_default();
                    found.unverified |=
                        keys.verify(&[&sequence.to_be_bytes(), preceding], tlv.value).is_none();
                }
            }
            REPORT if tlv.flags & MALFORMED == 0 => {
                if let Some(report) = report_of(tlv.value) {
                    found.report = Some(report);
                    found.understood = tlv.flags & UNRECOGNIZED == 0;
                }
            }
            LOSSY if tlv.flags & MALFORMED == 0 => lossy |= tlv.value == LOSSY_MAGIC,
            _ => {}
        }
    }
    found.report = found.report.map(|report| Report { lossy, ..report });
    found.unverified |= keys.is_some() && !covered && !only_padding;
    if found.unverified {
        (found.report, found.understood) = (None, false);
    }
    found
}

/// Sets the flags of TLVs that are sent back, and signs them anew where they were signed: the digest covers the reply's own
/// sequence number.
pub fn reflect(octets: &mut [u8], read: &Extension, sequence: u32, keys: Option<(&Keys, usize)>) {
    let mut flags: Vec<(usize, u8)> = Vec::new();
    let mut digest_at = None;
    for tlv in walk(octets) {
        let integrity = if read.unverified { INTEGRITY } else { 0 };
        match tlv {
            Err(at) => flags.push((at, MALFORMED | integrity)),
            Ok(tlv) if !fits(tlv.kind, tlv.value.len()) => {
                flags.push((tlv.at, MALFORMED | integrity));
                // What follows a malformed TLV goes back as it came.
                break;
            }
            Ok(tlv) => {
                let known = match tlv.kind {
                    PADDING | HMAC => true,
                    REPORT => report_of(tlv.value).is_some(),
                    LOSSY => tlv.value == LOSSY_MAGIC,
                    _ => false,
                };
                flags.push((tlv.at, integrity | if known { 0 } else { UNRECOGNIZED }));
                if tlv.kind == HMAC {
                    digest_at = Some(tlv.at);
                }
            }
        }
    }
    for (at, flags) in flags {
        if let Some(octet) = octets.get_mut(at) {
            *octet = flags;
        }
    }
    if let (Some(at), Some((keys, key)), false) = (digest_at, keys, read.unverified)
        && let Some((preceding, rest)) = octets.split_at_mut_checked(at)
        && let Some(place) = rest.get_mut(HEAD..HEAD + DIGEST)
    {
        place.copy_from_slice(&keys.sign(key, &[&sequence.to_be_bytes(), preceding]));
    }
}

/// Appends the TLVs of a request: the report, and the digest where there are keys.
pub fn append(out: &mut Vec<u8>, report: &Report, sequence: u32, keys: Option<&Keys>) {
    let begin = out.len();
    let age = report.newest.map_or(u64::MAX, |age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX - 1));
    out.extend([UNRECOGNIZED, REPORT, 0, REPORT_VALUE as u8]);
    out.extend(MAGIC.to_be_bytes());
    out.extend(report.received.to_be_bytes());
    out.extend(age.to_be_bytes());
    if report.lossy {
        out.extend([UNRECOGNIZED, LOSSY, 0, LOSSY_MAGIC.len() as u8]);
        out.extend(LOSSY_MAGIC);
    }
    if let Some(keys) = keys {
        let digest = keys.sign(0, &[&sequence.to_be_bytes(), out.get(begin..).unwrap_or_default()]);
        out.extend([UNRECOGNIZED, HMAC, 0, DIGEST as u8]);
        out.extend(digest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn keys() -> Keys {
        Keys::parse("000102030405060708090a0b0c0d0e0f").unwrap()
    }

    const REPORT_17: Report = Report { received: 17, newest: Some(Duration::from_millis(42)), lossy: false };

    #[test]
    fn a_report_arrives_and_comes_back_understood() {
        for keys in [None, Some(&keys())] {
            let mut octets = Vec::new();
            append(&mut octets, &REPORT_17, 9, keys);
            let digest = if keys.is_some() { HEAD + DIGEST } else { 0 };
            assert_eq!(octets.len(), HEAD + REPORT_VALUE + digest);
            let there = read(&octets, 9, keys);
            assert_eq!(there.report, Some(REPORT_17));
            assert!(!there.understood && !there.unverified && !there.malformed);
            reflect(&mut octets, &there, 3, keys.map(|keys| (keys, 0)));
            let back = read(&octets, 3, keys);
            assert!(back.understood && !back.unverified, "{back:?}");
        }
    }

    #[test]
    fn that_too_much_is_lost_is_said_where_it_is_so() {
        for keys in [None, Some(&keys())] {
            let mut octets = Vec::new();
            append(&mut octets, &Report { lossy: true, ..REPORT_17 }, 9, keys);
            let there = read(&octets, 9, keys);
            assert_eq!(there.report, Some(Report { lossy: true, ..REPORT_17 }));
            reflect(&mut octets, &there, 3, keys.map(|keys| (keys, 0)));
            assert!(read(&octets, 3, keys).understood);
            // Without a report beside it, or by others who use the number, it says nothing.
            let mut other = vec![UNRECOGNIZED, LOSSY, 0, 4, 1, 2, 3, 4];
            append(&mut other, &REPORT_17, 9, None);
            assert_eq!(read(&other, 9, None).report, Some(REPORT_17));
        }
    }

    #[test]
    fn unknown_types_go_back_with_u_and_bad_lengths_with_m() {
        let mut octets =
            vec![UNRECOGNIZED, 200, 0, 2, 1, 2, UNRECOGNIZED, PADDING, 0, 1, 0, UNRECOGNIZED, 3, 0, 9, 1];
        let before = octets.clone();
        let found = read(&octets, 0, None);
        assert!(found.malformed);
        reflect(&mut octets, &found, 0, None);
        assert_eq!((octets[0], octets[6], octets[11]), (UNRECOGNIZED, 0, MALFORMED));
        let changed = octets.iter().zip(&before).filter(|(a, b)| a != b).count();
        assert_eq!((octets.len(), changed), (before.len(), 2), "nothing but flags");
    }

    #[test]
    fn what_is_not_signed_is_not_used() {
        let mut octets = Vec::new();
        append(&mut octets, &REPORT_17, 9, None);
        let unsigned = read(&octets, 9, Some(&keys()));
        assert!(unsigned.unverified && unsigned.report.is_none());
        append(&mut octets, &REPORT_17, 9, Some(&keys()));
        // The digest covers what precedes it, and that is more than was signed.
        let found = read(&octets, 9, Some(&keys()));
        assert!(found.unverified && found.report.is_none());
        reflect(&mut octets, &found, 9, Some((&keys(), 0)));
        assert!(read(&octets, 9, None).unverified, "I goes back");
    }

    #[test]
    fn another_private_252_is_not_ours() {
        let mut octets = vec![UNRECOGNIZED, REPORT, 0, 4, 1, 2, 3, 4];
        let found = read(&octets, 0, None);
        assert!(found.report.is_none() && !found.malformed);
        reflect(&mut octets, &found, 0, None);
        assert_eq!(octets[0], UNRECOGNIZED);
    }

    #[test]
    fn never_and_long_ago_are_two_things() {
        for newest in [None, Some(Duration::MAX)] {
            let mut octets = Vec::new();
            append(&mut octets, &Report { received: 0, newest, lossy: false }, 0, None);
            let found = read(&octets, 0, None).report.unwrap();
            assert_eq!(found.newest.is_none(), newest.is_none());
        }
    }

    proptest! {
        #[test]
        fn any_octets_keep_their_size(mut octets in proptest::collection::vec(any::<u8>(), 0..200), sequence: u32) {
            let keys = keys();
            for keys in [None, Some(&keys)] {
                let size = octets.len();
                let found = read(&octets, sequence, keys);
                reflect(&mut octets, &found, sequence, keys.map(|keys| (keys, 0)));
                prop_assert_eq!(octets.len(), size);
            }
        }
    }
}
