//! The unit of the Debian package, run by a real systemd with everything that it forbids.
#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests are tests

use std::{
    fs,
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use graylag_tests::{
    agent::alone,
    eventually,
    http::get,
    metrics::Scrape,
    net::{Host, link},
    path_map::Reader,
    systemd::Systemd,
    traffic::{Echo, ask, connect, listen},
};

const SOON: Duration = Duration::from_secs(20);
const UNIT: &str = "graylag.service";
const SERVER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 81, 0, 1));
const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 81, 0, 2));
const PORT: u16 = 8080;

/// A machine with systemd and the unit, and a host that is its client.
struct Machine {
    systemd: Systemd,
    _server: Echo,
    client: Host,
    _own: Host,
}

impl Machine {
    fn new(test: &str) -> Self {
        let (own, client) = (Host::new(), Host::new());
        link((&own, "eth0", SERVER), (&client, "eth0", CLIENT));
        let systemd = Systemd::start(&own, test);
        let server = Echo::on(listen(&own, SERVER, PORT, 128));
        Self { systemd, _server: server, client, _own: own }
    }

    fn get(&self, path: &str) -> Option<String> {
        let (code, body) = get(&self.systemd.place("/run/graylag/agent.sock"), path)?;
        (code == 200).then_some(body)
    }

    #[track_caller]
    fn until_ready(&self) {
        eventually("it is ready", SOON, || self.get("/readyz").map(drop));
    }

    fn connections(&self, number: u64) {
        for _ in 0..number {
            ask(&mut connect(&self.client, SERVER, PORT).unwrap(), 10).unwrap();
        }
    }

    /// Makes connections, which are to be counted under this peer.
    #[track_caller]
    fn sees(&self, number: u64, peer: &str) {
        self.connections(number);
        self.counts(number, peer);
    }

    #[track_caller]
    fn counts(&self, number: u64, peer: &str) {
        let labels =
            [("graylag.peer.name", peer), ("graylag.role", "server"), ("graylag.outcome", "established")];
        eventually("every handshake is counted", SOON, || {
            let scrape = Scrape::parse(&self.get("/metrics")?);
            (scrape.sum("graylag.tcp.handshake.count", &labels) as u64 == number).then_some(())
        });
    }

    fn configure(&self, toml: &str) {
        fs::write(self.systemd.place("/etc/graylag/graylag.toml"), toml).unwrap();
    }
}

#[test]
fn under_its_unit_it_sees_every_handshake_reloads_is_restarted_and_stops() {
    let _alone = alone();
    let machine = Machine::new("unit");
    let systemd = &machine.systemd;
    systemd.does(&["start", UNIT]);
    machine.until_ready();
    let pid = systemd.property(UNIT, "MainPID");
    let status = fs::read_to_string(systemd.place(&format!("/proc/{pid}/status"))).unwrap();
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim();
    // CAP_NET_ADMIN, CAP_PERFMON, CAP_BPF (include/uapi/linux/capability.h).
    let three = 1u64 << 12 | 1 << 38 | 1 << 39;
    assert_eq!(u64::from_str_radix(field("CapBnd:"), 16).unwrap(), three);
    assert_eq!((field("NoNewPrivs:"), field("Seccomp:")), ("1", "2"));
    let user = field("Uid:").split_whitespace().next().unwrap();
    assert!((1..1000).contains(&user.parse::<u32>().unwrap()), "{user}");
    machine.sees(20, "10.81.0.0/24");

    // `systemctl reload` is SIGHUP: names change, the process does not.
    machine.configure("[[peer]]\nname = \"callers\"\ncidrs = [\"10.81.0.0/24\"]\n");
    systemd.does(&["reload", UNIT]);
    machine.sees(10, "callers");
    assert_eq!(systemd.property(UNIT, "MainPID"), pid);

    systemd.does(&["kill", "--signal=KILL", UNIT]);
    eventually("it is started again", SOON, || (systemd.property(UNIT, "NRestarts") == "1").then_some(()));
    machine.until_ready();
    machine.sees(5, "callers");

    // What another try would not mend ends it, and says why.
    machine.configure("[[peer]]\nnome = \"callers\"\n");
    systemd.systemctl(&["restart", UNIT]);
    eventually("it has failed", SOON, || (systemd.property(UNIT, "ActiveState") == "failed").then_some(()));
    assert_eq!(systemd.property(UNIT, "ExecMainStatus"), "2");

    machine.configure("");
    systemd.does(&["start", UNIT]);
    machine.until_ready();
    systemd.does(&["stop", UNIT]);
    assert_eq!(systemd.property(UNIT, "Result"), "success");
    assert!(!systemd.place("/run/graylag").exists(), "what it ran in is gone");
}

#[test]
fn with_a_pin_its_successor_counts_on() {
    let _alone = alone();
    let machine = Machine::new("pins");
    let systemd = &machine.systemd;
    // As with every boot.
    let made = systemd.run(&["systemd-tmpfiles", "--create", "graylag.conf"]);
    assert_eq!(made.code, Some(0), "{made:?}");
    let map = "[api]\npath_map = \"/run/graylag/bpf/path_state\"\n";
    machine.configure(&format!("[kernel]\npin = \"/run/graylag/bpf/agent\"\n{map}"));
    systemd.does(&["start", UNIT]);
    machine.until_ready();
    machine.sees(20, "10.81.0.0/24");
    Reader::open(&systemd.place("/sys/fs/bpf/graylag/path_state")).unwrap();
    // An upgrade: the kernel half goes on counting in between.
    systemd.does(&["stop", UNIT]);
    machine.connections(30);
    systemd.does(&["start", UNIT]);
    machine.until_ready();
    machine.connections(10);
    machine.counts(60, "10.81.0.0/24");
}
