//! From cumulative kernel counters to what happened since the last look.

use graylag_ebpf::record::PathStats;

use crate::model::Counts;

/// What a path counted since `before`. A path that the kernel began anew counts from zero.
///
/// Counters are 64 bits wide and only grow; one that shrank tells that the entry was removed and made again (eviction, a
/// reloaded program), and then everything in it is new. Histogram buckets are 32 bits wide and wrap.
pub fn since(now: &PathStats, before: &PathStats) -> Counts {
    let zero: PathStats = bytemuck::Zeroable::zeroed();
    let before = if began_anew(now, before) { &zero } else { before };
    let mut counts = Counts {
        outcomes: std::array::from_fn(|i| now.outcomes[i] - before.outcomes[i]),
        syn_retransmitted: now.syn_retransmitted - before.syn_retransmitted,
        accept_queue_overflow: now.overflow_at_syn - before.overflow_at_syn + now.overflow_at_ack
            - before.overflow_at_ack,
        request_queue_overflow: now.request_queue_full - before.request_queue_full,
        cookies_sent: now.cookies_sent - before.cookies_sent,
        cookies_established: now.cookies_established - before.cookies_established,
        resets: now.resets - before.resets,
        segments_in: now.segments_in - before.segments_in,
        segments_out: now.segments_out - before.segments_out,
        retransmitted: std::array::from_fn(|i| now.retransmitted[i] - before.retransmitted[i]),
        ..Counts::default()
    };
    counts.handshake.add_delta(&now.handshake, &before.handshake);
    counts.handshake_failed.add_delta(&now.handshake_failed, &before.handshake_failed);
    counts.first_byte.add_delta(&now.first_byte, &before.first_byte);
    counts.first_byte_failed.add_delta(&now.first_byte_failed, &before.first_byte_failed);
    counts.response.add_delta(&now.response, &before.response);
    counts.rtt.add_delta(&now.rtt, &before.rtt);
    counts
}

fn began_anew(now: &PathStats, before: &PathStats) -> bool {
    let counters = |s: &PathStats| {
        let mut all = [0; 18];
        all[..6].copy_from_slice(&s.outcomes);
        all[6..10].copy_from_slice(&s.retransmitted);
        all[10..].copy_from_slice(&[
            s.syn_retransmitted,
            s.overflow_at_syn,
            s.overflow_at_ack,
            s.request_queue_full,
            s.cookies_sent,
            s.cookies_established,
            s.segments_in,
            s.segments_out,
        ]);
        all
    };
    now.resets < before.resets
        || counters(now).iter().zip(counters(before)).any(|(now, before)| *now < before)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytemuck::Zeroable;
    use proptest::prelude::*;

    #[derive(Clone, Debug)]
    enum Step {
        Established(u32),
        Segments(u32),
        Looked,
        Removed,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            (1u32..1000).prop_map(Step::Established),
            (1u32..100_000).prop_map(Step::Segments),
            Just(Step::Looked),
            Just(Step::Removed),
        ];
        proptest::collection::vec(step, 1..80)
    }

    proptest! {
        /// Whatever the kernel did between looks, sums of differences are what really happened, but for what was counted
        /// between the last look and a removal.
        #[test]
        fn sums_of_differences_are_true(steps in steps(), bucket_start: u32) {
            let mut kernel = PathStats::zeroed();
            kernel.handshake.buckets[3] = bucket_start; // wraps somewhere
            let mut seen = kernel;
            let (mut truth, mut unseen, mut sum) = ((0u64, 0u64), (0u64, 0u64), (0u64, 0u64));
            for step in steps.into_iter().chain([Step::Looked]) {
                match step {
                    Step::Established(n) => {
                        kernel.outcomes[0] += u64::from(n);
                        kernel.handshake.buckets[3] = kernel.handshake.buckets[3].wrapping_add(n);
                        unseen.0 += u64::from(n);
                    }
                    Step::Segments(n) => {
                        kernel.segments_in += u64::from(n);
                        unseen.1 += u64::from(n);
                    }
                    Step::Looked => {
                        let counts = since(&kernel, &seen);
                        sum.0 += counts.outcomes[0];
                        sum.1 += counts.segments_in;
                        prop_assert_eq!(counts.handshake.count(), counts.outcomes[0]);
                        seen = kernel;
                        truth = (truth.0 + unseen.0, truth.1 + unseen.1);
                        unseen = (0, 0);
                    }
                    Step::Removed => {
                        // As `Collector` does it: read, removed, told; the aggregate then starts from zero.
                        kernel = PathStats::zeroed();
                        seen = PathStats::zeroed();
                        unseen = (0, 0);
                    }
                }
            }
            prop_assert_eq!(sum, truth);
        }
    }

    #[test]
    fn a_path_that_began_anew_counts_from_zero() {
        let mut before = PathStats::zeroed();
        before.outcomes[0] = 1000;
        let mut now = PathStats::zeroed();
        now.outcomes[0] = 3;
        now.handshake.buckets[1] = 3;
        let counts = since(&now, &before);
        assert_eq!((counts.outcomes[0], counts.handshake.count()), (3, 3));
    }
}
