//! Incident B: from a relay's standstill to `/v1/watch`, and back.

use std::{
    thread,
    time::{Duration, Instant},
};

use rustix::process::Signal;

use super::{Options, Section, Spread, Table, feed::Feed};
use crate::{
    agent::Setup,
    net::Pair,
    turn::{self, Coturn},
};

/// Calls through the relay; each is 50 packets a second each way.
const CALLS: u32 = 20;
const CONFIG: &str = "[media]\ninterfaces = [\"eth0\"]\n[limits]\nflows = 1024";

/// Adds this part's figures.
pub fn add(options: &Options, section: &mut Section) {
    let count = options.number(10, 3);
    let rounds: Vec<(f64, f64)> = (0..count).filter_map(|_| round()).collect();
    let spread = |of: fn(&(f64, f64)) -> f64| Spread::of(&rounds.iter().map(of).collect::<Vec<_>>());
    let (Some(raised), Some(cleared)) = (spread(|r| r.0), spread(|r| r.1)) else {
        section.remark("B: nothing was reported.");
        return;
    };
    let mut table = Table::new(["coturn", "runs", "seconds, median", "least", "most"]);
    for (what, spread) in [("SIGSTOP to raised", &raised), ("SIGCONT to cleared", &cleared)] {
        table.row([what.to_owned()].into_iter().chain(spread.cells(count)));
    }
    section
        .table(format!("B: {CALLS} calls through coturn, {} RTP packets a second in:", CALLS * 100), table);
    section.goal("relay stall within 500 ms", raised.seconds(), raised.n == count && raised.most <= 0.5);
    section.goal(
        "cleared within 1 s of resuming",
        cleared.seconds(),
        cleared.n == count && cleared.most <= 1.0,
    );
}

/// One agent, one standstill: a condition that comes back takes longer to clear.
fn round() -> Option<(f64, f64)> {
    let pair = Pair::new();
    let agent = Setup::watching(&[&pair.server]).inside(&pair.server).config(CONFIG).start();
    let feed = Feed::open(&agent);
    let coturn = Coturn::start(&pair.server);
    let _calls = turn::calls(&pair, CALLS);
    thread::sleep(Duration::from_secs(4));
    standstill(&feed, &coturn)
}

fn standstill(feed: &Feed, coturn: &Coturn) -> Option<(f64, f64)> {
    let began = Instant::now();
    coturn.process.signal(Signal::STOP);
    let raised = wait(|| feed.raised(|condition| condition.name == "relay_stall"));
    // Long enough for queues to fill.
    thread::sleep(Duration::from_secs(1));
    let ended = Instant::now();
    coturn.process.signal(Signal::CONT);
    let raised = raised?;
    let cleared = wait(|| feed.cleared(|condition| condition.name == "relay_stall"))?;
    Some(((raised - began).as_secs_f64(), cleared.saturating_duration_since(ended).as_secs_f64()))
}

fn wait(mut probe: impl FnMut() -> Option<Instant>) -> Option<Instant> {
    let start = Instant::now();
    loop {
        let found = probe();
        if found.is_some() || start.elapsed() > Duration::from_secs(10) {
            return found;
        }
        thread::sleep(Duration::from_millis(10));
    }
}
