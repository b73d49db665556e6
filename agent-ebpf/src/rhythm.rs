//! How long the peer of one connection is usually silent, where it speaks of itself: a controller that dispatches, a server that
//! sends heartbeats.
//!
//! Silences between two arrivals of data are told apart by who ended them. Where this end sent only after most of the silence
//! had passed, what came is its answer, and says nothing of a rhythm; where it sent at once (an acknowledgement of what had come)
//! or not at all, the peer set the pace. What marks a timer is that silences end together: many are about as long as the longest
//! and none is longer. Chance does not do that: of silences at random the longest stands alone.

use bytemuck::{Pod, Zeroable};

/// Nanoseconds of a unit of silence, as a power of two: about a millisecond.
pub const UNIT_SHIFT: u32 = 20;
/// A shorter silence, in units, is a pause within a message: a quarter of a second.
const LEAST: u32 = 238;
/// So many silences of the usual length make a rhythm …
pub const TRUSTED: u16 = 20;
/// … where they are at least a fourth of all.
const SHARE: u16 = 4;
/// What was counted fades when there are so many.
const MOST: u16 = 256;
/// A rhythm that is not found in so many silences is looked for anew.
const PATIENCE: u16 = 64;

/// State of one connection, inside its kernel record.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Rhythm {
    /// When data last arrived (monotonic nanoseconds); 0 before.
    pub heard_ns: u64,
    /// The usual silence, in units of 2^[`UNIT_SHIFT`] nanoseconds; 0 while none is known.
    pub usual: u32,
    /// Silences about as long as that.
    pub kept: u16,
    /// All silences that count.
    pub silences: u16,
}

impl Rhythm {
    /// Data arrives at `now`. `asked_ns` is when this end began to ask for something that is not answered yet; 0 where it has not.
    #[inline(always)]
    pub const fn hears(&mut self, now: u64, asked_ns: u64) {
        let before = self.heard_ns;
        self.heard_ns = now;
        let ns = now.saturating_sub(before);
        let units = ns >> UNIT_SHIFT;
        if before == 0 || units < LEAST as u64 {
            return;
        }
        let silence = if units > (u32::MAX / 2) as u64 { u32::MAX / 2 } else { units as u32 };
        if self.kept >= TRUSTED && silence < self.usual / 8 {
            return; // it has more to say at once
        }
        self.silences += 1;
        let prompted = asked_ns.saturating_sub(before) > ns / 4;
        if !prompted {
            self.counts(silence);
        }
        if self.silences >= PATIENCE && self.kept < self.silences / 8 {
            (self.usual, self.kept, self.silences) = (0, 0, 0);
        } else if self.silences >= MOST {
            (self.kept, self.silences) = (self.kept / 2, self.silences / 2);
        }
    }

    #[inline(always)]
    const fn counts(&mut self, silence: u32) {
        let quarter = self.usual / 4;
        if silence > self.usual + quarter {
            // Once is an accident, and no new rhythm; again and again is.
            self.kept /= 2;
            if self.kept < TRUSTED / 4 {
                (self.usual, self.kept, self.silences) = (silence, 1, 1);
            }
        } else if silence >= self.usual - quarter {
            self.kept += 1;
        }
    }

    /// Whether it speaks regularly.
    #[inline(always)]
    pub const fn is_known(&self) -> bool {
        self.kept >= TRUSTED && self.kept >= self.silences / SHARE
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MS: u64 = 1_000_000;

    /// Silences in milliseconds, each ended by the peer.
    fn after(silences: impl IntoIterator<Item = u64>) -> Rhythm {
        let (mut rhythm, mut now) = (Rhythm::default(), MS);
        rhythm.hears(now, 0);
        for silence in silences {
            now += silence * MS;
            rhythm.hears(now, 0);
        }
        rhythm
    }

    fn usual_ms(rhythm: &Rhythm) -> u64 {
        (u64::from(rhythm.usual) << UNIT_SHIFT) / MS
    }

    #[test]
    fn a_heartbeat_is_known_after_twenty() {
        assert!(!after([5000; 19]).is_known());
        let rhythm = after([5000; 20]);
        assert!(rhythm.is_known());
        assert_eq!(usual_ms(&rhythm), 4999);
        let between = (0..400u64).map(|i| if i % 3 == 0 { 5000 } else { 900 + i });
        assert!(after(between).is_known(), "heartbeats, and more in between");
    }

    #[test]
    fn a_message_in_pieces_is_one() {
        let pieces = (0..400u64).map(|i| if i % 10 == 0 { 2000 } else { 3 });
        assert!(after(pieces).is_known());
        assert!(!after(std::iter::repeat_n(40, 4000)).is_known(), "a stream has no silences");
    }

    #[test]
    fn answers_make_no_rhythm() {
        let (mut rhythm, mut now) = (Rhythm::default(), MS);
        for _ in 0..400 {
            // A client that polls every two seconds and is answered at once.
            rhythm.hears(now + 5 * MS, now);
            now += 2000 * MS;
        }
        assert!(!rhythm.is_known());
    }

    #[test]
    fn who_acknowledges_what_came_has_not_asked() {
        let (mut rhythm, mut now) = (Rhythm::default(), MS);
        for _ in 0..40 {
            let asked = now + MS;
            now += 2000 * MS;
            rhythm.hears(now, asked);
        }
        assert!(rhythm.is_known());
    }

    #[test]
    fn one_long_silence_is_no_new_rhythm_and_many_are() {
        let once = || std::iter::repeat_n(1000, 60).chain([90_000]);
        assert_eq!(usual_ms(&after(once().chain([1000; 10]))), 999);
        let slower = after(once().chain([9000; 40]));
        assert!(slower.is_known() && usual_ms(&slower) == 8999, "{slower:?}");
    }

    proptest! {
        /// Whatever it hears, its counts stay within bounds and nothing overflows.
        #[test]
        fn counts_are_bounded(steps in proptest::collection::vec((0u64..u64::MAX / 4096, any::<u64>()), 1..2000)) {
            let (mut rhythm, mut now) = (Rhythm::default(), 1u64);
            for (step, asked) in steps {
                now = now.saturating_add(step >> (asked % 50));
                rhythm.hears(now, asked);
                prop_assert!(rhythm.silences < MOST && rhythm.kept <= rhythm.silences);
            }
        }
    }
}
