//! Seeded simulation: are the delays and false-alarm rates of docs/verdicts.md true, and does the judge as a whole behave?

use std::{collections::BTreeMap, time::Duration};

use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::{Bernoulli, Cusum, Judge, Settings, Shift, Standing};
use crate::model::{
    Blame, ConditionName, Counts, Direction, Distribution, Drops, HostTick, Outcome, Path, Pending, Phase,
    Role, Subject, SubjectTick, Tick, Transition, Transport,
};

const LOOK: Duration = Duration::from_millis(500);

fn stall() -> Bernoulli {
    Settings::default().stall
}

/// Trials until an alarm at a given share of bad ones, or `None` within `most`.
fn run_length(rng: &mut StdRng, share: f64, most: u64) -> Option<u64> {
    let (test, mut cusum) = (stall(), Cusum::default());
    (1..=most).find(|_| {
        let bad = u64::from(rng.random_bool(share));
        cusum.observe(&test, 1 - bad, bad);
        cusum.alarmed(&test)
    })
}

/// Exactly one alarm in 9.7·10⁷ attempts (Markov solution); three in 3·10⁷ would be one in 280 seeds.
#[test]
fn stall_false_alarms_are_rarer_than_one_in_ten_million() {
    let mut rng = StdRng::seed_from_u64(1);
    let (mut left, mut alarms) = (30_000_000, 0);
    while let Some(length) = run_length(&mut rng, stall().p0, left) {
        alarms += 1;
        left -= length;
    }
    assert!(alarms <= 2, "{alarms} false alarms in 3·10⁷ attempts");
}

#[test]
fn stall_at_eight_percent_is_found_within_about_120_attempts() {
    let mut rng = StdRng::seed_from_u64(2);
    let lengths: Vec<u64> = (0..4000).filter_map(|_| run_length(&mut rng, 0.08, 100_000)).collect();
    let mean = lengths.iter().sum::<u64>() as f64 / lengths.len() as f64;
    assert!((100.0..=118.0).contains(&mean), "mean {mean}");
}

/// A subject whose traffic the tests make up.
struct World {
    judge: Judge,
    rng: StdRng,
    at: Duration,
    transitions: Vec<Transition>,
}

fn subject(path: &str, role: Role) -> Subject {
    Subject { path: Path { peer: path.into(), address: None }, service: "tcp/443".into(), role }
}

impl World {
    fn new(seed: u64) -> Self {
        Self {
            judge: Judge::new(Settings::default(), BTreeMap::new()),
            rng: StdRng::seed_from_u64(seed),
            at: Duration::ZERO,
            transitions: Vec::new(),
        }
    }

    fn tick(&mut self, subjects: Vec<SubjectTick>, host: HostTick) {
        self.at += LOOK;
        let tick =
            Tick { at: self.at, elapsed: LOOK, late: Duration::ZERO, subjects, host, ..Tick::default() };
        self.transitions.extend(self.judge.observe(&tick));
    }

