//! The kernel half, seen from user space: the only room that knows aya and `bpf(2)`.
//!
//! [`Kernel::start`] loads and attaches; afterwards the maps are only read, and nothing flows to the kernel but what
//! the iterators shall emit and the removal of what is over. [`PathMap`] is apart from all that: written here, read by others.

mod bpffs;
mod btf;
mod calibrate;
mod cgroup;
mod digest;
mod error;
mod files;
mod interfaces;
mod iterator;
mod load;
mod maps;
mod media;
pub mod netns;
mod path_map;
mod pin;
pub mod privileges;
pub mod programs;
pub mod settings;
mod signal;
pub mod trial;
mod verify;

use std::{
    collections::BTreeMap,
    os::fd::{AsFd, AsRawFd, RawFd},
};

use aya::Ebpf;
use aya_log::EbpfLogger;
use bytemuck::AnyBitPattern;
use graylag_ebpf::{
    counter::{Counter, Direction, REASONS, Transport, drop_of_index},
    key::{PathKey, Tuple, UdpPort},
    media::{MediaCounter, MediaKey, PathFlows, PathQuality, PathTraffic},
    record::{HalfOpen, HalfOpenRecord, PathRecord, PathStats, Scan, Waiting},
    relay::SocketRecord,
    session::SessionRecord,
    task::TaskRecord,
};

pub use bpffs::PinError;
pub use cgroup::CgroupRoot;
pub use error::KernelError;
pub use interfaces::{Interface, Unwatched, Watched};
pub use load::ProgramState;
pub use path_map::{PathMap, Pin as PathMapPin, look as look_at_path_map};
pub use pin::{Found, Pins, describe as describe_pins};
use programs::{PROGRAMS, Program};
use settings::{PeerPrefix, Settings};
pub use verify::{Verdict, verify};

/// Twice what the kernel fills at a time, so that a record which is cut never keeps it from doing so.
const PASS_BUFFER: usize = 64 * 1024;

/// The attached kernel half. Dropping it detaches everything.
pub struct Kernel {
    ebpf: Ebpf,
    iterators: load::Iterators,
    interfaces: interfaces::Interfaces,
    /// Number of the last pass over the flow table.
    pass: u32,
    pins: Option<Pins>,
    states: BTreeMap<&'static str, ProgramState>,
    reasons: DropReasons,
    cgroup: Option<CgroupRoot>,
    peers: Vec<PeerPrefix>,
    adopted: Vec<netns::Unreachable>,
    buffer: Vec<u8>,
    log: Option<EbpfLogger<&'static dyn log::Log>>,
    _program_stats: Option<std::os::fd::OwnedFd>,
}

/// The running kernel's drop reasons, by number.
#[derive(Clone, Debug, Default)]
pub struct DropReasons(BTreeMap<u32, String>);

impl DropReasons {
    /// Name without its `SKB_DROP_REASON_` prefix.
    pub fn name(&self, reason: u32) -> &str {
        if reason == REASONS - 1 {
            return "OTHER_SUBSYSTEM";
        }
        self.0.get(&reason).map_or("UNKNOWN", String::as_str)
    }

    /// Numbers of the reasons with these names.
    pub fn numbers<'a>(&'a self, names: &'a [&str]) -> impl Iterator<Item = u32> + 'a {
        self.0.iter().filter(|(_, name)| names.contains(&name.as_str())).map(|(number, _)| *number)
    }
}

/// A counter of dropped packets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dropped {
    /// Reason, as the running kernel names it.
    pub reason: String,
    /// Which way the packet went.
    pub direction: Direction,
    /// What it carried.
    pub transport: Transport,
    /// Packets since start.
    pub packets: u64,
}

/// Run time of one program, where the kernel measures it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProgramTime {
    /// Its name.
    pub name: &'static str,
    /// Nanoseconds spent in it.
    pub nanoseconds: u64,
    /// Times it ran.
    pub runs: u64,
}

