//! The engine as each face wants to see it, and what is told to whom when something changes.

use std::{io::Write, sync::Arc, time::Duration};

use super::collector::{Listener, now};
use crate::{
    cli::sentence,
    engine::{Announcement, Availability, Engine, Facts},
    export, feed,
    kernel::programs::Signal,
    model::{
        Phase,
        status::{Message, Status},
    },
    telemetry::{
        AttributeValue, Point,
        catalog::{Id, attribute, event},
        of_condition,
    },
    view,
};

/// A collector that has not looked for this many intervals is stuck.
const STUCK: u32 = 10;

/// The engine, for the API and the exporter.
pub struct Faces {
    engine: Arc<Engine>,
    facts: Facts,
    interval: Duration,
}

impl Faces {
    pub fn new(engine: Arc<Engine>, facts: Facts, interval: Duration) -> Self {
        Self { engine, facts, interval }
    }
}

impl feed::Source for Faces {
    fn status(&self) -> Status {
        self.engine.status(now())
    }

    fn state(&self) -> Message {
        self.engine.state(now())
    }

    fn visit(&self, visit: &mut dyn FnMut(Id, Vec<Point>)) {
        self.engine.visit(visit);
    }

    fn age(&self) -> Option<Duration> {
        self.engine.age(now())
    }

    fn stale_after(&self) -> Duration {
        self.interval * STUCK
    }

    fn not_ready(&self) -> Option<String> {
        match self.facts.availability(Signal::HandshakeClient) {
            Availability::Missing(reason) => Some(reason),
            _ => None,
        }
    }
}

impl export::Source for Faces {
    fn points(&self, id: Id) -> Vec<Point> {
        self.engine.points(id)
    }

    fn unix_nanos(&self, at: Duration) -> u64 {
        self.engine.unix_nanos(at)
    }
}

/// The engine, for the view in the same process.
pub struct Local(pub Arc<Engine>);

impl view::Feed for Local {
    fn status(&mut self) -> Result<Status, String> {
        Ok(self.0.status(now()))
    }
}

/// Tells everybody what changed.
pub struct Told {
    engine: Arc<Engine>,
    server: Arc<feed::Server>,
    exporter: Option<Arc<export::Handle>>,
    standard_output: bool,
}

impl Told {
    pub fn new(
        engine: Arc<Engine>,
        server: Arc<feed::Server>,
        exporter: Option<Arc<export::Handle>>,
        standard_output: bool,
    ) -> Self {
        Self { engine, server, exporter, standard_output }
    }
}

impl Listener for Told {
    fn changed(&mut self, announcement: Announcement) {
        if self.standard_output
            && let Message::Transition { stamp, to, condition, .. } = &announcement.message
        {
            let line = format!("{} {}", stamp.time, sentence(to, condition));
            if writeln!(std::io::stdout(), "{line}").is_err() {
                self.engine.count_lost_events(1);
            }
        }
        if let Some(exporter) = &self.exporter {
            exporter.event(changed_event(&announcement));
        }
        self.server.tell(announcement.message);
    }

    fn unchanged(&mut self) {
        if let Some(exporter) = &self.exporter {
            let facts = exporter.facts();
            self.engine.set_export(Some(facts.endpoint), facts.dropped, facts.last_error);
        }
        self.server.tell(self.engine.heartbeat(now()));
    }
}

fn text(value: impl Into<String>) -> AttributeValue {
    AttributeValue::Text(value.into())
}

fn changed_event(announcement: &Announcement) -> export::Event {
    let transition = &announcement.transition;
    let condition = &transition.condition;
    let stamp = announcement.message.stamp();
    // Of an event the lease is told: what its reader hears next is the end of the condition, not a heartbeat.
    let valid_until = match &announcement.message {
        Message::Transition { condition, .. } => condition.valid_until,
        _ => stamp.valid_until,
    };
    let evidence = &condition.evidence;
    let mut attributes = of_condition(condition);
    attributes.extend([
        ("graylag.condition.from", text(transition.from.name())),
        ("graylag.condition.to", text(transition.to.name())),
        ("graylag.confidence", text(if evidence.low_confidence { "low" } else { "high" })),
        ("graylag.evidence.text", text(&evidence.text)),
        ("graylag.valid_until", text(valid_until.to_string())),
    ]);
    export::Event {
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
        unix_nanos: u64::try_from(stamp.time.as_nanosecond()).unwrap_or(0),
        attributes,
        numbers: vec![
            ("graylag.evidence.n", export::Number::Whole(evidence.n)),
            ("graylag.evidence.bad", export::Number::Whole(evidence.bad)),
            ("graylag.evidence.low", export::Number::Fraction(evidence.interval.low)),
            ("graylag.evidence.high", export::Number::Fraction(evidence.interval.high)),
            ("graylag.epoch", export::Number::Whole(stamp.epoch)),
            ("graylag.sequence", export::Number::Whole(stamp.sequence)),
        ],
    }
}

/// Tells the backend which signals this host does not give.
pub fn announce_missing(facts: &Facts, exporter: &export::Handle) {
    let unix_nanos = u64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap_or(0);
    for signal in facts.signals() {
        let (Availability::Missing(reason) | Availability::Partial(reason)) = facts.availability(signal)
        else {
            continue;
        };
        exporter.event(export::Event {
            name: event::DEGRADED,
            bad: true,
            body: format!("{}: {reason}", signal.name()),
            unix_nanos,
            attributes: vec![(attribute::SIGNAL, text(signal.name())), ("graylag.reason", text(reason))],
            numbers: Vec::new(),
        });
    }
}
