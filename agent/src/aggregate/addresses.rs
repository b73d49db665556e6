//! TCP and TLS probes: the addresses of each target, as they were last.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use crate::model::{AddressPath, AddressTarget, Path};

/// All addresses that are probed now. One that a name resolves to no more goes, and begins anew when it comes back.
#[derive(Default)]
pub struct Addresses {
    known: BTreeMap<(String, bool, SocketAddr), AddressTotals>,
}

/// One address of one target.
#[derive(Clone, Debug)]
pub struct AddressTotals {
    /// The target by its name, and the address.
    pub path: Path,
    /// Whether TLS follows.
    pub tls: bool,
    /// When it was first seen, on the ticks' clock.
    pub since: Duration,
    /// Counts since then.
    pub seen: AddressPath,
}

impl Addresses {
    /// All of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = &AddressTotals> {
        self.known.values()
    }

    /// Takes all targets as they are at `at`.
    pub fn absorb(&mut self, targets: &[AddressTarget], at: Duration) {
        let mut before = std::mem::take(&mut self.known);
        for target in targets {
            for seen in &target.paths {
                let key = (target.target.clone(), target.tls, seen.address);
                // Counts that fell are another life of the address.
                let since = before
                    .remove(&key)
                    .filter(|known| known.seen.counts.attempts() <= seen.counts.attempts())
                    .map_or(at, |known| known.since);
                let path = Path { peer: target.target.as_str().into(), address: Some(seen.address.ip()) };
                let totals = AddressTotals { path, tls: target.tls, since, seen: seen.clone() };
                self.known.insert(key, totals);
            }
        }
    }
}
