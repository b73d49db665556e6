//! Hosts: network namespaces joined by veth pairs.

use std::{
    fs::File,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::AsFd,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Once,
        atomic::{AtomicU32, Ordering},
    },
    thread,
};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::proc::run;

/// All names begin with this; then comes the process's id.
const PREFIX: &str = "glt";

static NEXT: AtomicU32 = AtomicU32::new(0);
static SWEEP: Once = Once::new();

/// A host: one network namespace.
pub struct Host {
    name: String,
}

impl Host {
    /// A new one, with its loopback up.
    pub fn new() -> Self {
        crate::require_root();
        SWEEP.call_once(sweep);
        let name = format!("{PREFIX}-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        ip(&["netns", "add", &name]);
        let host = Self { name };
        host.ip(&["link", "set", "lo", "up"]);
        host
    }

    /// Its name, for `ip netns exec`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The namespace's file.
    pub fn path(&self) -> PathBuf {
        Path::new("/run/netns").join(&self.name)
    }

    /// `ip -n NAME …`
    pub fn ip(&self, arguments: &[&str]) {
        let mut all = vec!["-n", &self.name];
        all.extend_from_slice(arguments);
        ip(&all);
    }

    /// A command that runs in it.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name, program]);
        command
    }

    /// Runs `work` in it, in a thread of its own. Sockets made there stay there.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let file = File::open(self.path()).expect("namespace");
        thread::scope(|scope| {
            let thread = scope.spawn(move || {
                move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).expect("setns");
                work()
            });
            match thread.join() {
                Ok(value) => value,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    /// Sets a `net.…` sysctl.
    pub fn sysctl(&self, name: &str, value: &str) {
        let path = format!("/proc/sys/{}", name.replace('.', "/"));
        self.run(|| std::fs::write(&path, value)).unwrap_or_else(|e| panic!("{name}={value}: {e}"));
    }

    /// A `TcpExt` counter.
    pub fn tcp_ext(&self, name: &str) -> u64 {
        self.counter("netstat", "TcpExt:", name)
    }

    /// A `Tcp` counter.
    pub fn tcp(&self, name: &str) -> u64 {
        self.counter("snmp", "Tcp:", name)
    }

    /// A `Udp` counter.
    pub fn udp(&self, name: &str) -> u64 {
        self.counter("snmp", "Udp:", name)
    }

    /// A counter of IPv6: a name and a number a line.
    pub fn snmp6(&self, name: &str) -> u64 {
        let text = self.run(|| std::fs::read_to_string("/proc/thread-self/net/snmp6")).expect("counters");
        let value = |line: &str| line.strip_prefix(name)?.trim().parse().ok();
        text.lines().find_map(value).unwrap_or_else(|| panic!("no {name}"))
    }

    /// `tc -n NAME …`
    pub fn tc(&self, arguments: &[&str]) {
        run(Command::new("tc").args(["-n", &self.name]).args(arguments));
    }

    /// Packets that the queueing discipline of an interface dropped.
    pub fn queue_drops(&self, device: &str) -> u64 {
        let arguments = ["-n", &self.name, "-s", "-j", "qdisc", "show", "dev", device];
        let output = Command::new("tc").args(arguments).output().expect("tc");
        let json: serde_json::Value = serde_json::from_slice(&output.stdout).expect("tc's JSON");
        json.as_array().expect("disciplines").iter().filter_map(|q| q["drops"].as_u64()).sum()
    }

    fn counter(&self, file: &str, group: &str, name: &str) -> u64 {
        let path = format!("/proc/thread-self/net/{file}");
        let text = self.run(|| std::fs::read_to_string(path)).expect("counters");
        let mut lines = text.lines().filter(|line| line.starts_with(group));
        let (names, values) = (lines.next().expect("names"), lines.next().expect("values"));
        let position =
            names.split_whitespace().position(|n| n == name).unwrap_or_else(|| panic!("no {name}"));
        values.split_whitespace().nth(position).expect("value").parse().expect("number")
    }
}

impl Default for Host {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.name]).status();
    }
}

/// Joins two hosts by devices of these names, each with an address of the same /24. Segmentation offloads are off.
pub fn link(a: (&Host, &str, IpAddr), b: (&Host, &str, IpAddr)) {
    a.0.ip(&["link", "add", a.1, "type", "veth", "peer", "name", b.1, "netns", b.0.name()]);
    for (host, device, address) in [a, b] {
        host.ip(&["addr", "add", &format!("{address}/24"), "dev", device]);
        host.ip(&["link", "set", device, "gso_max_segs", "1"]);
        host.ip(&["link", "set", device, "up"]);
    }
}

/// Two hosts on one link.
pub struct Pair {
    /// The one that connects.
    pub client: Host,
    /// The one that listens.
    pub server: Host,
}

/// Addresses of a [`Pair`].
pub mod address {
    use super::{IpAddr, Ipv4Addr, Ipv6Addr};

    /// Of the client.
    pub const CLIENT_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 0, 2));
    /// Of the client.
    pub const CLIENT_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 2));
    /// Of the server.
    pub const SERVER_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 0, 1));
    /// Of the server.
    pub const SERVER_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 1));
}

impl Pair {
    /// Two hosts, both families. Segmentation offloads are off, so that netfilter counts what TCP counts.
    pub fn new() -> Self {
        let pair = Self { client: Host::new(), server: Host::new() };
        link((&pair.server, "eth0", address::SERVER_V4), (&pair.client, "eth0", address::CLIENT_V4));
        for (host, v6) in [(&pair.server, address::SERVER_V6), (&pair.client, address::CLIENT_V6)] {
            host.ip(&["addr", "add", &format!("{v6}/64"), "dev", "eth0", "nodad"]);
        }
        pair
    }

    /// Gives the server more IPv4 addresses.
    pub fn add_server_addresses(&self, addresses: &[Ipv4Addr]) {
        for address in addresses {
            self.server.ip(&["addr", "add", &format!("{address}/32"), "dev", "eth0"]);
            self.client.ip(&["route", "add", &format!("{address}/32"), "dev", "eth0"]);
        }
    }
}

impl Default for Pair {
    fn default() -> Self {
        Self::new()
    }
}

fn ip(arguments: &[&str]) {
    run(Command::new("ip").args(arguments));
}

/// Removes what a crashed run left: namespaces whose process is gone.
fn sweep() {
    for entry in std::fs::read_dir("/run/netns").into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let mut parts = name.split('-');
        if parts.next() != Some(PREFIX) {
            continue;
        }
        let alive = parts.next().is_some_and(|pid| Path::new("/proc").join(pid).exists());
        if !alive {
            let _ = Command::new("ip").args(["netns", "del", &name]).status();
        }
    }
}
