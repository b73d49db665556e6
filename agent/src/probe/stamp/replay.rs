//! A window over sequence numbers: which were there already.
//!
//! It moves only when it is told to accept a number, that is, after its packet's digest verified: what anybody can send must
//! not move it. And it is forgotten when nothing was accepted for twice the detection time, as `bfd.AuthSeqKnown` is (RFC 5880,
//! 6.8.1), so that a peer that restarted is taken for what it is and not for a replay.

use std::time::Duration;

/// Numbers remembered behind the newest.
pub const WIDTH: u64 = 1024;
const WORDS: usize = WIDTH as usize / 64;

/// What a number is to the window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Not there yet.
    Fresh,
    /// There already.
    Seen,
    /// Too far behind to know.
    Old,
}

/// Which of the last [`WIDTH`] numbers were there.
#[derive(Clone, Debug, Default)]
pub struct Window {
    /// The newest, where there is any.
    top: Option<u64>,
    /// Bit `n % WIDTH` for number `n`.
    bits: [u64; WORDS],
}

impl Window {
    /// What this number is to it. Changes nothing.
    pub const fn place(&self, number: u64) -> Place {
        match self.top {
            Some(top) if number <= top && top - number >= WIDTH => Place::Old,
            Some(top) if number <= top && self.bit(number) => Place::Seen,
            _ => Place::Fresh,
        }
    }

    /// Remembers a number. One that is too old is not.
    pub fn insert(&mut self, number: u64) {
        match self.top {
            Some(top) if number <= top => {
                if top - number >= WIDTH {
                    return;
                }
            }
            Some(top) if number - top < WIDTH => (top + 1..=number).for_each(|n| self.set(n, false)),
            _ => self.bits = [0; WORDS],
        }
        self.top = Some(self.top.map_or(number, |top| top.max(number)));
        self.set(number, true);
    }

    /// The newest number.
    pub const fn top(&self) -> Option<u64> {
        self.top
    }

    /// Numbers strictly between two that were not there. Those too old to know count as not there.
    pub fn unseen_between(&self, low: u64, high: u64) -> u64 {
        let between = high.saturating_sub(low).saturating_sub(1);
        let known_from = (low + 1).max(self.top.unwrap_or(0).saturating_sub(WIDTH - 1));
        let seen = (known_from..high).filter(|n| self.place(*n) == Place::Seen).count() as u64;
        between.saturating_sub(seen)
    }

    const fn bit(&self, number: u64) -> bool {
        let at = (number % WIDTH) as usize;
        self.bits[at / 64] >> (at % 64) & 1 == 1
    }

    const fn set(&mut self, number: u64, value: bool) {
        let at = (number % WIDTH) as usize;
        if value {
            self.bits[at / 64] |= 1 << (at % 64);
        } else {
            self.bits[at / 64] &= !(1 << (at % 64));
        }
    }
}

/// A session's detection time is this many of its intervals.
const DETECTION_INTERVALS: u32 = 3;
/// Bounds of the time after which a silent session's window is forgotten.
const FORGET: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// A window over numbers of 32 bits that is forgotten when silent.
#[derive(Clone, Debug, Default)]
pub struct Replay {
    window: Window,
    /// When a number was last accepted, and how long after the one before.
    accepted: Option<(Duration, Duration)>,
}

impl Replay {
    /// What this number is, at this time. Changes nothing but the memory of what is silent too long.
    pub fn place(&mut self, number: u32, now: Duration) -> Place {
        if let Some((at, gap)) = self.accepted {
            let detection = gap * DETECTION_INTERVALS;
            if now.saturating_sub(at) >= (detection * 2).clamp(FORGET.0, FORGET.1) {
                *self = Self::default();
            }
        }
        self.window.place(self.extended(number))
    }

    /// Accepts a number, whose digest verified.
    pub fn accept(&mut self, number: u32, now: Duration) {
        let gap = self.accepted.map_or(Duration::ZERO, |(at, _)| now.saturating_sub(at));
        self.accepted = Some((now, gap));
        self.window.insert(self.extended(number));
    }

    /// The number with the wraps it has behind it: the nearest to the newest one.
    fn extended(&self, number: u32) -> u64 {
        // Begins one wrap up, so that numbers behind the first have a place.
        let Some(top) = self.window.top() else { return (1 << 32) + u64::from(number) };
        extended(top, number)
    }
}

/// The number with these low 32 bits that is nearest to another.
pub fn extended(near: u64, number: u32) -> u64 {
    near.saturating_add_signed(ahead(near, number))
}

/// How far these low 32 bits are ahead of another number's; below zero where they are behind.
pub fn ahead(of: u64, number: u32) -> i64 {
    i64::from(number.wrapping_sub(of as u32).cast_signed())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use proptest::prelude::*;

    const NOW: Duration = Duration::from_secs(100);

    fn at(ms: u64) -> Duration {
        NOW + Duration::from_millis(ms)
    }

    #[test]
    fn a_number_is_fresh_once() {
        let mut replay = Replay::default();
        assert_eq!(replay.place(7, NOW), Place::Fresh);
        assert_eq!(replay.place(7, NOW), Place::Fresh, "asking changes nothing");
        replay.accept(7, NOW);
        assert_eq!(replay.place(7, NOW), Place::Seen);
        replay.accept(5000, NOW);
        assert_eq!((replay.place(7, NOW), replay.place(4000, NOW)), (Place::Old, Place::Fresh));
    }

    #[test]
    fn numbers_wrap() {
        let mut replay = Replay::default();
        replay.accept(u32::MAX, NOW);
        assert_eq!(replay.place(0, NOW), Place::Fresh);
        replay.accept(0, NOW);
        assert_eq!(
            (replay.place(u32::MAX, NOW), replay.place(u32::MAX - 1, NOW)),
            (Place::Seen, Place::Fresh)
        );
    }

    #[test]
    fn a_restart_is_held_against_nobody_for_long() {
        let mut replay = Replay::default();
        for i in 0..20_u32 {
            replay.accept(100_000 + i, at(u64::from(i) * 500));
        }
        // It begins anew at 0, and goes on every half second: twice the detection time is 3 s.
        assert_eq!(replay.place(0, at(9_500 + 2_999)), Place::Old);
        assert_eq!(replay.place(1, at(9_500 + 3_000)), Place::Fresh);
    }

    proptest! {
        #[test]
        fn it_knows_what_a_set_knows(numbers in proptest::collection::vec(0u64..3000, 1..400)) {
            let mut window = Window::default();
            let mut set = BTreeSet::new();
            for n in numbers {
                let newest = set.last().copied();
                let expected = if set.contains(&n) { Place::Seen } else { Place::Fresh };
                let old = newest.is_some_and(|top: u64| top >= n + WIDTH);
                prop_assert_eq!(window.place(n), if old { Place::Old } else { expected });
                if !old {
                    window.insert(n);
                    set.insert(n);
                }
                let top = *set.last().unwrap();
                let low = top.saturating_sub(WIDTH - 1).max(1) - 1;
                let unseen = (low + 1..top).filter(|n| !set.contains(n)).count() as u64;
                prop_assert_eq!(window.unseen_between(low, top), unseen);
            }
        }
    }
}
