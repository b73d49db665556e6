//! Pods: what is told of whose, and to whom it is told apart.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use super::{Engine, Inner};
use crate::{
    aggregate::PodPart,
    model::{
        Condition, Owner, Phase, Places, Pod, Target,
        status::{AttributionStatus, PodStatus},
    },
    telemetry::{Point, Whose, catalog::Id},
};

/// Of what has to be asked whose it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// Whether counts wait for the answer.
    pub waits: bool,
    /// Whether there is anything that is not the host's.
    pub others: bool,
    /// Processes whose owner is wanted.
    pub processes: BTreeSet<u32>,
}

impl Engine {
    /// Somebody will tell whose each namespace is: at most `limit` pods are told apart, on a node that publishes so many
    /// `subjects`.
    pub fn expect_pods(&self, limit: usize, subjects: usize) {
        self.lock().aggregator.expect_pods(limit, subjects);
    }

    /// Of what has to be asked whose it is.
    pub fn asked(&self) -> Asked {
        let inner = self.lock();
        Asked {
            waits: inner.aggregator.pods().wait(),
            others: inner.aggregator.has_others(),
            processes: inner.aggregator.processes(),
        }
    }

    /// Takes who is whose, at `at`.
    pub fn place(&self, places: Arc<Places>, at: Duration) {
        self.lock().aggregator.place(places, at);
    }

    /// Takes what became of asking.
    pub fn set_attribution(&self, status: AttributionStatus) {
        let mut inner = self.lock();
        inner.agent.attribution_failed = Some([("cgroup", status.cgroups_lost), ("cri", status.unanswered)]);
        inner.attribution = Some(status);
    }

    /// Whose metrics there are: the host's, and those of each pod.
    pub fn resources(&self) -> Vec<Option<Arc<Pod>>> {
        let inner = self.lock();
        let pods = inner.aggregator.pods().iter().map(|pod| Some(pod.pod.clone()));
        std::iter::once(None).chain(pods).collect()
    }

    /// The points of one metric that are a pod's, or the host's.
    pub fn points_of(&self, pod: Option<&Pod>, id: Id) -> Vec<Point> {
        let inner = self.lock();
        let pods = inner.aggregator.pods();
        match pod {
            None => inner.points(id, pods.host().map_or(Whose::Node, Whose::Part)),
            Some(_) if !id.is_of_pods() => Vec::new(),
            Some(pod) => pods.get(&pod.id).map_or_else(Vec::new, |pod| inner.points(id, Whose::Pod(pod))),
        }
    }
}

impl Inner {
    /// Whose pod a condition is about, for as long as it stands: what began under one resource ends under it.
    pub(super) fn pod_of(&mut self, condition: &Condition, phase: Phase) -> Option<Arc<Pod>> {
        let pods = self.aggregator.pods();
        let pod = match (self.of_pods.get(&condition.key), &condition.key.target) {
            (Some(pod), _) => pod.clone(),
            (None, Target::Subject(subject)) => pods.only_pod_of(subject).cloned(),
            (None, Target::Process(process)) => pods.pod_of(Owner::Process(process.id)).cloned(),
            (None, _) => None,
        };
        if phase == Phase::Cleared {
            self.of_pods.remove(&condition.key);
        } else {
            self.of_pods.insert(condition.key.clone(), pod.clone());
        }
        pod
    }

    pub(super) fn pods(&self) -> Vec<PodStatus> {
        let pods = self.aggregator.pods();
        let there = pods.iter().filter(|pod| pod.gone.is_none());
        there
            .map(|PodPart { pod, .. }| PodStatus { namespaces: pods.namespaces_of(&pod.id), ..status(pod) })
            .collect()
    }
}

/// What the local API says of a pod.
pub(super) fn status(pod: &Pod) -> PodStatus {
    let text = |text: &Option<Arc<str>>| text.as_ref().map(ToString::to_string);
    PodStatus {
        uid: pod.is_pod.then(|| pod.id.to_string()),
        name: text(&pod.name),
        namespace: text(&pod.namespace),
        container_id: match &pod.container {
            _ if !pod.is_pod => Some(pod.id.to_string()),
            container => container.as_ref().map(|container| container.id.to_string()),
        },
        container_name: pod.container.as_ref().and_then(|container| text(&container.name)),
        namespaces: Vec::new(),
    }
}
