//! The pinned map of path states, read as a data plane reads it: without the agent, and safely when there is none any more.
#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests are tests

use std::{
    fs,
    net::IpAddr,
    os::unix::fs::{PermissionsExt, chown},
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use aya::maps::{HashMap, MapData};
use graylag_ebpf::path_state::{Entry, State};
use graylag_tests::{
    agent::{Agent, Setup, graylag},
    eventually,
    net::{Host, Pair, address},
    nft::Nft,
    path_map::{BpfFs, Program, Reader, now_ns},
    proc::{Directory, Ended, finish, run},
};
use rustix::process::Signal;

/// Patience with a busy machine; what is exact is read from the entries themselves.
const SOON: Duration = Duration::from_secs(20);
/// All test packets and replies.
const STAMP: &str = "meta l4proto udp";
/// Three looks of these tests, and a second.
const VALID: Duration = Duration::from_millis(1600);
const USAGE: i32 = 2;

/// An agent that probes one peer, and is probed by it.
fn node(host: &Host, peer: IpAddr, more: &str) -> Setup {
    let toml = format!(
        "{more}\n[[peer]]\nname = \"other\"\ncidrs = [\"{peer}\"]\n[stamp]\nlisten = \"[::]:862\"\n\
         [[probe]]\nkind = \"stamp\"\ntarget = \"{peer}\"\ninterval = \"100ms\""
    );
    Setup::watching(&[host]).inside(host).config(&toml)
}

fn map(pin: &Path) -> String {
    format!("[api]\npath_map = \"{}\"", pin.display())
}

/// The client's agent has a map; the server's only answers and probes.
fn nodes(pair: &Pair, pin: &Path) -> [Agent; 2] {
    [
        node(&pair.client, address::SERVER_V4, &map(pin)).start(),
        node(&pair.server, address::CLIENT_V4, "").start(),
    ]
}

#[track_caller]
fn until(reader: &Reader, expected: [State; 2]) -> Entry {
    eventually(&format!("{expected:?}"), SOON, || {
        (reader.states(address::SERVER_V4) == expected).then(|| reader.entry(address::SERVER_V4).unwrap())
    })
}

const WELL: [State; 2] = [State::Healthy; 2];
const NOTHING: [State; 2] = [State::Unknown; 2];

#[test]
fn exactly_the_direction_that_is_dead_is_down_and_well_again_when_it_is() {
    let (pair, bpf) = (Pair::new(), BpfFs::new());
    let pin = bpf.join("graylag/path_state");
    let [a, _b] = nodes(&pair, &pin);
    let reader = Reader::open(&pin).expect("the pin");
    let well = until(&reader, WELL);
    assert!(well.receive.proven_ns > 0 && well.receive.proven_ns <= now_ns(), "{well:?}");
    assert!(well.valid_until_ns <= now_ns() + VALID.as_nanos() as u64, "{well:?}");
    // It is renewed, and so is the evidence.
    let renewed = eventually("renewal", SOON, || {
        let entry = reader.entry(address::SERVER_V4)?;
        (entry.valid_until_ns > well.valid_until_ns && entry.transmit.proven_ns > well.transmit.proven_ns)
            .then_some(entry)
    });
    assert_eq!((renewed.epoch, renewed.transmit.since_ns), (well.epoch, well.transmit.since_ns));
    assert_eq!(reader.states("192.0.2.1".parse().unwrap()), NOTHING, "no path of ours");

    let program = Program::load(&reader, address::SERVER_V4).expect("a program that reads the map");
    let (at_server, at_client) = (Nft::new(&pair.server), Nft::new(&pair.client));
    for (faulty, name, expected) in [
        (&at_server, "there", [State::Healthy, State::Down]),
        // With the way in dead, nothing can be known of the way out for long.
        (&at_client, "back", [State::Down, State::Unknown]),
    ] {
        faulty.rule(name, STAMP, "drop");
        let begun = (Instant::now(), now_ns());
        let down = until(&reader, expected);
        assert_eq!(program.transmit().unwrap(), expected[1]);
        assert!(faulty.count(name) > 0);
        let leg = if expected[0] == State::Down { down.receive } else { down.transmit };
        assert!(leg.since_ns >= begun.1 && leg.proven_ns < leg.since_ns, "{down:?}");
        let found = Duration::from_nanos(leg.since_ns - begun.1);
        println!("{name}: judged after {found:?}, read with all else after {:?}", begun.0.elapsed());
        faulty.heal();
        let healed = Instant::now();
        until(&reader, WELL);
        println!("{name}: well again after {:?}", healed.elapsed());
    }
    let maps = a.status().maps;
    let map = maps.iter().find(|map| map.name == "path_state").expect("its usage");
    assert_eq!((map.used, map.evicted), (1, 0));
}

#[test]
fn when_the_agent_dies_what_it_said_expires_and_the_next_one_goes_on_in_the_same_map() {
    let (pair, bpf) = (Pair::new(), BpfFs::new());
    let pin = bpf.join("path_state");
    let [mut a, _b] = nodes(&pair, &pin);
    let reader = Reader::open(&pin).expect("the pin");
    let mut epoch = until(&reader, WELL).epoch;
    // One that hangs says nothing either, and goes on where it stopped.
    a.process.signal(Signal::STOP);
    until(&reader, NOTHING);
    a.process.signal(Signal::CONT);
    assert_eq!(until(&reader, WELL).epoch, epoch);
    for signal in [Signal::KILL, Signal::TERM] {
        a.process.signal(signal);
        eventually("it ends", SOON, || a.process.ended());
        let ended = now_ns();
        // The last word is still there, and its time is soon over.
        let program = Program::load(&reader, address::SERVER_V4).expect("a program that reads the map");
        let last = reader.entry(address::SERVER_V4).expect("an entry");
        assert!(last.valid_until_ns <= ended + VALID.as_nanos() as u64, "{last:?}");
        until(&reader, NOTHING);
        assert!(now_ns() >= last.valid_until_ns);
        assert_eq!(program.transmit().unwrap(), State::Unknown);
        assert_eq!(reader.entry(address::SERVER_V4), Some(last));

        a = a.again();
        let said = a.process.output();
        assert!(!said.iter().any(|line| line.contains("replaced")), "{said:?}");
        let well = until(&reader, WELL);
        assert_eq!(program.transmit().unwrap(), State::Healthy);
        assert_ne!(well.epoch, epoch);
        epoch = well.epoch;
    }
}

#[test]
fn a_map_of_other_limits_is_replaced_and_who_read_it_hears_nothing_more() {
    let (pair, bpf) = (Pair::new(), BpfFs::new());
    let pin = bpf.join("path_state");
    let [mut a, _b] = nodes(&pair, &pin);
    let old = Reader::open(&pin).expect("the pin");
    until(&old, WELL);
    let toml = fs::read_to_string(&a.config).unwrap();
    fs::write(&a.config, format!("{toml}\n[limits]\npaths = 64\n")).unwrap();
    a.process.signal(Signal::TERM);
    eventually("it ends", SOON, || a.process.ended());
    let a = a.again();
    a.said("and is replaced: readers must open it again");
    until(&old, NOTHING);
    until(&Reader::open(&pin).expect("the pin"), WELL);
}

#[test]
fn a_reload_gives_another_peer_its_entry_and_takes_the_first_ones() {
    let (pair, bpf) = (Pair::new(), BpfFs::new());
    let pin = bpf.join("path_state");
    let [a, _b] = nodes(&pair, &pin);
    let reader = Reader::open(&pin).expect("the pin");
    until(&reader, WELL);
    let toml = fs::read_to_string(&a.config).unwrap();
    let cidrs = format!("cidrs = [\"{}\"]", address::SERVER_V4);
    assert!(toml.contains(&cidrs));
    let elsewhere: IpAddr = "198.51.100.7".parse().unwrap();
    a.reload(
        &toml
            .replace(&cidrs, "cidrs = [\"198.51.100.0/24\"]")
            .replace("target =", "peer = \"other\"\ntarget ="),
    );
    eventually("the path is elsewhere", SOON, || (reader.states(elsewhere) == WELL).then_some(()));
    assert_eq!(reader.entry(address::SERVER_V4), None);
}

#[test]
fn its_group_may_read_it_and_nobody_else() {
    const NOBODY: u32 = 65534;
    let (pair, bpf, directory) = (Pair::new(), BpfFs::new(), Directory::new());
    let pin = bpf.join("graylag/path_state");
    let [_a, _b] = nodes(&pair, &pin);
    until(&Reader::open(&pin).expect("the pin"), WELL);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&pin), mode(pin.parent().unwrap())), (0o640, 0o750));
    // Where this was built, others may have no access.
    let program = directory.path().join("path_state");
    run(Command::new("cp").arg(env!("CARGO_BIN_EXE_path_state")).arg(&program));
    let read = || -> Ended {
        let user = [format!("--reuid={NOBODY}"), format!("--regid={NOBODY}")];
        let mut command = Command::new("setpriv");
        command.args(user).arg("--clear-groups").arg(&program).arg(&pin);
        finish(command.arg(address::SERVER_V4.to_string()))
    };
    assert_eq!(read().code, Some(1));
    for path in [&pin, pin.parent().unwrap()] {
        chown(path, None, Some(NOBODY)).unwrap();
    }
    let said = read();
    assert_eq!(
        (said.code, said.out.as_str()),
        (Some(0), "receive healthy transmit healthy\n"),
        "{}",
        said.err
    );
}

