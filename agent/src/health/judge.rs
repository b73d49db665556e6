//! Feeds every detector with a tick and collects what changed.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt::Write,
    sync::Arc,
    time::Duration,
};

use super::{
    Settings, Shift,
    activation::Activation,
    blame::{FirstByteFacts, HandshakeFacts, PathFacts, blame_first_byte, blame_handshake, blame_response},
    conditions::{Conditions, Held},
    drops::HostDrops,
    lifecycle::Lifecycle,
    media::MediaJudge,
    node::NodeJudge,
    paths::PathJudge,
    rate::{Floor, RateLow},
    recent::Recent,
    relay::RelayJudge,
    routing::Routing,
    silence::Silence,
    stall::{Sample, Stall},
    verdict::Verdict,
};
use crate::model::{
    Condition, ConditionKey, ConditionName, Counts, Direction, Distribution, NodeTransition, Outcome, Path,
    PathTransition, Pending, Phase, RelayTick, Role, Subject, SubjectTick, Target, Tick, Transition,
    drops::{DropClass, class},
};

/// A subject without traffic, conditions or pending work for this long is forgotten.
const FORGET: Duration = Duration::from_secs(900);
/// A bound is this many times the p99 of the path's round trip, where that is more than the configured one.
const ROUND_TRIPS: u32 = 3;
/// Established handshakes of a server's path before its hanging ones are judged: a peer that never completed one is a
/// scanner or a spoofed address, not a user.
const KNOWN_PEER: u64 = 20;
/// Answers before silence of a service is judged: there are services that never answer (log shipping).
const KNOWN_TO_ANSWER: u64 = 1;
/// The network explains slow answers when its own round trip rose by at least this factor …
const RTT_FACTOR: f64 = 1.5;
/// … and by at least this share of the increase.
const RTT_SHARE: f64 = 0.3;
/// … or when this share of its segments is lost.
const LOSS_SHARE: f64 = 0.02;

/// All detectors and their conditions.
pub struct Judge {
    pub(super) settings: Settings,
    subjects: BTreeMap<Subject, SubjectState>,
    drops: BTreeMap<(String, Direction), HostDrops>,
    pub(super) media: MediaJudge,
    pub(super) relays: RelayJudge,
    activation: Activation,
    pub(super) paths: PathJudge,
    pub(super) node: NodeJudge,
    pub(super) routing: Routing,
    pub(super) changes: Vec<Change>,
    /// Answers ever seen, by service and role: whether silence means anything there.
    pub(super) answers: BTreeMap<(Arc<str>, Role), u64>,
    /// What the configuration says of services.
    pub(super) declared: BTreeMap<Arc<str>, Declared>,
    pub(super) rates: BTreeMap<Arc<str>, RateLow>,
    pub(super) silences: BTreeMap<Subject, Silence>,
    pub(super) conditions: Conditions,
}

/// What the configuration says of a service.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Declared {
    /// Whether it answers every client; learned where it is not said.
    pub answers: Option<bool>,
    /// Exchanges that there should be at least.
    pub floor: Option<Floor>,
    /// Whether balancers ask there how this node is: those who do are no users.
    pub is_asking: bool,
}

/// A state that changed; conditions are told by themselves.
#[derive(Clone, Debug)]
pub enum Change {
    /// Of a path.
    Path(PathTransition),
    /// Of this node.
    Node(NodeTransition),
}

/// How a subject stands, for a person.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Too few trials to say.
    Insufficient,
    /// As it should be.
    Healthy,
    /// A condition stands.
    Troubled,
}

#[derive(Default)]
struct SubjectState {
    handshake: Stall,
    first_byte: Stall,
    response: Shift,
    recent: Recent,
    rtt: Distribution,
    usual_rtt: f64,
    current_rtt: Duration,
    established: u64,
    last_seen: Duration,
}

