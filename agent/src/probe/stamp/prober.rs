//! The thread that drives all sessions and the reflector.
//!
//! One thread of its own, so that probes wait neither for OTLP nor for a reader of the API, and no task per session: a round
//! takes what has come, answers, and sends what is due. Rounds begin at least four milliseconds apart: when packets come
//! densely, many share a wake-up, and a system call. No measurement suffers, for the kernel says when each came.

use std::{
    collections::BTreeSet,
    io,
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use rustix::{
    event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll},
    fd::OwnedFd,
    time::{ClockId, clock_gettime},
};
use thiserror::Error;

use super::{
    batch::{self, Incoming, Outgoing},
    packet::Timestamp,
    reflector::Received,
    sessions::{Sessions, Settings},
    socket::{Datagram, Socket, SocketError},
};
use crate::model::{ReflectorCounts, StampPath};

/// Least time between the beginnings of two rounds.
const ROUND: Duration = Duration::from_millis(4);
/// Batches taken from one socket, and sent, in one round.
const BATCHES: usize = 512 / batch::MOST;
/// A kernel timestamp older than this is of a clock that was set meanwhile.
const OLDEST: Duration = Duration::from_secs(1);
/// Without anything to do the thread looks around this often.
const IDLE: Duration = Duration::from_secs(1);
/// Octets of a test packet that an ICMP error quotes are kept as far as these; it is read by its beginning.
const QUOTED: usize = 2048;

/// Why there is no prober.
#[derive(Debug, Error)]
pub enum ProberError {
    /// A socket.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// The thread, or what wakes it.
    #[error("the prober's thread: {0}")]
    Thread(#[from] io::Error),
}

fn clock(id: ClockId) -> Duration {
    let time = clock_gettime(id);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

fn monotonic() -> Duration {
    clock(ClockId::Monotonic)
}

fn wall() -> Duration {
    clock(ClockId::Realtime)
}

/// Sockets that are bound, before the thread begins: ports below 1024 take a capability that is given up in between.
pub struct Bound {
    sessions: Sessions,
    sockets: Sockets,
}

struct Sockets {
    reflector: Option<Socket>,
    /// IPv4 and IPv6; made when there is a target.
    senders: [Option<Socket>; 2],
}

impl Sockets {
    /// Makes the senders' sockets that are missing.
    fn complete(&mut self, sessions: &Sessions) -> Result<(), SocketError> {
        for (place, is_ipv6) in self.senders.iter_mut().zip([false, true]) {
            if place.is_none() && sessions.probes(is_ipv6) {
                *place = Some(Socket::sender(is_ipv6)?);
            }
        }
        Ok(())
    }
}

/// Opens the sockets: the reflector's where it is to listen, a sender's for each family that has a target.
pub fn bind(listen: Option<std::net::SocketAddr>, settings: &Settings) -> Result<Bound, ProberError> {
    let now = monotonic();
    let mut sessions = Sessions::new(wall().as_nanos() as u64, listen.map(|address| address.port()));
    sessions.reconfigure(settings, now);
    let mut sockets = Sockets { reflector: listen.map(Socket::listen).transpose()?, senders: [None, None] };
    sockets.complete(&sessions)?;
    Ok(Bound { sessions, sockets })
}

impl Bound {
    /// Starts the thread.
    pub fn start(self) -> Result<Prober, ProberError> {
        let shared = Arc::new(Shared {
            sessions: Mutex::new(self.sessions),
            counts: Mutex::default(),
            wake: eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC).map_err(io::Error::from)?,
            stop: AtomicBool::new(false),
        });
        let mut work = Work {
            shared: shared.clone(),
            sockets: self.sockets,
            incoming: Incoming::default(),
            outgoing: Outgoing::default(),
            quoted: vec![0; QUOTED],
            out: Vec::new(),
        };
        let thread = thread::Builder::new().name("prober".into()).spawn(move || work.run())?;
        Ok(Prober { shared, thread: Some(thread) })
    }
}

struct Shared {
    sessions: Mutex<Sessions>,
    /// Of the reflector's socket: what it could not send, what found its buffer full.
    counts: Mutex<(u64, u64)>,
    wake: OwnedFd,
    stop: AtomicBool,
}

impl Shared {
    fn sessions(&self) -> MutexGuard<'_, Sessions> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn counts(&self) -> MutexGuard<'_, (u64, u64)> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self) {
        // Full is awake.
        let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
    }
}

