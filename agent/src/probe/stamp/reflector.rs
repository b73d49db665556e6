//! The Session-Reflector, stateful (RFC 8762, 4), pure: a datagram in, a datagram of the same size out.
//!
//! It answers configured peers only, within a budget, and numbers its replies by session. What it learns on the way is handed
//! over as evidence: a valid test packet proves the way here, and what its sender reports of us proves the way there.

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    time::Duration,
};

use super::{
    arrivals::Arrivals,
    keys::Keys,
    packet::{COVERED, DIGEST, ErrorEstimate, Mode, Reply, Request, Timestamp},
    peers::Peers,
    replay::{Place, Replay},
    tlv::{self, Report},
};
use crate::model::{ReflectorCounts, StampCounts};

/// Sessions whose numbers are kept; beyond it the one idle for longest goes.
pub const MOST_SESSIONS: usize = 4096;

/// What became of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reflection {
    /// No answer.
    Ignored,
    /// Answered; nothing is proved by it: it was there before. With what it adds to the arrivals of its session.
    Replayed(StampCounts),
    /// It does not validate. Where its size allows, the answer says so: its digest is zero, and validates nowhere.
    Mismatch,
    /// Answered, and proof that packets come here; with what the sender reports of us, and what it adds to the arrivals of
    /// its session.
    Valid(Option<Report>, StampCounts),
}

/// A session is one source address and port, and one SSID (RFC 8972, 3).
type Key = (SocketAddr, u16);

#[derive(Debug, Default)]
struct Session {
    /// Number of its next reply.
    sequence: u32,
    replay: Replay,
    arrivals: Arrivals,
    /// Its place in the order of use.
    used: u64,
}

/// The reflector.
#[derive(Debug)]
pub struct Reflector {
    keys: Option<Keys>,
    peers: Peers,
    most: usize,
    sessions: HashMap<Key, Session>,
    /// Sessions by their last use.
    order: BTreeMap<u64, Key>,
    uses: u64,
    counts: ReflectorCounts,
}

/// A datagram and what the kernel says of it.
#[derive(Clone, Copy, Debug)]
pub struct Received<'a> {
    /// What it holds.
    pub octets: &'a [u8],
    /// Where it came from.
    pub from: SocketAddr,
    /// With which TTL or hop limit; 0 where that is not known.
    pub ttl: u8,
    /// When, by the wall clock (T2).
    pub at: Timestamp,
}

impl Reflector {
    /// Answers these peers; in authenticated mode where there are keys.
    pub fn new(keys: Option<Keys>, peers: Peers, most: usize) -> Self {
        let (sessions, order) = (HashMap::new(), BTreeMap::new());
        Self { keys, peers, most: most.max(1), sessions, order, uses: 0, counts: ReflectorCounts::default() }
    }

    /// Replaces keys and peers; sessions and counts stay.
    pub fn reconfigure(&mut self, keys: Option<Keys>, peers: Peers) {
        (self.keys, self.peers) = (keys, peers);
    }

    /// What it has done.
    pub fn counts(&self) -> ReflectorCounts {
        ReflectorCounts { sessions: self.sessions.len() as u64, ..self.counts }
    }

    /// A datagram came from a port where a reflector listens.
    pub const fn count_loop(&mut self) {
        self.counts.looped += 1;
    }

