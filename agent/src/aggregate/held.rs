//! What is counted before anybody knows whose it is.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

use super::part::Part;
use crate::model::{Counts, RelayCounts, Subject};

/// What was counted before anybody knew whose it is.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Held {
    /// Since when.
    pub began: Duration,
    /// Of subjects.
    pub counts: BTreeMap<Subject, Counts>,
    /// Of processes that carry media, by name.
    pub relays: BTreeMap<Arc<str>, RelayCounts>,
    /// Receive-buffer drops by service.
    pub udp: BTreeMap<Arc<str>, u64>,
}

impl Held {
    /// How much it takes up.
    pub fn entries(&self) -> usize {
        self.counts.len() + self.relays.len() + self.udp.len()
    }

    /// Gives it to whose it is.
    pub fn give(&self, part: &mut Part) {
        for (subject, counts) in &self.counts {
            part.add(subject, counts, self.began);
        }
        for (name, counts) in &self.relays {
            part.add_relay(name, counts, self.began);
        }
        for (service, packets) in &self.udp {
            part.add_udp(service, *packets);
        }
    }
}