impl Kernel {
    /// Loads and attaches everything that this kernel and these privileges allow.
    ///
    /// `ignored_reasons` are the drop reasons, by name, that are no loss.
    /// Where there are `pins`, what an earlier agent left is taken over, and what is new is left for the next one; [`Self::commit`]
    /// is still to come.
    pub fn start(
        settings: &Settings,
        ignored_reasons: &[&str],
        mut pins: Option<Pins>,
    ) -> Result<Self, KernelError> {
        privileges::require()?;
        files::raise_open_files();
        let types = btf::KernelTypes::of_running_kernel()?;
        let offsets = load::Offsets::of(&types);
        let reasons = DropReasons(
            types
                .enumeration("skb_drop_reason")
                .unwrap_or_default()
                .into_iter()
                .map(|(name, value)| (value, name.trim_start_matches("SKB_DROP_REASON_").to_owned()))
                .collect(),
        );
        let mut ebpf = load::object(load::OBJECT, settings, &types, &offsets, pins.as_mut())?;
        let continues = pins.as_ref().is_some_and(Pins::continues);
        if continues {
            maps::forget_settings(&mut ebpf, &settings.peers, settings.netns.as_ref())?;
            media::raise_generation(&mut ebpf)?;
        } else {
            maps::insert_other_paths(&mut ebpf)?;
            media::fill_free_paths(&mut ebpf, settings.limits.media_paths())?;
        }
        maps::insert_peers(&mut ebpf, &settings.peers)?;
        if let Some(inodes) = &settings.netns {
            maps::insert_netns(&mut ebpf, inodes.iter().copied())?;
        }
        let ignored: Vec<u32> = reasons.numbers(ignored_reasons).filter(|r| *r < REASONS).collect();
        maps::ignore_drop_reasons(&mut ebpf, &ignored)?;
        let cgroup = cgroup::find();
        let (states, iterators) =
            load::attach(&mut ebpf, settings, &types, &offsets, cgroup.as_ref(), pins.as_mut())?;
        if !states.values().any(|state| *state == ProgramState::Attached) {
            let reason = states.values().find_map(|state| match state {
                ProgramState::Unavailable { reason } => Some(reason.clone()),
                _ => None,
            });
            return Err(KernelError::NothingAttached(reason.unwrap_or_else(|| "all are disabled".into())));
        }
        let program_stats = if settings.program_stats {
            aya::sys::enable_stats(aya::sys::Stats::RunTime)
                .inspect_err(|e| {
                    tracing::warn!("program run time is not measured: {e} (needs CAP_SYS_ADMIN)");
                })
                .ok()
        } else {
            None
        };
        let log = if settings.log_level > 0 {
            EbpfLogger::init(&mut ebpf)
                .inspect_err(|e| tracing::warn!("diagnostics of the kernel programs are not read: {e}"))
                .ok()
        } else {
            None
        };
        let mut kernel = Self {
            ebpf,
            log,
            iterators,
            interfaces: interfaces::Interfaces::default(),
            pass: first_pass(),
            pins,
            states,
            reasons,
            cgroup,
            peers: settings.peers.clone(),
            adopted: Vec::new(),
            buffer: vec![0; PASS_BUFFER],
            _program_stats: program_stats,
        };
        kernel.adopted = kernel.adopt_existing(settings);
        Ok(kernel)
    }

    /// What outlives this agent, where anything does.
    pub const fn pins(&self) -> Option<&Pins> {
        self.pins.as_ref()
    }

    /// Everything is attached: nothing of an earlier agent but what was taken over stays.
    pub fn commit(&mut self) -> Result<(), KernelError> {
        self.pins.as_mut().map_or(Ok(()), Pins::commit)
    }

    /// Keeps for the next agent what this one has made of the counters.
    pub fn save(&mut self, checkpoint: &[u8]) -> Result<(), KernelError> {
        self.pins.as_mut().map_or(Ok(()), |pins| pins.save(checkpoint))
    }

