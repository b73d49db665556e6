//! TCP and TLS probes: the targets and their addresses, as they were last.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use crate::model::AddressTarget;

/// All targets that are probed. An address that a name resolves to no more goes, and begins anew when it comes back.
#[derive(Default)]
pub struct Addresses {
    targets: Vec<AddressTarget>,
    /// Since when an address counts, on the ticks' clock; by target, kind and address, with its attempts so far.
    since: BTreeMap<(String, bool, SocketAddr), (Duration, u64)>,
}

impl Addresses {
    /// All of them.
    pub fn targets(&self) -> &[AddressTarget] {
        &self.targets
    }

    /// When the counts of an address of a target began.
    pub fn since(&self, target: &AddressTarget, address: SocketAddr) -> Duration {
        let known = self.since.get(&(target.target.clone(), target.tls, address));
        known.map_or(Duration::ZERO, |(since, _)| *since)
    }

    /// Takes all targets as they are at `at`.
    pub fn absorb(&mut self, targets: Vec<AddressTarget>, at: Duration) {
        let before = std::mem::take(&mut self.since);
        for target in &targets {
            for seen in &target.paths {
                let key = (target.target.clone(), target.tls, seen.address);
                let attempts = seen.counts.attempts();
                // Counts that fell are another life of the address.
                let known = before.get(&key).filter(|(_, known)| *known <= attempts);
                self.since.insert(key, (known.map_or(at, |(since, _)| *since), attempts));
            }
        }
        self.targets = targets;
    }
}
