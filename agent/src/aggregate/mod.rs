//! Observations into ticks and totals: differences that survive wrap, reload and eviction; names; top-K and `~other`;
//! coverage.

mod activation;
mod addresses;
mod apart;
mod delta;
mod held;
mod host;
mod kept;
mod media;
mod naming;
mod part;
mod pods;
mod probes;
mod relay;
mod series;
mod spoken;
mod standing;
mod window;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet, btree_map::Entry},
    sync::Arc,
    time::Duration,
};

use graylag_ebpf::{
    counter::Counter,
    key::{PathKey, Role},
    media::MediaCounter,
    record::waiting,
    relay::SocketRecord,
};

pub use activation::Activation;
pub use addresses::Addresses;
pub use host::{DropKey, HostTotals};
pub use media::Media;
pub use naming::{Naming, PeerName, ServiceName, address};
pub use part::Part;
pub use pods::{PodPart, Pods};
pub use probes::{PathProbes, ProbeTotals, Probes};
pub use relay::Relays;
use serde::{Deserialize, Serialize};
pub use series::{Ended, Series, SeriesSet, Tally};

use crate::{
    collect::{Observation, Packed, Usage, turns},
    model::{
        AddressTarget, Counts, Leg, OTHER, Outcome, Owner, Path, Pending, ProbeTick, RelayTick, StampPath,
        Subject, SubjectTick, Tick,
    },
};

/// Ranking of subjects is reviewed this often.
const REVIEW: Duration = Duration::from_secs(5);

/// Turns observations into ticks, and keeps the totals.
#[derive(Serialize, Deserialize)]
pub struct Aggregator {
    #[serde(skip)]
    naming: Naming,
    #[serde(with = "kept::by_pod")]
    baselines: HashMap<PathKey, Baseline>,
    subjects: SeriesSet<Subject>,
    paths: SeriesSet<Path>,
    listeners: SeriesSet<Arc<str>>,
    media: Media,
    relays: Relays,
    pods: Pods,
    #[serde(skip)]
    probes: Probes,
    #[serde(skip)]
    addresses: Addresses,
    activation: Activation,
    #[serde(skip)]
    pending_before: HashSet<Subject>,
    #[serde(skip)]
    longest_waits: BTreeMap<Subject, Duration>,
    host: HostTotals,
    #[serde(skip)]
    usage: Usage,
    /// See [`Observation::turns`].
    #[serde(skip)]
    turns: u32,
    #[serde(skip)]
    counters: ProgramCounters,
    /// Datagrams of all paths, since start.
    #[serde(skip)]
    datagrams: u64,
    last_at: Option<Duration>,
    reviewed_at: Duration,
    /// How often something happened that cannot be told from the kernel's counters alone.
    #[serde(skip)]
    changes: u64,
}

/// The programs' own counters, and what they were when this agent took over.
#[derive(Default)]
struct ProgramCounters {
    now: ([u64; Counter::COUNT], [u64; MediaCounter::COUNT]),
    before: ([u64; Counter::COUNT], [u64; MediaCounter::COUNT]),
}

#[derive(Serialize, Deserialize)]
struct Baseline {
    subject: Subject,
    stats: Packed,
}

/// What conditions stand about.
#[derive(Clone, Debug, Default)]
pub struct Troubled {
    /// Subjects.
    pub subjects: BTreeSet<Subject>,
    /// Paths, by direction.
    pub legs: BTreeSet<Leg>,
    /// Names of processes.
    pub processes: BTreeSet<Arc<str>>,
}

/// Share of what should have been seen that was, 0 to 1; `None` where nothing was there to be seen.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Coverage {
    /// Connections tracked of those that began.
    pub connections: Option<f64>,
    /// Handshakes tracked of those that reached a listener.
    pub half_open: Option<f64>,
    /// Datagrams counted of those that came by.
    pub media: Option<f64>,
    /// Part of the time in which the jitter of a stream was measured, in the last look.
    pub jitter: f64,
}

impl Aggregator {
    /// Totals begin at `at`; at most `limit` subjects are published by themselves.
    pub fn new(naming: Naming, limit: usize, at: Duration) -> Self {
        Self {
            naming,
            baselines: HashMap::new(),
            subjects: SeriesSet::new(limit, at),
            paths: SeriesSet::new(limit, at),
            listeners: SeriesSet::new(limit, at),
            media: Media::new(2 * limit, at),
            relays: Relays::new(limit, at),
            pods: Pods::default(),
            probes: Probes::default(),
            addresses: Addresses::default(),
            activation: Activation::new(at),
            pending_before: HashSet::new(),
            longest_waits: BTreeMap::new(),
            host: HostTotals { since: at, ..HostTotals::default() },
            usage: Usage::default(),
            turns: 0,
            counters: ProgramCounters::default(),
            datagrams: 0,
            last_at: None,
            reviewed_at: at,
            changes: 0,
        }
    }