/// What `graylag check` says of a pin.
fn checked(pin: &Path) -> (String, String) {
    let directory = Directory::new();
    let config = directory.write("graylag.toml", &format!("{}\n[media]\ninterfaces = []\n", map(pin)));
    let said = graylag(&["check", "--json", "--config", &config.display().to_string()]);
    let report: serde_json::Value = serde_json::from_str(&said.out).expect("a report");
    let items = report["environment"].as_array().expect("what is around");
    let item = items.iter().find(|item| item["name"] == "path map").expect("the map");
    let word = |field: &str| item[field].as_str().expect("a word").to_owned();
    (word("state"), word("detail"))
}

#[test]
fn check_says_what_is_at_the_pin_and_changes_nothing() {
    let (pair, bpf, directory) = (Pair::new(), BpfFs::new(), Directory::new());
    let pin = bpf.join("graylag/path_state");
    let says = |pin: &Path, state: &str, what: &str| {
        let (is, detail) = checked(pin);
        assert_eq!((is.as_str(), detail), (state, format!("{}: {what}", pin.display())));
    };
    says(&pin, "available", "would be made");
    assert!(!pin.parent().unwrap().exists());
    let (state, detail) = checked(&directory.path().join("path_state"));
    assert!(state == "refused" && detail.contains("is on no BPF file system; mount one"), "{detail}");
    let [mut a, _b] = nodes(&pair, &pin);
    let reader = Reader::open(&pin).expect("the pin");
    until(&reader, WELL);
    says(&pin, "available", "an agent writes to it now");
    assert_eq!(reader.states(address::SERVER_V4), WELL);
    a.process.signal(Signal::TERM);
    eventually("it ends", SOON, || a.process.ended());
    let last = reader.entry(address::SERVER_V4);
    says(&pin, "available", "would be taken over, and emptied");
    assert_eq!(reader.entry(address::SERVER_V4), last, "it is not emptied by a look");
}

