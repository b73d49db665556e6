//! A path's counters without those that are zero: most buckets of most paths are, and there may be thousands of paths.

use bytemuck::Zeroable;
use graylag_ebpf::record::PathStats;
use serde::{Deserialize, Serialize};

const WORDS: usize = size_of::<PathStats>() / size_of::<u32>();
const _: () = assert!(WORDS <= u16::MAX as usize && size_of::<PathStats>().is_multiple_of(size_of::<u32>()));

/// The words of a [`PathStats`] that are not zero, with their positions.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Packed(Box<[(u16, u32)]>);

impl From<&PathStats> for Packed {
    fn from(stats: &PathStats) -> Self {
        let words: &[u32; WORDS] = bytemuck::cast_ref(stats);
        let filled = || words.iter().enumerate().filter(|(_, word)| **word != 0);
        // Counted first: hundreds of these are made at every look, and what grows is allocated again and again.
        let mut packed = Vec::with_capacity(filled().count());
        packed.extend(filled().map(|(at, word)| (at as u16, *word)));
        Self(packed.into())
    }
}

impl Clone for Packed {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }

    /// Most of the time as many words say something as before: they find room where those were.
    fn clone_from(&mut self, source: &Self) {
        self.0.clone_from(&source.0);
    }
}

impl Packed {
    /// All of it.
    pub fn unpack(&self) -> PathStats {
        let mut stats = PathStats::zeroed();
        let words: &mut [u32; WORDS] = bytemuck::cast_mut(&mut stats);
        for (at, word) in &self.0 {
            words[usize::from(*at)] = *word;
        }
        stats
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_lost() {
        let mut stats = PathStats::zeroed();
        assert_eq!(Packed::from(&stats), Packed::default());
        (stats.touched_ns, stats.outcomes[5], stats.rtt.sum_ns) = (u64::MAX, 1, 1 << 40);
        (stats.handshake.buckets[0], *stats.rtt.buckets.last_mut().unwrap()) = (u32::MAX, 7);
        let packed = Packed::from(&stats);
        assert_eq!(packed.0.len(), 6, "a word for every four bytes that say something");
        assert_eq!(bytemuck::bytes_of(&packed.unpack()), bytemuck::bytes_of(&stats));
    }
}
