//! Seeded simulation of `receive_silence`: from arrivals on connections, through what the kernel half makes of them, to the condition.

use std::{sync::Arc, time::Duration};

use graylag_ebpf::rhythm::{Rhythm, UNIT_SHIFT};
use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::{Settings, silence::Silence};
use crate::model::{Phase, Spoken};

/// The connections are looked at this often.
const LOOK: Duration = Duration::from_secs(4);

/// When the peer speaks next on a connection: from the time of day, `None` for never again.
type Speaks = Arc<dyn Fn(Duration, &mut StdRng) -> Option<Duration>>;

struct Connection {
    id: u64,
    rhythm: Rhythm,
    next: Option<Duration>,
    open: bool,
}

struct World {
    at: Duration,
    speaks: Speaks,
    connections: Vec<Connection>,
    ids: u64,
    silence: Silence,
    settings: Settings,
    random: StdRng,
    raised: u32,
}

impl World {
    fn new(seed: u64, connections: usize, speaks: Speaks) -> Self {
        let mut world = Self {
            at: Duration::from_secs(1000),
            speaks,
            connections: Vec::new(),
            ids: 0,
            silence: Silence::default(),
            settings: Settings::default(),
            random: StdRng::seed_from_u64(seed),
            raised: 0,
        };
        (0..connections).for_each(|_| world.open());
        world
    }

    fn open(&mut self) {
        self.ids += 1;
        let next = (self.speaks)(self.at, &mut self.random);
        self.connections.push(Connection { id: self.ids, rhythm: Rhythm::default(), next, open: true });
    }

    fn run(&mut self, time: Duration) -> Option<Duration> {
        let (start, end) = (self.at, self.at + time);
        let mut raised = None;
        while self.at < end {
            self.at += LOOK;
            for connection in &mut self.connections {
                while let Some(next) = connection.next.filter(|next| *next <= self.at) {
                    connection.rhythm.hears(next.as_nanos() as u64, 0);
                    connection.next = (self.speaks)(next, &mut self.random);
                }
            }
            let spoken: Vec<Spoken> = self
                .connections
                .iter()
                .filter(|connection| connection.open && connection.rhythm.is_known())
                .map(|connection| Spoken {
                    id: connection.id,
                    heard: Duration::from_nanos(connection.rhythm.heard_ns),
                    usual: Duration::from_nanos(u64::from(connection.rhythm.usual) << UNIT_SHIFT),
                    segments_in: 0,
                })
                .collect();
            let before = self.silence.life().phase();
            self.silence.look(&self.settings, self.at, Duration::ZERO, &spoken);
            if before == Phase::Cleared && self.silence.life().phase() == Phase::Raised {
                self.raised += 1;
                raised = raised.or(Some(self.at.saturating_sub(start)));
            }
        }
        raised
    }

    fn falls_silent(&mut self) {
        self.connections.iter_mut().for_each(|connection| connection.next = None);
    }

    fn speaks_again(&mut self) {
        for connection in &mut self.connections {
            connection.next = (self.speaks)(self.at, &mut self.random);
        }
    }
}

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);

/// A timer of `seconds`, a tenth of which it wavers.
fn heartbeat(seconds: f64) -> Speaks {
    Arc::new(move |at, random| {
        Some(at + Duration::from_secs_f64(seconds * (0.95 + 0.1 * random.random::<f64>())))
    })
}

fn exponential(random: &mut StdRng, mean: f64) -> Duration {
    Duration::from_secs_f64(-(1.0 - random.random::<f64>()).ln() * mean)
}

