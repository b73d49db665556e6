//! Totals taken apart: what each pod has counted, and what is left of the host's.
//!
//! What is judged and shown is the node's as a whole; these are for whoever wants to know whose it was (one `ResourceMetrics` for
//! each). As long as everything is the host's there is nothing to take apart. What is counted before anybody knows whose it
//! is, is held for a moment.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::{Troubled, held::Held, part::Part};
use crate::model::{Counts, Owner, Pending, Places, Pod, RelayCounts, Subject};

/// So long is held what belongs to nobody known; then it is the host's.
const HELD: Duration = Duration::from_secs(5);
/// Owners for which something is held, and entries in all of them together.
const MOST_HELD: usize = 256;
const MOST_ENTRIES: usize = 2000;
/// An owner that was given up is held for again after this, if it is still unknown.
const GIVEN_UP: Duration = Duration::from_secs(60);
/// A pod that is gone is announced as such for this long, so that every exporter sees it once.
const ANNOUNCED: Duration = Duration::from_secs(300);
/// One in so many of the subjects that a node publishes is published of each pod.
const OF_A_POD: usize = 5;

/// Everything that is taken apart.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Pods {
    #[serde(skip)]
    limit: usize,
    #[serde(skip)]
    subjects: usize,
    /// Who is whose; nothing where nobody asks.
    #[serde(skip)]
    places: Option<Arc<Places>>,
    /// What is not a pod's; nothing while everything is the host's.
    host: Option<Part>,
    /// What is a pod's, by its identifier.
    apart: BTreeMap<Arc<str>, PodPart>,
    held: BTreeMap<Owner, Held>,
    #[serde(skip)]
    given_up: BTreeMap<Owner, Duration>,
    /// Longest waits for an answer, as of the last look at all of them.
    #[serde(skip)]
    waits: BTreeMap<(Owner, Subject), Duration>,
    /// Pods for which there is no room now.
    #[serde(skip)]
    without_room: BTreeSet<Arc<str>>,
    #[serde(skip)]
    folded: u64,
    #[serde(skip)]
    changes: u64,
}

/// A pod and what it has counted.
#[derive(Debug, Serialize, Deserialize)]
pub struct PodPart {
    /// Which.
    pub pod: Arc<Pod>,
    /// What it has counted.
    pub part: Part,
    /// Since when nothing is left of it.
    pub gone: Option<Duration>,
}

