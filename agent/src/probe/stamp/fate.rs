//! In which direction a test packet was lost, told by the reflector's own sequence numbers (RFC 8762, 4: stateful mode).
//!
//! The reflector numbers what it answers. Between two answered packets some of ours are missing, and of its numbers some are
//! missing too: those it did send, so they were lost on the way back; the rest of ours never arrived there. A packet's fate is
//! settled in the order of sending, when it is answered or given up, and a run of unanswered ones when the next answered one
//! shows what the reflector counted meanwhile.

use std::time::Duration;

use super::replay::{self, Place, Window};
use crate::model::StampCounts;

/// Numbers that a reflector may be ahead of what we sent: copies on the way there take numbers too.
const AHEAD: i64 = 1024;

/// Two refusals this far apart, at most, tell of what was unanswered in between: a host sends few of them.
const REFUSAL_GAP: Duration = Duration::from_secs(3);

/// Where an answer stands in the reflector's own order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Which life of the reflector it was.
    life: u64,
    /// Its number, with the wraps behind it.
    number: u64,
}

/// The newest number of this life.
#[derive(Clone, Copy, Debug)]
struct Newest {
    number: u64,
    /// When it arrived.
    at: Duration,
    /// To which of ours.
    ours: u64,
}

/// Fates of a session's packets.
#[derive(Clone, Debug, Default)]
pub struct Fates {
    /// There.
    pub transmit: StampCounts,
    /// Back.
    pub receive: StampCounts,
    /// Lost, and nothing tells where.
    pub unattributed: u64,
    /// Neither lost nor answered: what came did not validate.
    pub mismatched: u64,
    /// Neither lost nor answered: nobody listens there.
    pub refused: u64,
    /// Answered and settled.
    pub answered: u64,
    /// Restarts of the reflector.
    pub resets: u64,
    /// Unanswered since the last settled answer.
    open: u64,
    /// When the newest refused packet was sent, and how many of `open` were settled since; where nothing was answered since.
    since_refused: Option<(Duration, u64)>,
    newest: Option<Newest>,
    /// Numbers of this life that arrived.
    seen: Window,
    /// Whether the reflector is known to count by itself: it said so, or its numbers are not ours.
    stateful: bool,
    /// Newest settled number, and its life.
    settled: Option<Mark>,
}

impl Fates {
    /// Given up, with the direction still open.
    pub const fn open(&self) -> u64 {
        self.open
    }

    /// The reflector is known to count by itself.
    pub const fn is_stateful(&mut self) {
        self.stateful = true;
    }

    /// Whether that is known.
    pub const fn knows_stateful(&self) -> bool {
        self.stateful
    }

    /// The first answer to packet `ours`, sent at `sent_at`, arrives with the reflector's number.
    pub fn answered(&mut self, ours: u64, number: u32, sent_at: Duration, now: Duration) -> Mark {
        let life = self.resets;
        let Some(newest) = self.newest else {
            let number = u64::from(number);
            self.stateful |= number != ours & u64::from(u32::MAX);
            self.seen.insert(number);
            self.newest = Some(Newest { number, at: now, ours });
            return Mark { life, number };
        };
        let step = replay::ahead(newest.number, number);
        // What was sent after a number had arrived must get a higher one, and not one that is further ahead than we are.
        let impossible = sent_at > newest.at && step <= 0;
        let ahead = step > ours.saturating_sub(newest.ours).cast_signed().saturating_add(AHEAD);
        if impossible || ahead || newest.number.checked_add_signed(step).is_none() {
            self.resets += 1;
            (self.newest, self.seen) = (None, Window::default());
            return self.answered(ours, number, sent_at, now);
        }
        let number = newest.number.saturating_add_signed(step);
        self.stateful |= number as u32 != ours as u32;
        if number > newest.number {
            self.newest = Some(Newest { number, at: now, ours: ours.max(newest.ours) });
        } else {
            // It left before one that is here already.
            self.receive.reordered += 1;
        }
        self.seen.insert(number);
        Mark { life, number }
    }

    /// One more answer to a packet that has one.
    pub fn answered_again(&mut self, first: Mark, number: u32) {
        let Some(newest) = self.newest.filter(|_| first.life == self.resets) else {
            self.receive.duplicated += 1;
            return;
        };
        let number = replay::extended(newest.number, number);
        if number == first.number || self.seen.place(number) == Place::Seen {
            self.receive.duplicated += 1;
        } else {
            // The reflector numbered it anew: our packet came there twice.
            self.transmit.duplicated += 1;
            self.stateful = true;
            self.seen.insert(number);
            self.newest = Some(Newest { number: number.max(newest.number), ..newest });
        }
    }

