//! Sums that forget.

use std::time::Duration;

/// What is left of a sum after `elapsed` that loses half of itself in `half_life`: 1 at once, towards 0.
pub fn fade(elapsed: Duration, half_life: Duration) -> f64 {
    0.5f64.powf(elapsed.div_duration_f64(half_life))
}
