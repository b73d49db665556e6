//! Probes without end: every address of each target, one attempt at a time to each, at an interval; names are resolved again and again.
//!
//! One thread of its own, as STAMP has: nothing else can delay it, and it delays nobody.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
    time::Duration,
};

use tokio::{
    runtime,
    sync::{Notify, Semaphore},
    task::{AbortHandle, JoinSet},
    time::{Instant, sleep, sleep_until},
};

use super::{
    attempt::Tls,
    ports::Sweep,
    resolve::{ResolveError, Target, resolve},
    round::{AT_ONCE, RoundError, Work, sweep, tls},
};
use crate::model::AddressTarget;

/// What is probed, and how often.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// As it is to be called.
    pub name: String,
    /// Where to.
    pub target: Target,
    /// Whether TLS follows.
    pub tls: bool,
    /// Time from the beginning of one attempt to that of the next, to each address. One that takes longer delays the next: there is
    /// never more than one under way to an address.
    pub interval: Duration,
    /// Time for each handshake.
    pub patience: Duration,
    /// Time from one lookup to the next. How long an answer holds (the TTL) the system's resolver does not say.
    pub resolve: Duration,
}

/// The running prober; it ends when this is dropped.
pub struct Prober {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    stop: Notify,
    targets: Mutex<Vec<State>>,
}

/// A target while it is probed.
struct State {
    known: AddressTarget,
    works: BTreeMap<SocketAddr, (Arc<Work>, AbortHandle)>,
}

