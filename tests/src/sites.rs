//! Three sites, each joined to both others, with an agent at each, live media between two of them, and a controller that moves their
//! routes: direct, or by way of the third.
//!
//! Probes go to the addresses of the links, media to addresses of the sites: what is probed is a link, whatever the routes are.

use std::{
    fmt::Write as _,
    fs,
    net::{IpAddr, SocketAddr, UdpSocket},
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    process::Command,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::{
    agent::{Agent, Setup, Watch, binary},
    every::Every20ms,
    net::{Host, link},
    proc::{Directory, Process},
    rtp::Stream,
    udp,
};

/// Names of the sites, in the order of everything here.
pub const NAMES: [&str; 3] = ["a", "b", "c"];
/// A key that all share.
pub const SHARED: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
/// One that nobody else has.
pub const OTHER: &str = "f0e1d2c3b4a5968778695a4b3c2d1e0ff0e1d2c3b4a5968778695a4b3c2d1e0f";
const PORT: u16 = 5000;

/// Address of a site, by its number.
pub fn site(n: u8) -> IpAddr {
    IpAddr::from([10, 9, 0, n + 1])
}

/// Address of one site on its link to another.
pub fn on_link(n: u8, other: u8) -> IpAddr {
    IpAddr::from([10, 1, n.min(other) + n.max(other), n + 1])
}

/// The sites.
pub struct Sites {
    /// Their hosts.
    pub hosts: [Host; 3],
    /// Their agents.
    pub agents: [Agent; 3],
    /// What they say.
    pub watches: [Watch; 3],
    keys: [PathBuf; 3],
    directory: Directory,
}

impl Default for Sites {
    fn default() -> Self {
        Self::new()
    }
}

impl Sites {
    /// Three of them, each with probes to both others.
    pub fn new() -> Self {
        let hosts = [Host::new(), Host::new(), Host::new()];
        for (a, b) in [(0, 1), (0, 2), (1, 2)] {
            let end = |n: u8, other: u8| (&hosts[usize::from(n)], device(other), on_link(n, other));
            let (one, two) = (end(a, b), end(b, a));
            link((one.0, &one.1, one.2), (two.0, &two.1, two.2));
        }
        for (n, host) in (0u8..).zip(&hosts) {
            host.ip(&["addr", "add", &format!("{}/32", site(n)), "dev", "lo"]);
            host.sysctl("net.ipv4.ip_forward", "1");
            for other in (0..3).filter(|other| *other != n) {
                let (to, via) = (site(other).to_string(), on_link(other, n).to_string());
                host.ip(&["route", "add", &to, "via", &via, "src", &site(n).to_string()]);
            }
        }
        let directory = Directory::new();
        let keys = NAMES.map(|name| directory.write(&format!("{name}.keys"), SHARED));
        for path in &keys {
            fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
        }
        let agents = [0u8, 1, 2].map(|n| {
            let host = &hosts[usize::from(n)];
            let config = config(n, &keys[usize::from(n)]);
            Setup::watching(&[host]).inside(host).config(&config).start()
        });
        let watches = [0, 1, 2].map(|n: usize| Watch::start(&agents[n]));
        Self { hosts, agents, watches, keys, directory }
    }

    /// State of the path from one site to another, as one of them says it.
    pub fn state(&self, of: usize, peer: usize, direction: &str) -> String {
        let paths = self.agents[of].status().paths;
        let path = paths.into_iter().find(|path| path.peer == NAMES[peer] && path.direction == direction);
        path.map_or("unknown".into(), |path| path.state)
    }

    /// Whether every direction between all of them is healthy.
    pub fn is_well(&self) -> bool {
        let is_well = |agent: &Agent| {
            let paths = agent.status().paths;
            let probed = paths.iter().filter(|path| path.probes.is_some());
            probed.clone().count() == 4 && probed.clone().all(|path| path.state == "healthy")
        };
        self.agents.iter().all(is_well)
    }

    /// Conditions that stand at any of them, by name.
    pub fn conditions(&self) -> Vec<String> {
        let all = self.agents.iter().flat_map(Agent::conditions);
        all.map(|condition| condition.name).collect()
    }

    /// Gives a site another key; its agent reads it at once.
    pub fn key(&self, n: usize, key: &str) {
        fs::write(&self.keys[n], key).unwrap();
        self.agents[n].process.signal(Signal::HUP);
    }

    /// Starts the controller, which moves the routes between the first two.
    pub fn controller(&self) -> Controller {
        let mut sites = json!({});
        for (n, name) in (0u8..).zip(NAMES) {
            let host = &self.hosts[usize::from(n)];
            sites[name] = json!({ "socket": self.agents[usize::from(n)].socket, "netns": host.name() });
            if n < 2 {
                let other = 1 - n;
                sites[name]["routes"] = json!({ NAMES[usize::from(other)]: {
                    "to": site(other), "from": site(n), "direct": on_link(other, n), "via": { "c": on_link(2, n) }
                } });
            }
        }
        let configuration = json!({ "graylag": binary(), "sites": sites }).to_string();
        let path = self.directory.write("controller.json", &configuration);
        let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("peers/controller.py");
        Controller(Process::start(Command::new("python3").arg(script).arg(path)))
    }

    /// Begins media between the first two, both ways.
    pub fn media(&self) -> Media {
        let socket = |n: u8| udp::bind(&self.hosts[usize::from(n)], site(n), PORT, 1 << 20);
        let sockets = [socket(0), socket(1)];
        let stop = Arc::new(AtomicBool::new(false));
        let clone = |socket: &UdpSocket| socket.try_clone().unwrap();
        let load = {
            let sockets = [clone(&sockets[0]), clone(&sockets[1])];
            Every20ms::start(move |number| {
                for (n, socket) in (0u8..).zip(&sockets) {
                    let to = SocketAddr::new(site(1 - n), PORT);
                    // A route that is being moved may refuse one.
                    let _ = socket.send_to(&Stream::audio(u32::from(n) + 1).packet(number), to);
                }
            })
        };
        let arrivals = [Arc::default(), Arc::default()];
        let readers = [0, 1].map(|n: usize| {
            let (socket, arrivals, stop) = (clone(&sockets[n]), Arc::clone(&arrivals[n]), stop.clone());
            thread::spawn(move || read(&socket, &arrivals, &stop))
        });
        Media { arrivals, stop, readers: readers.into(), _load: load }
    }
}

fn device(other: u8) -> String {
    format!("to-{}", NAMES[usize::from(other)])
}

fn config(n: u8, keys: &std::path::Path) -> String {
    let mut text = format!(
        "[node]\nname = \"{}\"\n[media]\ninterfaces = [\"to-*\"]\n[limits]\nflows = 1024\npaths = 64\n\
         [stamp]\nlisten = \"[::]:862\"\nkey_file = \"{}\"\n",
        NAMES[usize::from(n)],
        keys.display()
    );
    for other in (0..3).filter(|other| *other != n) {
        let (name, address) = (NAMES[usize::from(other)], on_link(other, n));
        let _ = write!(
            text,
            "[[peer]]\nname = \"{name}\"\ncidrs = [\"{address}\"]\n[[peer]]\nname = \"{name}-media\"\ncidrs = [\"{}\"]\n\
             [[probe]]\nkind = \"stamp\"\ntarget = \"{address}:862\"\npeer = \"{name}\"\ninterval = \"100ms\"\n",
            site(other)
        );
    }
    text
}

/// The controller.
pub struct Controller(Process);

/// A route that it moved.
#[derive(Clone, Debug, PartialEq)]
pub struct Move {
    /// When, on the monotonic clock.
    pub at: Duration,
    /// From which site to which, and by way of which; `a b direct`.
    pub route: String,
    /// Why: what sender and receiver said.
    pub why: String,
}

impl Controller {
    /// All moves so far.
    pub fn moves(&self) -> Vec<Move> {
        let moved = |line: &String| {
            let value: Value = serde_json::from_str(line).ok()?;
            let text = |key: &str| value[key].as_str().map(str::to_owned);
            let via = text("via").map_or("direct".into(), |via| format!("via {via}"));
            Some(Move {
                at: Duration::from_secs_f64(value["at"].as_f64()?),
                route: format!("{} {} {via}", text("from")?, text("to")?),
                why: value["why"].to_string(),
            })
        };
        self.0.output().iter().filter_map(moved).collect()
    }
}

/// Media between the first two sites.
pub struct Media {
    arrivals: [Arc<Mutex<Vec<Instant>>>; 2],
    stop: Arc<AtomicBool>,
    readers: Vec<thread::JoinHandle<()>>,
    _load: Every20ms,
}

fn read(socket: &UdpSocket, arrivals: &Mutex<Vec<Instant>>, stop: &AtomicBool) {
    let mut buffer = [0; 2048];
    while !stop.load(Ordering::Relaxed) {
        match socket.recv_from(&mut buffer) {
            Ok(_) => arrivals.lock().unwrap().push(Instant::now()),
            Err(_) => thread::sleep(Duration::from_millis(2)),
        }
    }
}

impl Media {
    /// The longest time without a packet at a site, since a moment.
    pub fn longest_gap(&self, n: usize, since: Instant) -> Duration {
        let arrivals = self.arrivals[n].lock().unwrap();
        let mut last = since;
        let mut longest = Duration::ZERO;
        for at in arrivals.iter().filter(|at| **at >= since).copied().chain([Instant::now()]) {
            longest = longest.max(at.duration_since(last));
            last = at;
        }
        longest
    }
}

impl Drop for Media {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for reader in self.readers.drain(..) {
            let _ = reader.join();
        }
    }
}