    /// Replaces the configured peers; connections that exist keep their path.
    pub fn replace_peers(&mut self, peers: &[PeerPrefix]) -> Result<(), KernelError> {
        let same_prefix = |a: &PeerPrefix, b: &PeerPrefix| (a.address, a.bits) == (b.address, b.bits);
        let gone = self.peers.iter().filter(|old| !peers.iter().any(|new| same_prefix(old, new)));
        maps::remove_peers(&mut self.ebpf, gone)?;
        maps::insert_peers(&mut self.ebpf, peers)?;
        media::raise_generation(&mut self.ebpf)?;
        self.peers = peers.to_vec();
        Ok(())
    }

    /// Version of the running kernel: major and minor.
    pub fn version(&self) -> (u32, u32) {
        version_of(&std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default())
    }

    /// Every program and what became of it, in load order.
    pub fn programs(&self) -> impl Iterator<Item = (&'static Program, &ProgramState)> {
        PROGRAMS.iter().filter_map(|program| Some((program, self.states.get(program.name)?)))
    }

    /// The running kernel's drop reasons.
    pub fn drop_reasons(&self) -> &DropReasons {
        &self.reasons
    }

    /// Where the cgroup programs are attached.
    pub fn cgroup(&self) -> Option<&CgroupRoot> {
        self.cgroup.as_ref()
    }

    /// Namespaces whose existing connections could not be adopted.
    pub fn not_adopted(&self) -> &[netns::Unreachable] {
        &self.adopted
    }

    /// Paths that changed at or after `since_ns` (monotonic).
    pub fn paths(
        &mut self,
        since_ns: u64,
        mut visit: impl FnMut(&PathKey, &PathStats),
    ) -> Result<(), KernelError> {
        let scan = Scan { touched_since_ns: since_ns, ..Scan::default() };
        if self.pass("PATHS", scan, |record: &PathRecord| visit(&record.key, &record.stats))? {
            return Ok(());
        }
        maps::walk_paths(&self.ebpf, |key, stats| {
            if stats.touched_ns >= since_ns {
                visit(key, stats);
            }
        })
    }

    /// Connections that wait for one of `kinds` (bits of `graylag_ebpf::record::waiting`).
    pub fn waiting(&mut self, kinds: u32, mut visit: impl FnMut(&Waiting)) -> Result<(), KernelError> {
        if self.pass("CONNS", Scan { kinds, ..Scan::default() }, &mut visit)? {
            return Ok(());
        }
        maps::walk_conns(&self.ebpf, |id, conn| {
            if let Some((kind, since_ns)) = conn.waits().filter(|(kind, _)| kind & kinds != 0) {
                visit(&conn.waiting_for(id, kind, since_ns));
            }
        })
    }

    /// Handshakes that listeners have not finished.
    pub fn half_open(&mut self, mut visit: impl FnMut(&Tuple, &HalfOpen)) -> Result<(), KernelError> {
        let record = |record: &HalfOpenRecord| visit(&record.tuple, &record.state);
        if self.pass("HALF_OPEN", Scan::default(), record)? {
            return Ok(());
        }
        maps::walk_half_open(&self.ebpf, visit)
    }

    /// One pass of an iterator; false where there is none.
    fn pass<T: AnyBitPattern>(
        &mut self,
        map: &'static str,
        scan: Scan,
        visit: impl FnMut(&T),
    ) -> Result<bool, KernelError> {
        let Some(iterator) = self.iterators.maps.get(map) else { return Ok(false) };
        maps::set_scan(&mut self.ebpf, scan)?;
        iterator
            .read(&mut self.buffer, visit)
            .map_err(|error| KernelError::Map { map, error: format!("iterator: {error}") })?;
        Ok(true)
    }

    /// Watches these interfaces from now on and no others. Returns what became of those that are new, or stand otherwise than before.
    pub fn watch_interfaces(&mut self, wanted: &[Interface]) -> Vec<Watched> {
        self.interfaces.watch(&mut self.ebpf, wanted, self.pins.as_mut())
    }