impl Judge {
    /// A judge that has seen nothing. `declared` is what the configuration says of services.
    pub fn new(settings: Settings, declared: BTreeMap<Arc<str>, Declared>) -> Self {
        Self {
            settings,
            subjects: BTreeMap::new(),
            drops: BTreeMap::new(),
            media: MediaJudge::default(),
            relays: RelayJudge::default(),
            activation: Activation::default(),
            paths: PathJudge::default(),
            node: NodeJudge::default(),
            routing: Routing::default(),
            changes: Vec::new(),
            answers: BTreeMap::new(),
            declared,
            rates: BTreeMap::new(),
            silences: BTreeMap::new(),
            conditions: Conditions::default(),
        }
    }

    /// Changes the settings; what was learned and what stands remains.
    pub fn reconfigure(&mut self, settings: Settings, declared: BTreeMap<Arc<str>, Declared>) {
        self.settings = settings;
        self.declared = declared;
    }

    /// The conditions that stand.
    pub fn conditions(&self) -> impl Iterator<Item = &Condition> {
        self.conditions.iter()
    }

    /// States that changed since this was last asked for, in order.
    pub fn take_changes(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.changes)
    }

    /// How a subject stands.
    pub fn standing(&self, subject: &Subject) -> Standing {
        let about = |key: &&ConditionKey| matches!(&key.target, Target::Subject(s) if s == subject);
        if self.conditions.iter().any(|c| about(&&c.key)) {
            return Standing::Troubled;
        }
        match self.subjects.get(subject) {
            Some(state)
                if state.handshake.sufficient(&self.settings)
                    || state.first_byte.sufficient(&self.settings) =>
            {
                Standing::Healthy
            }
            _ => Standing::Insufficient,
        }
    }

    /// Takes one tick; ticks come in order of their time. Returns what changed.
    pub fn observe(&mut self, tick: &Tick) -> Vec<Transition> {
        let late = tick.late >= self.settings.late;
        let mut transitions = Vec::new();
        self.observe_drops(tick, late, &mut transitions);
        self.observe_media(tick, late, &mut transitions);
        self.observe_activation(tick, late, &mut transitions);
        self.observe_paths(tick, &mut transitions);
        self.observe_routing(tick, late, &mut transitions);
        self.remember(tick);
        let around = self.surroundings(tick.at);
        let mut standing: BTreeSet<Subject> = self
            .conditions
            .iter()
            .filter_map(|condition| match &condition.key.target {
                Target::Subject(subject) => Some(subject.clone()),
                _ => None,
            })
            .collect();
        for seen in &tick.subjects {
            standing.remove(&seen.subject);
            self.observe_subject(tick, &seen.subject, seen, &around, &mut transitions);
        }
        // Where a condition stands, silence is evidence too: its lease runs out.
        for subject in standing {
            let silent = SubjectTick { subject, counts: Counts::default(), pending: Pending::default() };
            self.observe_subject(tick, &silent.subject, &silent, &around, &mut transitions);
        }
        self.observe_silences(tick, late, &mut transitions);
        self.observe_rates(tick, late, &mut transitions);
        self.forget(tick.at);
        self.count_for_node(tick);
        self.look_at_node(tick.at);
        transitions
    }

    fn remember(&mut self, tick: &Tick) {
        for seen in &tick.subjects {
            let state = self.subjects.entry(seen.subject.clone()).or_default();
            state.last_seen = tick.at;
            state.established += seen.counts.outcome(Outcome::Established);
            state.recent.decay_to(tick.at);
            state.recent.add(&seen.counts);
            state.recent.pending = seen.pending.handshake.count();
            state.recent.syn_repeated = seen.pending.syn_repeated;
            if !seen.counts.rtt.is_empty() {
                state.remember_rtt(&seen.counts.rtt);
            }
            let answers = seen.counts.first_byte.count() + seen.counts.response.count();
            if answers > 0 {
                *self.answers.entry((seen.subject.service.clone(), seen.subject.role)).or_default() +=
                    answers;
            }
        }
    }

    fn observe_subject(
        &mut self,
        tick: &Tick,
        subject: &Subject,
        now: &SubjectTick,
        around: &Surroundings,
        transitions: &mut Vec<Transition>,
    ) {
        let settings = self.settings;
        let late = tick.late >= settings.late;
        let widen = if late { tick.late } else { Duration::ZERO };
        let answers = self.silence_means_something(subject);
        let path = around.paths.get(&subject.path).copied().unwrap_or_default();
        let Some(state) = self.subjects.get_mut(subject) else { return };

        let bound = settings.handshake_bound.max(state.rtt_p99() * ROUND_TRIPS) + widen;
        let handshake = Sample {
            completed: &now.counts.handshake,
            failed: &now.counts.handshake_failed,
            pending: &now.pending.handshake,
            bound,
        };
        let judged = subject.role == Role::Client || state.established >= KNOWN_PEER;
        let handshake_changed = state.handshake.look(&settings, tick.at, handshake, judged);
        let first_byte = Sample {
            completed: &now.counts.first_byte,
            failed: &now.counts.first_byte_failed,
            pending: &now.pending.first_byte,
            bound: settings.first_byte_bound + widen,
        };
        let first_byte_changed = state.first_byte.look(&settings, tick.at, first_byte, answers);
        let network = state.network_explains(path);
        let response_changed = state.response.look(&settings, tick.at, &now.counts.response, network);

        let mut verdicts = Vec::new();
        if handshake_changed.is_some() || state.handshake.life().phase() != Phase::Cleared {
            let verdict = state.handshake_verdict(subject.role, &handshake, path, around);
            verdicts.push((verdict, *state.handshake.life()));
        }
        if first_byte_changed.is_some() || state.first_byte.life().phase() != Phase::Cleared {
            let verdict = state.first_byte_verdict(subject.role, &first_byte, path, around);
            verdicts.push((verdict, *state.first_byte.life()));
        }
        if response_changed.is_some() || state.response.life().phase() != Phase::Cleared {
            verdicts.push((state.response_verdict(subject.role), *state.response.life()));
        }
        for (verdict, life) in verdicts {
            let target = Target::Subject(subject.clone());
            self.settle(tick.at, target, verdict, &life, late, transitions);
        }
    }

    fn observe_media(&mut self, tick: &Tick, late: bool, transitions: &mut Vec<Transition>) {
        let dropped_here = tick.host.udp_receive_buffer.iter().map(|(_, packets)| packets).sum();
        let concluded = self.media.observe(&self.settings, tick.at, &tick.media, dropped_here);
        for (leg, verdict, life) in concluded {
            self.settle(tick.at, Target::Leg(leg), verdict, &life, late, transitions);
        }
    }

    fn observe_activation(&mut self, tick: &Tick, late: bool, transitions: &mut Vec<Transition>) {
        self.activation.look(&self.settings, tick.at, &tick.activation);
        let (verdict, life) = (self.activation.verdict(), *self.activation.life());
        self.settle(tick.at, Target::Node, verdict, &life, late, transitions);
    }

    /// Takes one look at the processes that carry media: these are looked at more often than the rest.
    pub fn observe_relays(&mut self, at: Duration, late: Duration, seen: &[RelayTick]) -> Vec<Transition> {
        let mut transitions = Vec::new();
        let is_late = late >= self.settings.late;
        for (process, verdict, life) in self.relays.observe(&self.settings, at, late, seen) {
            self.settle(at, Target::Process(process), verdict, &life, is_late, &mut transitions);
        }
        self.look_at_node(at);
        transitions
    }

    fn observe_drops(&mut self, tick: &Tick, late: bool, transitions: &mut Vec<Transition>) {
        let mut now: BTreeMap<(String, Direction), u64> =
            self.drops.keys().map(|key| (key.clone(), 0)).collect();
        for drops in &tick.host.drops {
            if matches!(class(&drops.reason), DropClass::Capacity(_)) {
                *now.entry((drops.reason.to_string(), drops.direction)).or_default() += drops.packets;
            }
        }
        let worst_port = tick.host.udp_receive_buffer.iter().max_by_key(|(_, n)| *n);
        for ((reason, direction), dropped) in now {
            let detector = self.drops.entry((reason.clone(), direction)).or_default();
            detector.look(&self.settings, tick.at, dropped, tick.host.packets);
            let (n, bad, packets) = detector.evidence();
            let life = *detector.life();
            let DropClass::Capacity(blame) = class(&reason) else { continue };
            let mut text = format!("{packets} packets dropped in {bad} of {n} looks: {reason}");
            if let (Some((service, dropped)), "SOCKET_RCVBUFF") = (worst_port, reason.as_str()) {
                let _ = write!(text, "; most at {service} ({dropped} in this look)");
            }
            let target = Target::Drops { reason, direction };
            let verdict = Verdict { name: ConditionName::HostDrops, blame, n, bad, text };
            self.settle(tick.at, target, verdict, &life, late, transitions);
        }
    }

    /// Keeps the standing conditions in step with a detector's life.
    fn settle(
        &mut self,
        at: Duration,
        target: Target,
        verdict: Verdict,
        life: &Lifecycle,
        late: bool,
        transitions: &mut Vec<Transition>,
    ) {
        let held = Held::of(life, &self.settings);
        transitions.extend(self.conditions.settle(at, target, verdict, held, late));
    }

    fn drops_for_want_of_room(&self) -> bool {
        self.conditions.is_raised(ConditionName::HostDrops)
    }

    /// What the blame of one subject needs of all others, once per tick.
    fn surroundings(&self, at: Duration) -> Surroundings {
        let mut around =
            Surroundings { host_drops: self.drops_for_want_of_room(), ..Surroundings::default() };
        let mut active = [BTreeSet::new(), BTreeSet::new()];
        let mut stalling = [BTreeSet::new(), BTreeSet::new()];
        for (subject, state) in &self.subjects {
            let mut recent = state.recent;
            recent.decay_to(at);
            let facts = around.paths.entry(subject.path.clone()).or_default();
            facts.segments += recent.segments;
            facts.lost += recent.lost;
            if recent.handshakes >= 1.0 || recent.pending > 0 {
                active[subject.role as usize].insert(&subject.path);
            }
            if state.handshake.life().phase() == Phase::Raised {
                stalling[subject.role as usize].insert(&subject.path);
            }
        }
        around.active_paths = active.map(|paths| paths.len());
        around.stalling_paths = stalling.map(|paths| paths.len());
        around
    }

    /// Paths that lately used a service of this node.
    pub(super) fn paths_of_service(&self, service: &Arc<str>, at: Duration) -> BTreeSet<&Path> {
        let used = |(subject, state): &(&Subject, &SubjectState)| {
            let mut recent = state.recent;
            recent.decay_to(at);
            subject.role == Role::Server
                && subject.service == *service
                && (recent.handshakes >= 1.0 || recent.pending > 0)
        };
        self.subjects.iter().filter(used).map(|(subject, _)| &subject.path).collect()
    }

    fn silence_means_something(&self, subject: &Subject) -> bool {
        if let Some(answers) = self.declared.get(&subject.service).and_then(|declared| declared.answers) {
            return answers;
        }
        let key = (subject.service.clone(), subject.role);
        self.answers.get(&key).is_some_and(|answers| *answers >= KNOWN_TO_ANSWER)
    }

    fn forget(&mut self, at: Duration) {
        let settings = self.settings;
        self.subjects.retain(|_, state| {
            at.saturating_sub(state.last_seen) < FORGET
                || ![state.handshake.life(), state.first_byte.life(), state.response.life()]
                    .iter()
                    .all(|life| life.is_idle(&settings, at))
        });
        self.drops.retain(|_, detector| detector.evidence().0 > 0 || !detector.life().is_idle(&settings, at));
    }
}

