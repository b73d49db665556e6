//! STAMP sessions into ticks by path, and totals that outlive a session.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use super::{Naming, naming::PeerName};
use crate::model::{Direction, Distribution, Path, ProbeTick, StampCounts, StampPath, fade};

/// A peer that no longer sends test packets of its own reports nothing: of the way out only its answers tell then.
const REPORTS_END: Duration = Duration::from_secs(5);

/// All sessions, by where their test packets go.
#[derive(Default)]
pub struct Probes {
    sessions: BTreeMap<(Path, SocketAddr), Session>,
    recent: BTreeMap<Path, [(f64, f64); 2]>,
    last_at: Duration,
}

/// Half-life of what is lately.
const RECENT: Duration = Duration::from_secs(5);

/// One session, and those that were before it at the same place.
struct Session {
    since: Duration,
    before: ProbeTotals,
    last: ProbeTotals,
    seen: bool,
}

/// What is known of all sessions of a path.
#[derive(Clone, Debug, Default)]
pub struct PathProbes {
    /// When the first was first seen, on the ticks' clock.
    pub since: Duration,
    /// Counts since then.
    pub totals: ProbeTotals,
    /// `(arrived, lost)` lately, with a half-life of five seconds; by [`Direction`].
    pub recent: [(f64, f64); 2],
}

/// What is counted of a session.
#[derive(Clone, Debug, Default)]
pub struct ProbeTotals {
    /// Test packets sent.
    pub sent: u64,
    /// Packets of each direction whose fate is known, by [`Direction`].
    pub counts: [StampCounts; 2],
    /// Packets that did not validate.
    pub mismatched: u64,
    /// Round trips.
    pub round_trip: Distribution,
}

impl ProbeTotals {
    fn of(seen: StampPath) -> Self {
        let mut counts = [StampCounts::default(); 2];
        counts[Direction::Transmit as usize] = seen.transmit;
        // Replies, and the peer's own test packets: both come this way.
        counts[Direction::Receive as usize] = seen.receive;
        counts[Direction::Receive as usize].add(&seen.heard);
        let round_trip = seen.delays.map(|delays| delays.round_trip.distribution).unwrap_or_default();
        Self { sent: seen.sent, counts, mismatched: seen.auth_mismatch, round_trip }
    }

    /// Adds another session's.
    pub fn add(&mut self, other: &Self) {
        self.sent += other.sent;
        self.mismatched += other.mismatched;
        self.round_trip.add(&other.round_trip);
        self.counts.iter_mut().zip(&other.counts).for_each(|(counts, other)| counts.add(other));
    }

    /// `(arrived, lost)` of one direction.
    fn fates(&self, direction: Direction) -> (u64, u64) {
        let counts = self.counts[direction as usize];
        (counts.sent.saturating_sub(counts.lost), counts.lost)
    }
}

impl Probes {
    /// By path, all its sessions together.
    pub fn by_path(&self) -> BTreeMap<&Path, PathProbes> {
        let mut paths: BTreeMap<&Path, PathProbes> = BTreeMap::new();
        for ((path, _), session) in &self.sessions {
            let sum = paths.entry(path).or_insert_with(|| PathProbes {
                since: session.since,
                totals: ProbeTotals::default(),
                recent: self.recent.get(path).copied().unwrap_or_default(),
            });
            sum.since = sum.since.min(session.since);
            sum.totals.add(&session.before);
            sum.totals.add(&session.last);
        }
        paths
    }

