//! Exchanges that come more slowly than they should, where the configuration says how many there should be.
#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests are tests

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use graylag_tests::{
    agent::{Setup, Watch},
    eventually,
    every::Every20ms,
    net::{Pair, address},
    traffic::{Echo, ask, connect},
};

const PORT: u16 = 26257;
const SOON: Duration = Duration::from_secs(60);

#[test]
fn a_sweeper_that_slows_down_is_told() {
    let pair = Pair::new();
    let service = "[[service]]\nname = \"sweeps\"\nremote_ports = [26257]\nrate_floor = 600";
    let agent = Setup::watching(&[&pair.client]).config(service).start();
    let watch = Watch::start(&agent);
    let echo = Echo::start(&pair.server, address::SERVER_V4, PORT);
    let mut stream = connect(&pair.client, echo.address.ip(), PORT).unwrap();
    // One exchange in so many turns of 20 ms.
    let every = Arc::new(AtomicU64::new(2));
    let _sweeper = Every20ms::start({
        let every = every.clone();
        move |number| {
            if number % every.load(Ordering::Relaxed) == 0 {
                ask(&mut stream, 10).unwrap();
            }
        }
    });
    // The twin: some twenty a second.
    thread::sleep(Duration::from_secs(15));
    assert_eq!(watch.raised(), []);
    every.store(25, Ordering::Relaxed);
    eventually("it is told", SOON, || (!watch.raised().is_empty()).then_some(()));
    let told = ("rate_low".to_owned(), "sweeps".to_owned(), "local_process".to_owned());
    assert_eq!(watch.raised(), [told]);
    let condition = agent.conditions().remove(0);
    assert!(
        condition.evidence.text.ends_with("where there should be 10.0 a second"),
        "{}",
        condition.evidence.text
    );
    every.store(2, Ordering::Relaxed);
    eventually("it is over", SOON, || agent.conditions().is_empty().then_some(()));
}