    /// Takes a datagram at `now` and puts the answer, which is to leave at `leaves` (T3), into `out`; none leaves it empty.
    pub fn reflect(
        &mut self,
        received: &Received<'_>,
        leaves: Timestamp,
        now: Duration,
        out: &mut Vec<u8>,
    ) -> Reflection {
        out.clear();
        if !self.peers.contains(received.from.ip()) {
            self.counts.stranger += 1;
            return Reflection::Ignored;
        }
        let mode = if self.keys.is_some() { Mode::Authenticated } else { Mode::Unauthenticated };
        let octets = received.octets;
        if octets.len() < Mode::Unauthenticated.base() {
            self.counts.malformed += 1;
            return Reflection::Ignored;
        }
        if !self.peers.take(received.from.ip(), now) {
            self.counts.limited += 1;
            return Reflection::Ignored;
        }
        let Ok(request) = Request::parse(octets, mode) else {
            // Unauthenticated, where keys are wanted. There is no answer to it that would not pass for a valid one.
            self.counts.auth_mismatch += 1;
            return Reflection::Mismatch;
        };
        let keys = self.keys.clone();
        let digest = |keys: &Keys| keys.verify(&[&octets[..COVERED]], &octets[COVERED..COVERED + DIGEST]);
        let Some(key) = keys.as_ref().map_or(Some(0), digest) else {
            self.counts.auth_mismatch += 1;
            if let Some(session) = self.sessions.get_mut(&(received.from, request.ssid)) {
                session.arrivals.interrupted();
            }
            // Answered without a digest, and without a number of the session: silence would be taken for loss. It costs the
            // session nothing, for anybody can cause it.
            write(received, leaves, mode, request, 0, out);
            out.extend_from_slice(&octets[mode.base()..]);
            return Reflection::Mismatch;
        };
        let extension = tlv::read(&octets[mode.base()..], request.sequence, keys.as_ref());
        let session = self.session((received.from, request.ssid));
        let fresh = session.replay.place(request.sequence, now) == Place::Fresh;
        if fresh {
            session.replay.accept(request.sequence, now);
            session.arrivals.arrived(&request, now);
        } else {
            session.arrivals.arrived_again(&request);
        }
        let heard = session.arrivals.take();
        let sequence = session.sequence;
        session.sequence = sequence.wrapping_add(1);
        write(received, leaves, mode, request, sequence, out);
        if let Some(keys) = &keys {
            let digest = keys.sign(key, &[&out[..COVERED]]);
            out[COVERED..COVERED + DIGEST].copy_from_slice(&digest);
        }
        out.extend_from_slice(&octets[mode.base()..]);
        tlv::reflect(&mut out[mode.base()..], &extension, sequence, keys.as_ref().map(|keys| (keys, key)));
        self.counts.answered += 1;
        if fresh {
            Reflection::Valid(extension.report, heard)
        } else {
            // It is answered all the same: the sender counts copies, and only it knows its own timestamps.
            self.counts.replayed += 1;
            Reflection::Replayed(heard)
        }
    }

    /// The state of a session; room is made for a new one.
    fn session(&mut self, key: Key) -> &mut Session {
        self.uses += 1;
        if let Some(session) = self.sessions.get(&key) {
            self.order.remove(&session.used);
        } else if self.sessions.len() >= self.most
            && let Some((_, oldest)) = self.order.pop_first()
        {
            self.sessions.remove(&oldest);
            self.counts.evicted += 1;
        }
        self.order.insert(self.uses, key);
        let session = self.sessions.entry(key).or_default();
        session.used = self.uses;
        session
    }
}

