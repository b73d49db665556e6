//! One round: so many attempts to each address of a target, so many of them at once.

use std::{
    fs, io,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use rustls::pki_types::ServerName;
use thiserror::Error;
use tokio::{runtime, sync::Semaphore, task::JoinSet, time::sleep};

use super::{
    attempt::{Attempt, Tls, attempt},
    outcome::Told,
    ports::{RANGE_FILE, Sweep},
    resolve::{ResolveError, Target, resolve},
    roots::{self, RootsError},
};
use crate::model::{AddressOutcome, AddressPath};

/// Attempts at once, to all addresses together.
pub(super) const AT_ONCE: usize = 64;
/// Ports that are tried before it is this host's fault that there is none.
const PORTS: u32 = 64;

/// How often it is looked whether to stop, while names are resolved.
const LOOK: Duration = Duration::from_millis(50);

/// Why there was no round.
#[derive(Debug, Error)]
pub enum RoundError {
    /// No target.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// No roots.
    #[error(transparent)]
    Roots(#[from] RootsError),
    /// A name that no certificate can have.
    #[error("`{0}` is no name that a certificate can be for; use a host name or an address")]
    Name(String),
    /// No runtime.
    #[error("cannot start: {0}")]
    Runtime(#[from] io::Error),
}

/// A round to make.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where to.
    pub target: Target,
    /// Whether TLS follows.
    pub tls: bool,
    /// Attempts to each address.
    pub count: u64,
    /// Attempts to one address at once.
    pub at_once: u16,
    /// Time for each handshake.
    pub patience: Duration,
}

/// What it came to.
#[derive(Clone, Debug)]
pub struct Found {
    /// By address, in their order.
    pub paths: Vec<AddressPath>,
    /// Addresses that were left out: too many.
    pub left_out: usize,
}

/// All that the attempts to one address share.
pub(super) struct Work {
    address: SocketAddr,
    tls: Option<Tls>,
    patience: Duration,
    /// Attempts that are to be begun still.
    left: AtomicU64,
    /// Places in the sweep that were used.
    places: AtomicU64,
    sweep: Sweep,
    path: Mutex<AddressPath>,
}

/// Makes it; ends early, with what there is, when `stop` is set.
pub fn round(settings: &Settings, stop: &'static AtomicBool) -> Result<Found, RoundError> {
    let tls = if settings.tls { Some(tls(&settings.target.host)?) } else { None };
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    let found = runtime.block_on(run(settings, tls, stop));
    // A resolver that does not answer is not waited for.
    runtime.shutdown_background();
    found
}

/// Returns once it is set.
async fn set(stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        sleep(LOOK).await;
    }
}

/// TLS with a host, checked against the system's roots.
pub(super) fn tls(host: &str) -> Result<Tls, RoundError> {
    let name = ServerName::try_from(host.to_owned()).map_err(|_| RoundError::Name(host.to_owned()))?;
    Ok(Tls { client: roots::client()?, name })
}

async fn run(settings: &Settings, tls: Option<Tls>, stop: &'static AtomicBool) -> Result<Found, RoundError> {
    let (addresses, left_out) = tokio::select! {
        found = resolve(&settings.target) => found?,
        () = set(stop) => (Vec::new(), 0),
    };
    // All addresses see the same ports: what differs between them is the address.
    let sweep = sweep();
    let at_once = Arc::new(Semaphore::new(AT_ONCE));
    let mut tasks = JoinSet::new();
    let mut works = Vec::with_capacity(addresses.len());
    for address in addresses {
        let work = Arc::new(Work::new(address, tls.clone(), settings.patience, sweep.clone()));
        work.left.store(settings.count, Ordering::Relaxed);
        works.push(work.clone());
        for _ in 0..u64::from(settings.at_once).min(settings.count) {
            let (work, at_once) = (work.clone(), at_once.clone());
            tasks.spawn(async move {
                while !stop.load(Ordering::Relaxed) && work.begin() {
                    // Closed by nobody.
                    let Ok(_permit) = at_once.acquire().await else { return };
                    work.once().await;
                }
            });
        }
    }
    while tasks.join_next().await.is_some() {}
    Ok(Found { paths: works.iter().map(|work| work.look()).collect(), left_out })
}

/// This host's ports, from some port on.
pub(super) fn sweep() -> Sweep {
    let seed = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Sweep::new(&fs::read_to_string(RANGE_FILE).unwrap_or_default(), u64::from(seed.subsec_nanos()))
}

impl Work {
    /// None made yet; as many to make as are asked for.
    pub(super) fn new(address: SocketAddr, tls: Option<Tls>, patience: Duration, sweep: Sweep) -> Self {
        let (left, places) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { address, tls, patience, left, places, sweep, path: Mutex::new(AddressPath::new(address)) }
    }

    /// What they have come to, copied out.
    pub(super) fn look(&self) -> AddressPath {
        self.path.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes one of the attempts that are left.
    fn begin(&self) -> bool {
        self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
    }

    /// One attempt, and where it fails once more from the same port.
    pub(super) async fn once(&self) {
        let Some((port, first)) = self.first().await else {
            self.change(|path| path.unsent += 1);
            return;
        };
        let failed = first.outcome != AddressOutcome::Established;
        self.change(|path| {
            path.counts.add(first.outcome);
            first.connect.iter().for_each(|time| path.connect.record(*time));
            first.tls.iter().for_each(|time| path.tls.record(*time));
            if first.reason.is_some() {
                path.reason.clone_from(&first.reason);
            }
        });
        if failed && let Ok(again) = attempt(self.address, port, self.patience, self.tls.as_ref()).await {
            self.change(|path| {
                path.repeated += 1;
                path.repeated_failed += u64::from(again.outcome != AddressOutcome::Established);
            });
        }
    }

    /// From the next port that is free for this address; nothing where this host has none.
    async fn first(&self) -> Option<(u16, Attempt)> {
        for _ in 0..PORTS {
            let port = self.sweep.port(self.places.fetch_add(1, Ordering::Relaxed));
            match attempt(self.address, port, self.patience, self.tls.as_ref()).await {
                Ok(attempt) => return Some((port, attempt)),
                Err(Told::PortTaken) => {}
                Err(_) => return None,
            }
        }
        None
    }

    fn change(&self, change: impl FnOnce(&mut AddressPath)) {
        change(&mut self.path.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    static NEVER: AtomicBool = AtomicBool::new(false);

    fn settings(port: u16) -> Settings {
        let target = Target { host: "127.0.0.1".into(), port };
        Settings { target, tls: false, count: 20, at_once: 4, patience: Duration::from_millis(900) }
    }

    #[test]
    fn a_listener_and_a_closed_port() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let found = round(&settings(port), &NEVER).unwrap();
        let path = &found.paths[0];
        assert_eq!(
            (path.counts.attempts(), path.counts.of(AddressOutcome::Established), path.repeated),
            (20, 20, 0),
            "{path:?}"
        );
        assert!(path.connect.most.is_some() && path.tls.most.is_none());
        drop(listener);
        let found = round(&settings(port), &NEVER).unwrap();
        let path = &found.paths[0];
        assert_eq!(
            (path.counts.of(AddressOutcome::Refused), path.repeated, path.repeated_failed),
            (20, 20, 20),
            "{path:?}"
        );
    }

    #[test]
    fn no_more_at_once_than_was_asked_for() {
        // A listener that takes nobody: TLS waits for an answer, and each attempt holds its connection.
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let most = Arc::new(AtomicU64::new(0));
        let seen = most.clone();
        std::thread::spawn(move || {
            let mut held: Vec<std::net::TcpStream> = Vec::new();
            while let Ok((stream, _)) = listener.accept() {
                stream.set_nonblocking(true).unwrap();
                // Those that were given up say so.
                held.retain(|stream| {
                    let mut octet = [0; 4096];
                    loop {
                        match io::Read::read(&mut &*stream, &mut octet) {
                            Ok(0) => return false,
                            Ok(_) => {}
                            Err(error) => return error.kind() == io::ErrorKind::WouldBlock,
                        }
                    }
                });
                held.push(stream);
                seen.fetch_max(held.len() as u64, Ordering::Relaxed);
            }
        });
        let patience = Duration::from_millis(100);
        let settings = Settings { tls: true, count: 9, at_once: 3, patience, ..settings(port) };
        let found = round(&settings, &NEVER).unwrap();
        let path = &found.paths[0];
        assert_eq!((path.counts.of(AddressOutcome::TimedOut), path.repeated_failed), (9, 9), "{path:?}");
        assert_eq!(path.reason.as_deref(), Some("no end of the TLS handshake"));
        assert_eq!(most.load(Ordering::Relaxed), 3);
    }
}
