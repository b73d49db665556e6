//! Sessions on their way to media, with real WebRTC peers; and incident C, a node whose sessions do not become active, with its
//! healthy twin.
#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests are tests

use std::{thread, time::Duration};

use graylag::model::status::ConditionStatus;
use graylag_tests::{
    agent::{Agent, Setup, Watch},
    calls::Answerer,
    eventually,
    metrics::Scrape,
    net::Pair,
    nft::Nft,
};

const SOON: Duration = Duration::from_secs(30);
/// The server's flight, wherever it stands in a datagram: records of the handshake from the host that answers.
const SERVER_FLIGHT: &str = "meta l4proto udp @th,64,8 22";

/// An agent that takes what it sees for new: sessions of its first seconds may be older than it is.
fn agent(pair: &Pair) -> Agent {
    let media = "[media]\ninterfaces = [\"eth0\"]\n[limits]\nflows = 1024\npaths = 64";
    let agent = Setup::watching(&[&pair.server]).inside(&pair.server).config(media).start();
    thread::sleep(Duration::from_secs(21));
    agent
}

fn sessions(scrape: &Scrape, stage: &str, outcome: &str) -> u64 {
    let attributes = [("graylag.media.stage", stage), ("graylag.outcome", outcome)];
    scrape.sum("graylag.media.activation.count", &attributes) as u64
}

fn activation(agent: &Agent) -> Option<ConditionStatus> {
    agent.conditions().into_iter().find(|condition| condition.name == "media_activation")
}

fn raised(watch: &Watch) -> Vec<String> {
    watch.raised().into_iter().map(|(name, ..)| name).collect()
}

/// Twenty calls at once, with loss on the way in: what graylag counts is what aiortc says of the same streams.
#[test]
fn twenty_calls_become_active_and_fare_as_aiortc_says() {
    const CALLS: usize = 20;
    let pair = Pair::new();
    let agent = agent(&pair);
    let watch = Watch::start(&agent);
    let answerer = Answerer::start(&pair.server);
    let nft = Nft::new(&pair.client);
    // One in thirty of the media, for checks, keys and reports are not what is compared.
    nft.apply(
        "add rule inet t out meta l4proto udp @th,64,2 2 @th,72,8 != 192-223 numgen random mod 30 == 0 drop",
    );
    let back = answerer.call(&pair, CALLS, CALLS, 12).ended();
    assert!(back.iter().all(|call| call.state == "connected"), "{back:?}");
    agent.until(SOON, &CALLS as _, |scrape| sessions(scrape, "rtp", "active") as usize);
    let here = eventually("all have ended here", SOON, || {
        let all = answerer.received();
        (all.len() == CALLS).then_some(all)
    });
    let (received, lost): (u64, i64) =
        here.iter().fold((0, 0), |(r, l), call| (r + call.received, l + call.lost));
    let scrape = agent.scrape();
    let of = |name: &str| scrape.sum(name, &[("network.io.direction", "receive")]);
    let (counted, missed) = (of("graylag.rtp.packet.count"), of("graylag.rtp.packet.lost"));
    let (theirs, ours) = (lost as f64 / (received as f64 + lost as f64), missed / (counted + missed));
    assert!(lost > 100, "{lost} of {received}: the fault is there");
    assert!((ours - theirs).abs() < 0.001, "graylag {ours}, aiortc {theirs}");
    assert!(!raised(&watch).contains(&"media_activation".to_owned()), "{:?}", raised(&watch));
}

/// Incident C: the flight of the server, which is this host, reaches nobody; after it has reached everybody.
#[test]
fn sessions_that_all_stop_at_their_keys_are_found_and_the_way_out_is_blamed() {
    let pair = Pair::new();
    let agent = agent(&pair);
    let watch = Watch::start(&agent);
    let answerer = Answerer::start(&pair.server);
    answerer.call(&pair, 8, 8, 1).ended();
    agent.until(SOON, &8, |scrape| sessions(scrape, "rtp", "active"));
    assert_eq!(raised(&watch), Vec::<String>::new());
    let nft = Nft::new(&pair.client);
    nft.rule("flight", SERVER_FLIGHT, "drop");
    let failing = answerer.call(&pair, 8, 8, 1);
    let condition = eventually("it is found", SOON, || activation(&agent));
    assert_eq!((condition.blame.as_str(), condition.target.process.clone()), ("path_transmit", None));
    assert!(condition.evidence.text.contains("stopped at dtls"), "{}", condition.evidence.text);
    assert!(failing.ended().iter().all(|call| call.state != "connected"));
    assert_eq!(sessions(&agent.scrape(), "dtls", "failed"), 8);
    nft.heal();
    answerer.call(&pair, 30, 8, 1).ended();
    eventually("it is cleared", SOON, || activation(&agent).is_none().then_some(()));
    assert_eq!(raised(&watch), ["media_activation"]);
}

/// Half of them: those whose port is odd.
#[test]
fn sessions_of_which_half_stop_are_found() {
    let pair = Pair::new();
    let agent = agent(&pair);
    let answerer = Answerer::start(&pair.server);
    let nft = Nft::new(&pair.client);
    nft.rule("flight", &format!("{SERVER_FLIGHT} udp dport & 1 == 1"), "drop");
    let calls = answerer.call(&pair, 40, 10, 1);
    let condition = eventually("it is found", Duration::from_secs(60), || activation(&agent));
    assert!(condition.evidence.bad >= 6, "{}", condition.evidence.text);
    drop(calls);
}
