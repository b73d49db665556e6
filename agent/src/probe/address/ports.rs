//! Local ports, swept.

use std::ops::RangeInclusive;

/// Where the kernel says which ports it gives out by itself (`ip_local_port_range`); IPv6 has the same.
pub const RANGE_FILE: &str = "/proc/sys/net/ipv4/ip_local_port_range";
/// What it is unless somebody changed it.
const USUAL: RangeInclusive<u16> = 32_768..=60_999;

/// A range of ports, gone through in order from some port on, again and again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sweep {
    low: u16,
    /// How many there are; at least one.
    size: u64,
    /// Where it begins.
    phase: u64,
}

impl Sweep {
    /// The range of [`RANGE_FILE`]'s text; the usual one where it makes no sense. `seed` says where it begins.
    pub fn new(text: &str, seed: u64) -> Self {
        let mut ends = text.split_whitespace().map_while(|word| word.parse::<u16>().ok());
        let range = match (ends.next(), ends.next()) {
            (Some(low), Some(high)) if low > 0 && low <= high => low..=high,
            _ => USUAL,
        };
        Self { low: *range.start(), size: u64::from(range.end() - range.start()) + 1, phase: seed }
    }

    /// The port with this place in the order.
    pub const fn port(&self, place: u64) -> u16 {
        // Below 2¹⁶: `size` counts ports from `low` on.
        self.low + (self.phase.wrapping_add(place) % self.size) as u16
    }

    /// How many ports there are.
    pub const fn size(&self) -> u64 {
        self.size
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_makes_no_sense_is_the_usual_range() {
        for text in ["", "0 0", "9 8", "70000 80000", "x y"] {
            assert_eq!(Sweep::new(text, 0), Sweep { low: 32_768, size: 28_232, phase: 0 }, "{text}");
        }
        assert_eq!(Sweep::new("65535\t65535\n", 7).port(9), 65_535);
    }

    proptest! {
        #[test]
        fn each_port_comes_once_before_any_comes_again(low in 1u16..60_000, more in 0u16..300, seed in 0..u64::MAX / 2) {
            let sweep = Sweep::new(&format!("{low} {}", low + more), seed);
            let first: BTreeSet<u16> = (0..sweep.size()).map(|place| sweep.port(place)).collect();
            prop_assert_eq!(first, (low..=low + more).collect::<BTreeSet<_>>());
            prop_assert_eq!(sweep.port(0), sweep.port(sweep.size()));
        }
    }
}
