//! Seeded simulation of the media detectors: are the delays and false-alarm rates of docs/verdicts.md true?

use std::time::Duration;

use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::{
    Cusum, Settings,
    loss::{PathLoss, Sample},
    one_way::OneWay,
};
use crate::model::{Flows, Phase};

const LOOK: Duration = Duration::from_millis(500);

/// One look at a path of `packets`, `share` of which begin a burst of loss, bursts of `mean` packets.
fn look(rng: &mut StdRng, packets: u64, share: f64, mean: f64) -> Sample {
    let mut sample = Sample::default();
    let mut left = packets as f64;
    loop {
        // Packets until the next event: exponential, which at small shares is geometric.
        left -= -(1.0 - rng.random::<f64>()).ln() / share;
        if left < 0.0 {
            break;
        }
        sample.events += 1;
        sample.lost += 1;
        while mean > 1.0 && rng.random_bool(1.0 - 1.0 / mean) {
            sample.lost += 1;
        }
    }
    sample.arrived = packets.saturating_sub(sample.lost);
    sample
}

/// Eight paths for an hour, at the share of events that is still normal, in bursts of three: 7 × 10⁷ packets.
#[test]
fn an_hour_of_bursty_loss_at_a_thousandth_raises_nothing() {
    for seed in 0..8 {
        let (mut rng, settings, mut detector) =
            (StdRng::seed_from_u64(seed), Settings::default(), PathLoss::default());
        for i in 0..7200 {
            let sample = look(&mut rng, 1250, settings.loss.p0, 3.0);
            detector.look(&settings, LOOK * i, sample);
            assert_eq!(detector.life().phase(), Phase::Cleared, "seed {seed}, look {i}");
        }
    }
}

fn packets_to_alarm(share: f64) -> f64 {
    let (mut rng, test, runs) = (StdRng::seed_from_u64(5), Settings::default().loss, 1000);
    let total: u64 = (0..runs)
        .map(|_| {
            let mut cusum = Cusum::default();
            (1..10_000_000)
                .find(|_| {
                    let bad = u64::from(rng.random_bool(share));
                    cusum.observe(&test, 1 - bad, bad);
                    cusum.alarmed(&test)
                })
                .unwrap_or(u64::MAX)
        })
        .sum();
    total as f64 / f64::from(runs)
}

#[test]
fn two_and_five_percent_are_found_when_the_document_says() {
    let (two, five) = (packets_to_alarm(0.02), packets_to_alarm(0.05));
    assert!((400.0..=560.0).contains(&two), "{two}");
    assert!((140.0..=200.0).contains(&five), "{five}");
}

/// Twenty calls for a day of looks, each muted or on hold a third of the time on its own: silence of one direction while the other
/// goes on. There are looks at which most are muted; that so many become so within a few seconds is what does not happen.
#[test]
fn a_day_of_muted_callers_is_silent() {
    let (mut rng, settings, mut detector) =
        (StdRng::seed_from_u64(9), Settings::default(), OneWay::default());
    // Since which look each is muted.
    let mut muted: [Option<u32>; 20] = [None; 20];
    for i in 0..172_800 {
        for caller in &mut muted {
            // On average half a minute of silence and a minute of talk.
            *caller = match *caller {
                Some(since) => (!rng.random_bool(1.0 / 60.0)).then_some(since),
                None => rng.random_bool(1.0 / 120.0).then_some(i),
            };
        }
        let one_way = muted.iter().flatten().count() as u64;
        let fell = muted.iter().flatten().filter(|since| i - **since < 7).count() as u64;
        detector.look(&settings, LOOK * i, Flows { fresh: 20 - one_way, one_way, fell });
        assert_eq!(detector.life().phase(), Phase::Cleared, "look {i}");
    }
}
