//! The engine as each face wants to see it, and what is told to whom when something changes.

use std::{io::Write, sync::Arc, time::Duration};

use super::{
    collector::{Listener, now},
    events,
};
use crate::{
    cli::plain,
    engine::{Announcement, Availability, Engine, Facts},
    export, feed,
    kernel::programs::Signal,
    model::{
        Pod,
        avoid::{Avoid, Avoided},
        status::{Message, NodeStatus, Status},
    },
    telemetry::{Point, catalog::Id},
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

    fn health(&self) -> NodeStatus {
        self.engine.health(now())
    }

    fn avoid(&self, said: &Avoid) -> Avoided {
        self.engine.avoid(now(), said)
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
    fn resources(&self) -> Vec<Option<Arc<Pod>>> {
        self.engine.resources()
    }

    fn points(&self, of: Option<&Pod>, id: Id) -> Vec<Point> {
        self.engine.points_of(of, id)
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
    fn changed(&mut self, announcements: Vec<Announcement>) {
        // First those who act on it, and all of a look together.
        self.server.tell(announcements.iter().map(|announcement| &announcement.message));
        for announcement in &announcements {
            if let Some(exporter) = &self.exporter {
                exporter.event(events::of(announcement));
            }
            if self.standard_output {
                for line in plain(&announcement.message) {
                    if writeln!(std::io::stdout(), "{line}").is_err() {
                        self.engine.count_lost_events(1);
                    }
                }
            }
        }
    }

    fn unchanged(&mut self) {
        if let Some(exporter) = &self.exporter {
            let facts = exporter.facts();
            self.engine.set_export(Some(facts.endpoint), facts.dropped, facts.last_error);
        }
        self.server.tell([&self.engine.heartbeat(now())]);
    }
}
