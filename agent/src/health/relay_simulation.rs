//! Seeded simulation of processes that carry media and sometimes, rightly, send nothing: is `relay_stall` silent?

use std::time::Duration;

use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::{
    Settings,
    relay::{RelayStall, Sample},
};
use crate::model::{Phase, RelayCounts};

const LOOK: Duration = Duration::from_millis(100);
const SECOND: f64 = 10.0;
const HOUR: u32 = 36_000;

/// Whether something that happens every so many looks on average happens in this one.
fn happens(rng: &mut StdRng, every: f64) -> bool {
    rng.random_bool((1.0 / every).min(1.0))
}

/// A stream of voice has five packets in a look, give or take one.
fn voice(rng: &mut StdRng, streams: u64) -> u64 {
    (0..streams).map(|_| rng.random_range(4..=6)).sum()
}

/// How often it was raised.
fn alarms(looks: u32, mut look: impl FnMut() -> (u64, u64, u64)) -> u32 {
    let (settings, mut detector, mut alarms) = (Settings::default(), RelayStall::default(), 0);
    for i in 0..looks {
        let (received, sent, sources) = look();
        let counts = RelayCounts { received, sent, dropped: 0 };
        let sample = Sample { elapsed: LOOK, counts, queued: 768 * received.min(3), sources };
        let before = detector.look(&settings, LOOK * (i + 1), sample);
        alarms += u32::from(before.is_some() && detector.life().phase() == Phase::Raised);
    }
    alarms
}

/// Assistants that listen while their callers speak: media comes in all the time and goes out half of it. One process with one
/// to forty of them, for two hours each, five times over: 120 hours, in which some four hundred would raise one alarm.
#[test]
fn assistants_that_listen_are_no_stalled_relays() {
    let mut all = 0;
    for (seed, sessions) in
        (0..5).flat_map(|seed| [1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 24, 40].map(|n| (seed, n)))
    {
        let mut rng = StdRng::seed_from_u64(1000 * seed + sessions);
        let mut speaks = vec![true; sessions as usize];
        all += alarms(2 * HOUR, || {
            for speaks in &mut speaks {
                *speaks =
                    if *speaks { !happens(&mut rng, 4.0 * SECOND) } else { happens(&mut rng, 5.0 * SECOND) };
            }
            let speaking = speaks.iter().filter(|speaks| **speaks).count() as u64;
            (voice(&mut rng, sessions), voice(&mut rng, speaking), sessions)
        });
    }
    assert!(all <= 1, "{all}");
}

/// Meetings that begin, fill, empty and end on a forwarding server of one to eight rooms, and people who wait alone in theirs;
/// for four hours each. What one sends goes to all others in the room.
#[test]
fn rooms_that_empty_are_no_stalled_relays() {
    for rooms in [1, 2, 3, 5, 8] {
        let mut rng = StdRng::seed_from_u64(100 + rooms as u64);
        let mut people = vec![0u64; rooms];
        let n = alarms(4 * HOUR, || {
            for people in &mut people {
                // Somebody comes every 20 s, stays for a minute, and now and then a meeting is over for all but one.
                if happens(&mut rng, 20.0 * SECOND) && *people < 8 {
                    *people += 1;
                }
                *people -= (0..*people).filter(|_| happens(&mut rng, 60.0 * SECOND)).count() as u64;
                if *people > 1 && happens(&mut rng, 120.0 * SECOND) {
                    *people = 1;
                }
            }
            let inside: u64 = people.iter().sum();
            let out: u64 = people.iter().map(|n| n * n.saturating_sub(1)).sum();
            (voice(&mut rng, inside), voice(&mut rng, out), inside)
        });
        assert_eq!(n, 0, "{rooms} rooms");
    }
}

/// A relay of calls that come and go, whose callers are mute a third of the time, stands still for a tenth of a second now and
/// then: a collection of garbage, another process on its processor.
#[test]
fn a_relay_with_hiccups_is_not_stalled() {
    for calls in [2, 10, 60] {
        let mut rng = StdRng::seed_from_u64(calls);
        let (mut active, mut owed) = (calls, 0);
        let n = alarms(4 * HOUR, || {
            if happens(&mut rng, 2.0 * SECOND) {
                active = (active + rng.random_range(0..=2)).saturating_sub(1).clamp(calls / 2, 2 * calls);
            }
            let received = voice(&mut rng, active + active / 3);
            let (hiccup, sent) = (happens(&mut rng, 10.0 * SECOND), received + owed);
            owed = if hiccup { sent } else { 0 };
            (received, if hiccup { 0 } else { sent }, active + active / 3)
        });
        assert_eq!(n, 0, "{calls} calls");
    }
}

/// A forwarding server of one to five rooms whose people stay, and turn their cameras off and on, a third of the packets of each:
/// what goes out changes more than what comes in, for everybody in the room gets it.
#[test]
fn cameras_that_are_turned_off_are_no_collapse() {
    for rooms in [1, 2, 5] {
        let mut rng = StdRng::seed_from_u64(500 + rooms as u64);
        let sizes: Vec<u64> = (0..rooms).map(|_| rng.random_range(3..=12)).collect();
        let mut cameras: Vec<Vec<bool>> = sizes.iter().map(|n| vec![true; *n as usize]).collect();
        let n = alarms(4 * HOUR, || {
            let (mut received, mut sent) = (0, 0);
            for (size, cameras) in sizes.iter().zip(&mut cameras) {
                for camera in cameras {
                    if happens(&mut rng, 90.0 * SECOND) {
                        *camera = !*camera;
                    }
                    let packets = voice(&mut rng, if *camera { 3 } else { 2 });
                    received += packets;
                    sent += packets * (size - 1);
                }
            }
            (received, sent, sizes.iter().sum())
        });
        assert_eq!(n, 0, "{rooms} rooms");
    }
}

/// The same, where it no longer forwards the large pictures that nobody looks at, though they go on coming in: half of what goes out to
/// one of the room's people, for a minute or so.
#[test]
fn pictures_that_nobody_looks_at_are_told_of_once() {
    let mut all = 0;
    for seed in 0..5 {
        let mut rng = StdRng::seed_from_u64(700 + seed);
        let mut hidden = [false; 10];
        all += alarms(4 * HOUR, || {
            let mut sent = 0;
            let received = voice(&mut rng, 30);
            for hidden in &mut hidden {
                if happens(&mut rng, if *hidden { 60.0 } else { 120.0 } * SECOND) {
                    *hidden = !*hidden;
                }
                sent += received * if *hidden { 5 } else { 9 } / 10;
            }
            (received, sent, 20)
        });
    }
    assert!(all <= 1, "{all}");
}
