use super::*;

const START: Duration = Duration::from_secs(1000);
const INTERVAL: Duration = Duration::from_millis(100);

fn settings(peer: &str, keys: Option<&Keys>) -> Settings {
    let address = format!("{peer}:862").parse().unwrap();
    let authenticated = keys.is_some();
    let target = Target { peer: "other".into(), address, interval: INTERVAL, authenticated };
    let patience = Duration::from_secs(1);
    Settings { keys: keys.cloned(), targets: vec![target], patience, ..Settings::default() }
}

/// Two nodes that probe each other, in turns of 100 ms, over a path without delay. `there` and `back` say whether packets
/// of the first to the second, and of the second to the first, arrive.
struct Two {
    nodes: [Sessions; 2],
    now: Duration,
}

const ADDRESSES: [&str; 2] = ["10.0.0.1", "10.0.0.2"];

impl Two {
    fn new(keys: [Option<&Keys>; 2]) -> Self {
        let mut nodes = [Sessions::new(1, None), Sessions::new(2, None)];
        nodes[0].reconfigure(&settings(ADDRESSES[1], keys[0]), START);
        nodes[1].reconfigure(&settings(ADDRESSES[0], keys[1]), START);
        Self { nodes, now: START }
    }

    fn run(&mut self, turns: u32, arrives: [bool; 2]) {
        for _ in 0..turns {
            self.now += Duration::from_millis(50);
            for from in [0, 1] {
                let wall = Timestamp::ntp(Duration::from_secs(1_700_000_000) + self.now);
                let (mut packet, mut answer) = (Vec::new(), Vec::new());
                let source: SocketAddr = format!("{}:5000", ADDRESSES[from]).parse().unwrap();
                let server: SocketAddr = format!("{}:862", ADDRESSES[1 - from]).parse().unwrap();
                while self.nodes[from].next(self.now, wall, &mut packet).is_some() {
                    if !arrives[from] {
                        continue;
                    }
                    let received = Received { octets: &packet, from: source, ttl: 64, at: wall };
                    self.nodes[1 - from].reflected(&received, wall, self.now, &mut answer);
                    if arrives[1 - from] && !answer.is_empty() {
                        self.nodes[from].replied(&answer, server, wall, self.now);
                    }
                }
            }
        }
    }

    fn look(&mut self, node: usize) -> StampPath {
        self.nodes[node].look(self.now, true).pop().unwrap()
    }
}

#[test]
fn one_dead_direction_is_told_apart_by_both_ends_at_once() {
    let keys = Keys::parse(&"42".repeat(32)).unwrap();
    for keys in [None, Some(&keys)] {
        let mut two = Two::new([keys, keys]);
        two.run(200, [true, true]);
        let near = |age: Option<Duration>| age.is_some_and(|age| age < Duration::from_millis(300));
        for node in [0, 1] {
            let path = two.look(node);
            assert!(near(path.last_receive) && near(path.last_delivery), "{path:?}");
            assert!(path.report.is_some_and(|report| report.received > 50), "{path:?}");
        }
        // From here on nothing of the first arrives at the second; the other direction works.
        two.run(100, [false, true]);
        let (first, second) = (two.look(0), two.look(1));
        assert!(near(first.last_receive) && !near(first.last_delivery), "{first:?}");
        // The peer says so itself, and says it now.
        let report = first.report.unwrap();
        assert!(near(Some(report.age)) && !near(report.newest), "{report:?}");
        // No reply comes to the second either, yet it has no proof that its packets do not arrive: they do. What tells is that
        // nothing comes.
        assert!(!near(second.last_receive) && first.unanswered > 30 && second.unanswered > 30);
        two.run(100, [true, true]);
        for node in [0, 1] {
            let path = two.look(node);
            assert!(near(path.last_receive) && near(path.last_delivery), "{path:?}");
            assert_eq!(path.unanswered, 0);
        }
        let (first, second) = (two.look(0), two.look(1));
        assert!(first.transmit.lost > 30 && first.receive.lost == 0, "{first:?}");
        assert!(second.receive.lost > 30 && second.transmit.lost == 0, "{second:?}");
        // What the second did not hear of the first is what the first did not get there, and the other way round.
        assert_eq!((second.heard.lost, first.heard.lost), (first.transmit.lost, 0));
        assert!(first.heard.sent > 150 && second.heard.sent > 150, "{first:?} {second:?}");
    }
}

#[test]
fn other_keys_prove_the_wire_and_nothing_else() {
    let (ours, theirs) = (Keys::parse(&"42".repeat(32)).unwrap(), Keys::parse(&"43".repeat(32)).unwrap());
    let mut two = Two::new([Some(&ours), Some(&theirs)]);
    two.run(200, [true, true]);
    for node in [0, 1] {
        let path = two.look(node);
        assert!(path.auth_mismatch > 100 && path.last_mismatch.is_some(), "{path:?}");
        assert!(path.last_receive.is_none() && path.last_delivery.is_none() && path.report.is_none());
        assert_eq!((path.transmit.lost, path.receive.lost, path.unattributed, path.answered), (0, 0, 0, 0));
    }
}