/// The running prober; it ends when this is dropped.
pub struct Prober {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Prober {
    /// What all sessions have seen, copied out; in the order of peers and addresses. Delays where they are asked for: they are most
    /// of it.
    pub fn look(&self, delays: bool) -> Vec<StampPath> {
        self.shared.sessions().look(monotonic(), delays)
    }

    /// Tells the peers at these addresses, and no others, that too much of what they send is lost.
    pub fn losing(&self, addresses: &BTreeSet<IpAddr>) {
        self.shared.sessions().losing(addresses);
    }

    /// Lets sessions send more closely for a while, as where one of their packets was missed: something else says that packets are.
    pub fn send_more(&self) {
        self.shared.sessions().send_more(monotonic());
        self.shared.wake();
    }

    /// What the reflector has done.
    pub fn reflector(&self) -> ReflectorCounts {
        let (unsent, overflowed) = *self.shared.counts();
        ReflectorCounts { unsent, overflowed, ..self.shared.sessions().reflector_counts() }
    }

    /// Replaces keys, targets and who is answered. Sessions whose target stays keep their counts; the reflector's address
    /// stays what it was.
    pub fn reconfigure(&self, settings: &Settings) {
        self.shared.sessions().reconfigure(settings, monotonic());
        self.shared.wake();
    }

    /// Whether every session has sent all it has to, and nothing is waited for.
    pub fn is_over(&self) -> bool {
        self.shared.sessions().are_over(monotonic())
    }
}

impl Drop for Prober {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.shared.wake();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Work {
    shared: Arc<Shared>,
    sockets: Sockets,
    incoming: Incoming,
    outgoing: Outgoing,
    quoted: Vec<u8>,
    out: Vec<u8>,
}

impl Work {
    fn run(&mut self) {
        let mut failing = false;
        while !self.shared.stop.load(Ordering::Relaxed) {
            let began = monotonic();
            let shared = self.shared.clone();
            // Held for a round. Nothing in it waits: sockets do not block.
            let mut sessions = shared.sessions();
            match self.sockets.complete(&sessions) {
                Ok(()) => failing = false,
                Err(error) if !std::mem::replace(&mut failing, true) => tracing::error!("{error}"),
                Err(_) => {}
            }
            self.refusals(&mut sessions);
            self.replies(&mut sessions);
            self.reflect(&mut sessions);
            self.send(&mut sessions);
            let due = sessions.due();
            drop(sessions);
            let pause = (began + ROUND).saturating_sub(monotonic());
            if !pause.is_zero() {
                thread::sleep(pause);
            }
            self.wait(due.map_or(IDLE, |due| due.saturating_sub(monotonic()).min(IDLE)));
        }
    }

    /// Waits until something comes, but not longer than this.
    fn wait(&self, limit: Duration) {
        let [v4, v6] = &self.sockets.senders;
        let sockets = [&self.sockets.reflector, v4, v6];
        let mut waited: Vec<PollFd<'_>> =
            sockets.into_iter().flatten().map(|socket| PollFd::new(socket, PollFlags::IN)).collect();
        waited.push(PollFd::new(&self.shared.wake, PollFlags::IN));
        let limit = Timespec { tv_sec: limit.as_secs() as i64, tv_nsec: limit.subsec_nanos().into() };
        // An interrupted wait is a short one.
        let _ = poll(&mut waited, Some(&limit));
        let mut count = [0; 8];
        let _ = rustix::io::read(&self.shared.wake, &mut count);
    }

    fn replies(&mut self, sessions: &mut Sessions) {
        for socket in self.sockets.senders.iter().flatten() {
            for _ in 0..BATCHES {
                let Ok(count) = socket.receive(&mut self.incoming) else { break };
                let clocks = Clocks::now();
                for datagram in self.incoming.each(count).filter_map(|arrived| Datagram::of(&arrived)) {
                    let (at, now) = clocks.arrival(datagram.at);
                    sessions.replied(datagram.octets, datagram.from, at, now);
                }
                if count < batch::MOST {
                    break;
                }
            }
        }
    }