    /// Interfaces that should be watched and are not.
    pub fn unwatched_interfaces(&self) -> Option<Unwatched> {
        self.interfaces.unwatched()
    }

    /// Goes through the flows, to find how each stands at `now_ns`, and then through every path that UDP was seen on.
    pub fn media_paths(
        &mut self,
        now_ns: u64,
        visit: impl FnMut(&MediaKey, &[PathTraffic], &PathQuality, &PathFlows),
    ) -> Result<(), KernelError> {
        let Some(iterator) = self.iterators.maps.get(programs::FLOW_INDEX) else {
            return media::walk_media_paths(&self.ebpf, 0, visit);
        };
        self.pass = media::next_pass(self.pass);
        let pass = self.pass;
        media::set_flow_scan(&mut self.ebpf, media::sum_up(now_ns, pass))?;
        iterator.read(&mut self.buffer, |_: &u8| {}).map_err(|error| KernelError::Map {
            map: programs::FLOW_INDEX,
            error: format!("iterator: {error}"),
        })?;
        media::walk_media_paths(&self.ebpf, pass, visit)
    }

    /// Lets each stream take turns with so many others at the exact clock (`graylag_ebpf::rtp::Turns`).
    pub fn take_turns(&mut self, others: u32) -> Result<(), KernelError> {
        media::take_turns(&mut self.ebpf, others)
    }

    /// ICE sessions that began at or after `since_ns` (monotonic).
    pub fn sessions(&mut self, since_ns: u64, visit: impl FnMut(&SessionRecord)) -> Result<(), KernelError> {
        let scan = Scan { touched_since_ns: since_ns, ..Scan::default() };
        self.pass(programs::SESSIONS, scan, visit).map(|_| ())
    }

    /// Forgets an ICE session.
    pub fn forget_session(&mut self, key: u64) -> Result<(), KernelError> {
        media::remove_session(&mut self.ebpf, key)
    }

    /// All UDP sockets that carry media.
    pub fn sockets(&mut self, visit: impl FnMut(&SocketRecord)) -> Result<(), KernelError> {
        self.pass(programs::SOCKET_MEDIA, Scan::default(), visit).map(|_| ())
    }

    /// Goes through the open files of all processes, so that sockets know whose they are. `pass` is a number that no pass had
    /// before, and not 0. Takes as long as there are files: some 100 ns for each.
    pub fn own_sockets(&mut self, pass: u32) -> Result<(), KernelError> {
        if self.states.get("own_sockets") != Some(&ProgramState::Attached) {
            return Ok(());
        }
        maps::set_scan(&mut self.ebpf, Scan { pass, ..Scan::default() })?;
        load::run_iterator(&mut self.ebpf, "own_sockets")
            .map_err(|error| KernelError::Map { map: programs::SOCKET_MEDIA, error })
    }

    /// All processes. Takes some 400 ns for each of their threads.
    pub fn tasks(&mut self, visit: impl FnMut(&TaskRecord)) -> Result<(), KernelError> {
        self.pass(programs::TASKS, Scan::default(), visit).map(|_| ())
    }

    /// The flow programs' own counters.
    pub fn media_counters(&self) -> Result<[u64; MediaCounter::COUNT], KernelError> {
        media::media_counters(&self.ebpf)
    }

    /// Forgets a handshake that will not complete; false where the kernel completed it in the meantime.
    pub fn forget_half_open(&mut self, tuple: &Tuple) -> Result<bool, KernelError> {
        maps::remove_half_open(&mut self.ebpf, tuple)
    }

    /// Forgets a connection whose end was missed.
    pub fn forget_connection(&mut self, id: u64) -> Result<(), KernelError> {
        maps::remove_conn(&mut self.ebpf, id)
    }

    /// Forgets a path.
    pub fn forget_path(&mut self, key: &PathKey) -> Result<(), KernelError> {
        maps::remove_path(&mut self.ebpf, key)
    }

