//! Values for the catalog: one function from what the agent knows to points, for OTLP and for `/metrics` alike.

use std::time::Duration;

use crate::{
    aggregate::{Aggregator, Ended, Part, PodPart, Series, SeriesSet},
    model::{
        Ages, Condition, Counts, Direction, Distribution, Leg, NodeReport, Outcome, Path, PathReport,
        Pending, Retransmit, Subject, Target, Transport, drops, status::MapStatus,
    },
};

use super::catalog::{Id, attribute as a};

/// Value of an attribute.
#[derive(Clone, Debug, PartialEq)]
pub enum AttributeValue {
    /// Text.
    Text(String),
    /// A truth value.
    Flag(bool),
}

/// Attributes of a point.
pub type Attributes = Vec<(&'static str, AttributeValue)>;

/// Value of a point.
#[derive(Clone, Debug)]
pub enum Value {
    /// Of a counter.
    Count(u64),
    /// Of a counter of seconds.
    Seconds(f64),
    /// Of an up-down counter.
    Level(i64),
    /// Of a gauge.
    Gauge(f64),
    /// Of a histogram of durations.
    Distribution(Distribution),
    /// Of a histogram of lengths.
    Lengths(Lengths),
    /// The series has ended (OTLP: `NO_RECORDED_VALUE`).
    Ended,
}

/// A base-2 exponential histogram of scale 0: bucket `i` of the counts is OTLP's bucket `i - 1`.
#[derive(Clone, Debug, Default)]
pub struct Lengths {
    /// Sum of all lengths.
    pub sum: u64,
    /// How many by bucket: 1, 2, to 4, to 8, and so on.
    pub counts: Vec<u64>,
}

/// One point.
#[derive(Clone, Debug)]
pub struct Point {
    /// Its attributes.
    pub attributes: Attributes,
    /// When its sum began, on the ticks' clock; meaningless for a gauge.
    pub since: Duration,
    /// Its value.
    pub value: Value,
}

/// What the agent knows of itself.
#[derive(Clone, Debug, Default)]
pub struct AgentFacts {
    /// `(map, limit, found no room)`.
    pub maps: Vec<MapStatus>,
    /// `(program, attached)`.
    pub programs: Vec<(&'static str, bool)>,
    /// `(program, nanoseconds, runs)`, where measured.
    pub program_times: Vec<(&'static str, u64, u64)>,
    /// Events lost.
    pub events_lost: u64,
    /// Points and records not exported.
    pub export_dropped: u64,
    /// `(signal, share)`.
    pub coverage: Vec<(&'static str, f64)>,
    /// Pods told apart.
    pub pods: u64,
    /// Pods that found no room.
    pub pods_folded: u64,
    /// `(source, failures)` of asking whose something is, where it is asked.
    pub attribution_failed: Option<[(&'static str, u64); 2]>,
}

/// Of whom points are made.
#[derive(Clone, Copy)]
pub enum Whose<'a> {
    /// The node as a whole.
    Node,
    /// The host without its pods.
    Part(&'a Part),
    /// A pod.
    Pod(&'a PodPart),
}

/// Everything points are made of.
pub struct Known<'a> {
    /// Totals.
    pub aggregate: &'a Aggregator,
    /// Whose points are wanted.
    pub whose: Whose<'a>,
    /// Conditions that stand.
    pub conditions: Vec<&'a Condition>,
    /// Conditions that stood lately and no longer do: their points are 0.
    pub cleared: &'a [Condition],
    /// States of paths.
    pub paths: Vec<PathReport>,
    /// State of this node.
    pub node: NodeReport,
    /// The agent.
    pub agent: &'a AgentFacts,
    /// From this age on a handshake is stalled.
    pub handshake_bound: Duration,
    /// From this age on a first byte is stalled.
    pub first_byte_bound: Duration,
    /// When the agent started, on the ticks' clock.
    pub started: Duration,
    /// The last look, on the ticks' clock.
    pub now: Duration,
}

impl Known<'_> {
    /// The points of one metric.
    pub fn points(&self, id: Id) -> Vec<Point> {
        let mut points = self.values(id);
        if let Whose::Pod(PodPart { gone: Some(_), .. }) = self.whose {
            for point in &mut points {
                point.value = Value::Ended;
            }
        }
        points
    }

    /// What somebody has of what is taken apart by pods; nothing where all of the node's is meant.
    pub(super) const fn part(&self) -> Option<&Part> {
        match self.whose {
            Whose::Node => None,
            Whose::Part(part) | Whose::Pod(PodPart { part, .. }) => Some(part),
        }
    }

    fn subjects(&self) -> &SeriesSet<Subject> {
        self.part().map_or_else(|| self.aggregate.subjects(), |part| &part.subjects)
    }

    fn values(&self, id: Id) -> Vec<Point> {
        match id {
            Id::HandshakeDuration => self.of_subjects(|c| distribution(&c.handshake)),
            Id::HandshakeCount => self.of_subjects(|counts| {
                let point = |outcome: &Outcome| {
                    (vec![(a::OUTCOME, text(outcome.name()))], Value::Count(counts.outcome(*outcome)))
                };
                Outcome::ALL.iter().map(point).collect()
            }),
            Id::HandshakePending => self.pending(self.handshake_bound, |pending| &pending.handshake),
            Id::SynRetransmitted => self.of_subjects(|c| count(c.syn_retransmitted)),
            Id::AcceptQueueOverflow => self.of_listeners(|c| count(c.accept_queue_overflow)),
            Id::RequestQueueOverflow => self.of_listeners(|c| count(c.request_queue_overflow)),
            Id::SynCookieCount => self.of_listeners(|counts| {
                let point = |name: &str, n| (vec![(a::COOKIE, text(name))], Value::Count(n));
                vec![point("sent", counts.cookies_sent), point("established", counts.cookies_established)]
            }),
            Id::FirstByteDuration => self.of_subjects(|c| distribution(&c.first_byte)),
            Id::FirstBytePending => self.pending(self.first_byte_bound, |pending| &pending.first_byte),
            Id::ResponseDuration => self.of_subjects(|c| distribution(&c.response)),
            Id::ReceiveSilence => self.silence(),
            Id::SegmentCount => self.of_paths(|counts| {
                let point =
                    |direction: Direction, n| (vec![(a::DIRECTION, text(direction.name()))], Value::Count(n));
                vec![
                    point(Direction::Receive, counts.segments_in),
                    point(Direction::Transmit, counts.segments_out),
                ]
            }),
            Id::SegmentRetransmitted => self.of_paths(|counts| {
                let point = |kind: &Retransmit| {
                    (vec![(a::RETRANSMIT, text(kind.name()))], Value::Count(counts.retransmit(*kind)))
                };
                Retransmit::ALL.iter().map(point).collect()
            }),
            Id::ConnectionReset => self.of_subjects(|c| count(c.resets)),
            Id::Rtt => self.of_paths(|c| distribution(&c.rtt)),
            Id::RtpPacketCount
            | Id::RtpPacketLost
            | Id::RtpPacketReordered
            | Id::RtpPacketDuplicated
            | Id::RtpLossBurst
            | Id::RelayPacketCount
            | Id::RelayStalled
            | Id::ActivationDuration
            | Id::ActivationCount
            | Id::ActivationPending
            | Id::RtpJitter
            | Id::PathLossRatio => self.media(id),
            Id::PathState
            | Id::NodeState
            | Id::NodeWeight
            | Id::PathEvidenceAge
            | Id::ProbePacketSent
            | Id::ProbePacketLost
            | Id::ProbePacketDuplicated
            | Id::ProbeAuthMismatch
            | Id::ProbeDuration
            | Id::ProbeCount => self.paths(id),
            Id::PacketDropped => self.drops(),
            Id::UdpReceiveBufferDropped => {
                let host = self.aggregate.host();
                let (dropped, since) = self.part().map_or((&host.udp_receive_buffer, host.since), |part| {
                    (&part.udp_receive_buffer, part.since)
                });
                let point = |(service, n): (&std::sync::Arc<str>, &u64)| Point {
                    attributes: vec![(a::SERVICE, text(service))],
                    since,
                    value: Value::Count(*n),
                };
                dropped.iter().map(point).collect()
            }
            Id::Condition => {
                let standing = self.conditions.iter().map(|c| self.point(of_condition(c), Value::Level(1)));
                standing
                    .chain(self.cleared.iter().map(|c| self.point(of_condition(c), Value::Level(0))))
                    .collect()
            }
            Id::MapUsage
            | Id::MapLimit
            | Id::MapEvicted
            | Id::ProgramTime
            | Id::ProgramRun
            | Id::ProgramAttached
            | Id::EventLost
            | Id::SeriesFolded
            | Id::ExportDropped
            | Id::PodCount
            | Id::PodFolded
            | Id::AttributionFailed
            | Id::Coverage => self.agent(id),
        }
    }

    pub(super) fn point(&self, attributes: Attributes, value: Value) -> Point {
        Point { attributes, since: self.started, value }
    }

    /// A total of this host.
    fn of_host(&self, attributes: Attributes, value: Value) -> Point {
        Point { attributes, since: self.aggregate.host().since, value }
    }

    fn of_subjects(&self, values: impl Fn(&Counts) -> Vec<(Attributes, Value)>) -> Vec<Point> {
        let subjects = self.subjects();
        of_series(subjects.iter(), subjects.ended(), of_subject, values)
    }

    fn of_paths(&self, values: impl Fn(&Counts) -> Vec<(Attributes, Value)>) -> Vec<Point> {
        let paths = self.part().map_or_else(|| self.aggregate.paths(), |part| &part.paths);
        of_series(paths.iter(), paths.ended(), of_path, values)
    }

    fn of_listeners(&self, values: impl Fn(&Counts) -> Vec<(Attributes, Value)>) -> Vec<Point> {
        let listeners = self.part().map_or_else(|| self.aggregate.listeners(), |part| &part.listeners);
        of_series(listeners.iter(), listeners.ended(), |service| vec![(a::SERVICE, text(service))], values)
    }

    fn pending(&self, bound: Duration, ages: impl Fn(&Pending) -> &Ages) -> Vec<Point> {
        let mut points = Vec::new();
        for (subject, series) in self.subjects().iter() {
            let ages = ages(&series.pending);
            let stalled = ages.at_least(bound);
            for (flag, n) in [(false, ages.count() - stalled), (true, stalled)] {
                let mut attributes = of_subject(subject);
                attributes.push((a::STALLED, AttributeValue::Flag(flag)));
                points.push(Point { attributes, since: series.since, value: Value::Level(n as i64) });
            }
        }
        points
    }

    fn silence(&self) -> Vec<Point> {
        let mut longest: std::collections::BTreeMap<_, Duration> = std::collections::BTreeMap::new();
        for (subject, series) in self.subjects().iter() {
            if let Some(wait) = series.pending.longest_wait {
                let entry = longest.entry((subject.path.clone(), subject.service.clone())).or_default();
                *entry = wait.max(*entry);
            }
        }
        let point = |((path, service), wait): ((Path, std::sync::Arc<str>), Duration)| {
            let mut attributes = of_path(&path);
            attributes.push((a::SERVICE, text(&service)));
            self.point(attributes, Value::Gauge(wait.as_secs_f64()))
        };
        longest.into_iter().map(point).collect()
    }

    fn drops(&self) -> Vec<Point> {
        let point = |((reason, direction, transport), n): (&crate::aggregate::DropKey, &u64)| {
            let attributes = vec![
                (a::REASON, text(reason)),
                (a::SIDE, text(drops::class(reason).side())),
                (a::DIRECTION, text(direction.name())),
                (a::TRANSPORT, text(transport_name(*transport))),
            ];
            self.of_host(attributes, Value::Count(*n))
        };
        self.aggregate.host().drops.iter().map(point).collect()
    }
}

pub(super) fn of_series<'a, K: 'a, T: Default + 'a>(
    shown: impl Iterator<Item = (&'a K, &'a Series<T>)>,
    ended: &'a [Ended<K>],
    attributes: impl Fn(&K) -> Attributes,
    values: impl Fn(&T) -> Vec<(Attributes, Value)>,
) -> Vec<Point> {
    let mut points = Vec::new();
    for (key, series) in shown {
        for (more, value) in values(&series.totals) {
            points.push(Point { attributes: joined(attributes(key), more), since: series.since, value });
        }
    }
    let nothing = T::default();
    for ended in ended {
        for (more, _) in values(&nothing) {
            points.push(Point {
                attributes: joined(attributes(&ended.key), more),
                since: ended.since,
                value: Value::Ended,
            });
        }
    }
    points
}

fn joined(mut attributes: Attributes, more: Attributes) -> Attributes {
    attributes.extend(more);
    attributes
}

pub(super) fn count(n: u64) -> Vec<(Attributes, Value)> {
    vec![(Vec::new(), Value::Count(n))]
}

pub(super) fn distribution(d: &Distribution) -> Vec<(Attributes, Value)> {
    vec![(Vec::new(), Value::Distribution(d.clone()))]
}

pub(super) fn text(text: &str) -> AttributeValue {
    AttributeValue::Text(text.to_owned())
}

/// `tcp`, `udp` or `other`.
pub const fn transport_name(transport: Transport) -> &'static str {
    match transport {
        Transport::Tcp => "tcp",
        Transport::Udp => "udp",
        Transport::Other => "other",
    }
}

/// Attributes of a path.
pub fn of_path(path: &Path) -> Attributes {
    let mut attributes = vec![(a::PEER, text(&path.peer))];
    if let Some(address) = path.address {
        attributes.push((a::ADDRESS, AttributeValue::Text(address.to_string())));
    }
    attributes
}

/// Attributes of a path in one direction.
pub fn of_leg(leg: &Leg) -> Attributes {
    let mut attributes = of_path(&leg.path);
    attributes.push((a::DIRECTION, text(leg.direction.name())));
    attributes
}

/// Attributes of a subject.
pub fn of_subject(subject: &Subject) -> Attributes {
    let mut attributes = of_path(&subject.path);
    attributes.push((a::SERVICE, text(&subject.service)));
    attributes.push((a::ROLE, text(subject.role_name())));
    attributes
}

/// Attributes of a condition.
pub fn of_condition(condition: &Condition) -> Attributes {
    let mut attributes = vec![(a::CONDITION, text(condition.key.name.name()))];
    match &condition.key.target {
        Target::Subject(subject) => attributes.extend(of_subject(subject)),
        Target::Leg(leg) => attributes.extend(of_leg(leg)),
        Target::Service(service) => attributes.push((a::SERVICE, text(service))),
        Target::Node => {}
        Target::Process(process) => {
            attributes.push((a::PROCESS, text(&process.name)));
            attributes.push((a::PID, AttributeValue::Text(process.id.to_string())));
        }
        Target::Drops { reason, direction } => {
            attributes.push((a::REASON, text(reason)));
            attributes.push((a::DIRECTION, text(direction.name())));
        }
    }
    attributes.push((a::BLAME, text(condition.blame.name())));
    attributes
}
