//! Maps and `/proc` into observations: one look at the host at a time, in the collector's thread.

mod expiry;
mod host;
mod interfaces;
mod packed;
mod sessions;
mod sockets;
mod softirq;
pub mod turns;

use std::{collections::HashMap, time::Duration};

use anyhow::Result;
use graylag_ebpf::{
    counter::Counter,
    key::{PathKey, UdpPort},
    media::{MediaCounter, MediaKey, PathFlows, PathQuality, PathTraffic},
    record::{HalfOpen, Waiting, waiting},
    relay::SocketRecord,
    session::SessionRecord,
    task::TaskRecord,
};

pub use host::HostCounters;
use host::HostReader;
use interfaces::{Link, chosen};
pub use packed::Packed;
use sessions::SessionReader;
use sockets::SocketReader;
pub use softirq::Softirqs;
use turns::Pace;

use crate::kernel::{
    Dropped, Interface, Kernel, ProgramState, ProgramTime, Unwatched, first_pass,
    programs::TASKS,
    settings::{Limits, PeerPrefix},
};

/// Paths untouched for this long are given up where the table gets full.
const IDLE_PATH: Duration = Duration::from_secs(600);
/// Share of the path table from which idle paths are given up.
const CROWDED: f64 = 0.75;
/// Every so many looks the whole table is gone through: for waits for later answers and for what is regularly spoken to, by which
/// nothing is judged that cannot wait and of which there may be one for every idle connection that a client polls on, and for
/// connections whose end was missed.
const ALL_EVERY: u64 = 8;
/// Interfaces of one look of which it is told one by one that they are not watched.
const TOLD: usize = 3;

/// One look at the host.
#[derive(Default)]
pub struct Observation {
    /// Monotonic time, nanoseconds.
    pub at_ns: u64,
    /// Counters of the paths that changed, cumulative.
    pub paths: Vec<(PathKey, Packed)>,
    /// Paths that the kernel has been told to forget.
    pub forgotten: Vec<PathKey>,
    /// Connections that wait for a handshake or a first byte, and on some looks for any answer.
    pub waiting: Vec<Waiting>,
    /// Whether `waiting` has those that wait for later answers, and those that are regularly spoken to, too.
    pub all_waits: bool,
    /// Connections whose end the programs missed, forgotten in this look.
    pub ends_missed: u64,
    /// Handshakes that listeners have not finished.
    pub half_open: Vec<HalfOpen>,
    /// Of these, those that will not complete: they have been forgotten.
    pub expired: Vec<HalfOpen>,
    /// Packets dropped, cumulative.
    pub drops: Vec<Dropped>,
    /// Receive-buffer drops by port, cumulative.
    pub udp_drops: Vec<(UdpPort, u64)>,
    /// Media of every path, cumulative but for the flows.
    pub media: Vec<MediaPath>,
    /// ICE sessions that may not be decided yet.
    pub sessions: Vec<SessionRecord>,
    /// The flow programs' own counters.
    pub media_counters: [u64; MediaCounter::COUNT],
    /// How many others a stream takes turns with, for its jitter to be measured.
    pub turns: u32,
    /// The programs' own counters.
    pub counters: [u64; Counter::COUNT],
    /// Counters of the host, where they could be read.
    pub host: Option<HostCounters>,
    /// Entries in use.
    pub usage: Usage,
    /// Interfaces whose UDP should be seen and is not.
    pub unwatched: Option<Unwatched>,
}

/// What the kernel knows of a path's media.
#[derive(Clone, Copy, Debug)]
pub struct MediaPath {
    /// Which.
    pub key: MediaKey,
    /// Datagrams, of all CPUs.
    pub traffic: PathTraffic,
    /// RTP.
    pub quality: PathQuality,
    /// How its flows stood in the last pass.
    pub flows: PathFlows,
}

/// Entries in use, by map.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// `PATHS`.
    pub paths: u64,
    /// `CONNS`.
    pub connections: u64,
    /// `HALF_OPEN`.
    pub half_open: u64,
    /// `MEDIA_PATHS`.
    pub media_paths: u64,
    /// `SESSIONS`.
    pub sessions: u64,
}

/// Takes the looks.
pub struct Collector {
    kernel: Kernel,
    /// Or why there is none.
    host: Result<HostReader, String>,
    path_limit: u64,
    /// Interfaces whose UDP is watched, as patterns.
    interfaces: Vec<String>,
    /// Paths are read from a little before the last look on: a program may stamp a path, be interrupted, and count after
    /// the look.
    last_ns: u64,
    looks: u64,
    sessions: SessionReader,
    sockets: SocketReader,
    pace: Pace,
    /// What the flow programs were told of turns.
    turns: Option<u32>,
    /// Connections that were stale at the last complete look, with their beginning.
    suspects: HashMap<u64, u64>,
}

/// How far a look reaches back over the last one.
const OVERLAP_NS: u64 = 5_000_000;