    fn lognormal(&mut self, median: f64, sigma: f64) -> Duration {
        // Box and Muller.
        let (u, v): (f64, f64) = (self.rng.random_range(1e-12..1.0), self.rng.random());
        let normal = (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos();
        Duration::from_secs_f64(median * (sigma * normal).exp())
    }

    /// `n` connections that work, with their data.
    fn healthy(&mut self, subject: &Subject, n: u64) -> SubjectTick {
        let mut counts = Counts::default();
        counts.outcomes[Outcome::Established as usize] = n;
        for _ in 0..n {
            let (handshake, response) = (self.lognormal(0.001, 0.5), self.lognormal(0.005, 0.8));
            counts.handshake.record(handshake);
            counts.rtt.record(handshake);
            counts.first_byte.record(response);
            counts.response.record(response);
        }
        (counts.segments_in, counts.segments_out) = (5 * n, 6 * n);
        SubjectTick { subject: subject.clone(), counts, pending: Pending::default() }
    }

    fn raised(&self) -> Vec<(ConditionName, String, Blame)> {
        self.transitions
            .iter()
            .filter(|t| t.to == Phase::Raised)
            .map(|t| (t.condition.key.name, t.condition.key.target.to_string(), t.condition.blame))
            .collect()
    }
}

/// Incident A1: two of six addresses let 8 % hang, each caller gives up after a second and tries again.
#[test]
fn two_of_six_addresses_are_found_and_blamed_and_clear_by_themselves() {
    let mut world = World::new(3);
    let paths: Vec<Subject> = (1..=6).map(|i| subject(&format!("10.77.1.{i}"), Role::Client)).collect();
    let mut attempts_before_alarm = BTreeMap::new();
    for look in 0..400 {
        let fault = (60..260).contains(&look);
        let mut ticks = Vec::new();
        for (i, path) in paths.iter().enumerate() {
            let mut tick = world.healthy(path, 0);
            for _ in 0..10 {
                if fault && i < 2 && world.rng.random_bool(0.08) {
                    tick.counts.outcomes[Outcome::Abandoned as usize] += 1;
                    tick.counts.handshake_failed.record(Duration::from_millis(999));
                } else {
                    let one = world.healthy(path, 1);
                    tick.counts.add(&one.counts);
                }
                if fault && world.judge.standing(path) != Standing::Troubled {
                    *attempts_before_alarm.entry(i).or_insert(0) += 1;
                }
            }
            ticks.push(tick);
        }
        world.tick(ticks, HostTick::default());
    }
    let raised = world.raised();
    assert_eq!(raised.len(), 2, "{raised:?}");
    for (name, target, blame) in raised {
        assert_eq!((name, blame), (ConditionName::HandshakeStall, Blame::PeerHost));
        assert!(target.starts_with("10.77.1.1 ") || target.starts_with("10.77.1.2 "), "{target}");
    }
    for i in 0..2 {
        assert!(attempts_before_alarm[&i] <= 240, "{attempts_before_alarm:?}");
    }
    assert_eq!(world.judge.conditions().count(), 0, "cleared by itself");
}

/// What is found of all in one look is blamed on what they share in that look, and not in the next.
#[test]
fn handshakes_that_hang_everywhere_at_once_are_this_hosts_from_the_first_word() {
    let mut world = World::new(13);
    let paths: Vec<Subject> = (1..=6).map(|i| subject(&format!("10.77.1.{i}"), Role::Client)).collect();
    for look in 0..70 {
        let ticks = paths.iter().map(|path| {
            let mut tick = world.healthy(path, if look < 60 { 10 } else { 0 });
            if look >= 60 {
                (0..10 * (look - 59)).for_each(|i| tick.pending.handshake.push(LOOK * (i / 10)));
            }
            tick
        });
        let ticks = ticks.collect();
        world.tick(ticks, HostTick::default());
    }
    let raised = world.raised();
    assert_eq!(raised.len(), 6, "{raised:?}");
    assert!(raised.iter().all(|(_, _, blame)| *blame == Blame::LocalHost), "{raised:?}");
}

/// The healthy twin, for a day of simulated time.
#[test]
fn a_healthy_day_is_silent() {
    let mut world = World::new(4);
    let paths: Vec<Subject> = (1..=3).map(|i| subject(&format!("10.77.1.{i}"), Role::Client)).collect();
    for look in 0..172_800u64 {
        let mut ticks = Vec::new();
        for path in &paths {
            // Busy and quiet hours, a pause of the service now and then.
            let n = 2 + (3.0 + 3.0 * (look as f64 / 27_500.0).sin()) as u64;
            let mut tick = world.healthy(path, n);
            if world.rng.random_bool(0.002) {
                for _ in 0..20 {
                    tick.counts.response.record(Duration::from_millis(700));
                }
            }
            if world.rng.random_bool(0.01) {
                tick.counts.outcomes[Outcome::Abandoned as usize] += 1;
                tick.counts.handshake_failed.record(Duration::from_millis(1500));
            }
            if world.rng.random_bool(0.02) {
                tick.counts.outcomes[Outcome::Refused as usize] += 3;
                (0..3).for_each(|_| tick.counts.handshake_failed.record(Duration::from_millis(1)));
            }
            ticks.push(tick);
        }
        let drops = vec![Drops {
            reason: "QDISC_DROP".into(),
            direction: Direction::Transmit,
            transport: Transport::Tcp,
            packets: if world.rng.random_bool(0.01) { 200 } else { 0 },
        }];
        world.tick(ticks, HostTick { drops, packets: Some(5000), ..HostTick::default() });
    }
    assert_eq!(world.raised(), []);
}

/// Incident A2, and a service that never answers anybody: log shipping is not an outage.
#[test]
fn silence_counts_only_where_there_were_answers() {
    let mut world = World::new(5);
    let (web, logs) = (subject("10.1.1.1", Role::Client), subject("10.1.1.2", Role::Client));
    let logs = Subject { service: "tcp/514".into(), ..logs };
    for look in 0..80u64 {
        let mut first = world.healthy(&web, 5);
        let mut second = world.healthy(&logs, 5);
        second.counts.first_byte = Distribution::default();
        second.counts.response = Distribution::default();
        (0..look.min(40)).for_each(|i| second.pending.first_byte.push(LOOK * i as u32));
        if look >= 40 {
            first.counts.first_byte = Distribution::default();
            (0..5 * (look - 40)).for_each(|i| first.pending.first_byte.push(LOOK * (i / 5) as u32));
        }
        world.tick(vec![first, second], HostTick::default());
        match look {
            // The first five connections of the fault are 2.5 s old, then 3 s.
            46 => assert_eq!(world.raised(), []),
            48 => assert_eq!(world.raised().len(), 1, "within 1 s of the bound"),
            _ => {}
        }
    }
    let raised = world.raised();
    assert_eq!(raised, [(ConditionName::FirstByteStall, web_target(&web), Blame::PeerApplication)]);
}

fn web_target(subject: &Subject) -> String {
    crate::model::Target::Subject(subject.clone()).to_string()
}

/// Incident E: the answers of one of three services take two seconds more; round trip and loss stay.
#[test]
fn a_slow_service_is_named_within_five_seconds_and_the_others_are_not() {
    let mut world = World::new(6);
    let services: Vec<Subject> = (0..3)
        .map(|i| Subject { service: format!("db-{i}").into(), ..subject("10.2.2.2", Role::Client) })
        .collect();
    let mut raised_at = None;
    for look in 0..300u64 {
        let mut ticks = Vec::new();
        for (i, service) in services.iter().enumerate() {
            let mut tick = world.healthy(service, 10);
            if i == 1 && (120..200).contains(&look) {
                tick.counts.response = Distribution::default();
                if look >= 124 {
                    (0..10).for_each(|_| tick.counts.response.record(Duration::from_millis(2005)));
                }
            }
            ticks.push(tick);
        }
        world.tick(ticks, HostTick::default());
        if raised_at.is_none() && !world.raised().is_empty() {
            raised_at = Some(look);
        }
    }
    let raised = world.raised();
    assert_eq!(raised, [(ConditionName::ResponseSlow, web_target(&services[1]), Blame::PeerApplication)]);
    assert!(raised_at.is_some_and(|look| look <= 120 + 10), "{raised_at:?}");
    assert_eq!(world.judge.conditions().count(), 0, "cleared by itself");
}

/// Scanners knock and never complete; floods leave half-open handshakes of addresses that were never seen.
#[test]
fn scanners_and_floods_raise_nothing_at_a_server() {
    let mut world = World::new(7);
    let users = subject("198.51.100.0/24", Role::Server);
    for look in 0..2000u64 {
        let user = world.healthy(&users, 5);
        let mut flood = world.healthy(&subject(&format!("203.0.{}.0/24", look % 200), Role::Server), 0);
        (0..40).for_each(|_| flood.pending.handshake.push(Duration::from_secs(5)));
        world.tick(vec![user, flood], HostTick::default());
    }
    assert_eq!(world.raised(), []);
}

/// An application that stops accepting, seen from the server.
#[test]
fn a_full_accept_queue_is_the_local_process() {
    let mut world = World::new(8);
    let users = subject("198.51.100.0/24", Role::Server);
    for look in 0..120u64 {
        let mut tick = world.healthy(&users, 5);
        if look >= 60 {
            tick = world.healthy(&users, 0);
            tick.counts.accept_queue_overflow = 5;
            (0..3 * (look - 60)).for_each(|i| tick.pending.handshake.push(LOOK * (i / 3) as u32));
        }
        world.tick(vec![tick], HostTick::default());
    }
    assert_eq!(world.raised()[0], (ConditionName::HandshakeStall, web_target(&users), Blame::LocalProcess));
}

/// Host drops are named once for a reason, look after look, and never for a burst.
#[test]
fn host_drops_are_found_in_two_seconds() {
    let mut world = World::new(9);
    for look in 0..100u64 {
        let packets = if (40..60).contains(&look) { 300 } else { 0 };
        let reason = "SOCKET_RCVBUFF".into();
        let drops = vec![Drops { reason, direction: Direction::Receive, transport: Transport::Udp, packets }];
        let udp_receive_buffer = if packets > 0 { vec![("udp/5004".into(), 300)] } else { Vec::new() };
        world.tick(Vec::new(), HostTick { drops, udp_receive_buffer, packets: Some(5000) });
        if look == 43 {
            let raised = world.raised();
            assert_eq!(raised.len(), 1);
            assert_eq!((raised[0].0, raised[0].2), (ConditionName::HostDrops, Blame::LocalProcess));
            assert!(world.transitions[0].condition.evidence.text.contains("udp/5004"));
        }
    }
    assert_eq!(world.judge.conditions().count(), 0);
}

/// A late look widens the bounds: what hangs because this host slept is not blamed on the network.
#[test]
fn a_host_that_slept_accuses_nobody() {
    let mut world = World::new(10);
    let path = subject("10.77.1.1", Role::Client);
    for look in 0..200u64 {
        let mut tick = world.healthy(&path, 10);
        let late = if look % 50 == 49 { Duration::from_secs(3) } else { Duration::ZERO };
        if !late.is_zero() {
            (0..10).for_each(|_| tick.counts.handshake.record(Duration::from_millis(2900)));
        }
        world.at += LOOK + late;
        let tick = Tick { at: world.at, elapsed: LOOK + late, late, subjects: vec![tick], ..Tick::default() };
        let transitions = world.judge.observe(&tick);
        world.transitions.extend(transitions);
    }
    assert_eq!(world.raised(), []);
}

/// False alarms of the response test: heavy tails and correlated looks, nearly six days of them.
#[test]
fn heavy_tails_and_correlated_looks_do_not_alarm() {
    let mut world = World::new(11);
    let settings = Settings::default();
    let (mut shift, mut load, mut alarms) = (Shift::default(), 0.0f64, 0);
    for look in 0..1_000_000u64 {
        // Load wanders (first-order autoregression, an hour's memory); answers are log-normal with a wide tail.
        load = 0.9998 * load + 0.02 * (world.rng.random::<f64>() - 0.5);
        let mut answers = Distribution::default();
        (0..6).for_each(|_| answers.record(world.lognormal(0.02 * load.exp2(), 1.0)));
        let at = LOOK * look as u32;
        if shift.look(&settings, at, &answers, false).is_some() {
            alarms += 1;
        }
    }
    assert_eq!(alarms, 0);
}