    /// Goes on from what an earlier agent kept, with the kernel as it is now: what it counted meanwhile is in the totals, and
    /// nothing is to be judged by it. Names are this agent's.
    pub fn take_over(&mut self, kept: Self, limit: usize, seen: &Observation, sockets: &[SocketRecord]) {
        let naming = std::mem::take(&mut self.naming);
        let pods = self.pods.settings();
        *self = kept;
        self.rename(naming);
        self.subjects.set_limit(limit);
        self.paths.set_limit(limit);
        self.listeners.set_limit(limit);
        self.media.set_limit(2 * limit);
        self.relays.set_limit(limit);
        if let Some((limit, subjects)) = pods {
            self.expect_pods(limit, subjects);
        }
        self.absorb(seen, Duration::ZERO, &Troubled::default());
        self.absorb_sockets(sockets, Duration::from_nanos(seen.at_ns));
        // What says how much of all was seen begins anew, with the agent that says it.
        self.counters.before = self.counters.now;
        self.datagrams = 0;
    }

    /// How often something happened that cannot be told from the kernel's counters alone: then what is kept has to be kept anew.
    pub fn changes(&self) -> u64 {
        self.changes
            + self.subjects.changes()
            + self.paths.changes()
            + self.listeners.changes()
            + self.media.changes()
            + self.relays.changes()
            + self.pods.changes()
    }

    /// Changes the names. Kernel keys keep their counts; from now on these go to the new names.
    pub fn rename(&mut self, naming: Naming) {
        self.naming = naming;
        self.changes += 1;
        for (key, baseline) in &mut self.baselines {
            baseline.subject = self.naming.subject(key);
        }
    }

    /// Peers by the identifiers under which the kernel counts.
    pub const fn peers(&self) -> &HashMap<u16, PeerName> {
        &self.naming.peers
    }

    /// Published subjects.
    pub const fn subjects(&self) -> &SeriesSet<Subject> {
        &self.subjects
    }

    /// Published paths, all services and roles of each together.
    pub const fn paths(&self) -> &SeriesSet<Path> {
        &self.paths
    }

    /// Published services of this host, all paths of each together.
    pub const fn listeners(&self) -> &SeriesSet<Arc<str>> {
        &self.listeners
    }

    /// Media, by path and direction.
    pub const fn media(&self) -> &Media {
        &self.media
    }

    /// Sessions on their way to media.
    pub const fn activation(&self) -> &Activation {
        &self.activation
    }

    /// Processes that carry media.
    pub const fn relays(&self) -> &Relays {
        &self.relays
    }

    /// Probes.
    pub const fn probes(&self) -> &Probes {
        &self.probes
    }

    /// TCP and TLS probes.
    pub const fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// Takes the TCP and TLS probes as they are at `at`.
    pub fn absorb_addresses(&mut self, targets: Vec<AddressTarget>, at: Duration) {
        self.addresses.absorb(targets, at);
    }

    /// Takes the STAMP sessions as they are at `at`.
    pub fn absorb_probes(&mut self, sessions: Vec<StampPath>, at: Duration) -> Vec<ProbeTick> {
        self.probes.absorb(sessions, &self.naming, at)
    }

    /// Takes the sockets that carry media as they are at `at`.
    pub fn absorb_sockets(&mut self, sockets: &[SocketRecord], at: Duration) -> &[RelayTick] {
        let since = self.relays.looked_at().unwrap_or(at);
        if sockets.iter().any(|socket| self.pods.is_apart(Owner::Process(socket.media.process))) {
            self.take_apart();
        }
        self.relays.absorb(sockets, at);
        self.pods.begin_relays(at);
        for tick in self.relays.now() {
            self.pods.add_relay(tick.process.id, &tick.process.name, &tick.counts, since);
        }
        self.relays.now()
    }

    /// How often something was put into `~other`.
    pub fn folded(&self) -> u64 {
        self.subjects.folded()
            + self.paths.folded()
            + self.listeners.folded()
            + self.media.series().folded()
            + self.relays.series().folded()
            + self.pods.series_folded()
    }