/// What is going on around a subject.
#[derive(Default)]
struct Surroundings {
    host_drops: bool,
    /// By role: paths with handshakes, and those of them that stall.
    active_paths: [usize; 2],
    stalling_paths: [usize; 2],
    /// Data of each path, all services together.
    paths: HashMap<Path, PathFacts>,
}

impl SubjectState {
    fn remember_rtt(&mut self, rtt: &Distribution) {
        const MOST: u64 = 2000;
        // Slow enough not to follow an incident, quick enough to follow a route change within minutes.
        const WEIGHT: f64 = 0.01;
        if self.rtt.count() > MOST {
            self.rtt.clear();
        }
        self.rtt.add(rtt);
        if let Some(median) = rtt.quantile(0.5) {
            let x = median.as_secs_f64().log2();
            self.usual_rtt =
                if self.usual_rtt == 0.0 { x } else { self.usual_rtt + WEIGHT * (x - self.usual_rtt) };
            self.current_rtt = median;
        }
    }

    fn rtt_p99(&self) -> Duration {
        self.rtt.quantile(0.99).unwrap_or_default()
    }

    fn handshake_verdict(
        &self,
        role: Role,
        sample: &Sample<'_>,
        path: PathFacts,
        around: &Surroundings,
    ) -> Verdict {
        let (n, bad) = self.handshake.evidence();
        let blame = blame_handshake(&HandshakeFacts {
            role,
            stalls: bad,
            accept_queue_overflow: self.recent.accept_queue as u64,
            request_queue_overflow: self.recent.request_queue as u64,
            syn_repeated: self.recent.syn_repeated,
            pending: self.recent.pending,
            unreachable: self.recent.unreachable as u64,
            path,
            host_drops: around.host_drops,
            stalling_paths: around.stalling_paths[role as usize],
            active_paths: around.active_paths[role as usize],
        });
        let pending = sample.pending.at_least(sample.bound);
        let text = format!(
            "{bad} of {n} handshakes not complete within {:.1?}, {pending} hanging now",
            sample.bound
        );
        Verdict { name: ConditionName::HandshakeStall, blame, n, bad, text }
    }

