//! Whose a count becomes.

use super::*;
use crate::model::{Path, Role};

fn subject() -> Subject {
    Subject {
        path: Path { peer: "db".into(), address: None },
        service: "tcp/5432".into(),
        role: Role::Client,
    }
}

fn counts(n: u64) -> Counts {
    Counts { outcomes: [n, 0, 0, 0, 0, 0], ..Counts::default() }
}

fn places(all: &[(u32, Option<&str>)]) -> Arc<Places> {
    let mut places = Places::default();
    for (netns, id) in all {
        let pod = id.map(|id| {
            Arc::new(Pod { id: id.into(), is_pod: true, name: None, namespace: None, container: None })
        });
        places.insert(Owner::Namespace(*netns), pod);
    }
    Arc::new(places)
}

fn seconds(s: u64) -> Duration {
    Duration::from_secs(s)
}

fn apart(limit: usize) -> Pods {
    let mut pods = Pods::default();
    pods.expect(limit, 100);
    assert!(pods.is_apart(Owner::Namespace(7)) && !pods.is_apart(Owner::Namespace(0)));
    pods.take_apart(Part::new(100, seconds(0)));
    pods
}

/// A look at `at`, in which a namespace had so many handshakes.
fn look(pods: &mut Pods, at: u64, all: &[(u32, u64)]) {
    pods.begin(seconds(at));
    for (netns, n) in all {
        pods.add(*netns, &subject(), &counts(*n), seconds(at - 1));
    }
}

fn handshakes(part: &Part) -> u64 {
    part.subjects.iter().map(|(_, series)| series.totals.handshakes()).sum()
}

/// Of the host, and of each pod that is there.
fn shown(pods: &Pods) -> Vec<(String, u64)> {
    let those = pods.iter().filter(|pod| pod.gone.is_none());
    let those = those.map(|pod| (pod.pod.to_string(), handshakes(&pod.part)));
    std::iter::once(("host".into(), handshakes(pods.host().unwrap()))).chain(those).collect()
}

fn all(expected: &[(&str, u64)]) -> Vec<(String, u64)> {
    expected.iter().map(|(name, n)| ((*name).to_owned(), *n)).collect()
}

#[test]
fn what_is_counted_before_it_is_known_whose_it_is_becomes_its_owners() {
    let mut pods = apart(10);
    look(&mut pods, 1, &[(7, 5), (8, 3), (0, 2)]);
    assert!(pods.wait());
    assert_eq!(shown(&pods), all(&[("host", 2)]));
    pods.place(places(&[(7, Some("a")), (8, None)]), seconds(2));
    assert_eq!(shown(&pods), all(&[("host", 5), ("a", 5)]));
    look(&mut pods, 2, &[(7, 1), (8, 1)]);
    assert_eq!(shown(&pods), all(&[("host", 6), ("a", 6)]));
    assert!(!pods.wait());
    assert_eq!(pods.get("a").map(|pod| pod.part.paths.iter().count()), Some(1));
}

#[test]
fn what_nobody_knows_is_the_hosts_after_a_while() {
    let mut pods = apart(10);
    look(&mut pods, 1, &[(7, 5)]);
    look(&mut pods, 4, &[(7, 1)]);
    assert_eq!(shown(&pods), all(&[("host", 0)]));
    look(&mut pods, 6, &[(7, 1)]);
    assert_eq!(shown(&pods), all(&[("host", 7)]), "nothing waits any more");
    assert!(!pods.wait());
    pods.place(places(&[(7, Some("a"))]), seconds(8));
    look(&mut pods, 9, &[(7, 2)]);
    assert_eq!(shown(&pods), all(&[("host", 7), ("a", 2)]));
}

#[test]
fn pods_without_room_are_counted_and_the_hosts() {
    let mut pods = apart(1);
    pods.place(places(&[(7, Some("a")), (8, Some("b"))]), seconds(1));
    look(&mut pods, 1, &[(7, 1), (8, 1)]);
    look(&mut pods, 2, &[(7, 1), (8, 1)]);
    assert_eq!(shown(&pods), all(&[("host", 2), ("a", 2)]));
    assert_eq!((pods.count(), pods.folded()), (1, 1), "once for each");
    pods.place(places(&[(8, Some("b"))]), seconds(3));
    look(&mut pods, 4, &[(8, 1)]);
    assert_eq!(shown(&pods), all(&[("host", 2), ("b", 1)]));
}

#[test]
fn a_pod_that_goes_is_announced_and_then_forgotten_and_its_inode_is_anothers() {
    let mut pods = apart(10);
    pods.place(places(&[(7, Some("a"))]), seconds(1));
    look(&mut pods, 1, &[(7, 3)]);
    let changes = pods.changes();
    pods.place(places(&[(7, Some("b"))]), seconds(2));
    look(&mut pods, 3, &[(7, 4)]);
    assert_eq!(shown(&pods), all(&[("host", 0), ("b", 4)]));
    assert_eq!(pods.get("a").map(|pod| pod.gone), Some(Some(seconds(2))));
    assert!(pods.changes() > changes);
    look(&mut pods, 302, &[]);
    assert!(pods.get("a").is_none() && pods.get("b").is_some());
}

#[test]
fn what_is_held_is_bounded() {
    let mut pods = apart(10);
    let many: Vec<(u32, u64)> = (1..=MOST_HELD as u32 + 10).map(|netns| (netns, 1)).collect();
    look(&mut pods, 1, &many);
    assert_eq!((pods.held.len(), shown(&pods)), (MOST_HELD, all(&[("host", 10)])));
}

#[test]
fn a_condition_is_a_pods_where_nobody_else_has_to_do_with_its_subject() {
    let mut pods = apart(10);
    pods.place(places(&[(7, Some("a")), (8, Some("b"))]), seconds(1));
    look(&mut pods, 1, &[(7, 3)]);
    assert_eq!(pods.only_pod_of(&subject()).map(|pod| &*pod.id), Some("a"));
    look(&mut pods, 2, &[(8, 3)]);
    assert_eq!(pods.only_pod_of(&subject()), None);
}

#[test]
fn without_anybody_to_ask_everything_is_the_hosts() {
    let mut pods = Pods::default();
    assert!(!pods.is_apart(Owner::Namespace(7)));
    look(&mut pods, 1, &[(7, 3)]);
    assert!(pods.host().is_none() && !pods.wait());
}