    /// The oldest packet is answered.
    pub fn settle_answered(&mut self, mark: Mark) {
        self.answered += 1;
        self.since_refused = None;
        self.transmit.sent += 1;
        self.receive.sent += 1;
        let missing = match self.settled {
            Some(before) if before.life == mark.life => {
                if mark.number <= before.number {
                    // Ours, sent later, got there earlier. What is open stays open: the numbers between say nothing of it.
                    self.transmit.reordered += 1;
                    return;
                }
                Some(self.unseen(mark.life, before.number + 1, mark.number))
            }
            // A reflector that began with this session numbers from 0.
            None if mark.life == 0 && mark.number <= self.open => Some(self.unseen(0, 0, mark.number)),
            _ => None,
        };
        self.settled = Some(mark);
        let open = std::mem::take(&mut self.open);
        match missing {
            Some(missing) if self.stateful => {
                let back = missing.min(open);
                self.receive.lost += back;
                self.receive.runs += u64::from(back > 0);
                self.receive.sent += back;
                self.transmit.lost += open - back;
                self.transmit.runs += u64::from(open > back);
                self.transmit.sent += open;
            }
            _ => self.unattributed += open,
        }
    }

    /// The oldest packet is given up.
    pub const fn settle_unanswered(&mut self) {
        self.open += 1;
        if let Some((_, since)) = &mut self.since_refused {
            *since += 1;
        }
    }

    /// The oldest packet, sent at `sent_at`, was refused, and with it what is unanswered since one that was refused shortly
    /// before.
    pub fn settle_refused(&mut self, sent_at: Duration) {
        if let Some((before, since)) = self.since_refused
            && sent_at.saturating_sub(before) <= REFUSAL_GAP
        {
            self.open -= since;
            self.refused += since;
        }
        self.refused += 1;
        self.since_refused = Some((sent_at, 0));
    }

    /// The oldest packet has only answers that do not validate.
    pub const fn settle_mismatched(&mut self) {
        self.mismatched += 1;
        self.since_refused = None;
    }

    /// Numbers from `low` up to, not with, `high` that did not arrive.
    fn unseen(&self, life: u64, low: u64, high: u64) -> u64 {
        if life != self.resets {
            // The window has begun anew since: all that can be said is how many there were.
            return high.saturating_sub(low);
        }
        let zero = u64::from(low == 0 && high > 0 && self.seen.place(0) != Place::Seen);
        self.seen.unseen_between(low.saturating_sub(1), high) + zero
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(ms: u64) -> Duration {
        Duration::from_millis(1000 + ms)
    }

    /// What happens to one packet.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Fate {
        Answered,
        LostThere,
        LostBack,
        TwiceThere,
        TwiceBack,
    }

    /// Plays packets 100 ms apart, 10 ms there and back; each is settled as soon as its fate is sealed.
    fn play(fates: &mut Fates, reflector: &mut u32, from: u64, packets: &[Fate]) -> u64 {
        for (i, fate) in packets.iter().enumerate() {
            let (ours, sent) = (from + i as u64, at((from + i as u64) * 100));
            let number = *reflector;
            if *fate != Fate::LostThere {
                *reflector = reflector.wrapping_add(1);
            }
            match fate {
                Fate::LostThere | Fate::LostBack => fates.settle_unanswered(),
                _ => {
                    let mark = fates.answered(ours, number, sent, sent + Duration::from_millis(10));
                    if *fate == Fate::TwiceBack {
                        fates.answered_again(mark, number);
                    }
                    if *fate == Fate::TwiceThere {
                        fates.answered_again(mark, *reflector);
                        *reflector = reflector.wrapping_add(1);
                    }
                    fates.settle_answered(mark);
                }
            }
        }
        from + packets.len() as u64
    }

    fn fate() -> impl Strategy<Value = Fate> {
        prop_oneof![
            6 => Just(Fate::Answered),
            1 => Just(Fate::LostThere),
            1 => Just(Fate::LostBack),
            1 => Just(Fate::TwiceThere),
            1 => Just(Fate::TwiceBack),
        ]
    }

    #[test]
    fn a_restart_of_the_reflector_is_no_loss() {
        let mut fates = Fates::default();
        fates.is_stateful();
        let next = play(&mut fates, &mut 0, 0, &[Fate::Answered; 50]);
        let next = play(&mut fates, &mut 50, next, &[Fate::LostThere; 7]);
        play(&mut fates, &mut 0, next, &[Fate::Answered; 50]);
        assert_eq!((fates.resets, fates.unattributed, fates.answered), (1, 7, 100));
        assert_eq!((fates.transmit.lost, fates.receive.lost), (0, 0));
    }

