//! The collector's thread: looks at the kernel on time, whatever the others do, and passes on what changed.

use std::{
    collections::BTreeSet,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context, Result};

use super::{attribution::Asker, path_map::Publisher};
use crate::{
    collect::{Collector, Softirqs},
    config::Peer,
    engine::{Announcement, Engine},
    kernel::settings::PeerPrefix,
    probe::{
        address,
        stamp::{self, Surge},
    },
};

/// Run times of the programs, and what nothing is judged by, are read this often.
const PROGRAM_TIMES_EVERY: Duration = Duration::from_secs(5);
/// Sockets that carry media, and probes, are looked at this often: a relay that stalls must be told of within half a second, a
/// path that is down within one. Where there are many, less often.
const QUICK_EVERY: Duration = Duration::from_millis(100);
/// Delays of probes, by which nothing is judged, are looked at this often.
const DELAYS_EVERY: Duration = Duration::from_secs(1);
/// One in so many parts of the time is what these looks may take.
const QUICK_SHARE: u32 = 50;
/// A silent second on the watch is broken by a heartbeat.
const HEARTBEAT_EVERY: Duration = Duration::from_secs(1);

/// What the others may ask of the collector.
enum Request {
    /// Replace the configured peers, and say what came of it.
    Peers(Vec<PeerPrefix>, Vec<Peer>, mpsc::SyncSender<Result<()>>),
}

/// Where the collector's news go; none of these may wait.
pub trait Listener: Send {
    /// What changed in one look, in order.
    fn changed(&mut self, announcements: Vec<Announcement>);
    /// Nothing changed for a second.
    fn unchanged(&mut self);
}

/// Monotonic time, the kernel programs' clock.
pub fn now() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// What probes, where anything does.
#[derive(Clone)]
pub struct Probers {
    /// STAMP: reflector and sessions.
    pub stamp: Option<Arc<stamp::Prober>>,
    /// TCP and TLS.
    pub addresses: Option<Arc<address::Prober>>,
}

/// The running thread.
pub struct Handle {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
    requests: mpsc::Sender<Request>,
}

impl Handle {
    /// Starts the thread.
    pub fn start(
        collector: Collector,
        probers: Probers,
        (path_map, asker): (Option<Publisher>, Option<Asker>),
        engine: Arc<Engine>,
        interval: Duration,
        listener: impl Listener + 'static,
    ) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let (requests, received) = mpsc::channel();
        let mut work = Work {
            collector,
            probers,
            path_map,
            asker,
            engine,
            interval,
            listener,
            softirqs: Softirqs::find(),
            late: Duration::ZERO,
            failing: Failing::default(),
            sockets_failing: Failing::default(),
            keeping_fails: Failing::default(),
            losing: BTreeSet::new(),
            delays_at: Duration::ZERO,
            surge: Surge::default(),
        };
        let stopped = stop.clone();
        let thread = thread::Builder::new()
            .name("collector".into())
            .spawn(move || work.run(&stopped, &received))
            .context("the collector's thread")?;
        Ok(Self { stop, thread, requests })
    }

    /// Replaces the configured peers; returns when it is done.
    pub fn replace_peers(&self, prefixes: Vec<PeerPrefix>, peers: Vec<Peer>) -> Result<()> {
        // A look may be under way, and may take its time.
        const PATIENCE: Duration = Duration::from_secs(20);
        let (done, said) = mpsc::sync_channel(1);
        self.requests.send(Request::Peers(prefixes, peers, done)).context("the collector has ended")?;
        self.thread.thread().unpark();
        said.recv_timeout(PATIENCE).context("the collector does not answer")?
    }

    /// Ends the thread, and with it detaches the kernel half.
    pub fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.thread().unpark();
        let _ = self.thread.join();
    }
}

struct Work<L> {
    collector: Collector,
    probers: Probers,
    path_map: Option<Publisher>,
    asker: Option<Asker>,
    engine: Arc<Engine>,
    interval: Duration,
    listener: L,
    softirqs: Softirqs,
    /// The most that softirqs were found to be late since the last look at the kernel.
    late: Duration,
    failing: Failing,
    sockets_failing: Failing,
    keeping_fails: Failing,
    /// Peers that have been told that too much of what they send is lost.
    losing: BTreeSet<IpAddr>,
    /// When delays of probes are to be looked at next.
    delays_at: Duration,
    surge: Surge,
}

/// Whether something fails, told when that changes and not each time.
#[derive(Default)]
pub struct Failing(bool);

impl Failing {
    /// What was obtained, where it was.
    pub fn told<T>(&mut self, what: &str, result: Result<T>) -> Option<T> {
        match result {
            Ok(value) => {
                if std::mem::take(&mut self.0) {
                    tracing::info!("{what} succeed again");
                }
                Some(value)
            }
            Err(error) => {
                if !std::mem::replace(&mut self.0, true) {
                    tracing::error!("{what} fail: {error:#}");
                }
                None
            }
        }
    }
}