#[test]
fn a_refusal_is_the_session_s_that_it_quotes() {
    let keys = Keys::parse(&"42".repeat(32)).unwrap();
    for keys in [None, Some(&keys)] {
        let mut sessions = Sessions::new(1, None);
        let mut settings = settings(ADDRESSES[1], keys);
        // Two sessions with one address, and one with another.
        let first = settings.targets[0].clone();
        settings.targets.push(Target { peer: "same".into(), ..first.clone() });
        settings.targets.push(Target { address: "10.0.0.3:862".parse().unwrap(), ..first.clone() });
        sessions.reconfigure(&settings, START);
        let (mut out, now) = (Vec::new(), START + INTERVAL);
        while let Some((_, to)) = sessions.next(now, Timestamp(5), &mut out) {
            if to == first.address {
                sessions.refused(&out, to, now);
            }
        }
        sessions.refused(&out, "10.9.9.9:862".parse().unwrap(), now);
        let paths = sessions.look(now + Duration::from_secs(1), false);
        let refused: Vec<_> = paths.iter().map(|path| (path.refused, path.last_refused)).collect();
        let once = (1, Some(Duration::from_secs(1)));
        assert_eq!(refused, [once, (0, None), once], "{paths:?}");
    }
}

#[test]
fn reflectors_do_not_answer_each_other() {
    let mut sessions = Sessions::new(1, Some(8620));
    sessions.reconfigure(&settings(ADDRESSES[1], None), START);
    let octets = vec![0; 44];
    for (from, answered) in [("10.0.0.2:862", false), ("10.0.0.2:8620", false), ("10.0.0.2:5000", true)] {
        let mut out = vec![1];
        let received = Received { octets: &octets, from: from.parse().unwrap(), ttl: 64, at: Timestamp(1) };
        sessions.reflected(&received, Timestamp(2), START, &mut out);
        assert_eq!(!out.is_empty(), answered, "{from}");
    }
    assert_eq!(sessions.reflector_counts().looped, 2);
}

#[test]
fn a_reload_keeps_the_sessions_that_stay() {
    let mut two = Two::new([None, None]);
    two.run(50, [true, true]);
    let before = two.look(0).sent;
    let mut changed = settings(ADDRESSES[1], None);
    changed.targets.push(Target { address: "[::1]:862".parse().unwrap(), ..changed.targets[0].clone() });
    two.nodes[0].reconfigure(&changed, two.now);
    let paths = two.nodes[0].look(two.now, false);
    assert_eq!(paths.iter().map(|path| path.sent).collect::<Vec<_>>(), [before, 0]);
    assert!(two.nodes[0].probes(true));
    changed.targets.clear();
    two.nodes[0].reconfigure(&changed, two.now);
    assert!(two.nodes[0].look(two.now, false).is_empty() && two.nodes[0].due().is_none());
}

#[test]
fn what_hits_all_sessions_makes_some_send_more() {
    let mut more = More::default();
    let mut begun = |ms: u64| {
        let now = Duration::from_millis(9_000 + ms);
        (0..1000).filter(|_| more.take(now)).count()
    };
    assert_eq!((begun(0), begun(900), begun(1000), begun(1999)), (10, 0, 10, 0));
}

#[test]
fn a_session_sends_more_where_one_is_missing() {
    let mut two = Two::new([None, None]);
    two.run(100, [true, true]);
    let before = two.look(0).sent;
    two.run(2, [false, true]);
    two.run(20, [true, true]);
    let sent = two.look(0).sent - before;
    // Eleven or so, every second turn, where none is missing.
    assert!(sent > 15, "{sent} in 1.1 s");
}

#[test]
fn those_that_may_send_more_do_so_in_turn_where_they_are_asked() {
    let mut sessions = Sessions::new(1, None);
    let mut many = settings(ADDRESSES[1], None);
    let target = many.targets[0].clone();
    many.targets = (1..=25)
        .map(|host| Target { address: format!("10.0.1.{host}:862").parse().unwrap(), ..target.clone() })
        .collect();
    sessions.reconfigure(&many, START);
    let mut sent = [0; 4];
    for (second, sent) in (0..).zip(&mut sent) {
        let now = START + Duration::from_secs(1 + second);
        sessions.send_more(now);
        sessions.send_more(now);
        for ms in 0..1000 {
            let (now, mut out) = (now + Duration::from_millis(ms), Vec::new());
            while sessions.next(now, Timestamp(1), &mut out).is_some() {
                *sent += 1;
            }
        }
    }
    // 250 a second as usual, and ten times sixteen more while there are such that have not lately.
    assert!(sent[0] > 380 && sent[1] > 380 && sent[2] > 310 && sent[3] < 280, "{sent:?}");
}
