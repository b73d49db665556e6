//! What the pinned map of path states says: reports in, entries to be written out. Who writes them is told elsewhere; no clock, no I/O.
//!
//! A reader looks an address up and gets the longest prefix that holds it, so that must always be the prefix by which graylag itself
//! knows the address. Hence every configured prefix has an entry, which says `unknown` where nothing is known of its path: else an
//! address of a small peer inside a large one would be taken for the large one's.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use graylag_ebpf::path_state::{Entry, Key, Leg, State, VERSION};

use crate::model::{OTHER, Path, PathReport, PathState};

/// Entries are renewed at looks, no more often than in this part of the time for which they speak. A renewal is what costs.
const RENEWALS: u32 = 4;

/// A configured peer and where it is.
#[derive(Clone, Debug)]
pub struct MappedPeer {
    /// Its name.
    pub name: Arc<str>,
    /// Its prefixes: address and significant bits.
    pub prefixes: Vec<(IpAddr, u8)>,
    /// Whether each of its addresses is a path of its own.
    pub per_address: bool,
}

/// One change of the map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// An entry is new, or says something else, or says it for longer.
    Write(Key, Entry),
    /// An entry goes.
    Remove(Key),
}

/// What is written in the map, and what is to be.
pub struct PathMap {
    epoch: u64,
    /// Entries there is room for.
    room: usize,
    /// How long an entry speaks without being renewed.
    valid: Duration,
    names: Names,
    places: BTreeMap<Path, Place>,
    written: BTreeMap<Key, Entry>,
    left_out: BTreeSet<Key>,
    refused: u64,
    renewed: Option<Duration>,
}

/// Both directions as they shall be told.
type Legs = [Leg; 2];

/// Which prefix belongs to whom.
#[derive(Default)]
struct Names {
    /// `(prefix, index of its peer)`.
    prefixes: BTreeMap<Key, usize>,
    peers: Vec<MappedPeer>,
}

/// Where a path is, looked up once, and what was told of it last.
struct Place {
    keys: Vec<Key>,
    told: Legs,
}

impl PathMap {
    /// Nothing is written yet. There is room for `room` entries, the configured prefixes among them.
    pub fn new(epoch: u64, room: usize, valid: Duration, peers: Vec<MappedPeer>) -> Self {
        let mut map = Self {
            epoch,
            room,
            valid,
            names: Names::default(),
            places: BTreeMap::new(),
            written: BTreeMap::new(),
            left_out: BTreeSet::new(),
            refused: 0,
            renewed: None,
        };
        map.replace_peers(peers);
        map
    }

    /// Takes other peers; the next look puts the map right.
    pub fn replace_peers(&mut self, peers: Vec<MappedPeer>) {
        self.names = Names::new(peers);
        self.places.clear();
        self.renewed = None;
    }

    /// Entries in use, and how many there is room for.
    pub fn usage(&self) -> (usize, usize) {
        (self.written.len(), self.room)
    }

    /// Prefixes that found no room since start.
    pub const fn refused(&self) -> u64 {
        self.refused
    }

    /// A change could not be made: it is due again with the next renewal.
    pub fn failed(&mut self, key: &Key) {
        self.written.remove(key);
    }

    /// A look at `at` at all paths: what stands otherwise than was told is told anew, and now and then everything.
    pub fn look(&mut self, at: Duration, reports: &[PathReport]) -> Vec<Change> {
        if self.renewed.is_some_and(|last| at.saturating_sub(last) < self.valid / RENEWALS) {
            return self.look_at_some(at, reports);
        }
        self.renewed = Some(at);
        let paths = by_path(reports);
        self.places.retain(|path, _| paths.contains_key(path));
        let mut wanted: BTreeMap<Key, Legs> =
            self.names.prefixes.keys().map(|key| (*key, Legs::default())).collect();
        for (path, reports) in &paths {
            let place = self.place(path);
            place.told = told(Legs::default(), reports);
            wanted.extend(place.keys.iter().map(|key| (*key, place.told)));
        }
        let gone: Vec<Key> = self.written.keys().filter(|key| !wanted.contains_key(key)).copied().collect();
        self.written.retain(|key, _| wanted.contains_key(key));
        let mut changes: Vec<Change> = gone.into_iter().map(Change::Remove).collect();
        self.leave_out(&mut wanted);
        for (key, legs) in wanted {
            // What says nothing says no more when it is renewed.
            let silent = legs.iter().all(|leg| leg.state == State::Unknown as u32);
            let same = |entry: &Entry| same(&[entry.receive, entry.transmit], &legs);
            if !silent || !self.written.get(&key).is_some_and(same) {
                changes.push(self.write(at, key, legs));
            }
        }
        changes
    }

