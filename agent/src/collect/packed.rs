//! A path's counters without those that are zero: most buckets of most paths are, and there may be thousands of paths.

use bytemuck::Zeroable;
use graylag_ebpf::record::PathStats;
use serde::{Deserialize, Serialize};

const WORDS: usize = size_of::<PathStats>() / size_of::<u32>();
const _: () = assert!(WORDS <= u16::MAX as usize && size_of::<PathStats>().is_multiple_of(size_of::<u32>()));

/// The words of a [`PathStats`] that are not zero, with their positions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Packed(Box<[(u16, u32)]>);

impl From<&PathStats> for Packed {
    fn from(stats: &PathStats) -> Self {
        let words: &[u32; WORDS] = bytemuck::cast_ref(stats);
        let filled = words.iter().enumerate().filter(|(_, word)| **word != 0);
        Self(filled.map(|(at, word)| (at as u16, *word)).collect())
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
