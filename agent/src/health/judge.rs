//! Feeds every detector with a tick and collects what changed.

use std::{collections::BTreeMap, fmt::Write, sync::Arc, time::Duration};

use super::{
    Settings,
    activation::Activation,
    conditions::{Conditions, Held},
    drops::HostDrops,
    lifecycle::Lifecycle,
    media::MediaJudge,
    node::NodeJudge,
    paths::PathJudge,
    rate::{Floor, RateLow},
    relay::RelayJudge,
    routing::Routing,
    silence::Silence,
    subject::SubjectState,
    verdict::Verdict,
};
use crate::model::{
    Condition, ConditionKey, ConditionName, Direction, NodeTransition, PathTransition, RelayTick, Role,
    Subject, Target, Tick, Transition,
    drops::{DropClass, class},
};

/// All detectors and their conditions.
pub struct Judge {
    pub(super) settings: Settings,
    pub(super) subjects: BTreeMap<Subject, SubjectState>,
    /// When subjects were last looked through for what may be forgotten.
    pub(super) forgot_at: Duration,
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

impl Judge {
    /// A judge that has seen nothing. `declared` is what the configuration says of services.
    pub fn new(settings: Settings, declared: BTreeMap<Arc<str>, Declared>) -> Self {
        Self {
            settings,
            subjects: BTreeMap::new(),
            forgot_at: Duration::ZERO,
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
            Some(state) if state.sufficient(&self.settings) => Standing::Healthy,
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
        self.observe_subjects(tick, late, &mut transitions);
        self.observe_silences(tick, late, &mut transitions);
        self.observe_rates(tick, late, &mut transitions);
        self.count_for_node(tick);
        self.look_at_node(tick.at);
        transitions
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
        self.drops.retain(|_, detector| {
            detector.evidence().0 > 0 || !detector.life().is_idle(&self.settings, tick.at)
        });
    }

    /// Keeps the standing conditions in step with a detector's life.
    pub(super) fn settle(
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
}
