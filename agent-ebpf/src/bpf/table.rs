//! The two tables of [`graylag_ebpf::table`]: UDP flows, and RTP streams beside the first of each flow and direction.
//!
//! Places change hands by atomic exchange. An entry is claimed by exchanging a word of it that differs from owner to
//! owner, filled, and then published in the index; one that was never published is given up like any other. References
//! stay valid until the program ends, for array maps never free a value: a program on another CPU may still hold an
//! entry that was given up, and costs its new owner a count or two.
#![allow(unsafe_code)]

use core::arch::asm;

use aya_ebpf::{Global, helpers::generated::bpf_get_prandom_u32, maps::Array};
use graylag_ebpf::{
    flow::{Flow, Moment, Stream, moment},
    table::{Bucket, WAYS, expendable, places, prefers_second, slot},
};

use super::media_maps::{
    self as maps, FLOW_BUCKETS, FLOW_ENTRIES, FLOW_INDEX, FLOWS, STREAM_BUCKETS, STREAM_ENTRIES,
    STREAM_INDEX, STREAMS, bounded, hide,
};

/// Entries that are looked at for one to give up, once all are in use.
const CANDIDATES: u32 = 8;

/// A table.
pub struct Table<T: 'static> {
    index: &'static Array<Bucket>,
    pool: &'static Array<T>,
    buckets: &'static Global<u32>,
    entries: &'static Global<u32>,
    /// Which of the counters of [`maps::next_place`] is its own.
    which: u32,
}

/// UDP flows.
pub const FLOW_TABLE: Table<Flow> =
    Table { index: &FLOW_INDEX, pool: &FLOWS, buckets: &FLOW_BUCKETS, entries: &FLOW_ENTRIES, which: 0 };
/// RTP streams.
pub const STREAM_TABLE: Table<Stream> = Table {
    index: &STREAM_INDEX,
    pool: &STREAMS,
    buckets: &STREAM_BUCKETS,
    entries: &STREAM_ENTRIES,
    which: 1,
};

/// What the tables hold.
pub trait Entry {
    /// Hash of its key.
    fn hash(&self) -> u64;
    /// How readily it is given up; see [`expendable`].
    fn readiness(&self, now: Moment) -> u64;
}

impl Entry for Flow {
    #[inline(always)]
    fn hash(&self) -> u64 {
        maps::hash_of(&maps::words(self))
    }

    #[inline(always)]
    fn readiness(&self, now: Moment) -> u64 {
        expendable(self.is_settled(), self.idle_ns(now))
    }
}

impl Entry for Stream {
    #[inline(always)]
    fn hash(&self) -> u64 {
        maps::hash_of(&self.key())
    }

    #[inline(always)]
    fn readiness(&self, now: Moment) -> u64 {
        expendable(self.cursor.is_valid(), self.idle_ns(now))
    }
}

