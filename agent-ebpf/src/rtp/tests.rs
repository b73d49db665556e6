//! The stream state against a model that keeps everything and thinks in sets.

use std::{
    collections::{BTreeMap, BTreeSet},
    vec::Vec,
};

use proptest::prelude::*;

use super::{
    Cursor, Event, Header, MAX_DROPOUT, MAX_MISORDER, Sink, Tally, Time, Turns, WINDOW, accept, accept_next,
    clock::{RATES, UNIT_NS, index_of, units},
    state,
};

/// Two streams of one flow may come within a tick of the kernel: the second sees the time as it was before the first.
#[test]
fn a_stream_is_not_over_because_it_came_in_this_very_tick() {
    const SECOND: u64 = 1_000_000_000;
    for at in [0, 20, 3_000_000_000_000_u64] {
        let cursor = Cursor { state: state::VALID, arrival: units(at + 4_000_000), ..Cursor::default() };
        assert!(!cursor.is_over(units(at)), "{at}");
        assert!(!cursor.is_over(units(at + 9 * SECOND)), "{at}");
        assert!(cursor.is_over(units(at + 11 * SECOND)), "{at}");
    }
}

/// Sums up what is reported: events, and bursts by length.
#[derive(Clone, Debug, Default, PartialEq)]
struct Sum {
    received: u32,
    missed: u32,
    late: u32,
    duplicated: u32,
    stale: u32,
    restarts: u32,
    bursts: BTreeMap<u32, i64>,
}

impl Sink for Sum {
    fn count(&mut self, event: Event, n: u32) {
        *match event {
            Event::Missed => &mut self.missed,
            Event::Late => &mut self.late,
            Event::Duplicated => &mut self.duplicated,
            Event::Stale => &mut self.stale,
            Event::Restart => &mut self.restarts,
            Event::Received => &mut self.received,
        } += n;
    }

    fn burst(&mut self, length: u32, n: i64) {
        *self.bursts.entry(length).or_default() += n;
        self.bursts.retain(|_, n| *n != 0);
    }
}

struct At(u64);

impl Time for At {
    fn coarse(&mut self) -> u32 {
        units(self.0 & !0x3f_ffff) // a tick of four milliseconds
    }
    fn exact(&mut self) -> u32 {
        units(self.0)
    }
}

/// The code under test, with everything it reported summed up.
#[derive(Default)]
struct Stream {
    cursor: Cursor,
    tally: Tally,
    total: Sum,
}

impl Stream {
    fn take(&mut self, sequence: u16) {
        self.take_packet(&Header { sequence, ..Header::default() }, 0, 0);
    }

    fn take_packet(&mut self, header: &Header, clock: u8, at_ns: u64) {
        let mut before = self.cursor;
        let time = &mut At(at_ns);
        let quick = accept_next(&mut self.cursor, header, time);
        let tally = self.tally;
        let sum = self.total.clone();
        let newest = accept(&mut before, &mut self.tally, header, |_| clock, time, &mut self.total);
        if quick {
            // The long way comes to the same.
            assert_eq!((before, tally, newest), (self.cursor, self.tally, true));
            assert_eq!(self.total, Sum { received: sum.received + 1, ..sum });
        }
        self.cursor = before;
    }
}

/// What is expected of it, by the definitions.
#[derive(Default)]
struct Model {
    /// Numbers of the stream since it last began, extended; empty before the first packet.
    seen: BTreeSet<i64>,
    valid: bool,
    candidate: Option<u16>,
    /// Of numberings that are over.
    earlier: Totals,
    duplicated: u32,
    stale: u32,
    restarts: u32,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Totals {
    received: u32,
    lost: u32,
    bursts: BTreeMap<u32, i64>,
}

/// The difference of two numbers, modulo 2¹⁶, as the nearer of the two ways round.
fn signed(number: u16, from: i64) -> i64 {
    i64::from(number.wrapping_sub(from as u16) as i16)
}

impl Model {
    fn highest(&self) -> i64 {
        *self.seen.last().unwrap()
    }

    fn begin(&mut self, number: u16) {
        self.seen = BTreeSet::from([0x1_0000 + i64::from(number)]);
    }

