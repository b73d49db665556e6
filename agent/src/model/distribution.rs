//! Durations by exponential bucket, as the kernel counts them.

use std::time::Duration;

use graylag_ebpf::bucket::{self, BUCKETS, OFFSET, SCALE};

/// How many durations fell into each bucket of [`graylag_ebpf::bucket`], and their sum.
///
/// An empty one owns no memory: of the many that exist at any time few have anything to say.
#[derive(Clone, Debug, Default)]
pub struct Distribution {
    counts: Option<Box<[u64; BUCKETS]>>,
    sum_ns: u64,
}

static NONE: [u64; BUCKETS] = [0; BUCKETS];

/// Lower bound of bucket `i` in seconds, `base^(i + OFFSET)`.
fn lower_bound(i: usize) -> f64 {
    (f64::from(i as i32 + OFFSET) / f64::from(1 << SCALE)).exp2()
}

impl Distribution {
    /// Adds one duration.
    pub fn record(&mut self, duration: Duration) {
        let ns = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        self.counts_mut()[bucket::index(ns)] += 1;
        self.sum_ns = self.sum_ns.saturating_add(ns);
    }

    fn counts_mut(&mut self) -> &mut [u64; BUCKETS] {
        self.counts.get_or_insert_with(|| Box::new(NONE))
    }

    /// Adds what a kernel histogram gained since `before`; its buckets wrap at 2³², its sum at 2⁶⁴.
    pub fn add_delta(&mut self, now: &bucket::Histogram, before: &bucket::Histogram) {
        if now.buckets == before.buckets {
            return;
        }
        for ((count, now), before) in self.counts_mut().iter_mut().zip(&now.buckets).zip(&before.buckets) {
            *count += u64::from(now.wrapping_sub(*before));
        }
        self.sum_ns = self.sum_ns.wrapping_add(now.sum_ns.wrapping_sub(before.sum_ns));
    }

    /// Adds another distribution.
    pub fn add(&mut self, other: &Self) {
        let Some(others) = &other.counts else { return };
        for (count, other) in self.counts_mut().iter_mut().zip(others.iter()) {
            *count += other;
        }
        self.sum_ns = self.sum_ns.wrapping_add(other.sum_ns);
    }

    /// Empties it.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// Number of durations.
    pub fn count(&self) -> u64 {
        self.counts().iter().sum()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.counts.is_none()
    }

    /// Sum of all durations.
    pub fn sum(&self) -> Duration {
        Duration::from_nanos(self.sum_ns)
    }

    /// Counts by bucket; bucket `i` has the OTLP index `i + graylag_ebpf::bucket::OFFSET`.
    pub fn counts(&self) -> &[u64; BUCKETS] {
        self.counts.as_deref().unwrap_or(&NONE)
    }

    /// Number of durations of at least `bound`, cut at the nearest bucket boundary: 9 % off at most, and exact at
    /// powers of two (and their quarters) of a second.
    pub fn at_least(&self, bound: Duration) -> u64 {
        self.counts()[nearest_boundary(bound)..].iter().sum()
    }

    /// The `q`-quantile (0 to 1): geometric middle of its bucket, 9.5 % off at most. `None` where it is empty.
    pub fn quantile(&self, q: f64) -> Option<Duration> {
        let total = self.count();
        if total == 0 {
            return None;
        }
        let rank = (q.clamp(0.0, 1.0) * total as f64).ceil().max(1.0) as u64;
        let mut seen = 0;
        let i = self.counts().iter().position(|count| {
            seen += count;
            seen >= rank
        })?;
        Some(Self::middle(i))
    }

    /// Geometric middle of bucket `i`.
    pub fn middle(i: usize) -> Duration {
        Duration::from_secs_f64((lower_bound(i) * lower_bound(i + 1)).sqrt())
    }

    /// `(middle, count)` of every bucket that is not empty.
    pub fn iter(&self) -> impl Iterator<Item = (Duration, u64)> + '_ {
        self.counts().iter().enumerate().filter(|(_, n)| **n > 0).map(|(i, n)| (Self::middle(i), *n))
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