    /// Drops of this host.
    pub const fn host(&self) -> &HostTotals {
        &self.host
    }

    /// Packets a second dropped lately.
    pub fn drop_rate(&self, key: &DropKey) -> f64 {
        self.host.rates.get(key).copied().unwrap_or(0.0)
    }

    /// Entries in use.
    pub const fn usage(&self) -> Usage {
        self.usage
    }

    /// One of the programs' own counters.
    pub const fn counter(&self, counter: Counter) -> u64 {
        self.counters.now.0[counter as usize] - self.counters.before.0[counter as usize]
    }

    /// One of the flow programs' own counters.
    pub const fn media_counter(&self, counter: MediaCounter) -> u64 {
        self.counters.now.1[counter as usize] - self.counters.before.1[counter as usize]
    }

    /// How much of what there was has been seen.
    pub fn coverage(&self) -> Coverage {
        let share = |seen, full| {
            let (seen, full) = (self.counter(seen), self.counter(full));
            (seen > 0).then(|| 1.0 - full as f64 / seen as f64)
        };
        let missed: u64 =
            MediaCounter::NOT_COVERED.into_iter().map(|counter| self.media_counter(counter)).sum();
        let all = self.datagrams + missed;
        Coverage {
            connections: share(Counter::ConnectionSeen, Counter::ConnectionFull),
            half_open: share(Counter::HalfOpenSeen, Counter::HalfOpenFull),
            media: (all > 0).then(|| self.datagrams as f64 / all as f64),
            jitter: turns::share(self.turns),
        }
    }

    /// Takes an observation, `late` after it was due. What is in trouble is published by itself.
    pub fn absorb(&mut self, seen: &Observation, late: Duration, troubled: &Troubled) -> Tick {
        let at = Duration::from_nanos(seen.at_ns);
        let since = self.last_at.unwrap_or(at);
        let elapsed = at.saturating_sub(since);
        self.last_at = Some(at);
        (self.usage, self.turns) = (seen.usage, seen.turns);
        self.counters.now = (seen.counters, seen.media_counters);

        if seen.paths.iter().any(|(key, _)| self.pods.is_apart(Owner::Namespace(key.netns))) {
            self.take_apart();
        }
        self.pods.begin(at);
        let mut counts = self.differences(seen, since);
        let mut pending = self.pending(seen, since);
        let spoken = seen.all_waits.then(|| self.spoken(seen));
        self.subjects.begin(at);
        self.paths.begin(at);
        self.listeners.begin(at);
        let mut subjects = Vec::new();
        let mut names: BTreeSet<Subject> = counts.keys().chain(pending.keys()).cloned().collect();
        names.extend(self.pending_before.drain());
        for subject in names {
            let tick = SubjectTick {
                counts: counts.remove(&subject).unwrap_or_default(),
                pending: pending.remove(&subject).unwrap_or_default(),
                subject,
            };
            self.publish(&tick, since);
            if !tick.pending.is_empty() {
                self.pending_before.insert(tick.subject.clone());
            }
            subjects.push(tick);
        }
        self.subjects.end(elapsed, &subjects.iter().map(|tick| (&tick.subject, &tick.counts)).collect());
        if at.saturating_sub(self.reviewed_at) >= REVIEW {
            self.reviewed_at = at;
            self.subjects.rank(at, &troubled.subjects);
            self.paths.rank(at, &troubled.subjects.iter().map(|subject| subject.path.clone()).collect());
            self.listeners.rank(at, &BTreeSet::new());
            self.media.rank(at, &troubled.legs);
            self.relays.rank(at, &troubled.processes);
            self.pods.rank(at, troubled);
        }
        let media = self.media.absorb(&seen.media, &self.naming, at, since);
        self.datagrams += media.iter().flat_map(|leg| leg.counts.datagrams).sum::<u64>();
        let host = self.host_tick(seen, since);
        self.host.remember_rates(&host, elapsed);
        let activation = self.activation.absorb(&seen.sessions, seen.at_ns, elapsed, late);
        self.changes += (seen.expired.len() + seen.forgotten.len() + activation.decided.len()) as u64;
        Tick { at, elapsed, late, subjects, spoken, media, activation, host }
    }

    fn publish(&mut self, tick: &SubjectTick, since: Duration) {
        let SubjectTick { subject, counts, pending } = tick;
        self.subjects.add(subject, counts, pending, since);
        self.paths.add(&subject.path, counts, &Pending::default(), since);
        if subject.role == Role::Server {
            self.listeners.add(&subject.service, counts, &Pending::default(), since);
        }
    }

