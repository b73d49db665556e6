//! OTLP: the catalog's metrics on their interval, transitions at once.
//!
//! The kernel aggregates, so what leaves are totals and histograms that already exist. The SDK's metrics pipeline and the
//! exporters of `opentelemetry-otlp` take only what the SDK itself aggregated, and say neither what a collector rejected
//! nor whether trying again helps; so both signals are written as `opentelemetry-proto` messages here and go through one
//! [`client`]. The SDK gives the resource, `opentelemetry-otlp` the names and values of the standard variables.
//!
//! Nothing here is ever waited for: a round of metrics reads the engine one metric at a time, and an event is put into a
//! bounded queue.

mod client;
mod encode;
mod events;
mod metrics;
mod resource;
mod retry;
mod settings;

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::{sync::watch, task::JoinHandle};

pub use client::ClientError;
pub use settings::{Settings, SettingsError};

use crate::{
    model::Pod,
    telemetry::{Attributes, Point, catalog::Id},
};
use client::Client;
use events::Queue;

/// Where points come from.
pub trait Source: Send + Sync + 'static {
    /// Whose metrics there are: the host's (`None`), and those of each pod.
    fn resources(&self) -> Vec<Option<Arc<Pod>>>;
    /// The points of one metric, now, of one of these.
    fn points(&self, of: Option<&Pod>, id: Id) -> Vec<Point>;
    /// Nanoseconds since the Unix epoch of a moment of the ticks' clock.
    fn unix_nanos(&self, at: Duration) -> u64;
}

/// Something that happened, as a log record with an event name.
#[derive(Clone, Debug)]
pub struct Event {
    /// Its name, one of `telemetry::catalog::event`.
    pub name: &'static str,
    /// Severity `WARN` rather than `INFO`.
    pub bad: bool,
    /// For a person.
    pub body: String,
    /// When, nanoseconds since the Unix epoch.
    pub unix_nanos: u64,
    /// What it is about.
    pub attributes: Attributes,
    /// Attributes that are numbers.
    pub numbers: Vec<(&'static str, Number)>,
    /// The pod that it is about, where it is not the host.
    pub pod: Option<Arc<Pod>>,
}

/// A number of an event.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Number {
    /// A count; saturates at `i64::MAX`, OTLP has no unsigned attribute.
    Whole(u64),
    /// A share.
    Fraction(f64),
}

/// A failure that is over is told for this long.
const TOLD_FOR: Duration = Duration::from_secs(10);

/// What became of exports so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Where telemetry goes.
    pub endpoint: String,
    /// Points and records that a collector did not take in time, or refused.
    pub dropped: u64,
    /// Why the last export failed, where the last one did.
    pub last_error: Option<String>,
}

/// Counts and remembers what became of exports.
#[derive(Debug, Default)]
struct Outcome {
    dropped: AtomicU64,
    /// One for each signal, so that a success of one does not hide the failure of the other.
    errors: Mutex<[Option<Said>; 2]>,
}

/// Why an export failed.
#[derive(Debug)]
struct Said {
    error: String,
    /// Since when nothing waits for it to be over: events that were refused are gone, and the next may be hours away.
    is_over: Option<Instant>,
}

impl Said {
    fn is_told(&self) -> bool {
        self.is_over.is_none_or(|since| since.elapsed() < TOLD_FOR)
    }
}

/// Index into [`Outcome::errors`].
#[derive(Clone, Copy, Debug)]
enum Signal {
    Metrics,
    Events,
}

impl Outcome {
    fn lose(&self, n: u64) {
        self.dropped.fetch_add(n, Ordering::Relaxed);
    }

    /// Says the first failure of a row of them, and when it is over.
    fn set(&self, signal: Signal, error: Option<String>) {
        self.say(signal, error.map(|error| Said { error, is_over: None }));
    }

    /// The same of a failure after which nothing is tried again.
    fn refused(&self, signal: Signal, error: String) {
        self.say(signal, Some(Said { error, is_over: Some(Instant::now()) }));
    }

    fn say(&self, signal: Signal, said: Option<Said>) {
        let mut errors = self.errors.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = &mut errors[signal as usize];
        match (&*slot, &said) {
            (None, Some(said)) => tracing::warn!("export fails: {}", said.error),
            (Some(_), None) => tracing::info!("export succeeds again"),
            _ => {}
        }
        *slot = said;
    }
}

/// The running exporter.
pub struct Handle {
    shown: String,
    outcome: Arc<Outcome>,
    queue: Option<Arc<Queue>>,
    stop: watch::Sender<bool>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

/// Starts the exporter, inside a tokio runtime. Connects only when there is something to send.
pub fn start(settings: &Settings, node: &str, source: Arc<dyn Source>) -> Result<Handle, ClientError> {
    let resource = resource::of(node);
    let outcome = Arc::new(Outcome::default());
    let (stop, stopped) = watch::channel(false);
    let mut tasks = Vec::new();
    let mut queue = None;
    let client = |target: Option<&settings::Target>| target.map(Client::new).transpose();
    let shown = settings.shown();
    if let Some(client) = client(settings.metrics.as_ref())? {
        let metrics = metrics::Metrics::new(client, source, resource.clone(), outcome.clone(), settings);
        tasks.push(tokio::spawn(metrics.run(stopped.clone())));
    }
    if let Some(client) = client(settings.logs.as_ref())? {
        let events = Arc::new(Queue::default());
        tasks.push(tokio::spawn(events::run(events.clone(), client, resource, outcome.clone(), stopped)));
        queue = Some(events);
    }
    Ok(Handle { shown, outcome, queue, stop, tasks: Mutex::new(tasks) })
}

impl Handle {
    /// Sends an event as soon as possible; never waits. Where the queue is full the oldest one is dropped, and counted.
    pub fn event(&self, event: Event) {
        if let Some(queue) = &self.queue {
            self.outcome.lose(queue.push(event));
        }
    }

    /// Whether events go anywhere.
    pub fn takes_events(&self) -> bool {
        self.queue.is_some()
    }

    /// What became of exports so far.
    pub fn facts(&self) -> Facts {
        let errors = self.outcome.errors.lock().unwrap_or_else(PoisonError::into_inner);
        Facts {
            endpoint: self.shown.clone(),
            dropped: self.outcome.dropped.load(Ordering::Relaxed),
            last_error: errors.iter().flatten().find(|said| said.is_told()).map(|said| said.error.clone()),
        }
    }

    /// Sends what is left and a last round of metrics; gives up after `patience`.
    pub async fn shutdown(&self, patience: Duration) {
        let _ = self.stop.send(true);
        let tasks = std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        let all = async {
            for task in tasks {
                let _ = task.await;
            }
        };
        if tokio::time::timeout(patience, all).await.is_err() {
            tracing::warn!("the last telemetry did not leave within {patience:?}");
        }
    }
}
