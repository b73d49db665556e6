//! What probes have seen: plain values, cumulative, copied out at each look.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Distribution;

/// Port of a Session-Reflector (RFC 8762, 4.1).
pub const STAMP_PORT: u16 = 862;
/// Port of TLS where none is named (RFC 9110, 4.2.2).
pub const HTTPS_PORT: u16 = 443;

/// Packets of one direction of a STAMP session, since the session began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StampCounts {
    /// Packets whose fate in this direction is known: those that arrived and those that were lost.
    pub sent: u64,
    /// Of these, those that did not arrive.
    pub lost: u64,
    /// Runs of these: losses come together, and one that takes many is one event.
    pub runs: u64,
    /// Copies that arrived beyond the first.
    pub duplicated: u64,
    /// Packets that arrived after one that was sent later.
    pub reordered: u64,
}

impl StampCounts {
    /// Adds what others, or later ones, came to.
    pub const fn add(&mut self, other: &Self) {
        self.sent += other.sent;
        self.lost += other.lost;
        self.runs += other.runs;
        self.duplicated += other.duplicated;
        self.reordered += other.reordered;
    }
}

/// Delays and their extremes; the distribution is 9.5 % off at most, the extremes are exact.
#[derive(Clone, Debug, Default)]
pub struct Delays {
    /// All of them.
    pub distribution: Distribution,
    /// The shortest.
    pub least: Option<Duration>,
    /// The longest.
    pub most: Option<Duration>,
}

impl Delays {
    /// A quantile, 0 to 1. A bucket's middle may lie beyond what was measured: no quantile does.
    pub fn quantile(&self, q: f64) -> Option<Duration> {
        let found = self.distribution.quantile(q)?;
        Some(found.clamp(self.least.unwrap_or(found), self.most.unwrap_or(found)))
    }

    /// Adds one.
    pub fn record(&mut self, delay: Duration) {
        self.distribution.record(delay);
        self.least = Some(self.least.map_or(delay, |least| least.min(delay)));
        self.most = Some(self.most.map_or(delay, |most| most.max(delay)));
    }
}

/// What a peer last said of what it got from this node (Private Use TLV of its own test packets).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerReport {
    /// Valid test packets that it got from this node's address since it started; falls when it restarts.
    pub received: u64,
    /// Age of the newest of them now: what the peer said, and the time since. `None`: it never got one.
    pub newest: Option<Duration>,
    /// Time since this was said.
    pub age: Duration,
    /// Whether it loses too much of what this node sends it, by all that it knows: probes, media.
    pub lossy: bool,
}

/// Delays of a session.
#[derive(Clone, Debug, Default)]
pub struct StampDelays {
    /// Round trip without the reflector's own time: reply − send − (T3 − T2).
    pub round_trip: Delays,
    /// Difference of successive one-way delays, there (RFC 3393); no clock need agree with another.
    pub variation_transmit: Delays,
    /// The same, back.
    pub variation_receive: Delays,
}

