//! The part that a pod, or the host without its pods, has in everything that is counted by namespace or process.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::{SeriesSet, Troubled};
use crate::model::{Counts, Path, Pending, RelayCounts, Role, Subject};

/// Totals of one of them, in series of its own.
#[derive(Debug, Serialize, Deserialize)]
pub struct Part {
    /// When it began, on the ticks' clock.
    pub since: Duration,
    /// Subjects.
    pub subjects: SeriesSet<Subject>,
    /// Paths, all services and roles of each together.
    pub paths: SeriesSet<Path>,
    /// Services, all paths of each together.
    pub listeners: SeriesSet<Arc<str>>,
    /// Processes that carry media, all of one name together.
    pub relays: SeriesSet<Arc<str>, RelayCounts>,
    /// Receive-buffer drops by service.
    pub udp_receive_buffer: BTreeMap<Arc<str>, u64>,
}

impl Part {
    /// A new one, of which at most `limit` subjects are published by themselves.
    pub fn new(limit: usize, at: Duration) -> Self {
        Self {
            since: at,
            subjects: SeriesSet::new(limit, at),
            paths: SeriesSet::new(limit, at),
            listeners: SeriesSet::new(limit, at),
            relays: SeriesSet::new(limit, at),
            udp_receive_buffer: BTreeMap::new(),
        }
    }

    /// Takes what a subject did in a look that began at `since`.
    pub fn add(&mut self, subject: &Subject, counts: &Counts, since: Duration) {
        let nothing = Pending::default();
        self.subjects.add(subject, counts, &nothing, since);
        self.paths.add(&subject.path, counts, &nothing, since);
        if subject.role == Role::Server {
            self.listeners.add(&subject.service, counts, &nothing, since);
        }
    }

    /// Takes what processes of one name relayed.
    pub fn add_relay(&mut self, name: &Arc<str>, counts: &RelayCounts, since: Duration) {
        self.relays.add(name, counts, &Pending::default(), since);
    }

    /// Takes receive-buffer drops.
    pub fn add_udp(&mut self, service: &Arc<str>, packets: u64) {
        *self.udp_receive_buffer.entry(service.clone()).or_default() += packets;
    }

    /// Begins a look.
    pub fn begin(&mut self, at: Duration) {
        self.subjects.begin(at);
        self.paths.begin(at);
        self.listeners.begin(at);
    }

    /// Lets those in trouble, and the busiest, be published by themselves.
    pub fn rank(&mut self, at: Duration, troubled: &Troubled) {
        self.subjects.rank(at, &troubled.subjects);
        self.paths.rank(at, &troubled.subjects.iter().map(|subject| subject.path.clone()).collect());
        self.listeners.rank(at, &BTreeSet::new());
        self.relays.rank(at, &troubled.processes);
    }

    /// Publishes at most `limit` subjects by themselves from the next review on.
    pub const fn set_limit(&mut self, limit: usize) {
        self.subjects.set_limit(limit);
        self.paths.set_limit(limit);
        self.listeners.set_limit(limit);
        self.relays.set_limit(limit);
    }

    /// How often something happened that cannot be told from the kernel's counters alone.
    pub const fn changes(&self) -> u64 {
        self.subjects.changes() + self.paths.changes() + self.listeners.changes() + self.relays.changes()
    }

    /// How often something was put into `~other`.
    pub const fn folded(&self) -> u64 {
        self.subjects.folded() + self.paths.folded() + self.listeners.folded() + self.relays.folded()
    }
}