#[track_caller]
fn refused(pair: &Pair, pin: &Path, problem: &str) {
    let setup = Setup::watching(&[&pair.client]).inside(&pair.client).config(&map(pin));
    let Ended { code, err, .. } = setup.refused();
    assert_eq!(code, Some(USAGE), "{err}");
    assert!(err.contains("api.path_map: ") && err.contains(problem), "{err}");
}

#[test]
fn what_cannot_be_is_refused_with_the_field_and_the_remedy() {
    let (pair, bpf, directory) = (Pair::new(), BpfFs::new(), Directory::new());
    refused(&pair, Path::new("path_state"), "`path_state` is no absolute path; use e.g. ");
    let elsewhere = directory.path().join("a/path_state");
    refused(&pair, &elsewhere, "is on no BPF file system; mount one (mount -t bpf bpf /sys/fs/bpf)");
    assert!(!directory.path().join("a").exists(), "nothing is made outside");

    fs::create_dir(bpf.join("directory")).unwrap();
    refused(&pair, &bpf.join("directory"), "is no map of graylag's; remove it, or name another path");
    let foreign = bpf.join("foreign");
    HashMap::<MapData, u32, u32>::create(1, 0).unwrap().pin(&foreign).unwrap();
    refused(&pair, &foreign, "is no map of graylag's; remove it, or name another path");
    assert!(foreign.exists());
    refused(&pair, &foreign.join("path_state"), "/foreign: File exists");

    let pin = bpf.join("path_state");
    let [_a, _b] = nodes(&pair, &pin);
    refused(&pair, &pin, "another graylag writes to a map in");
}