/// One STAMP session (RFC 8762) as this node's Session-Sender sees it. Counts are cumulative since the session began; a
/// session keeps them over reloads as long as its settings stay. All ages are as of the look.
#[derive(Clone, Debug)]
pub struct StampPath {
    /// Name of the peer, or its address.
    pub peer: Arc<str>,
    /// Where test packets go.
    pub address: SocketAddr,
    /// Time between two test packets, on average: each gap is up to 10 % shorter or longer.
    pub interval: Duration,
    /// Test packets that were sent. Each is in one of `answered`, `transmit.lost`, `receive.lost`, `unattributed`,
    /// `mismatched`, `refused` and `outstanding`.
    pub sent: u64,
    /// Of these, those with a valid reply.
    pub answered: u64,
    /// Test packets on their way there. Lost: the reflector's own sequence numbers have no place for them.
    pub transmit: StampCounts,
    /// Replies on their way back. Lost: a gap in the reflector's own sequence numbers.
    pub receive: StampCounts,
    /// The peer's own test packets, which came to this node's reflector from `address`: the same direction as `receive`, and
    /// evidence of its own. Lost: a gap in their sender's sequence numbers (RFC 8762, 4.2.1) that stays open for a second; it counts with
    /// the next packet after that. A sender that begins anew has lost nothing. Sessions are told apart by source address, source
    /// port and SSID; all from this address are added up here, so that probes of several ports of one address share it.
    pub heard: StampCounts,
    /// Unanswered, and nothing tells in which direction they were lost: the reflector restarted meanwhile, or it keeps no
    /// sequence numbers of its own (RFC 8762, 4: stateless mode).
    pub unattributed: u64,
    /// Test packets to which only replies came that do not validate: neither lost nor answered.
    pub mismatched: u64,
    /// Test packets that the other host refused with an ICMP port unreachable: it got them, and no reflector listens. Neither lost
    /// nor answered. A host limits how many it sends (RFC 1812, 4.3.2.8; Linux: one a second to each peer, after a few at once),
    /// so that what is unanswered between two of them, at most 3 s apart, counts here too.
    pub refused: u64,
    /// Test packets without a reply that may still be answered, or whose direction is still open because nothing came since.
    pub outstanding: u64,
    /// Packets that do not validate, from this address, of either kind: replies and test packets.
    pub auth_mismatch: u64,
    /// Replies that came after their test packet had been given up.
    pub late: u64,
    /// Test packets that this host refused to send: no fault of the path. Not in `sent`.
    pub unsent: u64,
    /// Restarts of the reflector, told by its sequence numbers.
    pub resets: u64,
    /// Where they were asked for.
    pub delays: Option<StampDelays>,
    /// Age of the newest valid packet from the peer, reply or its own test packet.
    pub last_receive: Option<Duration>,
    /// Age of the newest proof that something of ours arrived there: when an answered test packet was sent, or the newest one
    /// that the peer's report speaks of.
    pub last_delivery: Option<Duration>,
    /// Age of the newest packet that does not validate.
    pub last_mismatch: Option<Duration>,
    /// Age of the newest test packet whose answer does not validate and shows the packet's own timestamp: it reached somebody there.
    /// Good for not calling a path down, not for trust.
    pub last_echo: Option<Duration>,
    /// Age of the newest ICMP port unreachable (RFC 792, type 3 code 3; RFC 4443, 3.1, type 1 code 4) that quotes a test packet
    /// to this address and port, as the kernel matched it to the socket that sent (`ip_icmp_error`, `ipv6_icmp_error`). The path is
    /// well and the peer's agent is gone, as while it restarts. It carries no digest: good for an explanation, not for trust.
    pub last_refused: Option<Duration>,
    /// What the peer said last.
    pub report: Option<PeerReport>,
    /// Test packets in a row, up to now, whose answer is overdue; those refused are among them.
    pub unanswered: u64,
}

/// What this node's Session-Reflector has done, since it started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ReflectorCounts {
    /// Replies.
    pub answered: u64,
    /// Packets from addresses that are no peer's.
    pub stranger: u64,
    /// Packets from a port where a reflector listens: answering them, two reflectors would answer each other without end.
    pub looped: u64,
    /// Packets beyond the budget of their peer.
    pub limited: u64,
    /// Datagrams that are no test packets.
    pub malformed: u64,
    /// Test packets that do not validate.
    pub auth_mismatch: u64,
    /// Valid test packets that came before: copies, or somebody's recording.
    pub replayed: u64,
    /// Sessions forgotten for lack of room.
    pub evicted: u64,
    /// Sessions whose numbers are kept now.
    pub sessions: u64,
    /// Replies that this host refused to send.
    pub unsent: u64,
    /// Datagrams that found the reflector's receive buffer full: this host's loss, not the path's.
    pub overflowed: u64,
}

/// What an attempt to connect came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressOutcome {
    /// Connected; with TLS, its handshake too.
    Established,
    /// A RST answered the SYN (RFC 9293, 3.10.7.1), or an ICMP port unreachable did.
    Refused,
    /// A RST after the connection stood, during TLS.
    Reset,
    /// No end within the time it had.
    TimedOut,
    /// An ICMP error, or no route on this host.
    Unreachable,
    /// Connected, and TLS said no: a certificate that does not hold, an alert, something that is no TLS.
    TlsFailed,
}

