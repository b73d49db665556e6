//! All sessions and the reflector of this node together, without sockets: datagrams in, datagrams out.

use std::{
    cmp::Reverse,
    collections::{BTreeSet, BinaryHeap, HashMap, binary_heap::PeekMut},
    hash::{BuildHasherDefault, Hasher},
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use super::{
    heard::{Heard, blank},
    keys::Keys,
    packet::{COVERED, DIGEST, Mode, Reply, Request, Timestamp},
    peers::Peers,
    reflector::{MOST_SESSIONS, Received, Reflection, Reflector},
    sender::{Answer, Schedule, Session},
    tlv,
};
use crate::model::{ReflectorCounts, StampPath};

/// Where test packets go, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Name of the peer, or its address.
    pub peer: Arc<str>,
    /// The reflector's address and port.
    pub address: SocketAddr,
    /// Time between two packets, on average.
    pub interval: Duration,
    /// Whether packets carry a digest.
    pub authenticated: bool,
}

/// What is probed, who is answered, and with which keys. All of it can be replaced while it runs.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Keys of this node, for both roles.
    pub keys: Option<Keys>,
    /// Sessions.
    pub targets: Vec<Target>,
    /// Prefixes that are answered, beside the targets.
    pub answered: Vec<(IpAddr, u8)>,
    /// Packets to send in each session; without end where `None`.
    pub count: Option<u64>,
    /// A packet without an answer for this long is lost.
    pub patience: Duration,
}

#[derive(Debug)]
struct Entry {
    target: Target,
    session: Session,
    /// Place of what is heard from its address.
    heard: usize,
}

/// How many sessions of a node may begin to send more than usual, a second and at once: what hits a thousand paths together is soon
/// known from some of them, and a thousandfold more of test packets would itself be a fault.
const MORE: u32 = 10;

/// Of these, how many have, and since when they are counted.
#[derive(Debug, Default)]
struct More {
    begun: u32,
    since: Duration,
}

impl More {
    /// Takes a place, where there is one at `now`.
    fn take(&mut self, now: Duration) -> bool {
        if now.saturating_sub(self.since) >= Duration::from_secs(1) {
            (self.begun, self.since) = (0, now);
        }
        let free = self.begun < MORE;
        self.begun += u32::from(free);
        free
    }
}

/// Spreads SSIDs. This node hands them out: nobody else can choose some that fall together.
#[derive(Default)]
struct BySsid(u64);

impl Hasher for BySsid {
    fn write(&mut self, octets: &[u8]) {
        for octet in octets {
            self.write_u16(u16::from(*octet));
        }
    }