impl<L: Listener> Work<L> {
    fn run(&mut self, stop: &AtomicBool, requests: &mpsc::Receiver<Request>) {
        let mut due = now();
        let (mut times_at, mut heartbeat_at) = (due, due);
        let quick = self.probers.stamp.is_some() || self.collector.has_sockets();
        let mut quick_due = quick.then_some(due);
        loop {
            let next = quick_due.map_or(due, |quick| quick.min(due));
            while now() < next {
                if stop.load(Ordering::Relaxed) {
                    return self.keep(self.engine.keep(now()));
                }
                for request in requests.try_iter() {
                    self.answer(request);
                }
                thread::park_timeout(next.saturating_sub(now()));
            }
            if stop.load(Ordering::Relaxed) {
                return self.keep(self.engine.keep(now()));
            }
            if let Some(quick) = quick_due.filter(|quick| *quick <= now()) {
                quick_due = Some(self.look_quickly(quick));
            }
            let at = now();
            if at < due {
                continue;
            }
            self.softirqs_late(at);
            let softirqs = std::mem::take(&mut self.late);
            self.look(at, at.saturating_sub(due).max(softirqs));
            if at >= times_at {
                times_at = at + PROGRAM_TIMES_EVERY;
                let times = self.collector.program_times();
                let times = times.iter().map(|t| (t.name, t.nanoseconds, t.runs)).collect();
                self.engine.set_programs(times, self.collector.missed_runs());
                let reflector = self.probers.stamp.as_ref().map(|prober| prober.reflector());
                let targets = self.probers.addresses.as_ref().map(|prober| prober.look());
                self.engine.absorb_probers(reflector, targets.unwrap_or_default(), at);
            }
            if at >= heartbeat_at {
                heartbeat_at = at + HEARTBEAT_EVERY;
                self.listener.unchanged();
            }
            due += self.interval;
            if due < now() {
                due = now() + self.interval; // fell behind: do not try to catch up
            }
        }
    }

    /// How late softirqs are.
    fn softirqs_late(&mut self, at: Duration) -> Duration {
        let late = self.softirqs.late(at);
        self.late = self.late.max(late);
        late
    }

    fn look(&mut self, at: Duration, late: Duration) {
        if let Some(asker) = &self.asker {
            asker.tell(&self.engine, at);
        }
        let seen = self.collector.look(at.as_nanos() as u64);
        if let Some(seen) = self.failing.told("looks at the kernel", seen) {
            self.listener.changed(self.engine.absorb(&seen, late));
            if let Some(map) = &mut self.path_map {
                map.publish(&self.engine, at);
            }
            self.keep_if_due(at);
            if let Some(asker) = &mut self.asker {
                asker.ask(&self.engine, &mut self.collector, at);
            }
        }
    }

    /// A look at what cannot wait. Returns when the next is due.
    fn look_quickly(&mut self, due: Duration) -> Duration {
        let at = now();
        let late = self.softirqs_late(at).max(at.saturating_sub(due));
        if let Some(prober) = &self.probers.stamp {
            // What cannot be read is told by the looks that judge it.
            if let Ok(Some(missed)) = self.collector.missed()
                && self.surge.look(at, missed)
            {
                prober.send_more();
            }
            let delays = at >= self.delays_at;
            if delays {
                self.delays_at = at + DELAYS_EVERY;
            }
            self.listener.changed(self.engine.absorb_probes(prober.look(delays), at, late));
            let losing = self.engine.losing();
            if losing != self.losing {
                prober.losing(&losing);
                self.losing = losing;
            }
            if let Some(map) = &mut self.path_map {
                map.publish_probed(&self.engine, at);
            }
        }
        if self.collector.has_sockets() {
            self.look_at_sockets(at, late);
        }
        let ended = now();
        let next = (due + QUICK_EVERY).max(at + ended.saturating_sub(at) * QUICK_SHARE);
        if next < ended { ended + QUICK_EVERY } else { next }
    }

    fn look_at_sockets(&mut self, at: Duration, late: Duration) {
        let sockets = self.collector.sockets(at.as_nanos() as u64);
        if let Some(sockets) = self.sockets_failing.told("looks at sockets", sockets) {
            self.listener.changed(self.engine.absorb_sockets(&sockets, at, late));
            self.keep_if_due(at);
        }
    }

    /// Keeps for the next agent what it could not find out from the kernel.
    fn keep_if_due(&mut self, at: Duration) {
        if self.collector.kernel().pins().is_some() {
            self.keep(self.engine.keep_if_due(at));
        }
    }

    fn keep(&mut self, kept: Option<Vec<u8>>) {
        if let Some(kept) = kept
            && self.collector.kernel().pins().is_some()
        {
            let saved = self.collector.save(&kept);
            self.keeping_fails.told("checkpoints for the next agent", saved);
        }
    }

    fn answer(&mut self, request: Request) {
        match request {
            Request::Peers(prefixes, peers, done) => {
                if let Some(map) = &mut self.path_map {
                    map.replace_peers(&peers);
                }
                // Whoever asked may have lost patience.
                let _ = done.send(self.collector.replace_peers(&prefixes));
            }
        }
    }
}