impl AddressOutcome {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Established, Self::Refused, Self::Reset, Self::TimedOut, Self::Unreachable, Self::TlsFailed];

    /// As it is spelled everywhere; `graylag.outcome`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Established => "established",
            Self::Refused => "refused",
            Self::Reset => "reset",
            Self::TimedOut => "timed_out",
            Self::Unreachable => "unreachable",
            Self::TlsFailed => "tls_failed",
        }
    }
}

/// Attempts by outcome; each is in one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AddressCounts([u64; AddressOutcome::ALL.len()]);

impl AddressCounts {
    /// One more.
    pub const fn add(&mut self, outcome: AddressOutcome) {
        self.0[outcome as usize] += 1;
    }

    /// Those of one outcome.
    pub const fn of(&self, outcome: AddressOutcome) -> u64 {
        self.0[outcome as usize]
    }

    /// All of them.
    pub fn attempts(&self) -> u64 {
        self.0.iter().sum()
    }

    /// All that did not connect.
    pub fn failed(&self) -> u64 {
        self.attempts() - self.of(AddressOutcome::Established)
    }
}

/// A target of TCP or TLS probes, and its addresses now. Counts are cumulative since an address came; one that a name resolves to no more
/// goes, and begins anew when it comes back.
#[derive(Clone, Debug)]
pub struct AddressTarget {
    /// Host and port, as they were given.
    pub target: String,
    /// Whether TLS follows.
    pub tls: bool,
    /// Its addresses, in their order.
    pub paths: Vec<AddressPath>,
    /// Addresses of the last answer that were left out: too many.
    pub left_out: usize,
    /// Lookups that failed; the addresses of the one before stay.
    pub unresolved: u64,
    /// Why the last one failed, where it did.
    pub reason: Option<String>,
}

impl AddressTarget {
    /// `graylag.probe.kind`.
    pub const fn kind(&self) -> &'static str {
        if self.tls { "tls" } else { "tcp" }
    }
}

/// One address of a target of TCP or TLS probes.
#[derive(Clone, Debug)]
pub struct AddressPath {
    /// Address and port.
    pub address: SocketAddr,
    /// Attempts. Those made a second time from the same port are not among them.
    pub counts: AddressCounts,
    /// Failed attempts that were made once more, at once, with the same 4-tuple.
    pub repeated: u64,
    /// Of these, those that failed again: the fault hangs on the 4-tuple, or all of them fail.
    pub repeated_failed: u64,
    /// Attempts that this host could not make: no free port, no descriptor. Not in `counts`.
    pub unsent: u64,
    /// From the SYN to the connection, of those that connected, whatever TLS said afterwards. Above one second a SYN was lost: the
    /// kernel repeats it then (RFC 6298, 2).
    pub connect: Delays,
    /// TLS handshakes that ended well.
    pub tls: Delays,
    /// Why TLS failed last.
    pub reason: Option<String>,
}

impl AddressPath {
    /// Nothing yet.
    pub fn new(address: SocketAddr) -> Self {
        Self {
            address,
            counts: AddressCounts::default(),
            repeated: 0,
            repeated_failed: 0,
            unsent: 0,
            connect: Delays::default(),
            tls: Delays::default(),
            reason: None,
        }
    }
}

/// A host and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    /// A name or an address, without brackets.
    pub host: String,
    /// Port.
    pub port: u16,
}

impl HostPort {
    /// From `host:port`; the port may be left out where there is a usual one. `None` where it is neither.
    pub fn parse(text: &str, usual: Option<u16>) -> Option<Self> {
        if let Ok(address) = text.parse::<SocketAddr>() {
            return Some(Self { host: address.ip().to_string(), port: address.port() });
        }
        let (host, port) = match (text.parse::<IpAddr>(), text.rsplit_once(':')) {
            (Err(_), Some((host, port))) => (host, port.parse().ok()?),
            _ => (text, usual?),
        };
        if host.is_empty() || host.contains([':', '[', ']', '/', ' ']) && host.parse::<IpAddr>().is_err() {
            return None;
        }
        Some(Self { host: host.to_owned(), port })
    }
}
