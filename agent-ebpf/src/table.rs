//! A hash table over plain arrays, for what is looked up with every packet.
//!
//! The kernel's own LRU hash costs a call, a hash of the whole key and four cache misses for what two array maps, read in
//! line, do in two; under a flood of new keys it evicts live entries; and it does not tell which. Here an index of buckets,
//! a cache line of eight slots each, holds a tag and a number, and the number is an entry's place in a dense pool. A key
//! has two buckets. The entry holds the whole key, so that a tag that matches by chance is found out. The pool gives its
//! places out once, in order, which keeps it dense; after that, an entry has to be given up for each new one
//! ([`expendable`]).

use bytemuck::{Pod, Zeroable};

/// Slots to a bucket.
pub const WAYS: usize = 8;

/// Bits of a slot that hold an entry's number plus one; the rest are its tag. 0 is a free slot.
const NUMBER_BITS: u32 = 24;
const NUMBER: u64 = (1 << NUMBER_BITS) - 1;

/// Most entries that a table can have.
pub const MOST_ENTRIES: u32 = NUMBER as u32 - 1;

/// One bucket of the index.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Bucket {
    /// Tag and number of an entry each.
    pub slots: [u64; WAYS],
}

/// Buckets for a number of entries: twice the slots, so that of two buckets one has room nearly always (tested below).
pub const fn buckets(entries: u32) -> u32 {
    let buckets = (entries as u64 * 2).div_ceil(WAYS as u64);
    if buckets == 0 { 1 } else { buckets as u32 }
}

/// Random words that hash keys are made of. Nobody outside can tell which keys share a bucket.
pub type Seed = [u32; 12];

/// Hash of up to twelve words, an even number of them: NH (Black et al., UMAC, 1999) and a finisher. For random seeds
/// two keys collide with a probability of 2⁻³² at most, and no multiplication is wider than 64 bits.
#[inline(always)]
pub const fn hash<const N: usize>(words: &[u32; N], seed: &Seed) -> u64 {
    let mut sum = 0u64;
    let mut i = 0;
    while i + 1 < N {
        let (a, b) = (words[i].wrapping_add(seed[i]), words[i + 1].wrapping_add(seed[i + 1]));
        sum = sum.wrapping_add((a as u64).wrapping_mul(b as u64));
        i += 2;
    }
    // murmur3's finisher: every bit reaches both bucket numbers and the tag.
    sum ^= sum >> 33;
    sum = sum.wrapping_mul(0xff51_afd7_ed55_8ccd);
    sum ^= sum >> 33;
    sum = sum.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    sum ^ (sum >> 33)
}

/// The two buckets of a hash among `buckets`.
#[inline(always)]
pub const fn places(hash: u64, buckets: u32) -> (u32, u32) {
    let buckets = buckets as u64;
    // Lemire's reduction, of the two halves.
    let (first, second) = (((hash >> 32) * buckets) >> 32, ((hash & 0xffff_ffff) * buckets) >> 32);
    (first as u32, second as u32)
}

/// The slot of an entry.
#[inline(always)]
pub const fn slot(hash: u64, number: u32) -> u64 {
    (hash & !NUMBER) | (number as u64 + 1)
}

/// The number in a slot; nothing where it is free.
#[inline(always)]
pub const fn number(slot: u64) -> Option<u32> {
    ((slot & NUMBER) as u32).checked_sub(1)
}

impl Bucket {
    /// The number of the entry with a hash's tag. Its key has to be compared. Where chance made two of one bucket alike,
    /// once in 2⁴⁰ pairs, it is nobody's number.
    ///
    /// Without branches, for which way it is cannot be predicted, and without a step that waits for the one before; `hide` keeps
    /// the compiler from making branches again, and from doing all slots at once, which takes more stack than the programs have.
    #[inline(always)]
    pub fn find(&self, hash: u64, hide: impl Fn(u64) -> u64) -> Option<u32> {
        let mut found = 0;
        let mut i = 0;
        while i < WAYS {
            let slot = self.slots[i];
            // 0 where the tags are the same: one less is below zero, and its sign all ones.
            let off = (slot ^ hash) >> NUMBER_BITS;
            let same = hide((hide(off.wrapping_sub(1)).cast_signed() >> 63).cast_unsigned());
            found |= slot & same;
            i += 1;
        }
        number(found)
    }

    /// Slots in use.
    #[inline(always)]
    fn used(&self) -> u32 {
        let (mut used, mut i) = (0, 0);
        while i < WAYS {
            used += u32::from(self.slots[i] != 0);
            i += 1;
        }
        used
    }

    /// First slot that is free; [`WAYS`] where there is none.
    #[inline(always)]
    pub fn free(&self) -> u32 {
        let mut i = 0;
        while i < WAYS {
            if self.slots[i] == 0 {
                return i as u32;
            }
            i += 1;
        }
        WAYS as u32
    }
}

