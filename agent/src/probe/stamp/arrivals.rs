//! The test packets of one session of another sender, by its own sequence numbers (RFC 8762, 4.2.1): what came, and what got
//! lost on the way here.
//!
//! A gap is loss when it has stayed open for a moment ([`HOLD`]), for what only came in another order; it counts with the next packet after that.
//! Numbers that go back while the sender's timestamps go on are a sender that began anew.

use std::{collections::VecDeque, time::Duration};

use super::{
    HOLD,
    packet::{ErrorEstimate, Request},
    peers::RATE,
    replay::{Place, Window, extended},
};
use crate::model::StampCounts;

/// Gaps that are open at once; beyond it the oldest is closed before its time.
const GAPS: usize = 64;
/// A gap that is longer than this, and than what the reflector would have answered meanwhile, is another beginning.
const AHEAD: u64 = 1024;

#[derive(Clone, Copy, Debug)]
struct Newest {
    number: u64,
    /// Of its sender's clock, nanoseconds.
    left: i64,
    /// When it came.
    at: Duration,
}

/// Numbers that are missing, if nothing came late, between two.
#[derive(Clone, Copy, Debug)]
struct Gap {
    low: u64,
    high: u64,
    shown_at: Duration,
}

/// One session of another sender.
#[derive(Clone, Debug, Default)]
pub struct Arrivals {
    newest: Option<Newest>,
    seen: Window,
    gaps: VecDeque<Gap>,
    /// Numbers up to this one have had their fate.
    settled: Option<u64>,
    /// Packets came that do not validate: which numbers they bore nobody knows.
    interrupted: bool,
    counts: StampCounts,
}

impl Arrivals {
    /// A valid packet that was not there before, as the reflector sees it, came at `now`.
    pub fn arrived(&mut self, request: &Request, now: Duration) {
        self.settle(now, HOLD);
        let left = left(request);
        let interrupted = std::mem::take(&mut self.interrupted);
        let Some(newest) = self.newest.filter(|_| !interrupted) else {
            self.begin(request, now);
            return;
        };
        let number = extended(newest.number, request.sequence);
        if number > newest.number {
            let missing = number - newest.number - 1;
            let meanwhile = now.saturating_sub(newest.at).as_secs_f64() * f64::from(RATE);
            if missing > AHEAD.max(meanwhile as u64) {
                self.begin(request, now);
                return;
            }
            if missing > 0 {
                if self.gaps.len() >= GAPS {
                    self.settle_oldest();
                }
                self.gaps.push_back(Gap { low: newest.number, high: number, shown_at: now });
            }
            self.newest = Some(Newest { number, left, at: now });
            self.first_copy(number);
        } else if left > newest.left {
            self.begin(request, now);
        } else if self.seen.place(number) == Place::Fresh {
            self.counts.reordered += 1;
            // Where its gap is closed, it counts as lost and stays so: counts do not go back.
            if self.settled.is_none_or(|settled| number > settled) {
                self.first_copy(number);
            } else {
                self.seen.insert(number);
            }
        } else {
            self.counts.duplicated += 1;
        }
    }

    /// A valid packet that the reflector knows already.
    pub fn arrived_again(&mut self, request: &Request) {
        // With a later timestamp it is no copy, but of a sender that began anew, and has no trust yet.
        if self.newest.is_some_and(|newest| left(request) <= newest.left) {
            self.counts.duplicated += 1;
        }
    }

    /// A packet came that does not validate. What is missing up to the next valid one is not lost.
    pub const fn interrupted(&mut self) {
        self.interrupted = true;
    }

    /// What it came to since this was last asked.
    pub fn take(&mut self) -> StampCounts {
        std::mem::take(&mut self.counts)
    }

    fn begin(&mut self, request: &Request, now: Duration) {
        while !self.gaps.is_empty() {
            self.settle_oldest();
        }
        // One wrap up, so that numbers behind the first have a place; of those nobody knows whether they were sent to this end.
        let number = (1 << 32) + u64::from(request.sequence);
        self.seen = Window::default();
        self.settled = Some(number);
        self.newest = Some(Newest { number, left: left(request), at: now });
        self.first_copy(number);
    }

    fn first_copy(&mut self, number: u64) {
        self.seen.insert(number);
        self.counts.sent += 1;
    }

    fn settle(&mut self, now: Duration, patience: Duration) {
        while self.gaps.front().is_some_and(|gap| now.saturating_sub(gap.shown_at) >= patience) {
            self.settle_oldest();
        }
    }

    fn settle_oldest(&mut self) {
        if let Some(gap) = self.gaps.pop_front() {
            let lost = self.seen.unseen_between(gap.low, gap.high);
            self.counts.lost += lost;
            self.counts.runs += u64::from(lost > 0);
            self.counts.sent += lost;
            self.settled = Some(gap.high);
        }
    }
}

