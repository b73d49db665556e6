//! Connections on which the peer speaks regularly, by path and service.

use std::{collections::BTreeMap, time::Duration};

use graylag_ebpf::{record::waiting, rhythm::UNIT_SHIFT};

use super::Aggregator;
use crate::{
    collect::Observation,
    model::{Spoken, SpokenTick, Subject},
};

impl Aggregator {
    /// Connections that are spoken to, by path and service.
    pub(super) fn spoken(&self, seen: &Observation) -> Vec<SpokenTick> {
        let mut subjects: BTreeMap<Subject, Vec<Spoken>> = BTreeMap::new();
        for wait in seen.waiting.iter().filter(|wait| wait.kind & waiting::SPOKEN != 0) {
            subjects.entry(self.name(&wait.path)).or_default().push(Spoken {
                id: wait.id,
                heard: Duration::from_nanos(wait.heard_ns),
                usual: Duration::from_nanos(u64::from(wait.usual) << UNIT_SHIFT),
                segments_in: wait.segments_in,
            });
        }
        subjects.into_iter().map(|(subject, connections)| SpokenTick { subject, connections }).collect()
    }
}