    /// A look between these, at some of the paths. What is new waits for its room until the next renewal.
    pub fn look_at_some(&mut self, at: Duration, reports: &[PathReport]) -> Vec<Change> {
        let mut changes = Vec::new();
        for (path, reports) in by_path(reports) {
            let place = self.place(path);
            let legs = told(place.told, &reports);
            if same(&place.told, &legs) {
                continue;
            }
            place.told = legs;
            for key in place.keys.clone() {
                if self.written.contains_key(&key) {
                    changes.push(self.write(at, key, legs));
                }
            }
        }
        changes
    }

    fn write(&mut self, at: Duration, key: Key, [receive, transmit]: Legs) -> Change {
        let valid_until_ns = nanoseconds(at + self.valid);
        let entry =
            Entry { version: VERSION, reserved: 0, epoch: self.epoch, valid_until_ns, receive, transmit };
        self.written.insert(key, entry);
        Change::Write(key, entry)
    }

    /// Leaves out what finds no room: configured prefixes come first, then what has an entry already.
    fn leave_out(&mut self, wanted: &mut BTreeMap<Key, Legs>) {
        let mut left_out = BTreeSet::new();
        if wanted.len() > self.room {
            let rank = |key: &Key| (!self.names.prefixes.contains_key(key), !self.written.contains_key(key));
            let mut keys: Vec<Key> = wanted.keys().copied().collect();
            keys.sort_by_key(rank);
            left_out.extend(keys.split_off(self.room));
            wanted.retain(|key, _| !left_out.contains(key));
        }
        self.refused += left_out.difference(&self.left_out).count() as u64;
        self.left_out = left_out;
    }

    fn place(&mut self, path: &Path) -> &mut Place {
        let new = || Place { keys: self.names.find(path), told: Legs::default() };
        self.places.entry(path.clone()).or_insert_with(new)
    }
}

impl Names {
    fn new(peers: Vec<MappedPeer>) -> Self {
        let prefixes = peers.iter().enumerate().flat_map(|(i, peer)| {
            peer.prefixes.iter().map(move |(address, bits)| (Key::new(*address, *bits), i))
        });
        Self { prefixes: prefixes.collect(), peers }
    }

    /// The prefixes of a path. None where it is named otherwise since a reload, or stands for the rest.
    fn find(&self, path: &Path) -> Vec<Key> {
        let peer = self.peers.iter().find(|peer| peer.name == path.peer);
        match (peer, path.address) {
            (Some(peer), None) if !peer.per_address => {
                peer.prefixes.iter().map(|(address, bits)| Key::new(*address, *bits)).collect()
            }
            (Some(peer), Some(address)) if peer.per_address => {
                let key = Key::host(address);
                // A probe may belong to a peer by its configuration only.
                let its = self.owner(&key).is_none_or(|owner| owner.name == peer.name);
                Vec::from_iter(its.then_some(key))
            }
            (None, None) if &*path.peer != OTHER => {
                let key = prefix(&path.peer).filter(|key| self.owner(key).is_none());
                Vec::from_iter(key)
            }
            _ => Vec::new(),
        }
    }

    /// The configured peer by which graylag knows all of a prefix.
    fn owner(&self, key: &Key) -> Option<&MappedPeer> {
        let holding = self.prefixes.iter().filter(|(prefix, _)| prefix.holds(key));
        holding.max_by_key(|(prefix, _)| prefix.bits).and_then(|(_, peer)| self.peers.get(*peer))
    }
}

/// Reports of one path together, by direction.
fn by_path(reports: &[PathReport]) -> BTreeMap<&Path, [Option<&PathReport>; 2]> {
    let mut paths: BTreeMap<&Path, [Option<&PathReport>; 2]> = BTreeMap::new();
    for report in reports {
        paths.entry(&report.leg.path).or_default()[report.leg.direction as usize] = Some(report);
    }
    paths
}

/// Whether both say the same, newer evidence for it apart.
fn same(one: &Legs, other: &Legs) -> bool {
    one.iter().zip(other).all(|(one, other)| (one.state, one.since_ns) == (other.state, other.since_ns))
}

/// What is told of a path, where something new is reported of it.
fn told(mut legs: Legs, reports: &[Option<&PathReport>; 2]) -> Legs {
    for (leg, report) in legs.iter_mut().zip(reports) {
        if let Some(report) = report {
            *leg = Leg {
                state: state(report.state) as u32,
                reserved: 0,
                since_ns: nanoseconds(report.since),
                proven_ns: report.proven.map_or(0, nanoseconds),
            };
        }
    }
    legs
}