    fn differences(&mut self, seen: &Observation, since: Duration) -> BTreeMap<Subject, Counts> {
        let mut counts: BTreeMap<Subject, Counts> = BTreeMap::new();
        for (key, packed) in &seen.paths {
            let stats = packed.unpack();
            if stats.touched_ns == 0 {
                continue; // `~other`, and nothing went there
            }
            let naming = &self.naming;
            let baseline = self
                .baselines
                .entry(*key)
                .or_insert_with(|| Baseline { subject: naming.subject(key), stats: Packed::default() });
            let difference = delta::since(&stats, &baseline.stats.unpack());
            baseline.stats.clone_from(packed);
            self.pods.add(key.netns, &baseline.subject, &difference, since);
            match counts.entry(baseline.subject.clone()) {
                Entry::Vacant(entry) => _ = entry.insert(difference),
                Entry::Occupied(mut entry) => entry.get_mut().add(&difference),
            }
        }
        for key in &seen.forgotten {
            self.baselines.remove(key);
        }
        if let (Some(now), Some(before)) = (seen.host, self.host.last_host)
            && let (Some(now), Some(before)) = (now.listen_overflows, before.listen_overflows)
        {
            let other = Subject { path: Path::other(), service: OTHER.into(), role: Role::Server };
            let overflows = Counts { accept_queue_overflow: now.saturating_sub(before), ..Counts::default() };
            self.pods.add(0, &other, &overflows, since);
            counts.entry(other).or_default().add(&overflows);
        }
        for over in &seen.expired {
            let subject = self.name(&over.path);
            let mut timed_out = Counts::default();
            timed_out.outcomes[Outcome::TimedOut as usize] = 1;
            let lasted = Duration::from_nanos(seen.at_ns.saturating_sub(over.began_ns));
            timed_out.handshake_failed.record(lasted);
            self.pods.add(over.path.netns, &subject, &timed_out, since);
            counts.entry(subject).or_default().add(&timed_out);
        }
        counts
    }

    fn name(&self, key: &PathKey) -> Subject {
        self.baselines.get(key).map_or_else(|| self.naming.subject(key), |baseline| baseline.subject.clone())
    }

    fn pending(&mut self, seen: &Observation, since: Duration) -> BTreeMap<Subject, Pending> {
        let mut pending: BTreeMap<Subject, Pending> = BTreeMap::new();
        if seen.all_waits {
            self.longest_waits.clear();
            self.pods.forget_waits();
        }
        for wait in &seen.waiting {
            let (subject, netns) = (self.name(&wait.path), wait.path.netns);
            let age = Duration::from_nanos(seen.at_ns.saturating_sub(wait.since_ns));
            match wait.kind & !waiting::SPOKEN {
                0 => {}
                waiting::HANDSHAKE => {
                    if let Some(pending) = self.pods.pending(netns, &subject, since) {
                        pending.handshake.push(age);
                    }
                    pending.entry(subject).or_default().handshake.push(age);
                }
                kind => {
                    // Waiting is the asking side's: a server that owes an answer is not waiting for one.
                    if subject.role == Role::Client {
                        // Who has asked and hears something else meanwhile waits, but not in silence.
                        let silent_since = wait.since_ns.max(wait.heard_ns);
                        let silence = Duration::from_nanos(seen.at_ns.saturating_sub(silent_since));
                        let longest = self.longest_waits.entry(subject.clone()).or_default();
                        *longest = (*longest).max(silence);
                        self.pods.wait_of(netns, &subject, silence);
                    }
                    if kind == waiting::FIRST_BYTE {
                        if let Some(pending) = self.pods.pending(netns, &subject, since) {
                            pending.first_byte.push(age);
                        }
                        pending.entry(subject).or_default().first_byte.push(age);
                    }
                }
            }
        }
        for (subject, longest) in &self.longest_waits {
            pending.entry(subject.clone()).or_default().longest_wait = Some(*longest);
        }
        self.pods.tell_waits(since);
        for half_open in &seen.half_open {
            let subject = self.name(&half_open.path);
            let age = Duration::from_nanos(seen.at_ns.saturating_sub(half_open.began_ns));
            if let Some(pending) = self.pods.pending(half_open.path.netns, &subject, since) {
                pending.handshake.push(age);
            }
            let entry = pending.entry(subject).or_default();
            entry.handshake.push(age);
            entry.syn_repeated += u64::from(half_open.syns > 1);
        }
        pending
    }
}
