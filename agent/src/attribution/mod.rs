//! Which pod or container a network namespace belongs to, and which a process.
//!
//! The kernel says in which namespace and which cgroup each process lives; the hierarchy's directories say the cgroup's path; the
//! path says the pod's uid and the container; the container runtime, where it can be asked, says their names. The latter three
//! are I/O, which may hang: they have a thread of their own, that nobody waits for.

mod census;
mod cgroup;
mod cri;
mod resolve;
mod tree;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, PoisonError},
    thread,
    time::Instant,
};

use graylag_ebpf::task::TaskRecord;

use crate::model::Places;
use census::Census;
use cri::Cri;
pub use cri::usual_socket;
use resolve::Resolver;

/// Where it may be asked.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where the hierarchy of version 2 is mounted.
    pub cgroups: PathBuf,
    /// The container runtime's socket, where it is to be asked.
    pub runtime: Option<PathBuf>,
    /// The agent's own network namespace.
    pub own: u32,
}

/// What became of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Where names come from, and why they do not.
    pub source: String,
    /// How often a cgroup was not found.
    pub cgroups_lost: u64,
    /// How often the runtime did not answer.
    pub unanswered: u64,
}

#[derive(Default)]
struct Shared {
    inbox: Mutex<Inbox>,
    arrived: Condvar,
    outbox: Mutex<(Option<Arc<Places>>, Facts)>,
}

#[derive(Default)]
struct Inbox {
    /// The newest one: nobody needs those before it.
    census: Option<Census>,
    stopped: bool,
}

/// The running thread. It ends after this: nobody waits for a runtime that does not answer, and there is nothing to save.
pub struct Attribution {
    shared: Arc<Shared>,
    own: u32,
}

impl Attribution {
    /// Starts the thread.
    pub fn start(settings: Settings) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let own = settings.own;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        thread::Builder::new().name("attribution".into()).spawn({
            let shared = shared.clone();
            move || Work::new(&settings, runtime, shared).run()
        })?;
        Ok(Self { shared, own })
    }

    /// Takes all processes; of `wanted` it is asked whose each is. Does not wait.
    pub fn tell(&self, tasks: &[TaskRecord], wanted: &BTreeSet<u32>) {
        let census = Census::of(tasks, self.own, wanted);
        self.shared.inbox.lock().unwrap_or_else(PoisonError::into_inner).census = Some(census);
        self.shared.arrived.notify_one();
    }

    /// Who is whose, where that is news.
    pub fn news(&self) -> Option<Arc<Places>> {
        self.shared.outbox.lock().unwrap_or_else(PoisonError::into_inner).0.take()
    }

    /// What became of it so far.
    pub fn facts(&self) -> Facts {
        self.shared.outbox.lock().unwrap_or_else(PoisonError::into_inner).1.clone()
    }
}

impl Drop for Attribution {
    fn drop(&mut self) {
        self.shared.inbox.lock().unwrap_or_else(PoisonError::into_inner).stopped = true;
        self.shared.arrived.notify_one();
    }
}

struct Work {
    cgroups: PathBuf,
    runtime: tokio::runtime::Runtime,
    cri: Option<Cri>,
    /// Why the runtime is not asked, where it should be.
    broken: Option<String>,
    failing: bool,
    resolver: Resolver,
    began: Instant,
    shared: Arc<Shared>,
}

impl Work {
    fn new(settings: &Settings, runtime: tokio::runtime::Runtime, shared: Arc<Shared>) -> Self {
        let made = settings.runtime.as_deref().map(|socket| {
            let _inside = runtime.enter();
            Cri::new(socket)
        });
        let (cri, broken) = match made.transpose() {
            Ok(cri) => (cri, None),
            Err(error) => (None, Some(error)),
        };
        Self {
            cgroups: settings.cgroups.clone(),
            runtime,
            cri,
            broken,
            failing: false,
            resolver: Resolver::default(),
            began: Instant::now(),
            shared,
        }
    }

    fn run(&mut self) {
        self.publish(None, None);
        while let Some(census) = self.next() {
            let unknown = self.resolver.unknown_cgroups(&census);
            let mut failure = None;
            if !unknown.is_empty() {
                let found = tree::find(&self.cgroups, &unknown).unwrap_or_else(|error| {
                    failure = Some(format!("{}: {error}", self.cgroups.display()));
                    BTreeMap::default()
                });
                self.resolver.learn_cgroups(&unknown, &found);
            }
            self.ask_for_names();
            let places = self.resolver.places(&census);
            self.publish(Some(places), failure);
        }
    }

    /// The next census; nothing once this is to end.
    fn next(&self) -> Option<Census> {
        let mut inbox = self.shared.inbox.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if inbox.stopped {
                return None;
            }
            if let Some(census) = inbox.census.take() {
                return Some(census);
            }
            inbox = self.shared.arrived.wait(inbox).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn ask_for_names(&mut self) {
        let Some(cri) = &self.cri else { return };
        if !self.resolver.wants_names(self.began.elapsed()) {
            return;
        }
        let answer = self.runtime.block_on(cri.names());
        match self.resolver.learn_names(self.began.elapsed(), answer) {
            Ok(()) => {
                if std::mem::take(&mut self.failing) {
                    tracing::info!("{} answers again", cri.socket.display());
                }
                self.broken = None;
            }
            Err(error) => {
                if !std::mem::replace(&mut self.failing, true) {
                    tracing::warn!("pods have no names: {}: {error}", cri.socket.display());
                }
                self.broken = Some(error);
            }
        }
    }

    fn publish(&self, places: Option<Places>, failure: Option<String>) {
        let socket = self.cri.as_ref().map(|cri| cri.socket.display());
        let source = match (failure, socket, &self.broken) {
            (Some(failure), ..) => format!("none: {failure}"),
            (None, Some(socket), None) => format!("cgroups and {socket}"),
            (None, Some(socket), Some(error)) => format!("cgroups; {socket}: {error}"),
            (None, None, Some(error)) => format!("cgroups; {error}"),
            (None, None, None) => "cgroups".into(),
        };
        let facts = Facts { source, cgroups_lost: self.resolver.lost, unanswered: self.resolver.unanswered };
        let mut outbox = self.shared.outbox.lock().unwrap_or_else(PoisonError::into_inner);
        outbox.1 = facts;
        if let Some(places) = places {
            outbox.0 = Some(Arc::new(places));
        }
    }
}

/// Asks the runtime once: how many pods it has.
pub fn ask_once(socket: &Path) -> Result<usize, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    runtime.block_on(async { Cri::new(socket)?.names().await }).map(|names| names.pods.len())
}