impl Collector {
    /// Takes over the attached kernel half.
    pub fn new(kernel: Kernel, limits: &Limits, interfaces: Vec<String>) -> Self {
        let attached = |name| kernel.programs().any(|(p, s)| p.name == name && *s == ProgramState::Attached);
        let host = HostReader::open()
            .map(|mut reader| {
                reader.softnet = !attached("kfree_skb");
                reader.listen = !attached("listen");
                reader
            })
            .inspect_err(|error| tracing::warn!("interfaces are not read: {error:#}"))
            .map_err(|error| format!("{error:#}"));
        Self {
            kernel,
            host,
            path_limit: u64::from(limits.paths),
            interfaces,
            last_ns: 0,
            looks: 0,
            sessions: SessionReader::new(limits.sessions()),
            sockets: SocketReader::new(first_pass()),
            pace: Pace::default(),
            turns: None,
            suspects: HashMap::new(),
        }
    }

    /// Everything is attached; see [`Kernel::commit`].
    pub fn commit(&mut self) -> Result<()> {
        Ok(self.kernel.commit()?)
    }

    /// Keeps a checkpoint for the next agent.
    pub fn save(&mut self, checkpoint: &[u8]) -> Result<()> {
        Ok(self.kernel.save(checkpoint)?)
    }

    /// The kernel half.
    pub const fn kernel(&self) -> &Kernel {
        &self.kernel
    }

    /// Replaces the configured peers.
    pub fn replace_peers(&mut self, peers: &[PeerPrefix]) -> Result<()> {
        Ok(self.kernel.replace_peers(peers)?)
    }

    /// Events that the kernel programs did not see.
    pub fn missed_runs(&self) -> u64 {
        self.kernel.missed_runs()
    }

    /// Run time of the programs.
    pub fn program_times(&self) -> Vec<ProgramTime> {
        self.kernel.program_times()
    }

    /// One look. Counters are read before what is pending, so that what ends in between is missed by this look rather
    /// than counted twice.
    pub fn look(&mut self, at_ns: u64) -> Result<Observation> {
        let mut seen = Observation { at_ns, ..Observation::default() };
        let since = self.last_ns.saturating_sub(OVERLAP_NS);
        self.last_ns = at_ns;
        let before = self.kernel.counters()?;
        self.kernel.paths(since, |key, stats| seen.paths.push((*key, Packed::from(stats))))?;

        seen.all_waits = self.looks.is_multiple_of(ALL_EVERY);
        self.looks += 1;
        let all = if seen.all_waits { waiting::RESPONSE | waiting::SPOKEN | waiting::STALE } else { 0 };
        let mut stale = HashMap::new();
        self.kernel.waiting(waiting::HANDSHAKE | waiting::FIRST_BYTE | all, |wait| {
            if wait.kind == waiting::STALE {
                stale.insert(wait.id, wait.since_ns);
            } else {
                seen.waiting.push(*wait);
            }
        })?;
        if seen.all_waits {
            seen.ends_missed = self.forget_stale(stale)?;
        }

        let mut expired = Vec::new();
        self.kernel.half_open(|tuple, state| {
            seen.usage.half_open += 1;
            if expiry::is_over(state, at_ns) {
                expired.push((*tuple, *state));
            } else {
                seen.half_open.push(*state);
            }
        })?;
        for (tuple, state) in expired {
            if self.kernel.forget_half_open(&tuple)? {
                seen.expired.push(state);
            }
        }

        self.kernel.flush_log();
        seen.counters = self.kernel.counters()?;
        let scanned =
            |counter: Counter| seen.counters[counter as usize].wrapping_sub(before[counter as usize]);
        seen.usage.paths = scanned(Counter::ScannedPath);
        seen.usage.connections = scanned(Counter::ScannedConnection);
        seen.drops = self.kernel.drops()?;
        seen.udp_drops = self.kernel.udp_drops()?;
        seen.host = self.host.as_mut().ok().and_then(|reader| {
            reader.read().inspect_err(|error| tracing::debug!("interface counters: {error:#}")).ok()
        });
        if !self.interfaces.is_empty() {
            self.watch_interfaces();
            seen.unwatched = self.unwatched();
            let mut packets = 0;
            self.kernel.media_paths(at_ns, |key, traffic, quality, flows| {
                seen.usage.media_paths += 1;
                let traffic = sum(traffic);
                packets += traffic.iter().map(|half| half.received).sum::<u64>();
                if traffic.iter().any(|half| half.last_ns > 0) {
                    seen.media.push(MediaPath { key: *key, traffic, quality: *quality, flows: *flows });
                }
            })?;
            seen.sessions = self.sessions.look(&mut self.kernel, at_ns)?;
            seen.usage.sessions = self.sessions.used();
            seen.media_counters = self.kernel.media_counters()?;
            seen.turns = self.take_turns(at_ns, packets)?;
        }
        if seen.usage.paths as f64 > CROWDED * self.path_limit as f64 {
            seen.forgotten = self.forget_idle_paths(at_ns)?;
        }
        Ok(seen)
    }

    /// Packets of media that have been missed so far, of all that this host receives; nothing where no media is watched.
    pub fn missed(&self) -> Result<Option<u64>> {
        let watches = !self.interfaces.is_empty();
        let counters = watches.then(|| self.kernel.media_counters()).transpose()?;
        Ok(counters.map(|counters| counters[MediaCounter::Missed as usize]))
    }

