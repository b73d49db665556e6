//! Durations by exponential bucket, as the kernel counts them.

use serde::{Deserialize, Serialize};
use std::time::Duration;

use graylag_ebpf::bucket::{self, BUCKETS, OFFSET, SCALE};

/// How many durations fell into each bucket of [`graylag_ebpf::bucket`], and their sum.
///
/// Buckets without any take no memory: of the thousands of distributions that exist at any time most hold a handful of
/// durations.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Distribution {
    /// `(bucket, count)` of the buckets that have any, by bucket.
    counts: Vec<(u8, u64)>,
    sum_ns: u64,
}

const _: () = assert!(BUCKETS <= 256);

/// Lower bound of bucket `i` in seconds, `base^(i + OFFSET)`.
fn lower_bound(i: usize) -> f64 {
    (f64::from(i as i32 + OFFSET) / f64::from(1 << SCALE)).exp2()
}

impl Distribution {
    /// Adds one duration.
    pub fn record(&mut self, duration: Duration) {
        let ns = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        self.add_to(bucket::index(ns) as u8, 1);
        self.sum_ns = self.sum_ns.saturating_add(ns);
    }

    fn add_to(&mut self, bucket: u8, n: u64) {
        match self.counts.binary_search_by_key(&bucket, |(bucket, _)| *bucket) {
            Ok(at) => self.counts[at].1 += n,
            Err(at) => self.counts.insert(at, (bucket, n)),
        }
    }

    /// Adds what a kernel histogram gained since `before`; its buckets wrap at 2³², its sum at 2⁶⁴.
    pub fn add_delta(&mut self, now: &bucket::Histogram, before: &bucket::Histogram) {
        if now.buckets == before.buckets {
            return;
        }
        for (i, (now, before)) in now.buckets.iter().zip(&before.buckets).enumerate() {
            if now != before {
                self.add_to(i as u8, u64::from(now.wrapping_sub(*before)));
            }
        }
        self.sum_ns = self.sum_ns.wrapping_add(now.sum_ns.wrapping_sub(before.sum_ns));
    }

    /// Adds another distribution.
    pub fn add(&mut self, other: &Self) {
        if self.counts.is_empty() {
            self.counts.clone_from(&other.counts);
        } else {
            other.counts.iter().for_each(|(bucket, n)| self.add_to(*bucket, *n));
        }
        self.sum_ns = self.sum_ns.wrapping_add(other.sum_ns);
    }

    /// Empties it.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// Number of durations.
    pub fn count(&self) -> u64 {
        self.counts.iter().map(|(_, n)| n).sum()
    }

    /// Whether there is none.
    pub const fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }

    /// Sum of all durations.
    pub fn sum(&self) -> Duration {
        Duration::from_nanos(self.sum_ns)
    }

    /// Counts by bucket; bucket `i` has the OTLP index `i + graylag_ebpf::bucket::OFFSET`.
    pub fn counts(&self) -> [u64; BUCKETS] {
        let mut counts = [0; BUCKETS];
        for (bucket, n) in &self.counts {
            counts[usize::from(*bucket)] = *n;
        }
        counts
    }

    /// Number of durations of at least `bound`, cut at the nearest bucket boundary: 9 % off at most, and exact at
    /// powers of two (and their quarters) of a second.
    pub fn at_least(&self, bound: Duration) -> u64 {
        let first = nearest_boundary(bound);
        self.counts.iter().filter(|(bucket, _)| usize::from(*bucket) >= first).map(|(_, n)| n).sum()
    }

    /// The `q`-quantile (0 to 1): geometric middle of its bucket, 9.5 % off at most. `None` where it is empty.
    pub fn quantile(&self, q: f64) -> Option<Duration> {
        let total = self.count();
        if total == 0 {
            return None;
        }
        let rank = (q.clamp(0.0, 1.0) * total as f64).ceil().max(1.0) as u64;
        let mut seen = 0;
        let (bucket, _) = self.counts.iter().find(|(_, n)| {
            seen += n;
            seen >= rank
        })?;
        Some(Self::middle(usize::from(*bucket)))
    }

    /// Geometric middle of bucket `i`.
    pub fn middle(i: usize) -> Duration {
        Duration::from_secs_f64((lower_bound(i) * lower_bound(i + 1)).sqrt())
    }

    /// `(middle, count)` of every bucket that is not empty.
    pub fn iter(&self) -> impl Iterator<Item = (Duration, u64)> + '_ {
        self.counts.iter().map(|(bucket, n)| (Self::middle(usize::from(*bucket)), *n))
    }
}

/// The bucket whose lower bound is nearest to `bound`, by ratio.
fn nearest_boundary(bound: Duration) -> usize {
    let index = (bound.as_secs_f64().max(1e-9).log2() * f64::from(1 << SCALE)).round() as i32 - OFFSET;
    index.clamp(0, BUCKETS as i32 - 1) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_second_is_a_boundary() {
        let mut d = Distribution::default();
        d.record(Duration::from_millis(999));
        d.record(Duration::from_millis(1001));
        assert_eq!(d.at_least(Duration::from_secs(1)), 1);
    }

    #[test]
    fn counters_that_wrapped_still_give_the_difference() {
        let mut before: bucket::Histogram = bytemuck::Zeroable::zeroed();
        before.buckets[7] = u32::MAX;
        before.sum_ns = u64::MAX;
        let mut now = before;
        now.buckets[7] = 1;
        now.sum_ns = 9;
        let mut d = Distribution::default();
        d.add_delta(&now, &before);
        assert_eq!((d.count(), d.sum()), (2, Duration::from_nanos(10)));
    }

    proptest! {
        #[test]
        fn quantiles_are_within_a_bucket(values in proptest::collection::vec(1_000u64..200_000_000_000, 1..200), q in 0.0f64..=1.0) {
            let mut d = Distribution::default();
            let mut sorted = values.clone();
            sorted.sort_unstable();
            for v in &values { d.record(Duration::from_nanos(*v)); }
            let rank = ((q * values.len() as f64).ceil() as usize).max(1) - 1;
            let (got, want) = (d.quantile(q).unwrap().as_secs_f64(), sorted[rank] as f64 * 1e-9);
            prop_assert!((got / want).ln().abs() <= 2f64.powf(0.125).ln() + 1e-6, "{got} for {want}");
        }
    }
}