impl<T: Entry + 'static> Table<T> {
    /// The entry of a number.
    #[inline(always)]
    pub fn entry(&self, number: u32) -> Option<&'static mut T> {
        // SAFETY: see the module.
        self.pool.get_ptr_mut(number).map(|entry| unsafe { &mut *entry })
    }

    #[inline(always)]
    fn bucket(&self, place: u32) -> Option<&'static mut Bucket> {
        // SAFETY: see the module; slots are changed by exchange only.
        self.index.get_ptr_mut(place).map(|bucket| unsafe { &mut *bucket })
    }

    /// The entry with a hash that `is_it`.
    #[inline(always)]
    pub fn find(&self, hash: u64, is_it: impl Fn(&T) -> bool) -> Option<(u32, &'static mut T)> {
        let (first, second) = places(hash, self.buckets.load());
        // Plain code: a closure might become a function, and its `Option` a type that the kernel's BTF check refuses.
        if let Some(number) = self.look(first, hash)
            && let Some(entry) = self.entry(number)
            && is_it(entry)
        {
            return Some((number, entry));
        }
        if let Some(number) = self.look(second, hash)
            && let Some(entry) = self.entry(number)
            && is_it(entry)
        {
            return Some((number, entry));
        }
        None
    }

    #[inline(always)]
    fn look(&self, place: u32, hash: u64) -> Option<u32> {
        match self.bucket(place) {
            Some(bucket) => bucket.find(hash, hide),
            None => None,
        }
    }

    /// An entry for a new key, cleared: one that was never used, or one that is given up. Nothing where none is ready to be.
    /// The caller fills it and calls [`Self::publish`]. Whether another was given up for it is the second part.
    #[inline(always)]
    pub fn take(&self, now_ns: u64) -> Option<(u32, &'static mut T, bool)> {
        let fresh = maps::next_place(self.which, self.entries.load());
        if let Some(number) = fresh {
            return Some((number, self.entry(number)?, false));
        }
        let mut best = 0;
        let mut i = 0;
        while i < CANDIDATES {
            // SAFETY: no preconditions.
            let any = unsafe { bpf_get_prandom_u32() } as u32;
            let number = ((u64::from(any) * u64::from(self.entries.load())) >> 32) as u32;
            best = better(best, self.entry(number)?.readiness(moment(now_ns)), number);
            i += 1;
        }
        if best == 0 {
            return None;
        }
        let number = best as u32 & 0xff_ffff;
        let entry = self.entry(number)?;
        let hash = entry.hash();
        if !claim(entry) {
            return None;
        }
        self.withdraw(hash, number);
        maps::clear(entry);
        Some((number, entry, true))
    }

    /// Takes an entry out of the index.
    #[inline(always)]
    fn withdraw(&self, hash: u64, number: u32) {
        let (first, second) = places(hash, self.buckets.load());
        self.replace(first, slot(hash, number), 0);
        self.replace(second, slot(hash, number), 0);
    }

    #[inline(always)]
    fn replace(&self, place: u32, old: u64, new: u64) {
        let Some(bucket) = self.bucket(place) else { return };
        let mut way = 0;
        while way < WAYS {
            if bucket.slots[way] == old {
                exchange(&mut bucket.slots[way], old, new);
                return;
            }
            way += 1;
        }
    }

    /// Makes an entry findable. False where its buckets are full, or another CPU was faster.
    #[inline(always)]
    pub fn publish(&self, hash: u64, number: u32) -> bool {
        let (first, second) = places(hash, self.buckets.load());
        let (Some(a), Some(b)) = (self.bucket(first), self.bucket(second)) else { return false };
        let bucket = if prefers_second(a, b) { b } else { a };
        let Some(way) = bounded(bucket.free() as usize, WAYS) else { return false };
        // SAFETY: in bounds.
        exchange(unsafe { &mut *bucket.slots.as_mut_ptr().add(way) }, 0, slot(hash, number))
    }
}

/// Whether a word of the map was exchanged.
#[inline(always)]
fn exchange(word: &mut u64, old: u64, new: u64) -> bool {
    let mut found = old;
    // SAFETY: map memory, aligned.
    unsafe {
        asm!("r0 = cmpxchg_64({word} + 0, r0, {new})", word = in(reg) word, new = in(reg) new, inout("r0") found);
    }
    found == old
}

/// Takes an entry from whoever has it: its first word is inverted, which no key's is twice.
#[inline(always)]
fn claim<T>(entry: &mut T) -> bool {
    // SAFETY: both kinds of entries are aligned to eight bytes and longer than that.
    let word = unsafe { &mut *(&raw mut *entry).cast::<u64>() };
    let old = *word;
    exchange(word, old, !old)
}

/// The better of the best candidate so far and another: readiness above, number below; 0 for none.
///
/// The verifier is made to forget what it knows of the value: of eight entries it would follow every order.
#[inline(always)]
fn better(best: u64, readiness: u64, number: u32) -> u64 {
    let candidate = if readiness == 0 { 0 } else { readiness & !0xff_ffff | u64::from(number) };
    let mut best = if candidate > best { candidate } else { best };
    // SAFETY: registers only, and what is taken is given back.
    unsafe {
        let anything = u64::from(bpf_get_prandom_u32());
        asm!("{best} ^= {anything}", "{best} ^= {anything}", best = inout(reg) best, anything = in(reg) anything);
    }
    best
}
