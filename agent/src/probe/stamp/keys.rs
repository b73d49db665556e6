//! Pre-shared keys and digests: HMAC-SHA-256 truncated to 128 bits (RFC 8762, 4.4).
//!
//! Several keys are valid at once, so that both ends need not change them at the same moment: a new one is added everywhere,
//! then made the first everywhere, then the old one is removed. There is no handshake that could fall out of step.

use std::{fmt, sync::Arc};

use base64::{Engine, engine::general_purpose::STANDARD};
use ring::hmac;
use subtle::ConstantTimeEq;
use thiserror::Error;

use super::packet::DIGEST;

/// Fewer octets than this are no key; HMAC-SHA-256 itself would want 32 (RFC 2104, 3).
const LEAST: usize = 16;
/// More octets than SHA-256's block add nothing.
const MOST: usize = 64;
/// Keys valid at once: each is tried in turn on what does not validate.
const MOST_KEYS: usize = 8;

/// What is wrong with a text of keys.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum KeysError {
    /// A line is neither form. The line itself is not repeated: it is a secret.
    #[error("line {0} is no key; write hexadecimal digits or base64, one key a line")]
    Form(usize),
    /// A key of the wrong size.
    #[error("line {0} has a key of {1} octets; use {LEAST} to {MOST}, e.g. from `openssl rand -hex 32`")]
    Size(usize, usize),
    /// No key at all.
    #[error("there is no key; write one a line, e.g. from `openssl rand -hex 32`")]
    None,
    /// Too many.
    #[error(
        "there are {0} keys; use at most {MOST_KEYS}: the one that is sent with first, then those still accepted"
    )]
    TooMany(usize),
}

/// Keys: the first is sent with, all are accepted.
#[derive(Clone)]
pub struct Keys(Arc<[hmac::Key]>);

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keys({})", self.0.len())
    }
}

impl Keys {
    /// Reads keys from a text: one a line, hexadecimal or base64; `#` begins a comment, blank lines are nothing. A line of
    /// hexadecimal digits only, an even number of them, is hexadecimal.
    pub fn parse(text: &str) -> Result<Self, KeysError> {
        let mut keys = Vec::new();
        for (number, line) in text.lines().enumerate().map(|(i, line)| (i + 1, line)) {
            let line = line.split('#').next().unwrap_or_default().trim();
            if line.is_empty() {
                continue;
            }
            let octets =
                hexadecimal(line).or_else(|| STANDARD.decode(line).ok()).ok_or(KeysError::Form(number))?;
            if !(LEAST..=MOST).contains(&octets.len()) {
                return Err(KeysError::Size(number, octets.len()));
            }
            keys.push(hmac::Key::new(hmac::HMAC_SHA256, &octets));
        }
        match keys.len() {
            0 => Err(KeysError::None),
            1..=MOST_KEYS => Ok(Self(keys.into())),
            many => Err(KeysError::TooMany(many)),
        }
    }

    /// The digest of these parts, one after the other, by key `key`; by the first where there is none such.
    pub fn sign(&self, key: usize, parts: &[&[u8]]) -> [u8; DIGEST] {
        let mut digest = [0; DIGEST];
        if let Some(key) = self.0.get(key).or(self.0.first()) {
            digest.copy_from_slice(&digest_of(key, parts).as_ref()[..DIGEST]);
        }
        digest
    }

    /// Which key the digest of these parts was made with. Takes the same time wherever they differ.
    pub fn verify(&self, parts: &[&[u8]], digest: &[u8]) -> Option<usize> {
        self.0.iter().position(|key| digest_of(key, parts).as_ref()[..DIGEST].ct_eq(digest).into())
    }
}

fn digest_of(key: &hmac::Key, parts: &[&[u8]]) -> hmac::Tag {
    let mut context = hmac::Context::with_key(key);
    for part in parts {
        context.update(part);
    }
    context.sign()
}

fn hexadecimal(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) {
        return None;
    }
    let digit = |c: u8| char::from(c).to_digit(16).map(|digit| digit as u8);
    text.as_bytes().chunks_exact(2).map(|pair| Some(digit(pair[0])? << 4 | digit(pair[1])?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_digest_is_rfc_4231s_cut_in_half() {
        // RFC 4231, 4.2: test case 1.
        let keys = Keys::parse(&"0b".repeat(20)).unwrap();
        let digest = keys.sign(0, &[b"Hi ", b"There"]);
        assert_eq!(digest.to_vec(), hexadecimal("b0344c61d8db38535ca8afceaf0bf12b").unwrap());
    }

    #[test]
    fn both_forms_are_read_and_errors_name_the_line() {
        let text = "# old\n000102030405060708090a0b0c0d0e0f\n\nAAECAwQFBgcICQoLDA0ODw==  # the same\n";
        let keys = Keys::parse(text).unwrap();
        assert_eq!(keys.sign(0, &[b"x"]), keys.sign(1, &[b"x"]));
        let error = |text: &str| Keys::parse(text).unwrap_err();
        assert_eq!(error(""), KeysError::None);
        assert_eq!(error("\n!"), KeysError::Form(2));
        assert_eq!(error("0001"), KeysError::Size(1, 2));
        assert_eq!(error(&"00".repeat(65)), KeysError::Size(1, 65));
        assert_eq!(error(&format!("{}\n", "00".repeat(16)).repeat(9)), KeysError::TooMany(9));
        assert_eq!(format!("{keys:?}"), "Keys(2)", "no secret in a log");
    }

    #[test]
    fn all_keys_are_accepted_and_the_first_is_used() {
        let (old, new) = ("00".repeat(16), "11".repeat(16));
        let (only_old, only_new) = (Keys::parse(&old).unwrap(), Keys::parse(&new).unwrap());
        let both = Keys::parse(&format!("{new}\n{old}")).unwrap();
        assert_eq!(both.verify(&[b"x"], &only_old.sign(0, &[b"x"])), Some(1));
        assert_eq!(both.verify(&[b"x"], &only_new.sign(0, &[b"x"])), Some(0));
        assert_eq!(only_new.verify(&[b"x"], &both.sign(0, &[b"x"])), Some(0));
        assert_eq!(only_new.verify(&[b"x"], &only_old.sign(0, &[b"x"])), None);
        assert_eq!(only_old.sign(0, &[b"x"]), both.sign(1, &[b"x"]), "a reply is signed as its request was");
    }

    proptest! {
        #[test]
        fn one_bit_is_enough(octets in proptest::collection::vec(any::<u8>(), 1..120), at: usize, bit in 0u8..8) {
            let keys = Keys::parse(&"42".repeat(32)).unwrap();
            let digest = keys.sign(0, &[&octets]);
            let mut other = octets.clone();
            other[at % octets.len()] ^= 1 << bit;
            prop_assert_eq!(keys.verify(&[&octets], &digest), Some(0));
            prop_assert_eq!(keys.verify(&[&other], &digest), None);
            let mut wrong = digest;
            wrong[at % DIGEST] ^= 1 << bit;
            prop_assert_eq!(keys.verify(&[&octets], &wrong), None);
            prop_assert_eq!(keys.verify(&[&octets], &digest[..15]), None, "shorter is not laxer");
        }
    }
}