/// Where something is counted.
enum Place<'a> {
    Part(&'a mut Part),
    Held(&'a mut Held),
}

impl Pods {
    /// Somebody will tell who is whose. At most `limit` pods are told apart, on a node that publishes so many `subjects`.
    pub fn expect(&mut self, limit: usize, subjects: usize) {
        (self.limit, self.subjects) = (limit, subjects);
        self.places = Some(Arc::default());
        if let Some(host) = &mut self.host {
            host.set_limit(subjects);
        }
        let of_a_pod = self.of_a_pod();
        self.apart.values_mut().for_each(|pod| pod.part.set_limit(of_a_pod));
    }

    fn of_a_pod(&self) -> usize {
        self.subjects.div_ceil(OF_A_POD)
    }

    /// What was expected: how many pods are told apart, and how many subjects the node publishes.
    pub fn settings(&self) -> Option<(usize, usize)> {
        self.places.as_ref().map(|_| (self.limit, self.subjects))
    }

    /// Takes who is whose, at `at`.
    pub fn place(&mut self, places: Arc<Places>, at: Duration) {
        let now: BTreeMap<&Arc<str>, &Arc<Pod>> =
            places.iter().filter_map(|(_, pod)| pod.map(|pod| (&pod.id, pod))).collect();
        for (id, known) in &mut self.apart {
            match now.get(id) {
                // It may have got a name, or another container.
                Some(pod) if known.gone.is_none() => known.pod = Arc::clone(pod),
                Some(_) => {}
                None => drop(known.gone.get_or_insert(at)),
            }
        }
        self.without_room.retain(|id| now.contains_key(id));
        let told: Vec<Owner> =
            self.held.keys().copied().filter(|owner| places.get(*owner).is_some()).collect();
        self.given_up.retain(|owner, _| places.get(*owner).is_none());
        drop(now);
        self.places = Some(places);
        for owner in told {
            if let Some(held) = self.held.remove(&owner) {
                self.give(owner, &held, at);
            }
        }
    }

    fn give(&mut self, owner: Owner, held: &Held, at: Duration) {
        self.changes += 1;
        if let Some(Place::Part(part)) = self.of(owner, at) {
            held.give(part);
        }
    }

    /// Whether something is not known to be the host's: then totals have to be taken apart.
    pub fn is_apart(&self, owner: Owner) -> bool {
        !owner.is_nobody() && self.places.as_ref().is_some_and(|places| places.get(owner) != Some(None))
    }

    /// Whether totals have been taken apart.
    pub const fn are_apart(&self) -> bool {
        self.host.is_some()
    }

    /// Takes totals apart from now on; so far everything was the host's.
    pub fn take_apart(&mut self, host: Part) {
        self.changes += 1;
        self.host = Some(host);
    }

    /// What is not a pod's, where that is not everything. Where nobody asks any more whose things are, everything is the host's
    /// again.
    pub fn host(&self) -> Option<&Part> {
        self.host.as_ref().filter(|_| self.places.is_some())
    }

    /// Pods, those that are gone among them.
    pub fn iter(&self) -> impl Iterator<Item = &PodPart> {
        self.apart.values().filter(|_| self.places.is_some())
    }

    /// A pod that is told apart.
    pub fn get(&self, id: &str) -> Option<&PodPart> {
        self.apart.get(id)
    }

    /// Pods told apart now.
    pub fn count(&self) -> usize {
        self.apart.values().filter(|pod| pod.gone.is_none()).count()
    }

    /// How often a pod found no room.
    pub const fn folded(&self) -> u64 {
        self.folded
    }

    /// Whether something is held: whoever is asked whose it is should be quick.
    pub fn wait(&self) -> bool {
        !self.held.is_empty()
    }

    /// Whose something is, where it is known to be a pod's.
    pub fn pod_of(&self, owner: Owner) -> Option<&Arc<Pod>> {
        self.places.as_ref()?.get(owner)?
    }

    /// Processes that were asked for and are there.
    pub fn processes(&self) -> impl Iterator<Item = u32> {
        let places = self.places.iter().flat_map(|places| places.iter());
        places.filter_map(|(owner, _)| match owner {
            Owner::Process(process) => Some(process),
            Owner::Namespace(_) => None,
        })
    }

    /// Inodes of a pod's network namespaces.
    pub fn namespaces_of(&self, id: &str) -> Vec<u32> {
        let places = self.places.iter().flat_map(|places| places.iter());
        places
            .filter_map(|(owner, pod)| match owner {
                Owner::Namespace(netns) if pod.is_some_and(|pod| *pod.id == *id) => Some(netns),
                _ => None,
            })
            .collect()
    }

    /// The only pod that has to do with a subject; nothing where several have, or the host.
    pub fn only_pod_of(&self, subject: &Subject) -> Option<&Arc<Pod>> {
        if self.host()?.subjects.shows(subject) {
            return None;
        }
        let mut those =
            self.apart.values().filter(|pod| pod.gone.is_none() && pod.part.subjects.shows(subject));
        those.next().filter(|_| those.next().is_none()).map(|pod| &pod.pod)
    }

    /// Begins a look at connections.
    pub fn begin(&mut self, at: Duration) {
        let changes = &mut self.changes;
        self.apart.retain(|_, pod| {
            let over = pod.gone.is_some_and(|gone| at.saturating_sub(gone) >= ANNOUNCED);
            *changes += if over { pod.part.changes() + 2 } else { 0 };
            !over
        });
        self.given_up.retain(|_, since| at.saturating_sub(*since) < GIVEN_UP);
        let owners: Vec<Owner> = self
            .held
            .iter()
            .filter(|(_, held)| at.saturating_sub(held.began) >= HELD)
            .map(|(owner, _)| *owner)
            .collect();
        for owner in owners {
            if let Some(held) = self.held.remove(&owner) {
                if self.given_up.len() < MOST_HELD {
                    self.given_up.insert(owner, at);
                }
                self.changes += 1;
                if let Some(host) = &mut self.host {
                    held.give(host);
                }
            }
        }
        self.parts().for_each(|part| part.begin(at));
    }

    /// Begins a look at relays.
    pub fn begin_relays(&mut self, at: Duration) {
        self.parts().for_each(|part| part.relays.begin(at));
    }

    fn parts(&mut self) -> impl Iterator<Item = &mut Part> {
        self.host.iter_mut().chain(self.apart.values_mut().map(|pod| &mut pod.part))
    }

    /// Where something of an owner is counted; nothing while everything is the host's.
    fn of(&mut self, owner: Owner, at: Duration) -> Option<Place<'_>> {
        self.host.as_ref()?;
        let places = self.places.as_ref()?;
        match places.get(owner) {
            _ if owner.is_nobody() => {}
            Some(None) => {}
            Some(Some(pod)) => {
                let pod = Arc::clone(pod);
                if self.has_room_for(&pod, at) {
                    return self.apart.get_mut(&pod.id).map(|pod| Place::Part(&mut pod.part));
                }
            }
            None if self.given_up.contains_key(&owner) => {}
            None => {
                let entries: usize = self.held.values().map(Held::entries).sum();
                let room = self.held.len() < MOST_HELD || self.held.contains_key(&owner);
                if room && entries < MOST_ENTRIES {
                    let held = self.held.entry(owner);
                    return Some(Place::Held(held.or_insert_with(|| Held { began: at, ..Held::default() })));
                }
            }
        }
        self.host.as_mut().map(Place::Part)
    }

    /// Whether a pod has a part, or gets one now.
    fn has_room_for(&mut self, pod: &Arc<Pod>, at: Duration) -> bool {
        if self.apart.get(&pod.id).is_some_and(|known| known.gone.is_none()) {
            return true;
        }
        if self.count() >= self.limit {
            if self.without_room.insert(pod.id.clone()) {
                self.folded += 1;
            }
            return false;
        }
        // Those that are gone are announced while there is room for it.
        if self.apart.len() >= 2 * self.limit {
            let oldest = self.apart.iter().filter_map(|(id, pod)| Some((pod.gone?, id.clone()))).min();
            oldest.and_then(|(_, id)| self.apart.remove(&id));
        }
        self.changes += 1;
        let part = Part::new(self.of_a_pod(), at);
        self.apart.insert(pod.id.clone(), PodPart { pod: pod.clone(), part, gone: None });
        true
    }

    /// Takes what a subject did in a namespace, in a look that began at `since`.
    pub fn add(&mut self, netns: u32, subject: &Subject, counts: &Counts, since: Duration) {
        match self.of(Owner::Namespace(netns), since) {
            Some(Place::Part(part)) => part.add(subject, counts, since),
            Some(Place::Held(held)) => held.counts.entry(subject.clone()).or_default().add(counts),
            None => {}
        }
    }

    /// Takes what processes relayed.
    pub fn add_relay(&mut self, process: u32, name: &Arc<str>, counts: &RelayCounts, since: Duration) {
        match self.of(Owner::Process(process), since) {
            Some(Place::Part(part)) => part.add_relay(name, counts, since),
            Some(Place::Held(held)) => held.relays.entry(name.clone()).or_default().add(counts),
            None => {}
        }
    }

    /// Takes receive-buffer drops.
    pub fn add_udp(&mut self, netns: u32, service: &Arc<str>, packets: u64, at: Duration) {
        if packets == 0 {
            return;
        }
        match self.of(Owner::Namespace(netns), at) {
            Some(Place::Part(part)) => part.add_udp(service, packets),
            Some(Place::Held(held)) => *held.udp.entry(service.clone()).or_default() += packets,
            None => {}
        }
    }

    /// What a subject has pending in a namespace; what nobody knows the owner of is not shown by anybody.
    pub fn pending(&mut self, netns: u32, subject: &Subject, at: Duration) -> Option<&mut Pending> {
        match self.of(Owner::Namespace(netns), at)? {
            Place::Part(part) => Some(part.subjects.pending(subject, at)),
            Place::Held(_) => None,
        }
    }

    /// Forgets the waits of the last look at all of them.
    pub fn forget_waits(&mut self) {
        self.waits.clear();
    }

    /// Takes the wait of a connection.
    pub fn wait_of(&mut self, netns: u32, subject: &Subject, silence: Duration) {
        if self.are_apart() {
            let longest = self.waits.entry((Owner::Namespace(netns), subject.clone())).or_default();
            *longest = (*longest).max(silence);
        }
    }

    /// Says the longest waits.
    pub fn tell_waits(&mut self, at: Duration) {
        let waits = std::mem::take(&mut self.waits);
        for ((owner, subject), wait) in &waits {
            if let Owner::Namespace(netns) = owner
                && let Some(pending) = self.pending(*netns, subject, at)
            {
                pending.longest_wait = pending.longest_wait.max(Some(*wait));
            }
        }
        self.waits = waits;
    }

    /// Lets those in trouble, and the busiest, be published by themselves.
    pub fn rank(&mut self, at: Duration, troubled: &Troubled) {
        self.parts().for_each(|part| part.rank(at, troubled));
    }

    /// How often something happened that cannot be told from the kernel's counters alone.
    pub fn changes(&self) -> u64 {
        self.changes
            + self.host.iter().map(Part::changes).sum::<u64>()
            + self.apart.values().map(|pod| pod.part.changes() + 1).sum::<u64>()
    }

    /// How often a series of a pod was put into `~other`.
    pub fn series_folded(&self) -> u64 {
        self.apart.values().map(|pod| pod.part.folded()).sum()
    }
}

#[cfg(test)]
mod tests;