    fn write_u16(&mut self, ssid: u16) {
        self.0 = (self.0 ^ u64::from(ssid)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// Everything STAMP of this node.
#[derive(Debug)]
pub struct Sessions {
    keys: Option<Keys>,
    entries: HashMap<u16, Entry, BuildHasherDefault<BySsid>>,
    /// All of them, in the order of peers and addresses.
    order: Vec<u16>,
    /// The session of an address, for reflectors that know no SSID.
    by_address: HashMap<SocketAddr, u16>,
    /// When which session is due. May hold what is no more: each is looked at again when it comes up.
    due: BinaryHeap<Reverse<(Duration, u16)>>,
    /// One for each address that is a target, and where it is; no others are kept.
    heard: Vec<Heard>,
    heard_at: HashMap<IpAddr, usize>,
    /// When a host last refused what was sent to this target.
    refused: HashMap<SocketAddr, Duration>,
    reflector: Reflector,
    /// Whether there are targets of IPv4 and of IPv6.
    families: [bool; 2],
    /// Sessions that may send more than usual.
    more: More,
    /// Port of this node's own reflector.
    own_port: Option<u16>,
    last_ssid: u16,
    seed: u64,
}

impl Sessions {
    /// None yet. `seed` is any number, another for each process; `own_port` is where this node's reflector listens.
    pub fn new(seed: u64, own_port: Option<u16>) -> Self {
        Self {
            keys: None,
            entries: HashMap::default(),
            order: Vec::new(),
            by_address: HashMap::new(),
            due: BinaryHeap::new(),
            heard: Vec::new(),
            heard_at: HashMap::new(),
            refused: HashMap::new(),
            reflector: Reflector::new(None, Peers::default(), MOST_SESSIONS),
            families: [false; 2],
            more: More::default(),
            own_port,
            last_ssid: 0,
            seed,
        }
    }

    /// Replaces the settings. A session whose target stays as it is keeps its counts.
    pub fn reconfigure(&mut self, settings: &Settings, now: Duration) {
        self.keys.clone_from(&settings.keys);
        let host = |target: &Target| {
            let address = target.address.ip();
            (address, if address.is_ipv4() { 32 } else { 128 })
        };
        let answered = settings.targets.iter().map(host).chain(settings.answered.iter().copied());
        self.reflector.reconfigure(settings.keys.clone(), Peers::new(answered));
        self.entries.retain(|_, entry| settings.targets.contains(&entry.target));
        for target in &settings.targets {
            if self.entries.values().any(|entry| entry.target == *target) {
                continue;
            }
            let Some(ssid) = self.free_ssid() else { break };
            let schedule =
                Schedule { interval: target.interval, patience: settings.patience, count: settings.count };
            let seed = self.seed.wrapping_mul(u64::from(ssid) | 1);
            let session = Session::new(ssid, schedule, seed, now);
            self.entries.insert(ssid, Entry { target: target.clone(), session, heard: 0 });
        }
        self.keep_heard();
        let mut order: Vec<(&Arc<str>, SocketAddr, u16)> = self
            .entries
            .iter()
            .map(|(ssid, entry)| (&entry.target.peer, entry.target.address, *ssid))
            .collect();
        order.sort_unstable();
        self.order = order.into_iter().map(|(_, _, ssid)| ssid).collect();
        self.by_address = self.entries.iter().map(|(ssid, entry)| (entry.target.address, *ssid)).collect();
        self.refused.retain(|address, _| self.by_address.contains_key(address));
        self.families =
            [false, true].map(|is_ipv6| self.by_address.keys().any(|address| address.is_ipv6() == is_ipv6));
        self.due = self
            .entries
            .iter()
            .filter_map(|(ssid, entry)| Some(Reverse((entry.session.due()?, *ssid))))
            .collect();
    }

    /// Keeps what was heard of the addresses that are targets, and of no others.
    fn keep_heard(&mut self) {
        let before = std::mem::take(&mut self.heard_at);
        let known = std::mem::take(&mut self.heard);
        for entry in self.entries.values_mut() {
            let address = entry.target.address.ip();
            entry.heard = *self.heard_at.entry(address).or_insert_with(|| {
                let of_before = before.get(&address).and_then(|at| known.get(*at));
                self.heard.push(of_before.copied().unwrap_or_default());
                self.heard.len() - 1
            });
        }
    }

    fn heard_from(&mut self, address: IpAddr) -> Option<&mut Heard> {
        self.heard_at.get(&address).and_then(|at| self.heard.get_mut(*at))
    }

    fn free_ssid(&mut self) -> Option<u16> {
        for _ in 0..=u16::MAX {
            self.last_ssid = self.last_ssid.wrapping_add(1);
            if self.last_ssid != 0 && !self.entries.contains_key(&self.last_ssid) {
                return Some(self.last_ssid);
            }
        }
        None
    }

    /// Whether any target is of this family.
    pub fn probes(&self, is_ipv6: bool) -> bool {
        self.families[usize::from(is_ipv6)]
    }

    /// When the next test packet is due.
    pub fn due(&self) -> Option<Duration> {
        self.due.peek().map(|Reverse((at, _))| *at)
    }

    /// A test packet that is due at `now`, with the timestamp `leaves` (T1), and where it goes. To be called until there is
    /// none. One that cannot be sent is handed back to [`Self::withdraw`].
    pub fn next(&mut self, now: Duration, leaves: Timestamp, out: &mut Vec<u8>) -> Option<(u16, SocketAddr)> {
        loop {
            let mut first = self.due.peek_mut().filter(|first| first.0.0 <= now)?;
            let Reverse((at, ssid)) = *first;
            let Some(entry) = self.entries.get_mut(&ssid).filter(|entry| entry.session.due() == Some(at))
            else {
                PeekMut::pop(first);
                continue;
            };
            let request = entry.session.send(now, leaves);
            if let Some(due) = entry.session.due() {
                *first = Reverse((due, ssid));
                drop(first);
            } else {
                PeekMut::pop(first);
            }
            let address = entry.target.address;
            let report = self.heard.get(entry.heard).map(|heard| heard.to_report(now)).unwrap_or_default();
            let keys = self.keys.as_ref().filter(|_| entry.target.authenticated);
            request.write(mode_of(entry.target.authenticated), out);
            if let Some(keys) = keys {
                let digest = keys.sign(0, &[&out[..COVERED]]);
                out[COVERED..COVERED + DIGEST].copy_from_slice(&digest);
            }
            tlv::append(out, &report, request.sequence, keys);
            return Some((ssid, address));
        }
    }

    /// This host refused to send the packet just made.
    pub fn withdraw(&mut self, ssid: u16) {
        if let Some(entry) = self.entries.get_mut(&ssid) {
            entry.session.withdraw();
            // With a limited number of packets this one is to be sent again.
            if let Some(due) = entry.session.due() {
                self.due.push(Reverse((due, ssid)));
            }
        }
    }

    /// A datagram that came to a sender's socket, at `received` by the wall clock.
    pub fn replied(&mut self, octets: &[u8], from: SocketAddr, received: Timestamp, now: Duration) {
        // Where the SSID is depends on the mode; which of both it is depends on the session.
        let found = [Mode::Authenticated, Mode::Unauthenticated].into_iter().find_map(|mode| {
            let reply = Reply::parse(octets, mode).ok()?;
            let by_address = || self.by_address.get(&from).copied().filter(|_| reply.ssid == 0);
            let by_ssid = || Some(reply.ssid).filter(|ssid| *ssid != 0);
            let ssid = by_ssid().or_else(by_address)?;
            let target = &self.entries.get(&ssid)?.target;
            (target.address == from && mode_of(target.authenticated) == mode).then_some((ssid, mode, reply))
        });
        let Some((entry, mode, reply)) =
            found.and_then(|(ssid, mode, reply)| Some((self.entries.get_mut(&ssid)?, mode, reply)))
        else {
            self.unreadable(octets, from, now);
            return;
        };
        let keys = self.keys.as_ref().filter(|_| entry.target.authenticated);
        let valid = match (mode, keys) {
            (Mode::Unauthenticated, _) => true,
            (Mode::Authenticated, None) => false,
            (Mode::Authenticated, Some(keys)) => {
                keys.verify(&[&octets[..COVERED]], &octets[COVERED..COVERED + DIGEST]).is_some()
            }
        };
        if !valid {
            entry.session.echo(&reply);
            entry.session.mismatch(reply.sender.sequence);
            if let Some(heard) = self.heard.get_mut(entry.heard) {
                heard.mismatched(now);
            }
            return;
        }
        // All that a reply's TLVs say is whether they were understood: said once, their digest is not worth its time again.
        if !entry.session.knows_stateful()
            && tlv::read(&octets[mode.base()..], reply.sequence, keys).understood
        {
            entry.session.is_stateful();
        }
        if entry.session.reply(&reply, received, now) == Answer::First
            && entry.session.asks_for_more(now)
            && self.more.take(now)
        {
            let due = entry.session.send_more(now);
            self.due.push(Reverse((due, entry.session.ssid())));
        }
    }

    /// Lets those send more closely that have not done so lately: as many as may, and of more than these others the next time.
    pub fn send_more(&mut self, now: Duration) {
        for ssid in &self.order {
            let entry = self.entries.get_mut(ssid).filter(|entry| entry.session.may_send_more(now));
            let Some(entry) = entry else { continue };
            if !self.more.take(now) {
                break;
            }
            let due = entry.session.send_more(now);
            self.due.push(Reverse((due, *ssid)));
        }
    }

    /// A datagram from a target that no session can read: the other end speaks in the other mode. It proves the wire, and
    /// it is a mismatch of the session there that is authenticated.
    fn unreadable(&mut self, octets: &[u8], from: SocketAddr, now: Duration) {
        if octets.len() < Mode::Unauthenticated.base() {
            return;
        }
        if let Some(entry) = self.by_address.get(&from).and_then(|ssid| self.entries.get_mut(ssid))
            && entry.target.authenticated
        {
            entry.session.mismatch(u32::MAX);
            if let Some(heard) = self.heard.get_mut(entry.heard) {
                heard.mismatched(now);
            }
        }
    }

    /// A datagram that came to the reflector's socket; the answer is put into `out`, and leaves at `leaves` (T3).
    pub fn reflected(
        &mut self,
        received: &Received<'_>,
        leaves: Timestamp,
        now: Duration,
        out: &mut Vec<u8>,
    ) {
        // A reply reads like a request, signed as it should be: with a forged source two reflectors would never stop.
        let from = received.from;
        if from.port() == super::PORT
            || self.own_port == Some(from.port())
            || self.by_address.contains_key(&from)
        {
            out.clear();
            self.reflector.count_loop();
            return;
        }
        let reflection = self.reflector.reflect(received, leaves, now, out);
        let Some(heard) = self.heard_from(from.ip()) else { return };
        match reflection {
            Reflection::Ignored => {}
            Reflection::Mismatch => heard.mismatched(now),
            Reflection::Replayed(counts) => heard.count(counts),
            Reflection::Valid(report, counts) => {
                heard.valid(report, now);
                heard.count(counts);
            }
        }
    }

    /// A port unreachable for what was sent to `to`; `quoted` is what it shows of the test packet: all of it from Linux, nothing
    /// where the other host sticks to the 64 bits of RFC 792.
    pub fn refused(&mut self, quoted: &[u8], to: SocketAddr, now: Duration) {
        let Some(usual) = self.by_address.get(&to) else { return };
        self.refused.insert(to, now);
        let found = [Mode::Authenticated, Mode::Unauthenticated].into_iter().find_map(|mode| {
            let request = Request::parse(quoted, mode).ok()?;
            let target = &self.entries.get(&request.ssid)?.target;
            (target.address == to && mode_of(target.authenticated) == mode).then_some(request)
        });
        let ssid = found.map_or(*usual, |request| request.ssid);
        if let Some(entry) = self.entries.get_mut(&ssid) {
            entry.session.refused(found);
        }
    }

    /// Of these addresses too much is lost on the way here, and of no others: their test packets say so from now on.
    pub fn losing(&mut self, addresses: &BTreeSet<IpAddr>) {
        for (address, at) in &self.heard_at {
            if let Some(heard) = self.heard.get_mut(*at) {
                heard.loses(addresses.contains(address));
            }
        }
    }

    /// What the reflector has done.
    pub fn reflector_counts(&self) -> ReflectorCounts {
        self.reflector.counts()
    }

    /// Whether at `now` every session has sent all it has to, and nothing is waited for.
    pub fn are_over(&mut self, now: Duration) -> bool {
        self.entries.values_mut().all(|entry| {
            entry.session.advance(now);
            entry.session.is_over()
        })
    }

    /// Copies out what is known at `now`, in the order of peers and addresses; with delays where they are asked for.
    pub fn look(&mut self, now: Duration, delays: bool) -> Vec<StampPath> {
        let mut paths: Vec<StampPath> = Vec::with_capacity(self.entries.len());
        for ssid in &self.order {
            let Some(entry) = self.entries.get_mut(ssid) else { continue };
            entry.session.advance(now);
            let target = &entry.target;
            let mut path = blank(target.peer.clone(), target.address, target.interval);
            entry.session.look(now, &mut path);
            path.delays = delays.then(|| entry.session.delays());
            path.last_refused = self.refused.get(&target.address).map(|at| now.saturating_sub(*at));
            if let Some(heard) = self.heard.get(entry.heard) {
                heard.look(now, &mut path);
            }
            paths.push(path);
        }
        paths
    }
}

const fn mode_of(authenticated: bool) -> Mode {
    if authenticated { Mode::Authenticated } else { Mode::Unauthenticated }
}

#[cfg(test)]
mod tests;
