//! Relays: what they take in and put out, by their own count; and incident B, a relay that takes media in and lets none out,
//! with its healthy twin.
#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests are tests

use std::{
    net::{SocketAddr, UdpSocket},
    thread,
    time::Duration,
};

use graylag_tests::{
    agent::{Agent, Setup, Watch, about},
    calls::Answerer,
    eventually,
    every::Every20ms,
    metrics::Scrape,
    net::{Pair, address},
    proc::Process,
    rtp::Stream,
    turn::{self, Coturn, Session},
    udp,
};
use rustix::process::Signal;

const SOON: Duration = Duration::from_secs(20);
const TURN: &str = "turnserver";

fn agent(pair: &Pair) -> Agent {
    agent_that_learns(pair, "20s")
}

fn agent_that_learns(pair: &Pair, time: &str) -> Agent {
    let limits = "[limits]\nflows = 1024\npaths = 64";
    let media =
        format!("[media]\ninterfaces = [\"eth0\"]\n{limits}\n[thresholds]\nrelay_learning = \"{time}\"");
    Setup::watching(&[&pair.server]).inside(&pair.server).config(&media).start()
}

/// `(received, sent)` by the processes of a name.
fn balance(scrape: &Scrape, process: &str) -> (u64, u64) {
    let of = |direction| {
        let attributes = [("graylag.process", process), ("network.io.direction", direction)];
        scrape.sum("graylag.relay.packet.count", &attributes) as u64
    };
    (of("receive"), of("transmit"))
}

fn raised(watch: &Watch) -> Vec<String> {
    watch.raised().into_iter().map(|(name, target, blame)| format!("{name} {target} {blame}")).collect()
}

#[test]
fn coturn_is_counted_as_it_counts_itself() {
    const SESSIONS: u32 = 20;
    const PACKETS: u64 = 200;
    let pair = Pair::new();
    let agent = agent(&pair);
    let coturn = Coturn::start(&pair.server);
    let mut sessions: Vec<Session> = (0..SESSIONS).map(|i| Session::begin(&pair, i)).collect();
    for _ in 0..PACKETS {
        for session in &mut sessions {
            session.send(true, true);
        }
        thread::sleep(Duration::from_millis(5));
    }
    // Each request has an answer.
    let requests: u64 = sessions.iter().map(|session| session.requests + 1).sum();
    let all = 2 * u64::from(SESSIONS) * PACKETS;
    eventually("everything has come", SOON, || (balance(&agent.scrape(), TURN).0 == all).then_some(()));
    // What is counted as sent is what coturn says it sent, all of it or not.
    thread::sleep(Duration::from_secs(1));
    let counted = balance(&agent.scrape(), TURN);
    sessions.into_iter().for_each(Session::end);
    let of_coturn = eventually("coturn sums up", SOON, || {
        let usage = coturn.usage();
        (usage.sessions == u64::from(SESSIONS)).then_some(usage)
    });
    assert_eq!(counted, (of_coturn.received - requests, of_coturn.sent - requests));
    assert!(counted.1 * 1000 >= all * 999, "{counted:?}");
}

/// Real peers, relayed only: what coturn is seen to take in and put out is what they say they received, twice, for each packet
/// crosses it from one's allocation to the other's.
#[test]
fn real_calls_through_coturn_balance() {
    const CALLS: usize = 10;
    let pair = Pair::new();
    let agent = agent(&pair);
    let _coturn = Coturn::start(&pair.server);
    let turn = SocketAddr::new(address::SERVER_V4, turn::PORT);
    let answerer = Answerer::through(&pair.client, Some(turn));
    let there = answerer.call(&pair, CALLS, CALLS, 8).ended();
    assert!(there.iter().all(|call| call.state == "connected"), "{there:?}");
    let here = eventually("all have ended", SOON, || {
        let all = answerer.received();
        (all.len() == CALLS).then_some(all)
    });
    let heard: u64 = there.iter().chain(&here).map(|call| call.received).sum();
    thread::sleep(Duration::from_secs(1));
    let (received, sent) = balance(&agent.scrape(), TURN);
    let near = |n: u64| n.abs_diff(2 * heard) * 50 <= 2 * heard;
    assert!(heard > 5000 && near(received) && near(sent), "{received} in, {sent} out, {heard} heard");
}

fn relays_media(agent: &Agent, process: &str) {
    eventually("media is relayed", SOON, || (balance(&agent.scrape(), process).1 > 1000).then_some(()));
}

/// Incident B.
#[test]
fn a_relay_that_stands_still_is_found_blamed_and_clears_when_it_goes_on() {
    let pair = Pair::new();
    let agent = agent(&pair);
    let coturn = Coturn::start(&pair.server);
    let watch = Watch::start(&agent);
    let _calls = turn::calls(&pair, 20);
    relays_media(&agent, TURN);
    thread::sleep(Duration::from_secs(3));
    assert_eq!(raised(&watch), Vec::<String>::new());
    coturn.process.signal(Signal::STOP);
    let condition = eventually("it is found", SOON, || {
        agent.conditions().into_iter().find(|condition| condition.name == "relay_stall")
    });
    assert_eq!(condition.blame, "local_process");
    assert_eq!(condition.target.process.as_deref(), Some(TURN));
    assert_eq!(condition.target.pid, Some(coturn.process.id()));
    assert!(condition.evidence.text.contains("does not read"), "{}", condition.evidence.text);
    agent.until(SOON, &1, |s| s.sum("graylag.relay.stalled", &[("graylag.process", TURN)]) as u64);
    coturn.process.signal(Signal::CONT);
    eventually("it is cleared", SOON, || {
        agent.conditions().iter().all(|condition| condition.name != "relay_stall").then_some(())
    });
    agent.until(SOON, &0, |s| s.sum("graylag.relay.stalled", &[("graylag.process", TURN)]) as u64);
}

