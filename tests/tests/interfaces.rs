//! Hosts with very many interfaces: every one of them takes two open files, of which a process may have only so many.
#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests are tests

use std::{fs, time::Duration};

use graylag_tests::{
    agent::{Agent, Setup, binary},
    eventually,
    net::Pair,
    proc::finish,
};

const SOON: Duration = Duration::from_secs(30);
/// Beside the one that is there.
const MORE: usize = 160;
const MEDIA: &str = "[media]\ninterfaces = [\"*\"]\n[limits]\nflows = 256\npaths = 64";
const DEGRADED: i32 = 3;

/// A host with as many more interfaces, in pairs, each the other's end.
fn crowded() -> Pair {
    let pair = Pair::new();
    for i in 0..MORE / 2 {
        let (a, b) = (format!("a{i}"), format!("b{i}"));
        pair.server.ip(&["link", "add", &a, "up", "type", "veth", "peer", "name", &b]);
        pair.server.ip(&["link", "set", &b, "up"]);
    }
    pair
}

/// Open files: as many as it begins with, as many as it may have.
fn files(soft: usize, hard: usize) -> String {
    format!("--nofile={soft}:{hard}")
}

/// How much of media is seen, and why not all of it.
fn media(agent: &Agent) -> (f64, Option<String>) {
    let signal = agent.signal("media");
    (signal.coverage.unwrap(), signal.reason)
}

fn open_files(agent: &Agent) -> usize {
    fs::read_dir(format!("/proc/{}/fd", agent.process.id())).unwrap().count()
}

#[test]
fn where_a_process_may_have_more_files_it_takes_them() {
    let pair = crowded();
    let agent = Setup::watching(&[&pair.server])
        .inside(&pair.server)
        .through(&["prlimit", &files(256, 4096)])
        .config(MEDIA)
        .start();
    eventually("all are watched", SOON, || (open_files(&agent) > 2 * MORE).then_some(()));
    assert_eq!(media(&agent), (1.0, None));
}

#[test]
fn what_finds_no_room_is_told_and_costs_nothing_else() {
    let pair = crowded();
    let limit = files(256, 256);
    let agent = Setup::watching(&[&pair.server])
        .inside(&pair.server)
        .through(&["prlimit", &limit])
        .config(MEDIA)
        .start();
    let reason = eventually("it says so", SOON, || media(&agent).1);
    let (count, rest) = reason.split_once(" of ").unwrap();
    let (of, rest) = rest.split_once(" interfaces are not watched, e.g. ").unwrap();
    let (count, of): (usize, usize) = (count.parse().unwrap(), of.parse().unwrap());
    assert_eq!(of, MORE + 1, "{reason}");
    assert!(count > 10 && count < MORE && rest.contains("LimitNOFILE="), "{reason}");
    let share = (of - count) as f64 / of as f64;
    assert!((media(&agent).0 - share).abs() < 1e-9, "{share}");
    agent.said("nor is it at");
    // Looks go on, and there are files for whoever asks.
    assert!(open_files(&agent) < 200, "{}", open_files(&agent));
    assert_eq!(agent.get("/readyz").unwrap().0, 200);
    let config = agent.config.to_str().unwrap();
    let check = [&limit, binary().to_str().unwrap(), "check", "--config", config].map(str::to_owned);
    let check = finish(pair.server.command("prlimit").args(check));
    assert_eq!(check.code, Some(DEGRADED), "{}", check.out);
    assert!(
        check.out.lines().any(|line| line.trim().starts_with("media  ") && line.contains("partial")),
        "{}",
        check.out
    );

    for i in 0..MORE / 2 {
        pair.server.ip(&["link", "del", &format!("a{i}")]);
    }
    eventually("what is left has room", SOON, || (media(&agent) == (1.0, None)).then_some(()));
}
