//! Exponential-histogram arithmetic, in integers, exact enough for the kernel and for OTLP alike.
//!
//! OpenTelemetry's base-2 exponential histogram (data model, "Exponential Scale") puts a value `v` seconds into
//! bucket `i` when `base^i < v <= base^(i+1)` with `base = 2^(2^-scale)`. The kernel measures nanoseconds and has
//! neither floating point nor 128-bit products, so [`index`] scales nanoseconds to a binary fraction of a second
//! first (relative error 5·10⁻¹⁰) and then finds the octave and the quarter of the octave by comparison.

use bytemuck::{Pod, Zeroable};

/// OTLP scale: `base = 2^(1/4)`, four buckets to an octave, neighbouring bounds 19 % apart.
pub const SCALE: i32 = 2;
/// Buckets to an octave, `2^SCALE`.
const PER_OCTAVE: i32 = 1 << SCALE;
/// OTLP index of bucket 0: its lower bound is 2⁻²⁰ s (0.95 µs).
pub const OFFSET: i32 = -20 * PER_OCTAVE;
/// Number of buckets: 28 octaves, from 0.95 µs to 256 s. What lies outside goes to the first or last bucket.
pub const BUCKETS: usize = 28 * PER_OCTAVE as usize;

/// `2^55 / 10^9`, rounded: nanoseconds times this is seconds in units of 2⁻⁵⁵.
const SECOND_FRACTION: u64 = 36_028_797;
/// Fraction bits of that unit.
const FRACTION_BITS: i32 = 55;
/// Longest representable duration, 2³⁸ ns = 275 s: above the last bound, and small enough not to overflow.
const LONGEST_NS: u64 = (1 << 38) - 1;
/// `2^31 · 2^(k/4)` for k = 1, 2, 3: where the quarters of an octave begin in a mantissa of 32 bits.
const QUARTERS: [u64; 3] = [2_553_802_834, 3_037_000_500, 3_611_622_603];

/// Bucket of a duration of `ns` nanoseconds, always below [`BUCKETS`].
#[inline(always)]
pub fn index(ns: u64) -> usize {
    if ns == 0 {
        return 0;
    }
    let ns = if ns > LONGEST_NS { LONGEST_NS } else { ns };
    // Minus one unit: bounds belong to the bucket below them.
    let x = ns * SECOND_FRACTION - 1;
    let msb = 63 - x.leading_zeros() as i32;
    let mantissa = (x << (63 - msb)) >> 32;
    let mut quarter = 0;
    if mantissa >= QUARTERS[0] {
        quarter += 1;
    }
    if mantissa >= QUARTERS[1] {
        quarter += 1;
    }
    if mantissa >= QUARTERS[2] {
        quarter += 1;
    }
    let i = (msb - FRACTION_BITS) * PER_OCTAVE + quarter - OFFSET;
    if i < 0 {
        0
    } else if i >= BUCKETS as i32 {
        BUCKETS - 1
    } else {
        i as usize
    }
}

/// A latency histogram as the kernel keeps it. Buckets are 32 bits wide and wrap; the user half takes differences.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Histogram {
    /// Sum of all recorded durations in nanoseconds.
    pub sum_ns: u64,
    /// Count per bucket, see [`index`].
    pub buckets: [u32; BUCKETS],
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The definition in floating point: the smallest i with `seconds <= base^(i+1)`.
    fn by_definition(ns: u64) -> usize {
        let i = ((ns as f64 * 1e-9).log2() * f64::from(PER_OCTAVE)).ceil() as i32 - 1 - OFFSET;
        i.clamp(0, BUCKETS as i32 - 1) as usize
    }

    #[test]
    fn powers_of_two_seconds_belong_to_the_bucket_below() {
        assert_eq!(index(1_000_000_000), (-OFFSET - 1) as usize);
        assert_eq!(index(1_000_000_002), (-OFFSET) as usize);
        assert_eq!(index(2_000_000_000), (PER_OCTAVE - OFFSET - 1) as usize);
    }

    #[test]
    fn ends_are_clamped() {
        assert_eq!(index(0), 0);
        assert_eq!(index(1), 0);
        assert_eq!(index(u64::MAX), BUCKETS - 1);
    }

    proptest! {
        #[test]
        fn agrees_with_the_definition(ns in 1u64..300_000_000_000) {
            let (got, want) = (index(ns), by_definition(ns));
            // Within one unit of the scaling error of a bound either side is right.
            let near = by_definition(ns.saturating_sub(1 + ns / 1_000_000_000)) != by_definition(ns + 1 + ns / 1_000_000_000);
            prop_assert!(got == want || near, "{ns}: {got} != {want}");
        }

        #[test]
        fn is_monotonic(a in 0u64..400_000_000_000, b in 0u64..400_000_000_000) {
            prop_assert!(a > b || index(a) <= index(b));
        }
    }
}