    /// Packets dropped by this host.
    pub fn drops(&self) -> Result<Vec<Dropped>, KernelError> {
        let dropped = |(index, packets)| {
            let (reason, direction, transport) = drop_of_index(index);
            Dropped { reason: self.reasons.name(reason).to_owned(), direction, transport, packets }
        };
        Ok(maps::drops(&self.ebpf)?.into_iter().map(dropped).collect())
    }

    /// Receive-buffer drops by UDP port.
    pub fn udp_drops(&self) -> Result<Vec<(UdpPort, u64)>, KernelError> {
        maps::udp_drops(&self.ebpf)
    }

    /// The programs' own counters.
    pub fn counters(&self) -> Result<[u64; Counter::COUNT], KernelError> {
        maps::counters(&self.ebpf)
    }

    /// Passes on what the programs logged.
    pub fn flush_log(&mut self) {
        if let Some(log) = &mut self.log {
            log.flush();
        }
    }

    /// Memory that the maps have taken, bytes, as the kernel accounts for it.
    pub fn map_memory(&self) -> u64 {
        maps::all_memory(&self.ebpf)
    }

    /// Tries to load a program that is never attached: `graylag check` reports what kinds this kernel refuses.
    pub fn probe_fentry(&mut self) -> Result<(), String> {
        load::probe_fentry(&mut self.ebpf)
    }

    /// Run time of the attached programs; empty where the kernel does not measure it.
    pub fn program_times(&self) -> Vec<ProgramTime> {
        self.programs()
            .filter(|(_, state)| **state == ProgramState::Attached)
            .filter_map(|(program, _)| {
                if let Some(run) = self.pins.as_ref().and_then(|pins| pins.run(program.name)) {
                    let (nanoseconds, runs) = (run.nanoseconds, run.runs);
                    return Some(ProgramTime { name: program.name, nanoseconds, runs });
                }
                let info = self.ebpf.program(program.name)?.info().ok()?;
                let times = ProgramTime {
                    name: program.name,
                    nanoseconds: info.run_time().as_nanos() as u64,
                    runs: info.run_count(),
                };
                Some(times)
            })
            .collect()
    }

    /// How often the kernel did not run a program because it interrupted itself on that CPU: events that were not seen.
    pub fn missed_runs(&self) -> u64 {
        let missed = |fd: RawFd| maps::fdinfo(fd, "recursion_misses:").unwrap_or(0);
        let programs = self.programs().filter(|(_, state)| **state == ProgramState::Attached);
        programs
            .filter_map(|(p, _)| match self.pins.as_ref().and_then(|pins| pins.run(p.name)) {
                Some(run) => Some(run.missed),
                None => Some(missed(self.ebpf.program(p.name)?.fd().ok()?.as_fd().as_raw_fd())),
            })
            .sum()
    }

    /// Runs the adopting iterator once in every namespace that can be entered.
    fn adopt_existing(&mut self, settings: &Settings) -> Vec<netns::Unreachable> {
        if self.states.get("adopt") != Some(&ProgramState::Attached) {
            return Vec::new();
        }
        let ebpf = &mut self.ebpf;
        netns::for_each(settings.netns.as_ref(), || load::run_iterator(ebpf, "adopt").ok())
    }
}

/// A number of passes that earlier agents since the boot are unlikely to have had lately: they make two a second, this counts sixteen.
pub fn first_pass() -> u32 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    (now.tv_sec as u32) << 4
}

/// Major and minor version of a release (`uname -r`): `6.12.3-cloud` is (6, 12); (0, 0) where it is not understood.
pub fn version_of(release: &str) -> (u32, u32) {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    #[test]
    fn releases_are_understood() {
        assert_eq!(super::version_of("6.12.107+deb13-cloud-amd64"), (6, 12));
        assert_eq!(super::version_of("5.10.0-32"), (5, 10));
        assert_eq!(super::version_of(""), (0, 0));
    }
}
