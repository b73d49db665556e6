//! From a census to who is whose: what is known of cgroups and of names, and when it is asked for again. No I/O, no clock.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use super::{
    census::Census,
    cgroup::{CgroupOwner, owner},
    cri::Names,
};
use crate::model::{Container, Owner, Places, Pod};

/// After the first failure the runtime is asked again after this, then after twice that, and so on.
const FIRST_PAUSE: Duration = Duration::from_secs(10);
/// Up to this.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// What is known.
#[derive(Default)]
pub struct Resolver {
    /// Whose a cgroup is, by its number; `None` where it is the host's, or was not found.
    cgroups: BTreeMap<u64, Option<Arc<CgroupOwner>>>,
    names: Names,
    /// When the runtime may be asked again, and how long the pause before that is.
    asked: Option<(Duration, Duration)>,
    /// Whether the runtime answered when it was asked last.
    answers: bool,
    /// How often a cgroup was not found.
    pub lost: u64,
    /// How often the runtime did not answer.
    pub unanswered: u64,
}

impl Resolver {
    /// Cgroups whose paths are not known yet. Those that are in no census any more are forgotten.
    pub fn unknown_cgroups(&mut self, census: &Census) -> BTreeSet<u64> {
        let all = census.cgroups();
        self.cgroups.retain(|cgroup, _| all.contains(cgroup));
        all.into_iter().filter(|cgroup| !self.cgroups.contains_key(cgroup)).collect()
    }

    /// Takes the paths of cgroups that were looked for.
    pub fn learn_cgroups(&mut self, wanted: &BTreeSet<u64>, found: &BTreeMap<u64, String>) {
        for cgroup in wanted {
            match found.get(cgroup) {
                Some(path) => {
                    let owner = owner(path).map(Arc::new);
                    // A pause for what the runtime did not know is none for what is new.
                    if self.answers && owner.is_some() {
                        self.asked = None;
                    }
                    self.cgroups.insert(*cgroup, owner);
                }
                // It may have gone since the census. It is looked for again if the next one has it.
                None => self.lost += 1,
            }
        }
    }

    /// Whether a pod or a container of one is there whose name is not known, and it is time to ask for it.
    pub fn wants_names(&self, now: Duration) -> bool {
        self.asked.is_none_or(|(again, _)| now >= again)
            && self.cgroups.values().flatten().any(|owner| !self.is_named(owner))
    }

    fn is_named(&self, owner: &CgroupOwner) -> bool {
        let is_known =
            |id: &String| self.names.containers.contains_key(id) || self.names.sandboxes.contains_key(id);
        // What belongs to no pod the runtime may not know at all (Docker, podman).
        owner.pod.as_ref().is_none_or(|uid| {
            self.names.pods.contains_key(uid) && owner.container.as_ref().is_none_or(is_known)
        })
    }

    /// Takes what the runtime said at `now`, or that it did not.
    pub fn learn_names(&mut self, now: Duration, answer: Result<Names, String>) -> Result<(), String> {
        let outcome = answer.map(|names| self.names = names);
        self.answers = outcome.is_ok();
        self.unanswered += u64::from(outcome.is_err());
        let missing = self.cgroups.values().flatten().any(|owner| !self.is_named(owner));
        self.asked = (outcome.is_err() || missing).then(|| {
            let pause = self.asked.map_or(FIRST_PAUSE, |(_, pause)| (2 * pause).min(LONGEST_PAUSE));
            // What the runtime does not know now it may know in a moment: it is asked soon, and then ever more rarely.
            (now + pause, pause)
        });
        outcome
    }

    /// Who is whose.
    pub fn places(&self, census: &Census) -> Places {
        let mut places = Places::default();
        for netns in &census.host {
            places.insert(Owner::Namespace(*netns), None);
        }
        for (netns, members) in &census.namespaces {
            // Where nothing is known of any of them there is nothing to tell yet.
            if members.keys().any(|cgroup| self.cgroups.contains_key(cgroup)) {
                places.insert(Owner::Namespace(*netns), self.of_namespace(members));
            }
        }
        for (process, cgroup) in &census.processes {
            if let Some(owner) = self.cgroups.get(cgroup) {
                let pod = owner.as_ref().map(|owner| {
                    let container = owner.container.clone().filter(|id| !self.is_sandbox(id));
                    Arc::new(self.pod(owner, container))
                });
                places.insert(Owner::Process(*process), pod);
            }
        }
        places
    }