    /// Takes the ICMP errors of what was sent. To be called before each round of receiving: one that waits fails other calls.
    fn refusals(&mut self, sessions: &mut Sessions) {
        let now = monotonic();
        for socket in self.sockets.senders.iter_mut().flatten() {
            for _ in 0..BATCHES * batch::MOST {
                let Ok(Some(refused)) = socket.refused(&mut self.quoted) else { break };
                let octets = self.quoted.get(..refused.length).unwrap_or_default();
                if let Some(to) = refused.to.filter(|_| refused.port) {
                    sessions.refused(octets, to, now);
                }
            }
        }
    }

    fn reflect(&mut self, sessions: &mut Sessions) {
        let Some(socket) = &self.sockets.reflector else { return };
        for _ in 0..BATCHES {
            let Ok(count) = socket.receive(&mut self.incoming) else { break };
            let clocks = Clocks::now();
            let mut overflowed = None;
            for datagram in self.incoming.each(count).filter_map(|arrived| Datagram::of(&arrived)) {
                let (at, now) = clocks.arrival(datagram.at);
                let received =
                    Received { octets: datagram.octets, from: datagram.from, ttl: datagram.ttl, at };
                sessions.reflected(&received, Timestamp::ntp(wall()), now, &mut self.out);
                if !self.out.is_empty() {
                    datagram.answer(&self.out, &mut self.outgoing);
                }
                overflowed = datagram.overflowed.or(overflowed);
            }
            let mut unsent = 0;
            socket.send(&mut self.outgoing, |_| unsent += 1);
            if unsent > 0 || overflowed.is_some() {
                let mut counts = self.shared.counts();
                counts.0 += unsent;
                counts.1 = overflowed.map_or(counts.1, u64::from);
            }
            if count < batch::MOST {
                break;
            }
        }
    }

    fn send(&mut self, sessions: &mut Sessions) {
        let mut due = Vec::with_capacity(batch::MOST);
        for _ in 0..BATCHES {
            // Once for those that leave together.
            let clocks = Clocks::now();
            let leaves = Timestamp::ntp(clocks.wall);
            // Of one family: they leave through one socket.
            let mut family = None;
            while !self.outgoing.is_full()
                && let Some((ssid, to)) = sessions.next(clocks.monotonic, leaves, &mut self.out)
            {
                if family.replace(to.is_ipv6()).is_some_and(|family| family != to.is_ipv6()) {
                    self.flush(sessions, &mut due, !to.is_ipv6());
                }
                self.outgoing.push(&self.out, to.into(), None);
                due.push(ssid);
            }
            let Some(is_ipv6) = family else { break };
            let was_full = self.outgoing.is_full();
            self.flush(sessions, &mut due, is_ipv6);
            if !was_full {
                break;
            }
        }
    }

    /// Sends what is due, of these sessions.
    fn flush(&mut self, sessions: &mut Sessions, due: &mut Vec<u16>, is_ipv6: bool) {
        if let Some(socket) = &self.sockets.senders[usize::from(is_ipv6)] {
            let refused = |i: usize| due.get(i).into_iter().for_each(|ssid| sessions.withdraw(*ssid));
            socket.send(&mut self.outgoing, refused);
        } else {
            self.outgoing.clear();
            for ssid in due.iter() {
                sessions.withdraw(*ssid);
            }
        }
        due.clear();
    }
}

/// Both clocks at one moment.
struct Clocks {
    monotonic: Duration,
    wall: Duration,
}

impl Clocks {
    fn now() -> Self {
        Self { monotonic: monotonic(), wall: wall() }
    }

    /// When a datagram came, by the wall clock and by the monotonic one. The kernel says the first; the second follows from how
    /// long ago that is.
    fn arrival(&self, at: Option<Duration>) -> (Timestamp, Duration) {
        let ago = at.and_then(|at| self.wall.checked_sub(at)).filter(|ago| *ago < OLDEST);
        match (at, ago) {
            (Some(at), Some(ago)) => (Timestamp::ntp(at), self.monotonic.saturating_sub(ago)),
            _ => (Timestamp::ntp(self.wall), self.monotonic),
        }
    }
}