impl Shared {
    fn targets(&self) -> MutexGuard<'_, Vec<State>> {
        self.targets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Prober {
    /// Starts it. The error says what of the targets cannot be, or why there is no thread.
    pub fn start(probes: &[Probe]) -> Result<Self, RoundError> {
        let with_tls = |probe: &Probe| {
            let tls = if probe.tls { Some(tls(&probe.target.host)?) } else { None };
            Ok((probe.clone(), tls))
        };
        let probes = probes.iter().map(with_tls).collect::<Result<Vec<_>, RoundError>>()?;
        let targets = Mutex::new(probes.iter().map(|(probe, _)| State::new(probe)).collect());
        let shared = Arc::new(Shared { stop: Notify::new(), targets });
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        let all = shared.clone();
        let thread = thread::Builder::new().name("address-prober".into()).spawn(move || {
            runtime.block_on(drive(&all, probes));
            // A resolver that does not answer is not waited for.
            runtime.shutdown_background();
        })?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// What all of them have come to, copied out; in the order in which they were given.
    pub fn look(&self) -> Vec<AddressTarget> {
        let look = |state: &State| {
            let paths = state.works.values().map(|(work, _)| work.look()).collect();
            AddressTarget { paths, ..state.known.clone() }
        };
        self.shared.targets().iter().map(look).collect()
    }
}

impl Drop for Prober {
    fn drop(&mut self) {
        self.shared.stop.notify_one();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl State {
    fn new(probe: &Probe) -> Self {
        let known = AddressTarget {
            target: probe.name.clone(),
            tls: probe.tls,
            paths: Vec::new(),
            left_out: 0,
            unresolved: 0,
            reason: None,
        };
        Self { known, works: BTreeMap::new() }
    }

    /// Whether its name resolves; said when that changes.
    fn tell(&mut self, error: Option<&ResolveError>) {
        match (error, &self.known.reason) {
            (Some(error), None) => tracing::warn!("[[probe]] {}: {error}", self.known.target),
            (None, Some(_)) => tracing::info!("[[probe]] {} resolves again", self.known.target),
            _ => {}
        }
        self.known.reason = error.map(ToString::to_string);
    }

    /// Forgets addresses that are no more, and begins with those that are new.
    fn take(&mut self, addresses: &[SocketAddr], mut begin: impl FnMut(usize) -> (Arc<Work>, AbortHandle)) {
        self.works.retain(|address, (_, task)| {
            let stays = addresses.contains(address);
            if !stays {
                task.abort();
            }
            stays
        });
        for (place, address) in addresses.iter().enumerate() {
            self.works.entry(*address).or_insert_with(|| begin(place));
        }
    }
}

async fn drive(shared: &Arc<Shared>, probes: Vec<(Probe, Option<Tls>)>) {
    let at_once = Arc::new(Semaphore::new(AT_ONCE));
    let sweep = sweep();
    let mut tasks = JoinSet::new();
    for (at, (probe, tls)) in probes.into_iter().enumerate() {
        let (shared, sweep, at_once) = (shared.clone(), sweep.clone(), at_once.clone());
        tasks.spawn(async move { one_target(&shared, at, &probe, tls.as_ref(), &sweep, &at_once).await });
    }
    shared.stop.notified().await;
    tasks.shutdown().await;
}

/// Resolves a target again and again, and has its addresses probed.
async fn one_target(
    shared: &Shared,
    at: usize,
    probe: &Probe,
    tls: Option<&Tls>,
    sweep: &Sweep,
    at_once: &Arc<Semaphore>,
) {
    // Its tasks end with it.
    let mut tasks = JoinSet::new();
    loop {
        let found = resolve(&probe.target).await;
        if let Some(state) = shared.targets().get_mut(at) {
            state.tell(found.as_ref().err());
            match found {
                Ok((addresses, left_out)) => {
                    state.known.left_out = left_out;
                    state.take(&addresses, |place| {
                        let work = Work::new(addresses[place], tls.cloned(), probe.patience, sweep.clone());
                        let work = Arc::new(work);
                        // Spread over the interval.
                        let phase = probe.interval.mul_f64(place as f64 / addresses.len() as f64);
                        let task = one_address(work.clone(), phase, probe.interval, at_once.clone());
                        (work, tasks.spawn(task))
                    });
                }
                Err(_) => state.known.unresolved += 1,
            }
        }
        while tasks.try_join_next().is_some() {}
        sleep(probe.resolve).await;
    }
}

async fn one_address(work: Arc<Work>, phase: Duration, interval: Duration, at_once: Arc<Semaphore>) {
    sleep(phase).await;
    loop {
        let next = Instant::now() + interval;
        // Closed by nobody.
        let Ok(permit) = at_once.acquire().await else { return };
        work.once().await;
        drop(permit);
        sleep_until(next).await;
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;
    use crate::model::AddressOutcome;

    #[test]
    fn it_goes_on_until_it_is_dropped() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let probe = |host: &str| Probe {
            name: host.into(),
            target: Target { host: host.into(), port },
            tls: false,
            interval: Duration::from_millis(5),
            patience: Duration::from_millis(900),
            resolve: Duration::from_millis(20),
        };
        let probes = [probe("127.0.0.1"), probe("127.0.0.2"), probe("no such name")];
        let prober = Prober::start(&probes).unwrap();
        let began = std::time::Instant::now();
        let seen = loop {
            let seen = prober.look();
            let enough = |at: usize| seen[at].paths.first().is_some_and(|path| path.counts.attempts() >= 5);
            if enough(0) && enough(1) && seen[2].unresolved >= 2 {
                break seen;
            }
            assert!(began.elapsed() < Duration::from_secs(20), "{seen:?}");
            thread::sleep(Duration::from_millis(5));
        };
        let (well, refused) = (&seen[0].paths[0].counts, &seen[1].paths[0].counts);
        assert!(well.of(AddressOutcome::Established) >= 5 && well.failed() == 0, "{seen:?}");
        assert_eq!(refused.of(AddressOutcome::Refused), refused.attempts(), "{seen:?}");
        assert!(seen[2].paths.is_empty() && seen[2].reason.is_some(), "{seen:?}");
        drop(prober);
    }

    #[test]
    fn addresses_come_and_go() {
        let runtime = runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let target = Target { host: "lb.example".into(), port: 1 };
            let second = Duration::from_secs(1);
            let (interval, patience, resolve) = (second, second, second);
            let probe = Probe { name: "lb".into(), target, tls: false, interval, patience, resolve };
            let mut state = State::new(&probe);
            let mut tasks = JoinSet::new();
            let address = |last: u8| SocketAddr::from(([192, 0, 2, last], 1));
            for (now, begun) in [(vec![1, 2], 2), (vec![2, 3], 1), (vec![2, 3], 0), (vec![1], 1)] {
                let addresses: Vec<_> = now.iter().map(|last| address(*last)).collect();
                let mut count = 0;
                state.take(&addresses, |place| {
                    count += 1;
                    let work = Work::new(addresses[place], None, second, Sweep::new("", 0));
                    (Arc::new(work), tasks.spawn(std::future::pending::<()>()))
                });
                assert_eq!((count, state.works.keys().copied().collect::<Vec<_>>()), (begun, addresses));
            }
            // Of the four that were begun, three have ended.
            let mut ended = 0;
            while let Ok(Some(_)) = tokio::time::timeout(Duration::from_millis(50), tasks.join_next()).await {
                ended += 1;
            }
            assert_eq!(ended, 3);
        });
    }
}