/// An unnamed path is called after its prefix, or after the address where that is all of it.
fn prefix(name: &str) -> Option<Key> {
    match name.split_once('/') {
        Some((address, bits)) => Some(Key::new(address.parse().ok()?, bits.parse().ok()?)),
        None => Some(Key::host(name.parse().ok()?)),
    }
}

const fn state(state: PathState) -> State {
    match state {
        PathState::Unknown => State::Unknown,
        PathState::Idle => State::Idle,
        PathState::Healthy => State::Healthy,
        PathState::Degraded => State::Degraded,
        PathState::Down => State::Down,
        PathState::Recovering => State::Recovering,
    }
}

fn nanoseconds(at: Duration) -> u64 {
    u64::try_from(at.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Direction, Leg as PathLeg};

    const VALID: Duration = Duration::from_millis(2500);

    fn at(ms: u64) -> Duration {
        Duration::from_millis(1_000_000 + ms)
    }

    fn peer(name: &str, prefixes: &[&str], per_address: bool) -> MappedPeer {
        let parse = |text: &&str| {
            let (address, bits) = text.split_once('/').unwrap();
            (address.parse().unwrap(), bits.parse().unwrap())
        };
        MappedPeer { name: name.into(), prefixes: prefixes.iter().map(parse).collect(), per_address }
    }

    fn map(room: usize, peers: Vec<MappedPeer>) -> PathMap {
        PathMap::new(7, room, VALID, peers)
    }

    /// Both directions of a path: `peer`, or `peer address`.
    fn reports(name: &str, receive: PathState, transmit: PathState) -> Vec<PathReport> {
        let (peer, address) = name.split_once(' ').unwrap_or((name, ""));
        let path = Path { peer: peer.into(), address: address.parse().ok() };
        let report = |(direction, state)| PathReport {
            leg: PathLeg { path: path.clone(), direction },
            state,
            since: at(0),
            proven: Some(at(0)),
            valid_until: None,
            probed: true,
        };
        [(Direction::Receive, receive), (Direction::Transmit, transmit)].map(report).to_vec()
    }

    fn healthy(name: &str) -> Vec<PathReport> {
        reports(name, PathState::Healthy, PathState::Healthy)
    }

    fn key(prefix: &str) -> Key {
        super::prefix(prefix).unwrap()
    }

    /// Lets changes happen, and asks as a reader does.
    #[derive(Default)]
    struct Trie(BTreeMap<Key, Entry>);

    impl Trie {
        fn apply(&mut self, changes: Vec<Change>) -> usize {
            let n = changes.len();
            for change in changes {
                match change {
                    Change::Write(key, entry) => drop(self.0.insert(key, entry)),
                    Change::Remove(key) => assert!(self.0.remove(&key).is_some(), "{key:?}"),
                }
            }
            n
        }

        fn ask(&self, address: &str, now: Duration) -> Option<(State, State)> {
            let key = key(address);
            let (_, entry) = self
                .0
                .iter()
                .filter(|(prefix, _)| prefix.holds(&key))
                .max_by_key(|(prefix, _)| prefix.bits)?;
            let state = |direction| entry.state(direction, now.as_nanos() as u64);
            Some((state(Direction::Receive), state(Direction::Transmit)))
        }
    }

    #[test]
    fn a_change_is_written_at_once_and_the_rest_is_renewed_now_and_then() {
        let mut map = map(10, vec![peer("b", &["10.1.0.0/16", "2001:db8::/32"], false)]);
        let mut trie = Trie::default();
        assert_eq!(trie.apply(map.look(at(0), &healthy("b"))), 2);
        assert_eq!(trie.ask("10.1.2.3", at(1)), Some((State::Healthy, State::Healthy)));
        assert_eq!(trie.apply(map.look_at_some(at(100), &healthy("b"))), 0);
        assert_eq!(trie.apply(map.look(at(200), &healthy("b"))), 0, "not due");
        let down = reports("b", PathState::Healthy, PathState::Down);
        assert_eq!(trie.apply(map.look_at_some(at(300), &down)), 2);
        assert_eq!(trie.ask("2001:db8::7", at(301)), Some((State::Healthy, State::Down)));
        assert_eq!(trie.apply(map.look(at(700), &down)), 2, "renewed");
        assert_eq!(trie.ask("10.1.2.3", at(700) + VALID), Some((State::Unknown, State::Unknown)), "expired");
        assert_eq!(trie.0[&key("10.1.0.0/16")].epoch, 7);
    }

    #[test]
    fn an_address_is_told_of_by_the_path_that_it_belongs_to_and_by_no_larger_one() {
        let peers = vec![
            peer("large", &["10.0.0.0/8"], false),
            peer("lb", &["10.2.0.0/16"], true),
            peer("small", &["10.3.0.0/16"], false),
        ];
        let mut map = map(10, peers);
        let mut trie = Trie::default();
        let all =
            [healthy("large"), healthy("lb 10.2.0.1"), healthy("192.0.2.0/24"), healthy("~other")].concat();
        trie.apply(map.look(at(0), &all));
        let good = Some((State::Healthy, State::Healthy));
        let unknown = Some((State::Unknown, State::Unknown));
        assert_eq!(trie.ask("10.9.9.9", at(1)), good);
        assert_eq!(trie.ask("10.2.0.1", at(1)), good);
        assert_eq!(trie.ask("10.2.0.2", at(1)), unknown, "another address of the balancer");
        assert_eq!(trie.ask("10.3.0.1", at(1)), unknown, "a peer of its own, of which nothing is known");
        assert_eq!(trie.ask("192.0.2.9", at(1)), good);
        assert_eq!(trie.ask("198.51.100.1", at(1)), None);
        assert_eq!(trie.apply(map.look(at(1000), &all)), 3, "those that say something are renewed");
    }

    #[test]
    fn what_is_gone_is_removed_and_a_reload_renames() {
        let mut map = map(10, vec![peer("b", &["10.1.0.0/16"], false)]);
        let mut trie = Trie::default();
        let all = [healthy("b"), healthy("10.2.0.1"), healthy("192.0.2.1")].concat();
        assert_eq!(trie.apply(map.look(at(0), &all)), 3);
        assert_eq!(map.usage(), (3, 10));
        // The judge remembers former names for a while.
        map.replace_peers(vec![peer("c", &["10.0.0.0/8"], false)]);
        trie.apply(map.look(at(100), &all));
        assert_eq!(trie.0.keys().copied().collect::<Vec<_>>(), [key("10.0.0.0/8"), key("192.0.2.1")]);
        assert_eq!(trie.ask("10.2.0.1", at(101)), Some((State::Unknown, State::Unknown)));
        trie.apply(map.look(at(1200), &healthy("c")));
        assert_eq!(trie.0.keys().copied().collect::<Vec<_>>(), [key("10.0.0.0/8")]);
        assert_eq!(trie.ask("10.2.0.1", at(1201)), Some((State::Healthy, State::Healthy)));
        let mut per_address = peer("c", &["10.0.0.0/8"], true);
        map.replace_peers(vec![per_address.clone()]);
        trie.apply(
            map.look(at(1300), &[healthy("c"), healthy("c 10.2.0.1"), healthy("c 192.0.2.1")].concat()),
        );
        assert_eq!(trie.ask("10.2.0.2", at(1301)), Some((State::Unknown, State::Unknown)));
        assert_eq!(
            trie.ask("192.0.2.1", at(1301)),
            Some((State::Healthy, State::Healthy)),
            "by configuration"
        );
        per_address.name = "d".into();
        map.replace_peers(vec![per_address]);
        trie.apply(map.look(at(1400), &healthy("c 10.2.0.1")));
        assert_eq!(trie.0.keys().copied().collect::<Vec<_>>(), [key("10.0.0.0/8")]);
    }

    #[test]
    fn what_finds_no_room_is_counted_once_and_pushes_nothing_out() {
        let mut map = map(3, vec![peer("z", &["10.9.0.0/16"], false)]);
        let mut trie = Trie::default();
        trie.apply(map.look(at(0), &[healthy("192.0.2.8"), healthy("192.0.2.9")].concat()));
        let all: Vec<PathReport> = (1..10).flat_map(|i| healthy(&format!("192.0.2.{i}"))).collect();
        trie.apply(map.look(at(1000), &all));
        trie.apply(map.look(at(2000), &all));
        let kept = [key("10.9.0.0/16"), key("192.0.2.8"), key("192.0.2.9")];
        assert_eq!(trie.0.keys().copied().collect::<Vec<_>>(), kept);
        assert_eq!((map.usage(), map.refused()), ((3, 3), 7));
        assert_eq!(trie.apply(map.look_at_some(at(2100), &all)), 0);
        trie.apply(map.look(at(3000), &healthy("192.0.2.1")));
        assert_eq!(
            trie.ask("192.0.2.1", at(3001)),
            Some((State::Healthy, State::Healthy)),
            "there is room again"
        );
    }

    #[test]
    fn what_could_not_be_written_is_due_again() {
        let mut map = map(3, Vec::new());
        let changes = map.look(at(0), &healthy("192.0.2.1"));
        assert_eq!(changes.len(), 1);
        map.failed(&key("192.0.2.1"));
        assert_eq!(map.look(at(1000), &healthy("192.0.2.1")).len(), 1);
    }
}