fn write(
    received: &Received<'_>,
    leaves: Timestamp,
    mode: Mode,
    sender: Request,
    sequence: u32,
    out: &mut Vec<u8>,
) {
    Reply {
        sequence,
        timestamp: leaves,
        error: ErrorEstimate::UNKNOWN.bits(),
        ssid: sender.ssid,
        receive_timestamp: received.at,
        sender,
        sender_ttl: received.ttl,
    }
    .write(mode, out);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: Duration = Duration::from_secs(50);

    fn keys(octet: &str) -> Keys {
        Keys::parse(&octet.repeat(16)).unwrap()
    }

    fn reflector(keys: Option<Keys>, most: usize) -> Reflector {
        Reflector::new(keys, Peers::new([("10.0.0.0".parse().unwrap(), 8)]), most)
    }

    fn packet(sequence: u32, ssid: u16, keys: Option<&Keys>, report: Option<Report>) -> Vec<u8> {
        let mode = if keys.is_some() { Mode::Authenticated } else { Mode::Unauthenticated };
        let mut out = Vec::new();
        let timestamp = Timestamp(u64::from(sequence) << 32);
        Request { sequence, timestamp, error: 1, ssid }.write(mode, &mut out);
        if let Some(keys) = keys {
            let digest = keys.sign(0, &[&out[..COVERED]]);
            out[COVERED..].copy_from_slice(&digest);
        }
        if let Some(report) = report {
            tlv::append(&mut out, &report, sequence, keys);
        }
        out
    }

    fn give(reflector: &mut Reflector, octets: &[u8], from: &str) -> (Reflection, Vec<u8>) {
        let mut out = Vec::new();
        let received = Received { octets, from: from.parse().unwrap(), ttl: 61, at: Timestamp(77) };
        let reflection = reflector.reflect(&received, Timestamp(78), NOW, &mut out);
        (reflection, out)
    }

    #[test]
    fn each_session_has_numbers_of_its_own_and_the_rest_is_copied() {
        let mut reflector = reflector(None, 9);
        for (sequence, ssid, from, expected) in [
            (5, 1, "10.0.0.1:9", 0),
            (6, 1, "10.0.0.1:9", 1),
            (5, 2, "10.0.0.1:9", 0),
            (5, 1, "10.0.0.1:10", 0),
            (8, 1, "10.0.0.1:9", 2),
        ] {
            let (reflection, out) = give(&mut reflector, &packet(sequence, ssid, None, None), from);
            assert!(matches!(reflection, Reflection::Valid(None, _)));
            let reply = Reply::parse(&out, Mode::Unauthenticated).unwrap();
            assert_eq!((reply.sequence, reply.sender.sequence, reply.ssid), (expected, sequence, ssid));
            assert_eq!((reply.receive_timestamp.0, reply.timestamp.0, reply.sender_ttl), (77, 78, 61));
        }
    }

    #[test]
    fn strangers_and_scraps_get_nothing() {
        let mut reflector = reflector(None, 9);
        assert_eq!(give(&mut reflector, &packet(0, 0, None, None), "11.0.0.1:9").0, Reflection::Ignored);
        assert_eq!(give(&mut reflector, &[0; 43], "10.0.0.1:9").0, Reflection::Ignored);
        let counts = reflector.counts();
        assert_eq!((counts.stranger, counts.malformed, counts.answered), (1, 1, 0));
    }

    #[test]
    fn what_does_not_validate_is_refused_with_what_validates_nowhere() {
        let (ours, theirs) = (keys("00"), keys("11"));
        let mut reflector = reflector(Some(ours.clone()), 9);
        let (reflection, out) = give(&mut reflector, &packet(3, 1, None, None), "10.0.0.1:9");
        assert_eq!((reflection, out.len()), (Reflection::Mismatch, 0));
        let foreign = packet(3, 1, Some(&theirs), None);
        let (reflection, out) = give(&mut reflector, &foreign, "10.0.0.1:9");
        assert_eq!((reflection, out.len()), (Reflection::Mismatch, foreign.len()));
        assert_eq!(out[COVERED..COVERED + DIGEST], [0; DIGEST]);
        let (_, out) = give(&mut reflector, &packet(3, 1, Some(&ours), None), "10.0.0.1:9");
        assert_eq!(
            Reply::parse(&out, Mode::Authenticated).unwrap().sequence,
            0,
            "no number was spent on them"
        );
        assert!(ours.verify(&[&out[..COVERED]], &out[COVERED..]).is_some());
        assert_eq!(reflector.counts().auth_mismatch, 2);
    }

    #[test]
    fn a_recording_is_no_evidence() {
        let ours = keys("00");
        let mut reflector = reflector(Some(ours.clone()), 9);
        let report = Report { received: 4, newest: None, lossy: false };
        let packet = packet(3, 1, Some(&ours), Some(report));
        let heard = |sent, duplicated| StampCounts { sent, duplicated, ..StampCounts::default() };
        let mut reflection = || give(&mut reflector, &packet, "10.0.0.1:9").0;
        assert_eq!(reflection(), Reflection::Valid(Some(report), heard(1, 0)));
        assert_eq!(reflection(), Reflection::Replayed(heard(0, 1)));
        assert_eq!(reflector.counts().replayed, 1);
    }

    #[test]
    fn the_session_idle_for_longest_makes_room() {
        let mut reflector = reflector(None, 2);
        for ssid in [1, 2, 1, 3] {
            give(&mut reflector, &packet(0, ssid, None, None), "10.0.0.1:9");
        }
        let sequence = |reflector: &mut Reflector, ssid| {
            let (_, out) = give(reflector, &packet(1, ssid, None, None), "10.0.0.1:9");
            Reply::parse(&out, Mode::Unauthenticated).unwrap().sequence
        };
        assert_eq!((sequence(&mut reflector, 1), sequence(&mut reflector, 2)), (2, 0));
        assert_eq!((reflector.counts().evicted, reflector.counts().sessions), (2, 2));
        assert_eq!(reflector.order.len(), 2);
    }

    proptest! {
        #[test]
        fn a_reply_has_the_size_of_its_request(octets in proptest::collection::vec(any::<u8>(), 0..300), authenticated: bool) {
            let keys = Some(keys("00")).filter(|_| authenticated);
            let least = if authenticated { 112 } else { 44 };
            let (_, out) = give(&mut reflector(keys, 9), &octets, "10.0.0.1:9");
            prop_assert_eq!(out.len(), if octets.len() < least { 0 } else { octets.len() });
        }
    }
}
