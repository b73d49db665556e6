//! What changed, as the records that go out over OTLP.

use crate::{
    engine::{Announcement, Availability, Facts, News},
    export::{Event, Handle, Number},
    health::Change,
    model::{NodeTransition, PathState, PathTransition, Phase, Transition, status::Message},
    telemetry::{
        AttributeValue,
        catalog::{attribute, event},
        of_condition, of_leg,
    },
};

/// Of what was announced.
pub fn of(announcement: &Announcement) -> Event {
    let stamp = announcement.message.stamp();
    let mut event = match &announcement.news {
        News::Condition(transition) => of_transition(transition),
        News::State(Change::Path(change)) => of_path(change),
        News::State(Change::Node(change)) => of_node(change),
    };
    // Of an event the lease is told: what its reader hears next is the end of it, not a heartbeat.
    let valid_until = match &announcement.message {
        Message::Transition { condition, .. } => Some(condition.valid_until),
        Message::Path { path, .. } => path.valid_until,
        Message::Node { health, .. } => health.valid_until,
        Message::State { .. } | Message::Heartbeat { .. } => None,
    };
    if let Some(valid_until) = valid_until {
        event.attributes.push(("graylag.valid_until", text(valid_until.to_string())));
    }
    event.pod.clone_from(&announcement.pod);
    event.unix_nanos = u64::try_from(stamp.time.as_nanosecond()).unwrap_or(0);
    event.numbers.extend([
        ("graylag.epoch", Number::Whole(stamp.epoch)),
        ("graylag.sequence", Number::Whole(stamp.sequence)),
    ]);
    event
}

fn text(value: impl Into<String>) -> AttributeValue {
    AttributeValue::Text(value.into())
}

fn of_transition(transition: &Transition) -> Event {
    let condition = &transition.condition;
    let evidence = &condition.evidence;
    let mut attributes = of_condition(condition);
    attributes.extend([
        ("graylag.condition.from", text(transition.from.name())),
        ("graylag.condition.to", text(transition.to.name())),
        ("graylag.confidence", text(if evidence.low_confidence { "low" } else { "high" })),
        ("graylag.evidence.text", text(&evidence.text)),
    ]);
    Event {
        name: event::CONDITION_CHANGED,
        bad: transition.to == Phase::Raised,
        body: format!(
            "{} {}: {}; blame {}; {}",
            condition.key.name.name(),
            transition.to.name(),
            condition.key.target,
            condition.blame.name(),
            evidence.text
        ),
        unix_nanos: 0,
        attributes,
        numbers: vec![
            ("graylag.evidence.n", Number::Whole(evidence.n)),
            ("graylag.evidence.bad", Number::Whole(evidence.bad)),
            ("graylag.evidence.low", Number::Fraction(evidence.interval.low)),
            ("graylag.evidence.high", Number::Fraction(evidence.interval.high)),
        ],
        pod: None,
    }
}

fn of_path(PathTransition { from, path, at }: &PathTransition) -> Event {
    let leg = &path.leg;
    let mut attributes = of_leg(leg);
    attributes
        .extend([(attribute::STATE_FROM, text(from.name())), (attribute::STATE_TO, text(path.state.name()))]);
    let age = path.proven.map(|proven| at.saturating_sub(proven).as_secs_f64());
    Event {
        name: event::PATH_CHANGED,
        bad: matches!(path.state, PathState::Down | PathState::Degraded),
        body: format!(
            "path {} ({}) from {} to {}",
            leg.path,
            leg.direction.name(),
            from.name(),
            path.state.name()
        ),
        unix_nanos: 0,
        attributes,
        numbers: age.map(|age| ("graylag.evidence.age", Number::Fraction(age))).into_iter().collect(),
        pod: None,
    }
}

fn of_node(NodeTransition { from, node, .. }: &NodeTransition) -> Event {
    let reasons = node.reasons.join("; ");
    Event {
        name: event::NODE_CHANGED,
        bad: node.state.is_bad(),
        body: format!("this node from {} to {}: {reasons}", from.name(), node.state.name()),
        unix_nanos: 0,
        attributes: vec![
            (attribute::STATE_FROM, text(from.name())),
            (attribute::STATE_TO, text(node.state.name())),
            ("graylag.evidence.text", text(reasons)),
        ],
        numbers: vec![("graylag.node.weight", Number::Whole(u64::from(node.weight)))],
        pod: None,
    }
}

/// Tells the backend which signals this host does not give.
pub fn announce_missing(facts: &Facts, exporter: &Handle) {
    let unix_nanos = u64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap_or(0);
    for signal in facts.signals() {
        let (Availability::Missing(reason) | Availability::Partial(reason)) = facts.availability(signal)
        else {
            continue;
        };
        exporter.event(Event {
            name: event::DEGRADED,
            bad: true,
            body: format!("{}: {reason}", signal.name()),
            unix_nanos,
            attributes: vec![(attribute::SIGNAL, text(signal.name())), ("graylag.reason", text(reason))],
            numbers: Vec::new(),
            pod: None,
        });
    }
}