#[test]
fn who_stops_to_dispatch_is_told_after_three_words_and_two_looks() {
    for (seed, seconds) in [(1, 1.0), (2, 5.0), (3, 30.0)] {
        for connections in [1, 3, 20] {
            let mut world = World::new(seed, connections, heartbeat(seconds));
            assert_eq!(world.run(HOUR), None);
            world.falls_silent();
            let raised = world.run(MINUTE * 5).unwrap();
            // Usual silences are remembered as the longest of their kind, a quarter more at most; and looks are 4 s apart.
            let bound = Duration::from_secs_f64(3.0 * 1.25 * seconds) + Duration::from_secs(1) + LOOK * 4;
            assert!(raised <= bound, "{raised:?} {seconds} {connections}");
            assert_eq!(world.silence.life().phase(), Phase::Raised, "it stands while they are silent");
            world.speaks_again();
            world.run(MINUTE);
            assert_eq!(world.silence.life().phase(), Phase::Cleared);
        }
    }
}

#[test]
fn nothing_stays_where_who_was_silent_has_finished_or_closed() {
    for close in [true, false] {
        let mut world = World::new(4, 3, heartbeat(5.0));
        world.run(HOUR);
        world.falls_silent();
        assert!(world.run(MINUTE * 5).is_some());
        for connection in &mut world.connections {
            connection.open = !close;
        }
        world.run(if close { MINUTE * 2 } else { HOUR + MINUTE * 2 });
        assert_eq!(world.silence.life().phase(), Phase::Cleared);
    }
}

/// A week of what is healthy: it raises nothing.
#[test]
fn a_week_of_those_who_pause_finish_reconnect_or_speak_by_chance_is_silent() {
    let paused: Speaks = Arc::new(|at, random| {
        // A word a second for about twenty, then a pause of a quarter of a minute.
        let pause = random.random_bool(0.05);
        Some(at + if pause { Duration::from_secs(15) } else { Duration::from_millis(1000) })
    });
    // Jobs by chance, ten times as many by day, none at night.
    let by_day: Speaks = Arc::new(|at, random| {
        let hour = at.as_secs() % 86_400 / 3600;
        let mean = if (8..20).contains(&hour) { 10.0 } else { 100.0 };
        let next = at + exponential(random, mean);
        let hour = next.as_secs() % 86_400 / 3600;
        Some(if hour < 6 { next + HOUR * (6 - hour as u32) } else { next })
    });
    // Heartbeats day and night, jobs in between by day.
    let both: Speaks = Arc::new(|at, random| {
        let hour = at.as_secs() % 86_400 / 3600;
        let beat = Duration::from_secs_f64(10.0 * (0.95 + 0.1 * random.random::<f64>()));
        Some(at + if (8..20).contains(&hour) { beat.min(exponential(random, 8.0)) } else { beat })
    });
    for (what, speaks) in [("pauses", paused), ("jobs by day", by_day), ("heartbeats and jobs", both)] {
        let mut alarms = 0;
        for seed in 0..6 {
            let mut world = World::new(seed, [1, 4, 10][seed as usize % 3], speaks.clone());
            world.run(DAY * 7);
            alarms += world.raised;
        }
        assert_eq!(alarms, 0, "{what}");
    }
    // Connections that close and come again every few minutes, and one of ten that finished and stays open.
    let mut world = World::new(9, 10, heartbeat(5.0));
    world.run(HOUR);
    world.connections[0].next = None;
    for _ in 0..400 {
        world.run(MINUTE * 4);
        let gone = 1 + world.random.random_range(0..9);
        world.connections.remove(gone);
        world.open();
    }
    assert_eq!(world.raised, 0, "those that reconnect");
}

#[test]
fn a_pause_that_ended_by_itself_is_allowed_the_next_time() {
    let mut world = World::new(5, 2, heartbeat(1.0));
    // While it is learned what is usual, a pause raises nothing; nor does it later.
    world.run(MINUTE * 3);
    for _ in 0..30 {
        world.falls_silent();
        world.run(Duration::from_secs(40));
        world.speaks_again();
        world.run(MINUTE * 12);
    }
    assert_eq!(world.raised, 0);
    // A pause that is longer than all before raises it twice, and is then its way.
    for _ in 0..10 {
        world.falls_silent();
        world.run(MINUTE * 8);
        world.speaks_again();
        world.run(MINUTE * 30);
    }
    assert_eq!(world.raised, 2);
}