/// A relay of our own: what it does is ours to choose.
struct Relay {
    _process: Process,
    control: UdpSocket,
    _load: Every20ms,
}

impl Relay {
    const CALLS: u16 = 12;

    fn start(pair: &Pair) -> Self {
        let (listen, target) = (address::SERVER_V4, address::CLIENT_V4);
        let mut command = pair.server.command(env!("CARGO_BIN_EXE_relay"));
        command.args([listen.to_string(), target.to_string(), Self::CALLS.to_string()]);
        let process = Process::start(&mut command);
        let control = udp::sender(&pair.server, SocketAddr::new(listen, 6999));
        let ports = 7000..7000 + Self::CALLS;
        let ends: Vec<(UdpSocket, UdpSocket)> = ports
            .map(|port| {
                let caller = udp::sender(&pair.client, SocketAddr::new(listen, port));
                caller.set_nonblocking(true).unwrap();
                let called = udp::bind(&pair.client, target, port, 1 << 20);
                called.connect(SocketAddr::new(listen, port)).unwrap();
                (caller, called)
            })
            .collect();
        let load = Every20ms::start(move |number| {
            for (i, (caller, called)) in ends.iter().enumerate() {
                let _ = caller.send(&Stream::audio(i as u32).packet(number));
                let _ = called.send(&Stream::audio(1000 + i as u32).packet(number));
                udp::drain(caller);
                udp::drain(called);
            }
        });
        Self { _process: process, control, _load: load }
    }

    fn tell(&self, what: &str) {
        self.control.send(what.as_bytes()).unwrap();
    }
}

/// Incident B, the other way: it reads and no longer sends.
#[test]
fn a_relay_that_reads_and_does_not_send_is_found_and_told_apart() {
    let pair = Pair::new();
    let agent = agent(&pair);
    let watch = Watch::start(&agent);
    let relay = Relay::start(&pair);
    relays_media(&agent, "relay");
    // It has to be known for what it is.
    thread::sleep(Duration::from_secs(22));
    assert_eq!(raised(&watch), Vec::<String>::new());
    relay.tell("mute");
    let condition = eventually("it is found", SOON, || {
        agent.conditions().into_iter().find(|condition| condition.name == "relay_stall")
    });
    assert!(about(&condition).starts_with("relay"), "{}", about(&condition));
    assert_eq!(condition.blame, "local_process");
    assert!(condition.evidence.text.contains("reads and does not send"), "{}", condition.evidence.text);
    relay.tell("speak");
    eventually("it is cleared", SOON, || {
        agent.conditions().iter().all(|condition| condition.name != "relay_stall").then_some(())
    });
}

/// A relay of which a part fails: one that no longer reads some of its sockets, and one that drops half of what it read.
#[test]
fn a_part_of_a_relay_that_fails_is_found() {
    let pair = Pair::new();
    let agent = agent_that_learns(&pair, "4s");
    let watch = Watch::start(&agent);
    let relay = Relay::start(&pair);
    relays_media(&agent, "relay");
    thread::sleep(Duration::from_secs(22));
    assert_eq!(raised(&watch), Vec::<String>::new());
    for (fault, how) in [("deaf", "part of it does not read"), ("half", "part of it reads and does not send")]
    {
        relay.tell(fault);
        let condition = eventually(fault, SOON, || {
            agent.conditions().into_iter().find(|condition| condition.name == "relay_stall")
        });
        assert!(about(&condition).starts_with("relay"), "{}", about(&condition));
        assert_eq!(condition.blame, "local_process");
        assert!(condition.evidence.text.contains(how), "{fault}: {}", condition.evidence.text);
        relay.tell("speak");
        eventually("it is cleared", SOON, || {
            agent.conditions().iter().all(|condition| condition.name != "relay_stall").then_some(())
        });
    }
}

/// The healthy twin of all: callers that mute, calls that come and go, bursts, a relay that is started anew.
#[test]
fn a_relay_that_works_is_silent() {
    let pair = Pair::new();
    let agent = agent_that_learns(&pair, "2s");
    let watch = Watch::start(&agent);
    let mut coturn = Coturn::start(&pair.server);
    for round in 0..2 {
        let mut sessions: Vec<Session> = (0..20).map(|i| Session::begin(&pair, 100 * round + i)).collect();
        for number in 0..800u64 {
            let muted = |i: usize| number % 400 > 200 && i.is_multiple_of(3);
            for (i, session) in sessions.iter_mut().enumerate() {
                session.send(!muted(i), true);
                if number % 100 == 50 {
                    (0..20).for_each(|_| session.send(true, true));
                }
                session.drain();
            }
            if number % 50 == 25 && sessions.len() > 2 {
                sessions.swap_remove(0).end();
            }
            if number % 100 == 75 {
                sessions.push(Session::begin(&pair, 10_000 * round + number as u32));
            }
            thread::sleep(Duration::from_millis(20));
        }
        drop(coturn);
        coturn = Coturn::start(&pair.server);
    }
    relays_media(&agent, TURN);
    assert_eq!(raised(&watch), Vec::<String>::new());
}