    /// Where the sessions of these paths send to.
    pub fn addresses<'a>(&self, paths: &'a BTreeSet<&Path>) -> impl Iterator<Item = IpAddr> + use<'_, 'a> {
        self.sessions.keys().filter(|(path, _)| paths.contains(path)).map(|(_, address)| address.ip())
    }

    /// Takes all sessions as they are at `at`.
    pub fn absorb(&mut self, seen: Vec<StampPath>, naming: &Naming, at: Duration) -> Vec<ProbeTick> {
        self.sessions.values_mut().for_each(|session| session.seen = false);
        let peers: HashMap<&str, &PeerName> =
            naming.peers.values().map(|peer| (peer.name.as_ref(), peer)).collect();
        let tick = |seen: StampPath| {
            let moment = |age: Option<Duration>| age.map(|age| at.saturating_sub(age));
            let heard = seen.last_receive.unwrap_or_default() + REPORTS_END;
            let tick = ProbeTick {
                path: path(&peers, &seen),
                interval: seen.interval,
                transmit: (0, 0),
                receive: (0, 0),
                runs: [0; 2],
                mismatched: 0,
                received: moment(seen.last_receive),
                delivered: moment(seen.last_delivery),
                mismatch: moment(seen.last_mismatch),
                echoed: moment(seen.last_echo),
                refused: moment(seen.last_refused),
                reports: seen.report.is_some_and(|report| report.age <= heard),
                told_lossy: moment(seen.report.filter(|report| report.lossy).map(|report| report.age)),
            };
            let session = self.sessions.entry((tick.path.clone(), seen.address)).or_insert_with(|| Session {
                since: at,
                before: ProbeTotals::default(),
                last: ProbeTotals::default(),
                seen: true,
            });
            session.seen = true;
            let measured = seen.delays.is_some();
            let mut now = ProbeTotals::of(seen);
            if now.sent < session.last.sent {
                // Another session took its place.
                session.before.add(&std::mem::take(&mut session.last));
            }
            if !measured {
                // They were not asked for this time.
                now.round_trip = std::mem::take(&mut session.last.round_trip);
            }
            let last = std::mem::replace(&mut session.last, now);
            let now = &session.last;
            let since = |direction| {
                let ((arrived, lost), before) = (now.fates(direction), last.fates(direction));
                (arrived.saturating_sub(before.0), lost.saturating_sub(before.1))
            };
            ProbeTick {
                transmit: since(Direction::Transmit),
                receive: since(Direction::Receive),
                runs: Direction::BOTH.map(|direction| {
                    let runs = |totals: &ProbeTotals| totals.counts[direction as usize].runs;
                    runs(now).saturating_sub(runs(&last))
                }),
                mismatched: now.mismatched.saturating_sub(last.mismatched),
                ..tick
            }
        };
        let ticks: Vec<ProbeTick> = seen.into_iter().map(tick).collect();
        self.sessions.retain(|_, session| session.seen);
        self.remember(&ticks, at);
        ticks
    }

    fn remember(&mut self, ticks: &[ProbeTick], at: Duration) {
        let elapsed = at.saturating_sub(std::mem::replace(&mut self.last_at, at));
        let keep = fade(elapsed, RECENT);
        for ways in self.recent.values_mut() {
            *ways = ways.map(|(arrived, lost)| (arrived * keep, lost * keep));
        }
        for tick in ticks {
            let ways = self.recent.entry(tick.path.clone()).or_default();
            for (direction, (arrived, lost)) in
                [(Direction::Receive, tick.receive), (Direction::Transmit, tick.transmit)]
            {
                let way = &mut ways[direction as usize];
                *way = (way.0 + arrived as f64, way.1 + lost as f64);
            }
        }
        let seen: BTreeSet<&Path> = ticks.iter().map(|tick| &tick.path).collect();
        self.recent.retain(|path, _| seen.contains(path));
    }
}

/// A session's path: the configured peer that it belongs to, else its address.
fn path(peers: &HashMap<&str, &PeerName>, seen: &StampPath) -> Path {
    let peer = peers.get(&*seen.peer);
    let per_address = peer.is_some_and(|peer| peer.per_address);
    let name = peer.map_or_else(|| seen.peer.clone(), |peer| peer.name.clone());
    Path { peer: name, address: per_address.then_some(seen.address.ip()) }
}