    /// Whether there are sockets to be looked at.
    pub fn has_sockets(&self) -> bool {
        self.kernel.programs().any(|(p, s)| p.name == "scan_sockets" && *s == ProgramState::Attached)
    }

    /// The sockets that carry media: a look of its own, for relays are to be judged within half a second.
    pub fn sockets(&mut self, at_ns: u64) -> Result<Vec<SocketRecord>> {
        self.sockets.look(&mut self.kernel, at_ns)
    }

    /// Whether processes can be gone through.
    pub fn has_tasks(&self) -> bool {
        self.kernel.programs().any(|(p, s)| p.name == TASKS && *s == ProgramState::Attached)
    }

    /// All processes.
    pub fn tasks(&mut self) -> Result<Vec<TaskRecord>> {
        let mut tasks = Vec::new();
        self.kernel.tasks(|task| tasks.push(*task))?;
        Ok(tasks)
    }

    /// Interfaces come and go: what is there now is watched from now on.
    fn watch_interfaces(&mut self) {
        let Ok(host) = &self.host else { return };
        let mut refused = 0;
        for (name, outcome) in self.kernel.watch_interfaces(&wanted(host.links(), &self.interfaces)) {
            match outcome {
                Ok(()) => tracing::debug!("media is watched at {name}"),
                Err(_) if refused >= TOLD => refused += 1,
                Err(error) => {
                    refused += 1;
                    tracing::warn!("media is not watched at {name}: {error}");
                }
            }
        }
        if refused > TOLD {
            tracing::warn!("nor is it at {} other interfaces", refused - TOLD);
        }
    }

    /// Interfaces that refused the programs, and those that could not be read.
    fn unwatched(&self) -> Option<Unwatched> {
        let refused = self.kernel.unwatched_interfaces();
        let (listed, unread) = match &self.host {
            Ok(host) => (host.links(), host.unread()),
            // One stands for all of them.
            Err(reason) => (&[][..], Some((1, reason.as_str()))),
        };
        let Some((count, reason)) = unread else { return refused };
        let of = wanted(listed, &self.interfaces).len() + count;
        Some(match refused {
            Some(refused) => Unwatched { count: refused.count + count, of, ..refused },
            None => Unwatched { count, of, example: "one without a name".into(), reason: reason.to_owned() },
        })
    }

    /// Lets streams take turns at the clock where there are very many packets.
    fn take_turns(&mut self, at_ns: u64, packets: u64) -> Result<u32> {
        let others = self.pace.others(at_ns, packets);
        if self.turns != Some(others) {
            self.kernel.take_turns(others)?;
            if others > 0 || self.turns.is_some() {
                tracing::info!("jitter is measured of each stream for 1/{} of the time", others + 1);
            }
            self.turns = Some(others);
        }
        Ok(others)
    }

    /// Forgets connections that were stale twice running: one that ends just now is about to go by itself.
    fn forget_stale(&mut self, stale: HashMap<u64, u64>) -> Result<u64> {
        let mut forgotten = 0;
        for (id, began_ns) in &stale {
            if self.suspects.get(id) == Some(began_ns) {
                self.kernel.forget_connection(*id)?;
                forgotten += 1;
            }
        }
        self.suspects = stale;
        Ok(forgotten)
    }

    fn forget_idle_paths(&mut self, at_ns: u64) -> Result<Vec<PathKey>> {
        let mut idle = Vec::new();
        let oldest = at_ns.saturating_sub(IDLE_PATH.as_nanos() as u64);
        self.kernel.paths(0, |key, stats| {
            // One that is just being made has no time yet.
            if stats.touched_ns != 0 && stats.touched_ns < oldest && !key.is_other() {
                idle.push(*key);
            }
        })?;
        for key in &idle {
            self.kernel.forget_path(key)?;
        }
        Ok(idle)
    }
}

fn wanted(links: &[Link], patterns: &[String]) -> Vec<Interface> {
    let interface = |link: &Link| {
        Some(Interface { index: link.index, name: link.name.clone(), ethernet: link.ethernet? })
    };
    chosen(links, patterns).into_iter().filter_map(interface).collect()
}

/// The interfaces of this namespace that are to be watched now.
pub fn interfaces(patterns: &[String]) -> Result<Vec<Interface>> {
    let mut reader = HostReader::open()?;
    reader.read()?;
    Ok(wanted(reader.links(), patterns))
}

/// A path's traffic of all CPUs together.
fn sum(each: &[PathTraffic]) -> PathTraffic {
    let mut all = PathTraffic::default();
    for cpu in each {
        for (all, one) in all.iter_mut().zip(cpu) {
            all.last_ns = all.last_ns.max(one.last_ns);
            all.last_media_ns = all.last_media_ns.max(one.last_media_ns);
            all.bytes += one.bytes;
            all.received += one.received;
            all.packets.iter_mut().zip(one.packets).for_each(|(a, b)| *a += b);
        }
    }
    all
}