/// When its sender says that it left.
fn left(request: &Request) -> i64 {
    request.timestamp.nanos(ErrorEstimate::from_bits(request.error).ptp)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::stamp::packet::Timestamp;
    use proptest::prelude::*;

    const INTERVAL: Duration = Duration::from_millis(100);

    fn at(ms: u64) -> Duration {
        Duration::from_secs(1000) + Duration::from_millis(ms)
    }

    fn request(sequence: u32, sent: Duration) -> Request {
        Request { sequence, timestamp: Timestamp::ntp(sent), error: ErrorEstimate::UNKNOWN.bits(), ssid: 1 }
    }

    /// `lost` in one run, where any was.
    fn counts(sent: u64, lost: u64, duplicated: u64, reordered: u64) -> StampCounts {
        StampCounts { sent, lost, runs: lost.min(1), duplicated, reordered }
    }

    /// Packets with these numbers, 100 ms apart, each as old as its number says.
    fn play(arrivals: &mut Arrivals, numbers: &[u32], from: u64) {
        for (i, number) in numbers.iter().enumerate() {
            arrivals.arrived(&request(*number, at(u64::from(*number) * 100)), at(from + i as u64 * 100));
        }
    }

    #[test]
    fn a_gap_is_loss_when_it_stays_open() {
        let mut arrivals = Arrivals::default();
        play(&mut arrivals, &[70, 71, 74], 0);
        assert_eq!(arrivals.take(), counts(3, 0, 0, 0), "it may still come");
        play(&mut arrivals, &[73], 240);
        assert_eq!(arrivals.take(), counts(1, 0, 0, 1));
        play(&mut arrivals, &[75], 1300);
        assert_eq!(arrivals.take(), counts(2, 1, 0, 0));
        // What comes even later was lost, and is not taken back. What was there before the first is nobody's.
        play(&mut arrivals, &[72, 69], 1400);
        assert_eq!(arrivals.take(), counts(0, 0, 0, 2));
        arrivals.arrived_again(&request(75, at(7500)));
        assert_eq!(arrivals.take(), counts(0, 0, 1, 0));
    }

    #[test]
    fn a_dead_direction_counts_when_it_is_well_again() {
        let mut arrivals = Arrivals::default();
        play(&mut arrivals, &[0, 1], 0);
        play(&mut arrivals, &[602, 603], 60_200);
        play(&mut arrivals, &[620], 62_000);
        assert_eq!(arrivals.take(), counts(605, 600, 0, 0));
    }

    #[test]
    fn what_came_and_did_not_validate_is_not_lost() {
        let mut arrivals = Arrivals::default();
        play(&mut arrivals, &[0, 1], 0);
        arrivals.interrupted();
        play(&mut arrivals, &[102, 103], 10_200);
        play(&mut arrivals, &[120], 12_000);
        play(&mut arrivals, &[121], 13_100);
        assert_eq!(arrivals.take(), counts(22, 16, 0, 0), "only what is missing after the first valid one");
    }

    #[test]
    fn a_sender_that_begins_anew_has_lost_nothing() {
        let mut arrivals = Arrivals::default();
        play(&mut arrivals, &[5000, 5001, 5003], 0);
        for number in 0..50 {
            arrivals.arrived(&request(number, at(600_000 + u64::from(number) * 100)), at(600_000));
        }
        assert_eq!(arrivals.take(), counts(54, 1, 0, 0));
        // It begins somewhere ahead.
        arrivals.arrived(&request(9_000_000, at(700_000)), at(606_000));
        assert_eq!(arrivals.take(), counts(1, 0, 0, 0));
    }

    proptest! {
        /// Lost, copied or late by less than it is waited for: all of it is told, over a wrap as well.
        #[test]
        fn every_packet_is_counted_as_what_it_was(
            fates in proptest::collection::vec((0u8..8, 0u64..150), 1..300), wraps: bool
        ) {
            let begin = if wraps { u64::from(u32::MAX) - 50 } else { 0 };
            let mut came: Vec<(Duration, u64)> = Vec::new();
            let (mut lost, mut copies) = (0, 0);
            let ends = std::iter::repeat_n((9, 0), 30);
            let all: Vec<_> = std::iter::once((9, 0)).chain(fates).chain(ends).collect();
            for (i, (fate, late)) in all.iter().enumerate() {
                let sent = at(1000) + INTERVAL * i as u32;
                match fate {
                    0 => lost += 1,
                    1 => {
                        came.extend([(sent, i as u64), (sent + Duration::from_millis(*late), i as u64)]);
                        copies += 1;
                    }
                    2 => came.push((sent + Duration::from_millis(*late), i as u64)),
                    _ => came.push((sent, i as u64)),
                }
            }
            came.sort();
            let mut arrivals = Arrivals::default();
            let (mut newest, mut reordered, mut there) = (None, 0, std::collections::BTreeSet::new());
            for (now, i) in came {
                let sent = at(1000) + INTERVAL * i as u32;
                arrivals.arrived(&request((begin + i) as u32, sent), now);
                if there.insert(i) && newest.is_some_and(|newest| i < newest) {
                    reordered += 1;
                }
                newest = newest.max(Some(i));
            }
            let expected = counts(all.len() as u64, lost, copies, reordered);
            let found = arrivals.take();
            prop_assert!(found.runs <= found.lost && (found.runs > 0) == (found.lost > 0));
            prop_assert_eq!(StampCounts { runs: expected.runs, ..found }, expected);
        }
    }
}
