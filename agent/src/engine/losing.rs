//! Whom to tell that too much of what it sends is lost.

use std::{collections::BTreeSet, net::IpAddr};

use super::Engine;

impl Engine {
    /// Addresses of probed peers from which too much is lost on the way here, by all that is known: probes, media.
    pub fn losing(&self) -> BTreeSet<IpAddr> {
        let inner = self.lock();
        let paths: BTreeSet<_> = inner.judge.losing().collect();
        if paths.is_empty() { BTreeSet::new() } else { inner.aggregator.probes().addresses(&paths).collect() }
    }
}
