//! What is kept for the next agent: in which form records of the kernel's contract go there.
//!
//! The rest is derived where it is declared: what is cumulative is kept, what shows the recent past is not. The form belongs to the
//! contract between the halves (`graylag_ebpf::ABI_VERSION`).

use bytemuck::Pod;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

/// Words, for most of them are zero, and those take a byte each.
fn words<T: Pod>(record: &T) -> Vec<u32> {
    const WORD: usize = size_of::<u32>();
    let (words, rest) = bytemuck::bytes_of(record).as_chunks::<WORD>();
    debug_assert!(rest.is_empty(), "records consist of words");
    words.iter().map(|word| u32::from_ne_bytes(*word)).collect()
}

fn record<T: Pod, E: Error>(words: &[u32]) -> Result<T, E> {
    bytemuck::try_pod_read_unaligned(bytemuck::cast_slice(words))
        .map_err(|_| E::custom("a record of another length"))
}

/// `#[serde(with = "kept::pod")]`: one record.
pub mod pod {
    use super::{Deserialize, Deserializer, Pod, Serialize, Serializer, record, words};

    pub fn serialize<T: Pod, S: Serializer>(value: &T, to: S) -> Result<S::Ok, S::Error> {
        words(value).serialize(to)
    }

    pub fn deserialize<'de, T: Pod, D: Deserializer<'de>>(from: D) -> Result<T, D::Error> {
        record(&Vec::<u32>::deserialize(from)?)
    }
}

/// `#[serde(with = "kept::by_pod")]`: a table by records.
pub mod by_pod {
    use std::{collections::HashMap, hash::Hash};

    use super::{Deserialize, Deserializer, Pod, Serialize, Serializer, record, words};

    pub fn serialize<K: Pod + Eq + Hash, V: Serialize, S: Serializer>(
        table: &HashMap<K, V>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        to.collect_seq(table.iter().map(|(key, value)| (words(key), value)))
    }

    pub fn deserialize<'de, K: Pod + Eq + Hash, V: Deserialize<'de>, D: Deserializer<'de>>(
        from: D,
    ) -> Result<HashMap<K, V>, D::Error> {
        let entries = Vec::<(Vec<u32>, V)>::deserialize(from)?;
        entries.into_iter().map(|(key, value)| Ok((record(&key)?, value))).collect()
    }
}
