//! When a handshake at a listener is over that did not complete: no hook tells of it.
//!
//! The kernel drops a request socket in `reqsk_timer_handler` when its last SYN-ACK went unanswered for a whole timeout;
//! that leaves no event. But its timer is exact: after the n-th retransmission the next is due in 2ⁿ seconds
//! (`TCP_TIMEOUT_INIT << num_timeout`). What did not happen by then will not happen. The same holds for a SYN that was
//! dropped and that its sender does not repeat.

use graylag_ebpf::record::{HalfOpen, half_open};

const SECOND_NS: u64 = 1_000_000_000;
/// Timer slack, coarse timers and a busy CPU.
const SLACK_NS: u64 = 1_500_000_000;
/// Time-outs do not double beyond `TCP_RTO_MAX` (120 s).
const LONGEST_NS: u64 = 120 * SECOND_NS;

/// Whether a handshake will not complete any more.
pub fn is_over(state: &HalfOpen, at_ns: u64) -> bool {
    let dropped = state.flags & (half_open::OVERFLOW_AT_SYN | half_open::REQUEST_QUEUE_FULL) != 0;
    // Without a request socket it is the client's timer that counts: it doubles with every SYN.
    let repeats = if dropped { state.syns.saturating_sub(1) } else { state.syn_retransmitted };
    let timeout = (SECOND_NS << repeats.min(7)).min(LONGEST_NS);
    at_ns.saturating_sub(state.last_ns) > timeout + SLACK_NS
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytemuck::Zeroable;

    #[test]
    fn the_next_retransmission_is_waited_for() {
        let mut state = HalfOpen { last_ns: 10 * SECOND_NS, ..HalfOpen::zeroed() };
        assert!(!is_over(&state, 12 * SECOND_NS));
        assert!(is_over(&state, 13 * SECOND_NS));
        state.syn_retransmitted = 4;
        assert!(!is_over(&state, 26 * SECOND_NS));
        assert!(is_over(&state, 28 * SECOND_NS));
    }

    #[test]
    fn a_dropped_syn_is_waited_for_as_its_sender_repeats_it() {
        let flags = half_open::OVERFLOW_AT_SYN;
        let state = HalfOpen { last_ns: 10 * SECOND_NS, flags, syns: 3, ..HalfOpen::zeroed() };
        assert!(!is_over(&state, 15 * SECOND_NS));
        assert!(is_over(&state, 16 * SECOND_NS));
    }
}
