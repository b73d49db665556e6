//! When totals are taken apart by pod, and from what.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use super::{Aggregator, Part, Pods};
use crate::model::{Owner, Places};

impl Aggregator {
    /// Pods and what each has counted.
    pub const fn pods(&self) -> &Pods {
        &self.pods
    }

    /// Somebody will tell who is whose: `limit` pods are told apart, on a node that publishes so many `subjects`.
    pub fn expect_pods(&mut self, limit: usize, subjects: usize) {
        self.pods.expect(limit, subjects);
    }

    /// Takes who is whose, at `at`.
    pub fn place(&mut self, places: Arc<Places>, at: Duration) {
        self.pods.place(places, at);
    }

    /// Processes of which it has to be known whose they are: those that carry media, and as long as they live those that did, so that a
    /// pod does not go with every call.
    pub fn processes(&self) -> BTreeSet<u32> {
        let now = self.relays.now().iter().map(|tick| tick.process.id).filter(|id| *id != 0);
        now.chain(self.pods.processes()).collect()
    }

    /// Whether something was counted in a namespace or by a process that is not known to be the host's.
    pub fn has_others(&self) -> bool {
        self.pods.are_apart()
            || self.relays.now().iter().any(|tick| self.pods.is_apart(Owner::Process(tick.process.id)))
    }

    /// From now on totals are taken apart: what has been counted so far was the host's.
    pub(super) fn take_apart(&mut self) {
        if !self.pods.are_apart() {
            self.pods.take_apart(Part {
                since: self.host.since,
                subjects: self.subjects.apart(),
                paths: self.paths.apart(),
                listeners: self.listeners.apart(),
                relays: self.relays.series().apart(),
                udp_receive_buffer: self.host.udp_receive_buffer.clone(),
            });
        }
    }
}