/// Whether a new entry goes to the second of its buckets: not before the first is nearly full, for a look-up begins there.
#[inline(always)]
pub fn prefers_second(first: &Bucket, second: &Bucket) -> bool {
    const NEARLY_FULL: u32 = 6;
    let used = first.used();
    used >= NEARLY_FULL && second.used() < used
}

/// How readily an entry is given up for a new one; 0 is not at all.
///
/// One that has not proven itself (`settled`) goes first, oldest first: a scan or a flood of forged packets then
/// replaces its own entries. A settled one is kept while it lives.
#[inline(always)]
pub const fn expendable(settled: bool, idle_ns: u64) -> u64 {
    /// An entry in use is silent for shorter than this: consent is renewed every 5 s (RFC 7675), keep-alives come every 15 s
    /// (RFC 8445 §11).
    const ALIVE_NS: u64 = 30_000_000_000;
    /// What has just come may be about to settle.
    const YOUNG_NS: u64 = 100_000_000;
    const UNSETTLED: u64 = 1 << 62;
    let idle = if idle_ns < UNSETTLED { idle_ns } else { UNSETTLED - 1 };
    match settled {
        true if idle < ALIVE_NS => 0,
        true => idle,
        false if idle < YOUNG_NS => 0,
        false => UNSETTLED | idle,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::{collections::HashMap, vec, vec::Vec};

    const SEED: Seed = [
        0x9e37_79b9,
        0x85eb_ca6b,
        0xc2b2_ae35,
        0x27d4_eb2f,
        0x1656_67b1,
        0x1234_5671,
        0x89ab_cdef,
        0x1357_9bdf,
        0x2468_ace1,
        0xdead_beef,
        0x0bad_cafe,
        0x5555_aaaa,
    ];

    #[test]
    fn a_budget_of_flows_finds_room() {
        for budget in [1000, 16_384, 65_536] {
            let count = buckets(budget);
            let mut table = vec![Bucket::default(); count as usize];
            let mut refused = 0;
            for i in 0..budget {
                let tag = hash(
                    &[0, 0, 0xffff, 0x0a4d_0001, 0, 0, 0xffff, 0x0a4d_0002 + i / 900, 7, i % 900],
                    &SEED,
                );
                let (a, b) = places(tag, count);
                let place = if prefers_second(&table[a as usize], &table[b as usize]) { b } else { a };
                let bucket = &mut table[place as usize];
                let free = bucket.free() as usize;
                match bucket.slots.get_mut(free) {
                    Some(free) => *free = slot(tag, i),
                    None => refused += 1,
                }
            }
            assert!(refused * 1000 < budget, "{refused} of {budget}");
        }
    }

    #[test]
    fn buckets_are_filled_evenly() {
        let count = 1000u32;
        let mut first = vec![0u32; count as usize];
        let mut second = first.clone();
        for i in 0..100_000u32 {
            let (a, b) = places(hash(&[i >> 8, i & 255], &SEED), count);
            first[a as usize] += 1;
            second[b as usize] += 1;
        }
        // Mean 100, deviation 10.
        assert!(first.iter().chain(&second).all(|n| (50..160).contains(n)));
    }

    proptest! {
        #[test]
        fn an_entry_is_found_by_its_hash(
            hashes in proptest::array::uniform8(any::<u64>()), which in 0usize..8, numbers in any::<[u8; 8]>(), other: u64,
        ) {
            let tag = |hash: u64| hash >> 24;
            prop_assume!(hashes.iter().filter(|h| tag(**h) == tag(hashes[which])).count() == 1);
            let bucket = Bucket { slots: core::array::from_fn(|i| slot(hashes[i], u32::from(numbers[i]))) };
            prop_assert_eq!(bucket.find(hashes[which], |x| x), Some(u32::from(numbers[which])));
            if !hashes.iter().any(|h| tag(*h) == tag(other)) {
                prop_assert_eq!(bucket.find(other, |x| x), None);
            }
        }

        #[test]
        fn slots_round_trip(hash: u64, n in 0..MOST_ENTRIES) {
            prop_assert_eq!(number(slot(hash, n)), Some(n));
            prop_assert_eq!(slot(hash, n) >> 24, hash >> 24);
        }

        #[test]
        fn places_exist(tag: u64, budget: u32) {
            let count = buckets(budget);
            let (a, b) = places(tag, count);
            prop_assert!(a < count && b < count);
        }

        #[test]
        fn similar_keys_have_different_tags(words in proptest::array::uniform10(any::<u32>()), seed: [u32; 12]) {
            let mut seen = HashMap::new();
            let mut keys: Vec<[u32; 10]> = vec![words];
            for i in 0..320 {
                let mut near = words;
                near[i / 32] ^= 1 << (i % 32);
                keys.push(near);
            }
            for key in keys {
                prop_assert_eq!(seen.insert(hash(&key, &seed), key), None);
            }
        }

        #[test]
        fn a_live_flow_outlives_every_newcomer(idle in 0u64..30_000_000_000, other in 100_000_000u64..) {
            prop_assert_eq!(expendable(true, idle), 0);
            prop_assert!(expendable(false, other) > expendable(true, other));
        }
    }
}