    fn take(&mut self, number: u16) {
        if self.seen.is_empty() {
            return self.begin(number);
        }
        let step = signed(number, self.highest());
        let near = (-i64::from(WINDOW) + 1..=i64::from(WINDOW)).contains(&step);
        if !self.valid {
            if near && step != 0 {
                self.valid = true;
                self.place(step);
            } else if near {
                self.duplicated += 1;
            } else {
                self.duplicated = 0;
                self.begin(number);
            }
        } else if (-i64::from(MAX_MISORDER)..=i64::from(MAX_DROPOUT)).contains(&step) {
            if self.candidate.take().is_some() {
                self.stale += 1;
            }
            self.place(step);
        } else if let Some(candidate) = self.candidate {
            let step = signed(number, i64::from(candidate));
            if (-i64::from(WINDOW) + 1..=i64::from(WINDOW)).contains(&step) {
                if step != 0 {
                    self.earlier = self.totals();
                    self.begin(candidate);
                    self.candidate = None;
                    self.restarts += 1;
                    self.place(step);
                }
            } else {
                self.stale += 1;
                self.candidate = Some(number);
            }
        } else {
            self.candidate = Some(number);
        }
    }

    fn place(&mut self, step: i64) {
        let number = self.highest() + step;
        if step <= -i64::from(WINDOW) {
            self.stale += 1;
        } else if !self.seen.insert(number) {
            self.duplicated += 1;
        }
    }

