//! Everything the agent knows, behind one lock: the collector's thread puts looks in, the faces read.
//!
//! The lock is held to absorb a look or to copy values out, never while anything is sent. Transitions leave through the
//! return value of [`Engine::absorb`], at once.

mod announce;
mod facts;
mod kept;
mod losing;
mod pods;
mod report;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use graylag_ebpf::{counter::Counter, media::MediaCounter, relay::SocketRecord};
use jiff::{SignedDuration, Timestamp};

pub use facts::{Availability, Facts, release};
pub use kept::Kept;
pub use pods::Asked;

use crate::{
    aggregate::{Aggregator, Naming, Troubled},
    collect::Observation,
    health::{self, Change, Judge},
    model::{
        AddressTarget, Blame, Condition, ConditionKey, Leg, Path, PathReport, Pod, ReflectorCounts,
        StampPath, Target, Transition,
        avoid::{Avoid, Avoided, AvoidedStatus},
        status::{AttributionStatus, MapStatus, Message, NodeStatus, SCHEMA, Stamp, Status},
    },
    telemetry::{AgentFacts, Known, Point, Whose, catalog::Id},
};

/// A condition that was cleared, or whose blame changed, is published as 0 for this long.
const CLEARED_FOR: Duration = Duration::from_secs(300);
/// Most of them kept.
const MOST_CLEARED: usize = 1000;

/// What happened, in the two forms in which it is told.
#[derive(Clone, Debug)]
pub struct Announcement {
    /// For readers of the local API.
    pub message: Message,
    /// For everybody else.
    pub news: News,
    /// The pod that it is about, where it is about one only.
    pub pod: Option<Arc<Pod>>,
}

/// What changed.
#[derive(Clone, Debug)]
pub enum News {
    /// A condition.
    Condition(Transition),
    /// The state of a path or of this node.
    State(Change),
}

/// The agent's knowledge.
pub struct Engine {
    inner: Mutex<Inner>,
}

struct Inner {
    aggregator: Aggregator,
    judge: Judge,
    bounds: health::Settings,
    facts: Facts,
    agent: AgentFacts,
    export_to: Option<String>,
    export_error: Option<String>,
    /// Runs that the kernel programs missed.
    missed: u64,
    /// Connections whose end was missed, and transitions that could not be told.
    untold: u64,
    cleared: VecDeque<(Duration, Condition)>,
    epoch: u64,
    sequence: u64,
    /// Wall-clock time of the ticks' zero, at start: what series count from must not move when the clock is set.
    origin: Timestamp,
    started: Duration,
    last_look: Option<Duration>,
    late: Duration,
    interval: Duration,
    reflector: Option<ReflectorCounts>,
    path_map: Option<MapStatus>,
    attribution: Option<AttributionStatus>,
    /// Pods that the conditions that stand are about.
    of_pods: BTreeMap<ConditionKey, Option<Arc<Pod>>>,
    /// What was kept last: after how many changes, and when.
    kept: (u64, Duration),
}

