//! How many streams share a turn at the exact clock: above some rate of packets, reading it for each would be most of what a
//! packet costs.

use graylag_ebpf::rtp::Turns;

/// RTP packets a second that the clock is read for, of all streams and both directions together: a third of a percent of a core.
pub const TIMED: u64 = 100_000;
/// Fewer share a turn only where they still would at so many times the rate.
const LESS: u64 = 2;

/// Follows the rate of RTP packets.
#[derive(Default)]
pub struct Pace {
    /// When it was looked at last, monotonic nanoseconds, and packets by then.
    last: Option<(u64, u64)>,
    others: u32,
}

impl Pace {
    /// How many others a stream shall take turns with, where by `at_ns` there have been so many packets. They may become fewer: a
    /// path was forgotten.
    pub fn others(&mut self, at_ns: u64, packets: u64) -> u32 {
        if let Some((then_ns, before)) = self.last
            && at_ns > then_ns
        {
            let more = u128::from(packets.saturating_sub(before));
            let rate = more * 1_000_000_000 / u128::from(at_ns - then_ns);
            let rate = u64::try_from(rate).unwrap_or(u64::MAX);
            let (wanted, at_ease) = (sharing(rate), sharing(rate.saturating_mul(LESS)));
            self.others = if wanted > self.others { wanted } else { self.others.min(at_ease) };
        }
        self.last = Some((at_ns, packets));
        self.others
    }
}

/// How many others, at so many packets a second, for [`TIMED`] of them to be timed.
fn sharing(rate: u64) -> u32 {
    let streams = rate.div_ceil(TIMED).clamp(1, u64::from(Turns::MOST_OTHERS) + 1);
    streams.next_power_of_two() as u32 - 1
}

/// Share of the time in which a stream's jitter is measured.
pub fn share(others: u32) -> f64 {
    1.0 / (f64::from(others) + 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    /// The last answer of a second each at these rates.
    fn after(rates: &[u64]) -> u32 {
        let mut pace = Pace::default();
        let (mut at, mut packets) = (SECOND, 7);
        assert_eq!(pace.others(at, packets), 0, "one look is no rate");
        let mut others = 0;
        for rate in rates {
            (at, packets) = (at + SECOND, packets + rate);
            others = pace.others(at, packets);
        }
        others
    }

    #[test]
    fn what_is_not_much_is_all_timed() {
        assert_eq!(after(&[0]), 0);
        assert_eq!(after(&[TIMED]), 0);
    }

    #[test]
    fn what_is_more_takes_turns_at_once_and_never_too_many() {
        assert_eq!(after(&[TIMED + 1]), 1);
        assert_eq!(after(&[TIMED * 3]), 3);
        assert_eq!(after(&[TIMED * 8]), 7);
        assert_eq!(after(&[u64::MAX / 2 / SECOND]), Turns::MOST_OTHERS);
    }

    #[test]
    fn a_rate_about_the_bound_does_not_go_to_and_fro() {
        assert_eq!(after(&[TIMED * 3, TIMED * 2 - 1]), 3);
        assert_eq!(after(&[TIMED * 3, TIMED - 1]), 1);
        assert_eq!(after(&[TIMED * 3, TIMED / 2]), 0);
    }

    #[test]
    fn packets_of_a_forgotten_path_are_no_rate() {
        let mut pace = Pace::default();
        pace.others(SECOND, TIMED * 100);
        assert_eq!(pace.others(2 * SECOND, 0), 0);
        assert_eq!(pace.others(2 * SECOND, TIMED * 100), 0, "no time has passed");
    }
}