    /// Received, lost, and bursts of all numberings.
    fn totals(&self) -> Totals {
        let mut totals = self.earlier.clone();
        if !self.valid {
            return totals;
        }
        totals.received += self.seen.len() as u32;
        let (first, last) = (*self.seen.first().unwrap(), self.highest());
        totals.lost += (last - first + 1) as u32 - self.seen.len() as u32;
        let mut run = 0;
        for number in first..=last {
            if !self.seen.contains(&number) {
                run += 1;
            } else if run > 0 {
                *totals.bursts.entry(run).or_default() += 1;
                run = 0;
            }
        }
        totals
    }
}

fn check(stream: &Stream, model: &Model) -> Result<(), TestCaseError> {
    let expected = model.totals();
    let got = Totals {
        received: stream.total.received,
        lost: stream.total.missed - stream.total.late,
        bursts: stream.total.bursts.clone(),
    };
    prop_assert_eq!(got, expected);
    prop_assert_eq!(stream.total.stale, model.stale);
    prop_assert_eq!(stream.total.restarts, model.restarts);
    if model.valid {
        prop_assert_eq!(stream.total.duplicated, model.duplicated);
        prop_assert_eq!(stream.cursor.highest as u16, model.highest() as u16);
        let tally = &stream.tally;
        prop_assert_eq!(
            (tally.missed, tally.late, tally.duplicated, tally.stale),
            (stream.total.missed, stream.total.late, stream.total.duplicated, stream.total.stale),
            "what the stream keeps is what it reported"
        );
        prop_assert_eq!(i64::from(tally.bursts), stream.total.bursts.values().sum::<i64>());
        let lengths: i64 = stream.total.bursts.iter().map(|(length, n)| i64::from(*length) * n).sum();
        prop_assert_eq!(lengths, i64::from(tally.missed - tally.late));
        prop_assert_eq!(stream.cursor.received, stream.total.received);
    }
    Ok(())
}

/// A stream as a network may deliver it: packet `i` comes after at most `reorder` later ones.
fn delivered() -> impl Strategy<Value = (u16, Vec<u16>)> {
    let packet = (0u8..100, 0u32..WINDOW, 0u32..WINDOW);
    (any::<u16>(), 0u8..30, 0u8..20, 1u32..WINDOW, proptest::collection::vec(packet, 70..1500)).prop_map(
        |(first, loss, copies, reorder, packets)| {
            let mut arrivals: Vec<(u32, u16)> = Vec::new();
            for (i, (dice, delay, delay_of_copy)) in packets.into_iter().enumerate() {
                let number = first.wrapping_add(i as u16);
                let at = |delay: u32| i as u32 + delay % reorder;
                // The first ones arrive, so that the stream has a beginning.
                if dice >= loss || i < WINDOW as usize {
                    arrivals.push((at(delay), number));
                }
                if dice % 20 < copies {
                    arrivals.push((at(delay_of_copy), number));
                }
            }
            arrivals.sort_by_key(|(at, _)| *at);
            (first, arrivals.into_iter().map(|(_, number)| number).collect())
        },
    )
}

/// Anything at all: steps of every size, with a liking for the bounds.
fn steps() -> impl Strategy<Value = Vec<i32>> {
    let (window, misorder, dropout) = (WINDOW as i32, MAX_MISORDER as i32, MAX_DROPOUT as i32);
    let step = prop_oneof![
        20 => Just(1),
        5 => -3..4,
        3 => -window - 2..window + 3,
        2 => 0..200,
        1 => dropout - 3..dropout + 4,
        1 => -misorder - 3..-misorder + 4,
        1 => -40_000..40_000,
    ];
    proptest::collection::vec(step, 1..400)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn loss_duplication_and_any_order_within_the_window_are_counted_exactly((first, arrivals) in delivered()) {
        let (mut stream, mut model) = (Stream::default(), Model::default());
        for number in &arrivals {
            stream.take(*number);
            model.take(*number);
        }
        check(&stream, &model)?;
        // And without the model: what arrived, and what did not.
        let unique: BTreeSet<u16> = arrivals.iter().map(|n| n.wrapping_sub(first)).collect();
        let range = u32::from(unique.last().unwrap() - unique.first().unwrap()) + 1;
        prop_assert_eq!(stream.total.received as usize, unique.len());
        prop_assert_eq!(stream.total.missed - stream.total.late, range - unique.len() as u32);
        prop_assert_eq!(stream.total.duplicated as usize, arrivals.len() - unique.len());
        prop_assert_eq!((stream.total.stale, stream.total.restarts), (0, 0));
    }

    #[test]
    fn any_sequence_of_numbers_is_counted_as_the_model_does(first: u16, steps in steps()) {
        let (mut stream, mut model) = (Stream::default(), Model::default());
        let mut number = i64::from(first);
        for step in steps {
            number += i64::from(step);
            stream.take(number as u16);
            model.take(number as u16);
            check(&stream, &model)?;
        }
    }

    #[test]
    fn random_numbers_never_make_a_valid_stream_lose_more_than_they_can(numbers: Vec<u16>) {
        let mut stream = Stream::default();
        for number in &numbers {
            stream.take(*number);
            prop_assert!(stream.total.missed - stream.total.late <= numbers.len() as u32 * MAX_DROPOUT);
        }
    }

    /// Jitter of RFC 3550 A.8 in floating point, over packets that bring a new timestamp.
    #[test]
    fn jitter_agrees_with_the_rfc(
        rate in prop::sample::select(&RATES[1..]),
        packets in proptest::collection::vec((0u64..60_000, 1u32..4, any::<bool>()), 20..300),
        start: u32,
        epoch in 0u64..1 << 50,
    ) {
        let clock = index_of(rate).unwrap();
        let (mut stream, mut sequence, mut timestamp, mut sent_us) = (Stream::default(), 0u16, start, 0u64);
        let (mut jitter, mut previous): (f64, Option<(f64, u32)>) = (0.0, None);
        for (delay_us, frames, repeat) in packets {
            if !repeat {
                timestamp = timestamp.wrapping_add(frames * rate / 50);
                sent_us += u64::from(frames) * 20_000;
            }
            let arrived_ns = epoch + (sent_us + delay_us) * 1000;
            let header = Header { sequence, timestamp, ..Header::default() };
            stream.take_packet(&header, clock, arrived_ns);
            sequence = sequence.wrapping_add(1);
            let arrived = arrived_ns as f64 / 1e9;
            match previous {
                Some((_, ts)) if ts == timestamp => continue,
                Some((at, ts)) => {
                    let sent = f64::from(timestamp.wrapping_sub(ts)) / f64::from(rate);
                    jitter += ((arrived - at - sent).abs() - jitter) / 16.0;
                }
                None => {}
            }
            previous = Some((arrived, timestamp));
        }
        let got = stream.cursor.jitter_ns() as f64 / 1e9;
        // A unit of rounding at each of the two arrivals, and half a sixteenth in the filter.
        prop_assert!((got - jitter).abs() < 3.0 * UNIT_NS as f64 / 1e9, "{got} {jitter}");
    }

    #[test]
    fn the_clock_is_learned_from_the_stream(
        index in 1usize..RATES.len(), frame_ms in prop::sample::select(&[10u64, 20, 33, 60][..]), start: u32,
        epoch in 0u64..1 << 50, delays in proptest::collection::vec(0u64..12_000_000, 700),
    ) {
        let mut stream = Stream::default();
        for (i, delay) in delays.into_iter().enumerate() {
            let sent_ms = i as u64 * frame_ms;
            let ticks = sent_ms * u64::from(RATES[index]) / 1000;
            let timestamp = start.wrapping_add(ticks as u32);
            let header = Header { sequence: i as u16, timestamp, ..Header::default() };
            stream.take_packet(&header, 0, epoch + sent_ms * 1_000_000 + delay);
        }
        prop_assert_eq!(usize::from(stream.cursor.clock), index);
        let jitter_ms = stream.cursor.jitter_ns() as f64 / 1e6;
        prop_assert!((1.0..9.0).contains(&jitter_ms), "{jitter_ms}: the mean of |a - b| is 4");
    }
}

#[test]
fn a_restart_is_no_loss() {
    let mut stream = Stream::default();
    (100..300).for_each(|n| stream.take(n));
    (40_000..40_100).for_each(|n| stream.take(n));
    assert_eq!(stream.total, Sum { received: 300, restarts: 1, ..Sum::default() });
}

#[test]
fn a_wrap_is_no_loss() {
    let mut stream = Stream::default();
    (65_000u32..66_000).chain(66_002..140_000).for_each(|n| stream.take(n as u16));
    assert_eq!((stream.total.missed, stream.total.received), (2, 74_998));
    assert_eq!(stream.total.bursts, BTreeMap::from([(2, 1)]));
    assert_eq!(stream.cursor.highest, 0x1_0000 + 139_999);
}

#[test]
fn one_packet_is_no_stream() {
    let mut stream = Stream::default();
    stream.take(7);
    stream.take(30_000);
    stream.take(12);
    assert_eq!(stream.total, Sum::default());
    assert_eq!(stream.cursor.state, state::PROBATION);
}

#[test]
fn a_stray_packet_disturbs_nothing() {
    let mut stream = Stream::default();
    (0..100).for_each(|n| stream.take(n));
    stream.take(30_000);
    (100..200).for_each(|n| stream.take(n));
    assert_eq!(stream.total, Sum { received: 200, stale: 1, ..Sum::default() });
}

/// As [`At`], where streams take turns.
struct InTurn(u64, Turns, u32);

impl Time for InTurn {
    fn coarse(&mut self) -> u32 {
        At(self.0).coarse()
    }
    fn exact(&mut self) -> u32 {
        self.2 += 1;
        units(self.0)
    }
    fn turns(&self) -> Turns {
        self.1
    }
}

proptest! {
    /// Of a stream of audio, of which every packet is delayed by up to `late_ms`, with a delay that besides goes up and down within
    /// seconds.
    #[test]
    fn in_turn_jitter_is_what_it_is_always_and_the_clock_is_read_as_seldom(
        others in prop::sample::select(&[1u32, 3, 7, 15][..]), place: u32, late_ms in 0u64..30, seed: u64,
    ) {
        const PACKETS: u32 = 30_000;
        let clock = index_of(48_000).unwrap();
        let (mut all, mut some) = (Cursor::default(), Cursor::default());
        let (mut tally, mut sink) = (Tally::default(), Sum::default());
        let (mut random, mut reads) = (seed, 0);
        let mut sums = [0, 0];
        for i in 0..PACKETS {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let swell = (f64::from(i % 250) / 250.0 * std::f64::consts::TAU).sin() * 20e6 + 20e6;
            let at = 1_000_000_000 + u64::from(i) * 20_000_000 + swell as u64 + (random >> 33) % (late_ms * 1_000_000 + 1);
            let header = Header { sequence: i as u16, timestamp: i.wrapping_mul(960), ..Header::default() };
            accept(&mut all, &mut tally, &header, |_| clock, &mut At(at), &mut sink);
            let mut time = InTurn(at, Turns { others, place }, 0);
            accept(&mut some, &mut Tally::default(), &header, |_| clock, &mut time, &mut Sum::default());
            reads += time.2;
            prop_assert!(!some.is_over(units(at)));
            if i > 1000 {
                sums[0] += all.jitter_ns();
                sums[1] += some.jitter_ns();
            }
        }
        let [all, some] = sums.map(|sum| sum as f64 / f64::from(PACKETS - 1001));
        prop_assert!((all - some).abs() < 0.15 * all + 20_000.0, "{all} {some}");
        let share = f64::from(reads) / f64::from(PACKETS) * f64::from(others + 1);
        prop_assert!((0.8..1.3).contains(&share), "{share}");
    }

    /// A packet a second, or fewer: a turn may pass without any.
    #[test]
    fn a_slow_stream_in_turn_is_not_taken_for_one_that_is_over(place: u32, interval_ms in 300u64..5_000) {
        let mut cursor = Cursor::default();
        let turns = Turns { others: Turns::MOST_OTHERS, place };
        for i in 0..200_u32 {
            let at = 1_000_000_000 + u64::from(i) * interval_ms * 1_000_000;
            let header = Header { sequence: i as u16, timestamp: i.wrapping_mul(960), ..Header::default() };
            prop_assert!(i == 0 || !cursor.is_over(units(at)), "{i}");
            let mut time = InTurn(at, turns, 0);
            accept(&mut cursor, &mut Tally::default(), &header, |_| 6, &mut time, &mut Sum::default());
        }
    }
}