    fn first_byte_verdict(
        &self,
        role: Role,
        sample: &Sample<'_>,
        path: PathFacts,
        around: &Surroundings,
    ) -> Verdict {
        let (n, bad) = self.first_byte.evidence();
        let blame = blame_first_byte(&FirstByteFacts { role, path, host_drops: around.host_drops });
        let pending = sample.pending.at_least(sample.bound);
        let text = format!(
            "{bad} of {n} connections without a first byte within {:.1?}, {pending} waiting now",
            sample.bound
        );
        Verdict { name: ConditionName::FirstByteStall, blame, n, bad, text }
    }

    fn response_verdict(&self, role: Role) -> Verdict {
        let (n, bad) = self.response.evidence();
        let current = self.response.current().unwrap_or_default();
        let text = format!(
            "median answer {current:.0?}, usually {:.0?}; round trip and loss as before",
            self.response.usual()
        );
        Verdict { name: ConditionName::ResponseSlow, blame: blame_response(role), n, bad, text }
    }

    /// Whether the path itself slowed or loses, so that slow answers are not the service's doing.
    fn network_explains(&self, path: PathFacts) -> bool {
        if path.segments > 0.0 && path.lost / path.segments >= LOSS_SHARE {
            return true;
        }
        let (usual, current) = (self.usual_rtt.exp2(), self.current_rtt.as_secs_f64());
        let slower =
            self.response.current().unwrap_or_default().saturating_sub(self.response.usual()).as_secs_f64();
        self.usual_rtt != 0.0 && current >= usual * RTT_FACTOR && current - usual >= RTT_SHARE * slower
    }
}