    /// The pod of a namespace. Whoever else is in it, such as a debugger that entered it from the host, is there beside the pod;
    /// of several containers that share a namespace without a pod it is the oldest one's.
    fn of_namespace(&self, members: &BTreeMap<u64, bool>) -> Option<Arc<Pod>> {
        let owners = members
            .iter()
            .filter_map(|(cgroup, holds)| Some((self.cgroups.get(cgroup)?.as_ref()?.as_ref(), *holds)));
        let owners: Vec<(&CgroupOwner, bool)> = owners.collect();
        // Cgroups are numbered in the order in which they were made.
        let (first, _) = owners.iter().find(|(owner, _)| owner.pod.is_some()).or(owners.first())?;
        let same = owners.iter().filter(|(owner, _)| owner.pod == first.pod);
        let containers: BTreeSet<&String> = same
            .filter(|(_, holds)| !holds)
            .filter_map(|(owner, _)| owner.container.as_ref())
            .filter(|id| !self.is_sandbox(id))
            .collect();
        let only = containers.first().filter(|_| containers.len() == 1).map(|id| (*id).clone());
        Some(Arc::new(self.pod(first, only)))
    }

    fn is_sandbox(&self, id: &String) -> bool {
        self.names.sandboxes.contains_key(id)
    }

    fn pod(&self, owner: &CgroupOwner, only: Option<String>) -> Pod {
        let sandbox_of = |id: &String| {
            let sandbox = self.names.containers.get(id).map_or(id, |(sandbox, _)| sandbox);
            self.names.sandboxes.get(sandbox)
        };
        let container_name = |id: &String| {
            self.names.containers.get(id).map(|(_, name)| name.clone()).filter(|name| !name.is_empty())
        };
        // The runtime may have its pods elsewhere than below `kubepods`.
        let uid = owner.pod.as_ref().or_else(|| owner.container.as_ref().and_then(sandbox_of));
        if let Some(uid) = uid {
            let called = self.names.pods.get(uid);
            return Pod {
                id: uid.as_str().into(),
                is_pod: true,
                name: called.map(|called| called.name.clone()),
                namespace: called.map(|called| called.namespace.clone()),
                container: only.map(|id| Container { name: container_name(&id), id: id.into() }),
            };
        }
        let id = owner.container.as_deref().unwrap_or_default();
        Pod { id: id.into(), is_pod: false, name: None, namespace: None, container: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attribution::cri::PodName;

    const UID: &str = "0d8a2c3e-5f60-4a1b-9c7d-8e9f0a1b2c3d";

    fn id(digit: char) -> String {
        digit.to_string().repeat(64)
    }

    fn in_pod(container: char) -> String {
        format!("/kubepods/burstable/pod{UID}/{}", id(container))
    }

    fn seconds(s: u64) -> Duration {
        Duration::from_secs(s)
    }

    /// Namespace 7, with these cgroups: whether they only hold it.
    fn census(members: &[(u64, bool)]) -> Census {
        Census {
            namespaces: BTreeMap::from([(7, members.iter().copied().collect())]),
            host: BTreeSet::from([1]),
            processes: BTreeMap::new(),
        }
    }

    fn resolver(census: &Census, paths: &[(u64, String)]) -> Resolver {
        let mut resolver = Resolver::default();
        let wanted = resolver.unknown_cgroups(census);
        resolver.learn_cgroups(&wanted, &paths.iter().cloned().collect());
        resolver
    }

    fn names() -> Names {
        Names {
            pods: BTreeMap::from([(UID.into(), PodName { name: "web-0".into(), namespace: "shop".into() })]),
            sandboxes: BTreeMap::from([(id('a'), UID.into())]),
            containers: BTreeMap::from([
                (id('b'), (id('a'), "web".into())),
                (id('c'), (id('a'), "proxy".into())),
            ]),
        }
    }

    fn shown(resolver: &Resolver, census: &Census) -> String {
        match resolver.places(census).get(Owner::Namespace(7)) {
            None => "unknown".into(),
            Some(None) => "host".into(),
            Some(Some(pod)) => {
                let all = pod.attributes();
                let shorter =
                    |value: &str| if value.len() == 64 { value[..1].to_owned() } else { value.to_owned() };
                all.iter()
                    .map(|(name, value)| format!("{name}={}", shorter(value)))
                    .collect::<Vec<_>>()
                    .join(" ")
            }
        }
    }

    #[test]
    fn without_the_runtime_there_is_the_uid_and_the_only_container() {
        let census = census(&[(30, true), (31, false)]);
        let resolver = resolver(&census, &[(30, in_pod('a')), (31, in_pod('b'))]);
        assert_eq!(shown(&resolver, &census), format!("k8s.pod.uid={UID} container.id=b"));
        assert_eq!(resolver.places(&census).get(Owner::Namespace(1)), Some(None));
        assert_eq!(resolver.places(&census).get(Owner::Namespace(8)), None);
    }

    #[test]
    fn with_it_there_are_names_and_what_several_containers_share_is_the_pods() {
        let one = census(&[(30, false), (31, false)]);
        let mut resolver = resolver(&one, &[(30, in_pod('a')), (31, in_pod('b'))]);
        assert!(resolver.wants_names(seconds(1)));
        resolver.learn_names(seconds(1), Ok(names())).unwrap();
        assert!(!resolver.wants_names(seconds(1000)));
        assert_eq!(
            shown(&resolver, &one),
            format!(
                "k8s.pod.uid={UID} k8s.pod.name=web-0 k8s.namespace.name=shop container.id=b k8s.container.name=web"
            ),
            "the sandbox is no container, whatever its process is called"
        );
        let two = census(&[(30, true), (31, false), (32, false)]);
        let wanted = resolver.unknown_cgroups(&two);
        resolver.learn_cgroups(&wanted, &BTreeMap::from([(32, in_pod('c'))]));
        assert!(!resolver.wants_names(seconds(1000)), "the name of the second is known");
        assert_eq!(
            shown(&resolver, &two),
            format!("k8s.pod.uid={UID} k8s.pod.name=web-0 k8s.namespace.name=shop")
        );
    }

    #[test]
    fn a_runtime_that_does_not_answer_is_asked_ever_more_rarely() {
        let census = census(&[(31, false)]);
        let mut resolver = resolver(&census, &[(31, in_pod('b'))]);
        let mut asked = Vec::new();
        for second in 0..2000 {
            if resolver.wants_names(seconds(second)) {
                asked.push(second);
                assert!(resolver.learn_names(seconds(second), Err("no answer".into())).is_err());
            }
        }
        assert_eq!(asked, [0, 10, 30, 70, 150, 310, 610, 910, 1210, 1510, 1810]);
        assert_eq!(resolver.unanswered, asked.len() as u64);
        assert_eq!(shown(&resolver, &census), format!("k8s.pod.uid={UID} container.id=b"));
    }

    #[test]
    fn whoever_entered_a_namespace_does_not_own_it() {
        let census = census(&[(5, false), (31, false)]);
        let paths = [(5, "/user.slice/user-0.slice".to_owned()), (31, in_pod('b'))];
        assert_eq!(shown(&resolver(&census, &paths), &census), format!("k8s.pod.uid={UID} container.id=b"));
        let host = census_of_host();
        assert_eq!(shown(&resolver(&host, &[(5, "/user.slice".into())]), &host), "host");
        assert_eq!(shown(&resolver(&host, &[]), &host), "unknown", "its cgroup has gone");
    }

    fn census_of_host() -> Census {
        census(&[(5, false)])
    }

    #[test]
    fn containers_without_a_pod_are_themselves() {
        let census = census(&[(40, false), (41, false)]);
        let paths = [(40, format!("/docker/{}", id('d'))), (41, format!("/docker/{}", id('c')))];
        assert_eq!(shown(&resolver(&census, &paths), &census), "container.id=d", "the oldest one's");
    }

    #[test]
    fn a_cgroup_that_was_not_found_is_looked_for_again() {
        let census = census(&[(31, false)]);
        let mut resolver = resolver(&census, &[]);
        assert_eq!((resolver.lost, resolver.unknown_cgroups(&census)), (1, BTreeSet::from([31])));
    }

    #[test]
    fn processes_in_the_hosts_namespace_have_their_pod() {
        let census = Census { processes: BTreeMap::from([(90, 31), (91, 5)]), ..Census::default() };
        let mut resolver = resolver(&census, &[(31, in_pod('b')), (5, "/system.slice/x.service".into())]);
        resolver.learn_names(seconds(1), Ok(names())).unwrap();
        let places = resolver.places(&census);
        let pod = places.get(Owner::Process(90)).flatten().map(ToString::to_string);
        assert_eq!(pod.as_deref(), Some("shop/web-0"));
        assert_eq!(places.get(Owner::Process(91)), Some(None));
    }
}