impl Engine {
    /// Knows nothing yet. `now` is the moment on the ticks' clock.
    pub fn new(
        facts: Facts,
        naming: Naming,
        judge: (health::Settings, BTreeMap<Arc<str>, health::Declared>),
        subjects: usize,
        interval: Duration,
        now: Duration,
    ) -> Self {
        let wall = Timestamp::now();
        let inner = Inner {
            aggregator: Aggregator::new(naming, subjects, now),
            judge: Judge::new(judge.0, judge.1),
            bounds: judge.0,
            agent: facts.agent_facts(),
            facts,
            export_to: None,
            export_error: None,
            missed: 0,
            untold: 0,
            cleared: VecDeque::new(),
            epoch: wall.as_microsecond() as u64,
            sequence: 0,
            origin: wall - SignedDuration::try_from(now).unwrap_or_default(),
            started: now,
            last_look: None,
            late: Duration::ZERO,
            interval,
            reflector: None,
            path_map: None,
            attribution: None,
            of_pods: BTreeMap::new(),
            kept: (0, now),
        };
        Self { inner: Mutex::new(inner) }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic under the lock would have ended the process (panic = "abort"); in tests the values are still whole.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a look that came `late`. Returns what changed, in order.
    pub fn absorb(&self, seen: &Observation, late: Duration) -> Vec<Announcement> {
        let mut inner = self.lock();
        let inner = &mut *inner;
        let before: Vec<Condition> = inner.judge.conditions().cloned().collect();
        let mut troubled = Troubled::default();
        for condition in &before {
            match &condition.key.target {
                Target::Subject(subject) => drop(troubled.subjects.insert(subject.clone())),
                Target::Leg(leg) => drop(troubled.legs.insert(leg.clone())),
                Target::Process(process) => drop(troubled.processes.insert(process.name.clone())),
                Target::Service(_) | Target::Node | Target::Drops { .. } => {}
            }
        }
        let tick = inner.aggregator.absorb(seen, late, &troubled);
        let transitions = inner.judge.observe(&tick);
        inner.remember_cleared(tick.at, &before);
        (inner.last_look, inner.late) = (Some(tick.at), late);
        inner.untold += seen.ends_missed;
        inner.facts.unwatched.clone_from(&seen.unwatched);
        inner.agent.coverage = inner.facts.coverage(inner.aggregator.coverage());
        inner.agent.maps = inner.facts.maps(&inner.aggregator);
        inner.agent.maps.extend(inner.path_map.clone());
        let pods = inner.aggregator.pods();
        (inner.agent.pods, inner.agent.pods_folded) = (pods.count() as u64, pods.folded());
        inner.agent.events_lost = inner.missed
            + inner.untold
            + [Counter::RetransmitUntracked, Counter::DropFull, Counter::ScanTruncated]
                .map(|counter| inner.aggregator.counter(counter))
                .iter()
                .sum::<u64>()
            + inner.aggregator.media_counter(MediaCounter::SocketRefused);
        inner.announce(transitions)
    }

    /// Takes the sockets that carry media, in a look at `at` that came `late`: they are looked at more often than the rest.
    pub fn absorb_sockets(
        &self,
        sockets: &[SocketRecord],
        at: Duration,
        late: Duration,
    ) -> Vec<Announcement> {
        let mut inner = self.lock();
        let inner = &mut *inner;
        let ticks = inner.aggregator.absorb_sockets(sockets, at);
        let transitions = inner.judge.observe_relays(at, late, ticks);
        inner.announce_quick(at, transitions)
    }

    /// Takes the STAMP sessions, in a look at `at` that came `late`: they are looked at more often than the rest.
    pub fn absorb_probes(&self, sessions: Vec<StampPath>, at: Duration, late: Duration) -> Vec<Announcement> {
        let mut inner = self.lock();
        let inner = &mut *inner;
        let ticks = inner.aggregator.absorb_probes(sessions, at);
        let transitions = inner.judge.observe_probes(at, late, &ticks);
        inner.announce_quick(at, transitions)
    }

    /// Takes what the reflector and the TCP and TLS probes have come to at `at`. Nothing is judged by it: what those probes meet on
    /// their way the kernel half sees like any connection.
    pub fn absorb_probers(
        &self,
        reflector: Option<ReflectorCounts>,
        targets: Vec<AddressTarget>,
        at: Duration,
    ) {
        let mut inner = self.lock();
        inner.reflector = reflector;
        inner.aggregator.absorb_addresses(targets, at);
    }

    /// Changes names and bounds; loses no count.
    pub fn reconfigure(
        &self,
        naming: Naming,
        judge: (health::Settings, BTreeMap<Arc<str>, health::Declared>),
    ) {
        let mut inner = self.lock();
        inner.aggregator.rename(naming);
        inner.bounds = judge.0;
        inner.judge.reconfigure(judge.0, judge.1);
    }

    /// Tells what became of exports.
    pub fn set_export(&self, to: Option<String>, dropped: u64, error: Option<String>) {
        let mut inner = self.lock();
        (inner.export_to, inner.export_error) = (to, error);
        inner.agent.export_dropped = dropped;
    }

    /// Tells the programs' run time, `(program, nanoseconds, runs)`, and how many events they missed.
    pub fn set_programs(&self, times: Vec<(&'static str, u64, u64)>, missed: u64) {
        let mut inner = self.lock();
        inner.agent.program_times = times;
        inner.missed = missed;
    }

    /// Counts events that could not be told.
    pub fn count_lost_events(&self, n: u64) {
        self.lock().untold += n;
    }

    /// Everything, for a person or a program.
    pub fn status(&self, now: Duration) -> Status {
        self.lock().status(now)
    }

    /// The conditions that stand, for a reader that begins to watch.
    pub fn state(&self, now: Duration) -> Message {
        let inner = self.lock();
        let conditions = inner.judge.conditions().map(|c| inner.condition(c, c.phase, now)).collect();
        Message::State {
            stamp: inner.stamp(now),
            node: inner.facts.node.clone(),
            conditions,
            paths: inner.paths(now),
            health: inner.health(now),
        }
    }

    /// How this node serves its users.
    pub fn health(&self, now: Duration) -> NodeStatus {
        self.lock().health(now)
    }

    /// Takes what a controller avoids, which has been checked, and says how that stands.
    pub fn avoid(&self, now: Duration, said: &Avoid) -> Avoided {
        let mut inner = self.lock();
        let legs: Vec<Leg> = said
            .avoid
            .iter()
            .flat_map(|avoided| {
                let path = Path { peer: avoided.peer.as_str().into(), address: avoided.address };
                avoided.directions().into_iter().map(move |direction| Leg { path: path.clone(), direction })
            })
            .collect();
        inner.judge.avoid(now, legs.clone(), now + Duration::from_secs_f64(said.valid_for));
        let inner = &*inner;
        let probes = inner.aggregator.probes().by_path();
        let reports: BTreeMap<Leg, PathReport> =
            inner.judge.paths().map(|report| (report.leg.clone(), report)).collect();
        let status = |leg: Leg| AvoidedStatus {
            stuck: inner.judge.is_stuck(&leg),
            path: match reports.get(&leg) {
                Some(report) => inner.path(report, &probes, now),
                None => inner.path(&PathReport::unknown(leg, now), &probes, now),
            },
        };
        Avoided { stamp: inner.stamp(now), avoid: legs.into_iter().map(status).collect() }
    }

    /// Nothing new.
    pub fn heartbeat(&self, now: Duration) -> Message {
        Message::Heartbeat { stamp: self.lock().stamp(now) }
    }

    /// Age of the last look; `None` before the first.
    pub fn age(&self, now: Duration) -> Option<Duration> {
        self.lock().last_look.map(|at| now.saturating_sub(at))
    }

    /// Calls `visit` for each metric of the catalog.
    pub fn visit(&self, visit: &mut dyn FnMut(Id, Vec<Point>)) {
        for id in Id::ALL {
            visit(*id, self.points(*id));
        }
    }

    /// The points of one metric; an exporter takes its time between them, so each is a lock of its own.
    pub fn points(&self, id: Id) -> Vec<Point> {
        self.lock().points(id, Whose::Node)
    }

    /// How every path stands of which a state is kept, or of these only those with probes.
    pub fn paths(&self, probed: bool) -> Vec<PathReport> {
        self.lock().judge.paths().filter(|path| path.probed || !probed).collect()
    }

    /// Which agent this is: the feed's epoch.
    pub fn epoch(&self) -> u64 {
        self.lock().epoch
    }

    /// Tells how full the map of path states is.
    pub fn set_path_map(&self, map: MapStatus) {
        self.lock().path_map = Some(map);
    }

    /// Nanoseconds since the Unix epoch of a moment of the ticks' clock.
    pub fn unix_nanos(&self, at: Duration) -> u64 {
        u64::try_from(self.lock().wall(at).as_nanosecond()).unwrap_or(0)
    }
}

impl Inner {
    fn points(&self, id: Id, whose: Whose<'_>) -> Vec<Point> {
        // What is judged is the node's: of a pod there is nothing of it.
        let of_pod = matches!(whose, Whose::Pod(_));
        let cleared = self.cleared.iter().filter(|_| !of_pod);
        let cleared: Vec<Condition> = cleared.map(|(_, condition)| condition.clone()).collect();
        let known = Known {
            aggregate: &self.aggregator,
            whose,
            conditions: self.judge.conditions().collect(),
            cleared: &cleared,
            paths: if of_pod { Vec::new() } else { self.spoken_paths().collect() },
            node: self.judge.node(self.last_look.unwrap_or(self.started)),
            agent: &self.agent,
            handshake_bound: self.bounds.handshake_bound,
            first_byte_bound: self.bounds.first_byte_bound,
            started: self.started,
            now: self.last_look.unwrap_or(self.started),
        };
        known.points(id)
    }

    /// Paths that are spoken of: those with probes, those in trouble, and those whose media is published.
    fn spoken_paths(&self) -> impl Iterator<Item = PathReport> {
        let published: BTreeSet<&Leg> = self.aggregator.media().series().iter().map(|(leg, _)| leg).collect();
        self.judge
            .paths()
            .filter(move |path| path.probed || path.valid_until.is_some() || published.contains(&path.leg))
    }

    /// A series that said 1 must say 0 before it ends.
    fn remember_cleared(&mut self, at: Duration, before: &[Condition]) {
        let standing: BTreeMap<&ConditionKey, Blame> =
            self.judge.conditions().map(|condition| (&condition.key, condition.blame)).collect();
        let stands = |condition: &Condition| standing.get(&condition.key) == Some(&condition.blame);
        self.cleared.extend(before.iter().filter(|old| !stands(old)).map(|old| (at, old.clone())));
        self.cleared
            .retain(|(since, condition)| at.saturating_sub(*since) < CLEARED_FOR && !stands(condition));
        while self.cleared.len() > MOST_CLEARED {
            self.cleared.pop_front();
        }
    }

    fn stamp(&self, now: Duration) -> Stamp {
        // What is said holds until the next look but two: by then a reader must have heard again.
        let valid_until = self.wall(now + self.interval * 3 + Duration::from_secs(1));
        Stamp {
            schema: SCHEMA,
            epoch: self.epoch,
            sequence: self.sequence,
            time: self.wall(now),
            valid_until,
        }
    }

    fn wall(&self, at: Duration) -> Timestamp {
        self.origin.checked_add(SignedDuration::try_from(at).unwrap_or_default()).unwrap_or(Timestamp::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        collect::HostCounters,
        kernel::Dropped,
        model::{Direction, Phase, Transport},
    };

    const INTERVAL: Duration = Duration::from_millis(500);

    /// Every message, whatever it tells of, may be relied on until the next look but two: a reader of the feed must not
    /// take the end of a lease, which may be minutes ahead or past, for the end of the feed.
    #[test]
    fn transitions_are_as_valid_as_heartbeats_and_carry_the_lease() {
        let judge = (health::Settings::default(), BTreeMap::new());
        let engine =
            Engine::new(Facts::default(), Naming::default(), judge, 10, INTERVAL, Duration::from_secs(1000));
        let mut told = Vec::new();
        let mut packets = 0;
        for look in 0..400u32 {
            packets += if look < 10 { 500 } else { 0 };
            let at = Duration::from_secs(1000) + INTERVAL * look;
            let reason = "SOCKET_RCVBUFF".to_owned();
            let (direction, transport) = (Direction::Receive, Transport::Udp);
            let seen = Observation {
                at_ns: at.as_nanos() as u64,
                drops: vec![Dropped { reason, direction, transport, packets }],
                host: Some(HostCounters { packets: u64::from(look) * 1000, ..HostCounters::default() }),
                ..Observation::default()
            };
            told.extend(engine.absorb(&seen, Duration::ZERO));
        }
        let phase = |announcement: &Announcement| match &announcement.news {
            News::Condition(transition) => transition.to,
            News::State(change) => panic!("{change:?}"),
        };
        let phases: Vec<Phase> = told.iter().map(phase).collect();
        assert_eq!(phases, [Phase::Raised, Phase::Cleared]);
        for announcement in &told {
            let stamp = announcement.message.stamp();
            let valid = stamp.valid_until.duration_since(stamp.time);
            assert_eq!(valid, SignedDuration::try_from(INTERVAL * 3 + Duration::from_secs(1)).unwrap());
        }
        let Message::Transition { stamp, condition, .. } = &told[0].message else { panic!() };
        assert_eq!(condition.valid_until.duration_since(stamp.time), SignedDuration::from_secs(10));
    }
}
