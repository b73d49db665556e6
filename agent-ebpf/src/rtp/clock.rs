//! Clocks: the units of time here, the rates of RTP timestamps, and what a static payload type says about them.

/// Unit of arrival times in nanoseconds. A power of two near a microsecond: the kernel then shifts and need not divide.
pub const UNIT_NS: u64 = 1 << UNIT_BITS;
const UNIT_BITS: u32 = 10;

/// Arrival time of a monotonic time.
#[inline(always)]
pub const fn units(ns: u64) -> u32 {
    (ns >> UNIT_BITS) as u32
}

/// The time of arrival of the packet at hand, in units of [`UNIT_NS`] modulo 2³², at two prices.
pub trait Time {
    /// Late by up to a tick of the kernel.
    fn coarse(&mut self) -> u32;
    /// Exact.
    fn exact(&mut self) -> u32;
    /// Who else is timed, and when this stream is: where very many packets come, streams take turns at the exact clock.
    fn turns(&self) -> Turns {
        Turns::default()
    }
}

/// Streams that take turns at the clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Turns {
    /// Of so many streams and one more, one at a time has its turn: a power of two less one, 0 where none has to wait.
    pub others: u32,
    /// The stream's place among them; any number, the same for all its packets.
    pub place: u32,
}

impl Turns {
    /// A turn lasts 2¹⁸ units, a quarter of a second: some packets of any stream of media.
    const BITS: u32 = 18;
    /// Length of a turn in units of [`UNIT_NS`].
    pub const LENGTH: u32 = 1 << Self::BITS;
    /// Most that may wait: then a stream is timed every four seconds, sooner than it would be taken for one that is over
    /// ([`super::Cursor::is_over`]), or a step for a pause.
    pub const MOST_OTHERS: u32 = 15;

    /// Whether it is the stream's turn at `now`, coarse.
    #[inline(always)]
    pub const fn is_on(self, now: u32) -> bool {
        (now >> Self::BITS).wrapping_add(self.place) & self.others == 0
    }
}

/// Clock rates in Hz by index; 0 is "not known". These are what audio and video are sent with (RFC 3551, RFC 7587, and
/// RTP payload formats for video, which all take 90,000).
pub const RATES: [u32; 8] = [0, 8_000, 16_000, 24_000, 32_000, 44_100, 48_000, 90_000];

/// Units per tick of each clock, as a binary fraction of 16 bits.
const SCALES: [u32; 8] = {
    let mut scales = [0; 8];
    let mut i = 1;
    while i < 8 {
        let rate = RATES[i] as u64;
        scales[i] = (((1_000_000_000 << (16 - UNIT_BITS)) + rate / 2) / rate) as u32;
        i += 1;
    }
    scales
};

/// Index of a clock rate.
pub const fn index_of(rate: u32) -> Option<u8> {
    let mut i = 1;
    while i < RATES.len() {
        if RATES[i] == rate {
            return Some(i as u8);
        }
        i += 1;
    }
    None
}

/// How long `ticks` of clock `index` last, in units.
#[inline(always)]
pub const fn ticks_to_units(ticks: i32, index: u8) -> i64 {
    (ticks as i64 * SCALES[(index & 7) as usize] as i64) >> 16
}

/// Clock index by payload type, for types that RFC 3551 §6 assigns for good; 0 where it has to be learned.
pub const fn of_payload_type() -> [u8; 128] {
    let mut clocks = [0; 128];
    let mut i = 0;
    while i < 35 {
        // 1, 2, 19 to 24, 27, 29 and 30 are reserved or unassigned; 16 and 17 have rates of their own.
        clocks[i] = match i {
            0 | 3 | 4 | 5 | 7 | 8 | 9 | 12 | 13 | 15 | 18 => 1,
            6 => 2,
            10 | 11 => 5,
            14 | 25 | 26 | 28 | 31 | 32 | 33 | 34 => 7,
            _ => 0,
        };
        i += 1;
    }
    clocks
}

/// Shortest time a rate is learned from: a second.
const LEARN: u32 = units(1_000_000_000);
/// Longest: then learning begins anew.
const LEARN_MOST: u32 = units(5_000_000_000);

/// What a longer look at a stream's timestamps says about its clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Learned {
    /// Wait for more.
    NotYet,
    /// They fit no clock: begin anew.
    Nothing,
    /// Index of the clock.
    Clock(u8),
}

/// Which clock advances by `ticks` in `elapsed` units, to about 3 %: neighbouring rates are at least 8 % apart, a
/// packet of one second ago may have been 30 ms late.
#[inline(always)]
pub fn learn(ticks: u32, elapsed: u32) -> Learned {
    if elapsed < LEARN {
        return Learned::NotYet;
    }
    if elapsed < LEARN_MOST && (ticks as i32) > 0 {
        let mut i = 1;
        while i < 8 {
            let off = ticks_to_units(ticks as i32, i) - i64::from(elapsed);
            if off.unsigned_abs() <= u64::from(elapsed >> 5) {
                return Learned::Clock(i);
            }
            i += 1;
        }
        return Learned::NotYet;
    }
    Learned::Nothing
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn static_payload_types() {
        let clocks = of_payload_type();
        assert_eq!(RATES[usize::from(clocks[0])], 8000, "PCMU");
        assert_eq!(RATES[usize::from(clocks[9])], 8000, "G722 says 8000 and means 16000 (RFC 3551 §4.5.2)");
        assert_eq!(RATES[usize::from(clocks[34])], 90_000, "H263");
        assert!(clocks[96..].iter().all(|c| *c == 0), "dynamic");
    }

    proptest! {
        #[test]
        fn ticks_last_what_the_rate_says(ticks: i32, index in 1u8..8) {
            let exact = f64::from(ticks) / f64::from(RATES[usize::from(index)]) * 1e9 / UNIT_NS as f64;
            let got = ticks_to_units(ticks, index) as f64;
            prop_assert!((got - exact).abs() <= 1.0 + exact.abs() * 2e-6, "{got} {exact}");
        }

        /// Two packets, each up to 15 ms off its time.
        #[test]
        fn a_second_or_more_of_any_clock_is_recognised(
            index in 1u8..8, ms in 1000u64..4900, early in 0u64..15, late in 0u64..15,
        ) {
            let ticks = u64::from(RATES[usize::from(index)]) * ms / 1000;
            let elapsed = units((ms + late).saturating_sub(early).max(1001) * 1_000_000);
            prop_assert_eq!(learn(ticks as u32, elapsed), Learned::Clock(index));
        }

        #[test]
        fn whatever_is_learned_fits(ticks: u32, elapsed: u32) {
            if let Learned::Clock(index) = learn(ticks, elapsed) {
                let rate = f64::from(ticks) / (f64::from(elapsed) * UNIT_NS as f64 / 1e9);
                prop_assert!((rate / f64::from(RATES[usize::from(index)]) - 1.0).abs() < 0.033);
            }
        }
    }
}