    #[test]
    fn what_is_unanswered_between_refusals_was_refused() {
        let mut fates = Fates::default();
        fates.is_stateful();
        play(&mut fates, &mut 0, 0, &[Fate::Answered; 50]);
        // One of ten is told so, as a kernel does; then nothing for long, and one more.
        for ours in 50..81 {
            if ours % 10 == 0 { fates.settle_refused(at(ours * 100)) } else { fates.settle_unanswered() }
        }
        assert_eq!((fates.refused, fates.open()), (31, 0));
        (0..40).for_each(|_| fates.settle_unanswered());
        fates.settle_refused(at(12_100));
        assert_eq!((fates.refused, fates.open()), (32, 40), "too far apart");
        // The reflector is back, and numbers from 0.
        play(&mut fates, &mut 0, 122, &[Fate::Answered; 5]);
        assert_eq!((fates.resets, fates.unattributed, fates.refused), (1, 40, 32));
        assert_eq!((fates.transmit.lost, fates.receive.lost), (0, 0));
    }

    #[test]
    fn a_session_that_is_older_than_ours_is_no_loss_either() {
        let mut fates = Fates::default();
        fates.settle_unanswered();
        play(&mut fates, &mut 77_000, 1, &[Fate::Answered, Fate::LostBack, Fate::Answered]);
        assert_eq!((fates.unattributed, fates.receive.lost, fates.transmit.lost), (1, 1, 0));
    }

    #[test]
    fn a_stateless_reflector_tells_no_direction() {
        let mut fates = Fates::default();
        for ours in 0..100_u64 {
            if ours % 10 == 5 {
                fates.settle_unanswered();
            } else {
                let mark = fates.answered(ours, ours as u32, at(ours * 100), at(ours * 100 + 10));
                fates.settle_answered(mark);
            }
        }
        assert_eq!((fates.unattributed, fates.answered, fates.resets), (10, 90, 0));
        assert_eq!((fates.transmit.lost, fates.receive.lost), (0, 0));
    }

    #[test]
    fn what_overtakes_is_not_lost() {
        let mut fates = Fates::default();
        fates.is_stateful();
        // 1 and 2 change places on the way there, 4 and 5 on the way back.
        let arrivals = [(0, 0), (2, 1), (1, 2), (3, 3), (5, 5), (4, 4), (6, 6)];
        let mut marks: Vec<_> = arrivals
            .iter()
            .map(|(ours, number)| (*ours, fates.answered(*ours, *number, at(0), at(100))))
            .collect();
        marks.sort_by_key(|(ours, _)| *ours);
        for (_, mark) in marks {
            fates.settle_answered(mark);
        }
        assert_eq!((fates.transmit.reordered, fates.receive.reordered), (1, 1));
        assert_eq!((fates.transmit.lost, fates.receive.lost, fates.resets), (0, 0, 0));
    }

    proptest! {
        #[test]
        fn every_packet_is_told_in_the_right_direction(
            packets in proptest::collection::vec(fate(), 1..400), wraps: bool
        ) {
            let mut fates = Fates::default();
            fates.is_stateful();
            let begin = if wraps { u64::from(u32::MAX) - 100 } else { 0 };
            let mut reflector = begin as u32;
            // One answered before and after, so that every run has two ends.
            let next = play(&mut fates, &mut reflector, begin, &[Fate::Answered]);
            let next = play(&mut fates, &mut reflector, next, &packets);
            play(&mut fates, &mut reflector, next, &[Fate::Answered]);
            let count = |fate: Fate| packets.iter().filter(|f| **f == fate).count() as u64;
            prop_assert_eq!(fates.transmit.lost, count(Fate::LostThere));
            prop_assert_eq!(fates.receive.lost, count(Fate::LostBack));
            // Packets lost both ways in between are in runs of both.
            let runs = packets
                .split(|fate| !matches!(fate, Fate::LostThere | Fate::LostBack))
                .filter(|run| run.contains(&Fate::LostThere));
            prop_assert_eq!(fates.transmit.runs, runs.count() as u64);
            prop_assert_eq!(fates.transmit.duplicated, count(Fate::TwiceThere));
            prop_assert_eq!(fates.receive.duplicated, count(Fate::TwiceBack));
            prop_assert_eq!((fates.resets, fates.unattributed), (0, 0));
            prop_assert_eq!(fates.transmit.sent, packets.len() as u64 + 2);
        }
    }
}
