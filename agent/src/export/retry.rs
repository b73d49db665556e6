//! When to try again: exponential back-off with jitter, or when the collector says.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(200);
const MOST: Duration = Duration::from_secs(10);

/// Delays between attempts at one request.
#[derive(Debug, Default)]
pub struct Backoff {
    attempts: u32,
}

impl Backoff {
    /// The next delay; `asked` is what the collector wants at least (`Retry-After`, `RetryInfo`).
    pub fn next(&mut self, asked: Option<Duration>) -> Duration {
        let full = FIRST.saturating_mul(1 << self.attempts.min(10)).min(MOST);
        self.attempts += 1;
        // Half of it at random: many agents lose one collector at the same moment.
        let jittered = full / 2 + full.mul_f64(fraction() / 2.0);
        asked.unwrap_or_default().max(jittered)
    }
}

/// Somewhere in 0 to 1; no secret depends on it.
fn fraction() -> f64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(0) as f64 / u64::MAX as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_to_a_bound() {
        let mut backoff = Backoff::default();
        let delays: Vec<Duration> = (0..12).map(|_| backoff.next(None)).collect();
        assert!(delays[0] >= FIRST / 2 && delays[0] <= FIRST, "{delays:?}");
        assert!(delays[11] >= MOST / 2 && delays.iter().all(|d| *d <= MOST), "{delays:?}");
    }

    #[test]
    fn the_collector_may_ask_for_more() {
        assert_eq!(Backoff::default().next(Some(Duration::from_secs(30))), Duration::from_secs(30));
    }
}
