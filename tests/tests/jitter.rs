//! Jitter, beside what aiortc says of the same stream.
//!
//! A program of its own, for aiortc goes by the time at which it looks at a packet: on a machine that other tests keep busy that says
//! more of the machine than of the way. `netem.rs` has the same beside the kernel's own times of arrival.
#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests are tests

use std::time::Duration;

use graylag_tests::{agent::Setup, calls::Answerer, eventually, net::Pair};

const SOON: Duration = Duration::from_secs(20);
const SECONDS: u32 = 16;
/// Every other packet leaves so much later than the one before.
const LATE: Duration = Duration::from_millis(16);

/// Seconds, of one call: by graylag and by aiortc.
fn jitter(late: Duration) -> (f64, f64) {
    let pair = Pair::new();
    let media = "[media]\ninterfaces = [\"eth0\"]\n[limits]\nflows = 256\npaths = 64";
    let agent = Setup::watching(&[&pair.server]).inside(&pair.server).config(media).start();
    let answerer = Answerer::start(&pair.server);
    let received = [("network.io.direction", "receive")];
    let sum = || {
        let scrape = agent.scrape();
        let name = "graylag.rtp.jitter";
        (scrape.count(name, &received), scrape.sum(&format!("{name}_seconds_sum"), &received))
    };
    let call = answerer.call_late(&pair, 1, 1, SECONDS, late);
    // The clock is learned first; then it comes near, as aiortc's does.
    eventually("there is jitter", SOON, || (sum().0 >= 5.0).then_some(()));
    let before = sum();
    let there = call.ended();
    assert_eq!(there[0].state, "connected");
    let here = eventually("it has ended", SOON, || answerer.received().first().cloned());
    let after = sum();
    assert!(after.0 - before.0 >= 10.0, "{before:?} {after:?}");
    ((after.1 - before.1) / (after.0 - before.0), here.jitter)
}

#[test]
fn jitter_is_within_a_millisecond_of_what_aiortc_says() {
    for (late, least) in [(LATE, 0.01), (Duration::ZERO, 0.0)] {
        let (ours, theirs) = jitter(late);
        println!("{late:?} late: graylag {ours}, aiortc {theirs}");
        assert!(theirs >= least, "{theirs}: the fault is there");
        assert!((ours - theirs).abs() < 0.001, "{late:?} late: graylag {ours}, aiortc {theirs}");
    }
}
