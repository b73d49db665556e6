//! Delays of one session. Of a thousand sessions none is in a processor's cache when its next answer comes, and three distributions
//! are many lines of it: an answer is noted in one place, and sixteen together go where they belong.

use std::time::Duration;

use crate::model::StampDelays;

/// A difference of delays beyond this is a clock that was set, not a delay.
const CLOCK_WAS_SET: i64 = 10_000_000_000;
/// Answers that are noted.
const NOTES: usize = 16;

/// Nanoseconds: of the round trip, and of the difference of the one-way delays from the packet's before, there and back; below 0
/// where there is none.
type Note = [i64; 3];

/// Delays of a session.
#[derive(Clone, Debug, Default)]
pub struct Measured {
    notes: [Note; NOTES],
    noted: usize,
    rest: Box<StampDelays>,
}

impl Measured {
    /// One more round trip; `variation` is the difference of the one-way delays, there and back, from those of the packet before.
    pub fn add(&mut self, round_trip: Duration, variation: Option<(i64, i64)>) {
        let nanos = |difference: i64| if difference.abs() < CLOCK_WAS_SET { difference.abs() } else { -1 };
        let (there, back) = variation.map_or((-1, -1), |(there, back)| (nanos(there), nanos(back)));
        if let Some(note) = self.notes.get_mut(self.noted) {
            *note = [i64::try_from(round_trip.as_nanos()).unwrap_or(i64::MAX), there, back];
            self.noted += 1;
        }
        if self.noted == NOTES {
            enter(&self.notes, &mut self.rest);
            self.noted = 0;
        }
    }

    /// All of them.
    pub fn all(&self) -> StampDelays {
        let mut all = StampDelays::clone(&self.rest);
        enter(self.notes.get(..self.noted).unwrap_or_default(), &mut all);
        all
    }
}

fn enter(notes: &[Note], delays: &mut StampDelays) {
    for note in notes {
        let places = [&mut delays.round_trip, &mut delays.variation_transmit, &mut delays.variation_receive];
        for (place, nanos) in places.into_iter().zip(note) {
            if let Ok(nanos) = u64::try_from(*nanos) {
                place.record(Duration::from_nanos(nanos));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_missing_at_any_time() {
        let mut measured = Measured::default();
        for n in 1..100_u64 {
            let variation = (n > 1).then_some((-5_000, CLOCK_WAS_SET));
            measured.add(Duration::from_micros(n), variation);
            let all = measured.all();
            assert_eq!(all.round_trip.distribution.count(), n);
            assert_eq!(all.round_trip.most, Some(Duration::from_micros(n)));
            assert_eq!(all.variation_transmit.distribution.count(), n - 1);
            assert_eq!(all.variation_transmit.least, (n > 1).then(|| Duration::from_micros(5)));
            assert!(all.variation_receive.distribution.is_empty(), "a clock that was set");
        }
    }
}
