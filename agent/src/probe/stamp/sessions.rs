//! All sessions and the reflector of this node together, without sockets: datagrams in, datagrams out.

use std::{
    cmp::Reverse,
    collections::{BTreeSet, BinaryHeap, HashMap},
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use super::{
    heard::{Heard, blank},
    keys::Keys,
    packet::{COVERED, DIGEST, Mode, Reply, Request, Timestamp},
    peers::Peers,
    reflector::{MOST_SESSIONS, Received, Reflection, Reflector},
    sender::{Schedule, Session},
    tlv,
};
use crate::model::{ReflectorCounts, StampPath};

/// Where test packets go, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Name of the peer, or its address.
    pub peer: String,
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
}

/// Everything STAMP of this node.
#[derive(Debug)]
pub struct Sessions {
    keys: Option<Keys>,
    entries: HashMap<u16, Entry>,
    /// The session of an address, for reflectors that know no SSID.
    by_address: HashMap<SocketAddr, u16>,
    /// When which session is due. May hold what is no more: each is looked at again when it comes up.
    due: BinaryHeap<Reverse<(Duration, u16)>>,
    /// One for each address that is a target; no others are kept.
    heard: HashMap<IpAddr, Heard>,
    /// When a host last refused what was sent to this target.
    refused: HashMap<SocketAddr, Duration>,
    reflector: Reflector,
    /// Whether there are targets of IPv4 and of IPv6.
    families: [bool; 2],
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
            entries: HashMap::new(),
            by_address: HashMap::new(),
            due: BinaryHeap::new(),
            heard: HashMap::new(),
            refused: HashMap::new(),
            reflector: Reflector::new(None, Peers::default(), MOST_SESSIONS),
            families: [false; 2],
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
            self.entries.insert(ssid, Entry { target: target.clone(), session });
        }
        self.by_address = self.entries.iter().map(|(ssid, entry)| (entry.target.address, *ssid)).collect();
        self.refused.retain(|address, _| self.by_address.contains_key(address));
        self.families =
            [false, true].map(|is_ipv6| self.by_address.keys().any(|address| address.is_ipv6() == is_ipv6));
        self.due = self
            .entries
            .iter()
            .filter_map(|(ssid, entry)| Some(Reverse((entry.session.due()?, *ssid))))
            .collect();
        let addresses: Vec<IpAddr> = settings.targets.iter().map(|target| target.address.ip()).collect();
        self.heard.retain(|address, _| addresses.contains(address));
        for address in addresses {
            self.heard.entry(address).or_default();
        }
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
            let Reverse((at, ssid)) = *self.due.peek().filter(|Reverse((at, _))| *at <= now)?;
            self.due.pop();
            let Some(entry) = self.entries.get_mut(&ssid).filter(|entry| entry.session.due() == Some(at))
            else {
                continue;
            };
            let request = entry.session.send(now, leaves);
            if let Some(due) = entry.session.due() {
                self.due.push(Reverse((due, ssid)));
            }
            let address = entry.target.address;
            let heard = self.heard.get(&address.ip()).copied().unwrap_or_default();
            let report = heard.to_report(now);
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
            let entry = self.entries.get(&ssid)?;
            let fits = entry.target.address == from && mode_of(entry.target.authenticated) == mode;
            fits.then_some((ssid, mode, reply))
        });
        let Some((ssid, mode, reply)) = found else {
            self.unreadable(octets, from, now);
            return;
        };
        let Some(entry) = self.entries.get_mut(&ssid) else { return };
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
            self.mismatched(from.ip(), now);
            return;
        }
        // All that a reply's TLVs say is whether they were understood: said once, their digest is not worth its time again.
        if !entry.session.knows_stateful()
            && tlv::read(&octets[mode.base()..], reply.sequence, keys).understood
        {
            entry.session.is_stateful();
        }
        entry.session.reply(&reply, received, now);
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
            self.mismatched(from.ip(), now);
        }
    }

    fn mismatched(&mut self, address: IpAddr, now: Duration) {
        if let Some(heard) = self.heard.get_mut(&address) {
            heard.mismatched(now);
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
        let Some(heard) = self.heard.get_mut(&from.ip()) else { return };
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
        for (address, heard) in &mut self.heard {
            heard.loses(addresses.contains(address));
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

    /// Copies out what is known at `now`, in the order of peers and addresses.
    pub fn look(&mut self, now: Duration) -> Vec<StampPath> {
        let mut paths: Vec<StampPath> = Vec::with_capacity(self.entries.len());
        for entry in self.entries.values_mut() {
            entry.session.advance(now);
            let target = &entry.target;
            let mut path = blank(&target.peer, target.address, target.interval);
            entry.session.look(now, &mut path);
            path.last_refused = self.refused.get(&target.address).map(|at| now.saturating_sub(*at));
            if let Some(heard) = self.heard.get(&target.address.ip()) {
                heard.look(now, &mut path);
            }
            paths.push(path);
        }
        paths.sort_by(|a, b| (&a.peer, a.address).cmp(&(&b.peer, b.address)));
        paths
    }
}

const fn mode_of(authenticated: bool) -> Mode {
    if authenticated { Mode::Authenticated } else { Mode::Unauthenticated }
}

#[cfg(test)]
mod tests;
