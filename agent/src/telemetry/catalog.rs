//! The metric catalog: every name, kind, unit and attribute, declared once. `graylag catalog`, docs/catalog.md, the OTLP
//! export and `/metrics` are made from it.

/// What a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows; cumulative.
    Counter,
    /// Grows and shrinks, adds up over its attributes.
    UpDownCounter,
    /// A value of now; adding it up means nothing.
    Gauge,
    /// Base-2 exponential histogram, cumulative.
    ExponentialHistogram,
}

impl Kind {
    /// In words.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::UpDownCounter => "up-down counter",
            Self::Gauge => "gauge",
            Self::ExponentialHistogram => "exponential histogram",
        }
    }
}

/// One metric.
#[derive(Debug, PartialEq, Eq)]
pub struct Metric {
    /// Its name.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// UCUM unit.
    pub unit: &'static str,
    /// Attributes of its points; those of a path are there as far as the path has them.
    pub attributes: &'static [&'static str],
    /// What it counts.
    pub description: &'static str,
}

/// Attribute names, and what they mean.
pub mod attribute {
    /// Peer of a path.
    pub const PEER: &str = "graylag.peer.name";
    /// Address of a path.
    pub const ADDRESS: &str = "network.peer.address";
    /// Service.
    pub const SERVICE: &str = "graylag.service.name";
    /// Which end this host is.
    pub const ROLE: &str = "graylag.role";
    /// How a handshake ended.
    pub const OUTCOME: &str = "graylag.outcome";
    /// Whether it is older than the stall bound.
    pub const STALLED: &str = "graylag.stalled";
    /// Kind of retransmission.
    pub const RETRANSMIT: &str = "graylag.retransmit.type";
    /// Direction, as the host's interface sees it.
    pub const DIRECTION: &str = "network.io.direction";
    /// Transport.
    pub const TRANSPORT: &str = "network.transport";
    /// The kernel's drop reason.
    pub const REASON: &str = "graylag.drop.reason";
    /// Whose loss it is.
    pub const SIDE: &str = "graylag.drop.side";
    /// What became of a SYN cookie.
    pub const COOKIE: &str = "graylag.cookie";
    /// How loss was measured.
    pub const METHOD: &str = "graylag.method";
    /// State of a path.
    pub const STATE: &str = "graylag.state";
    /// State before, of an event.
    pub const STATE_FROM: &str = "graylag.state.from";
    /// State now, of an event.
    pub const STATE_TO: &str = "graylag.state.to";
    /// Kind of a probe.
    pub const KIND: &str = "graylag.probe.kind";
    /// A stage on the way to media.
    pub const STAGE: &str = "graylag.media.stage";
    /// A process.
    pub const PROCESS: &str = "graylag.process";
    /// Its number.
    pub const PID: &str = "process.pid";
    /// Condition.
    pub const CONDITION: &str = "graylag.condition.name";
    /// Culprit.
    pub const BLAME: &str = "graylag.blame";
    /// A kernel map.
    pub const MAP: &str = "graylag.map.name";
    /// A kernel program.
    pub const PROGRAM: &str = "graylag.program.name";
    /// Where it is known from whose something is.
    pub const SOURCE: &str = "graylag.attribution.source";
    /// A signal, as `graylag check` lists them.
    pub const SIGNAL: &str = "graylag.signal";

    /// `(name, values or meaning)` of every attribute.
    pub const ALL: &[(&str, &str)] = &[
        (PEER, "configured name of the peer, else the prefix, else `~other`"),
        (ADDRESS, "the address, where the peer is configured `per_address`"),
        (SERVICE, "configured name of the service, else e.g. `tcp/443`, else `~other`"),
        (ROLE, "`client` (this host began the connection) or `server`"),
        (
            OUTCOME,
            "of handshakes `established`, `refused`, `reset`, `timed_out`, `unreachable`, `abandoned` (the caller closed first); of sessions \
             `active`, `failed`, `one_way`, `idle` (keys are agreed and nobody sends); of probes also `tls_failed`",
        ),
        (STALLED, "`true` from the stall bound on, else `false`"),
        (RETRANSMIT, "`fast`, `timeout`, `tail_loss_probe`, `spurious` (taken back by DSACK)"),
        (DIRECTION, "`transmit` or `receive`"),
        (TRANSPORT, "`tcp`, `udp` or `other`"),
        (REASON, "the running kernel's name for it, e.g. `SOCKET_RCVBUFF`"),
        (SIDE, "`host`: dropped for want of room or by policy; `path`: it arrived broken"),
        (COOKIE, "`sent` or `established`"),
        (METHOD, "`rtp`: from its sequence numbers; `stamp`: of probes"),
        (
            STATE,
            "of a path `unknown`, `idle`, `healthy`, `degraded`, `down`, `recovering`; of the node `unknown`, `healthy`, `gray`, `failing`, \
             `recovering`",
        ),
        (KIND, "`stamp`, `tcp`, `tls`"),
        (
            STAGE,
            "`stun`: checks are answered; `dtls`: keys are agreed; `rtp`: media flows both ways, or is reported on",
        ),
        (PROCESS, "name of the process, as `ps` shows it; `~other` for sockets that none has open"),
        (PID, "its number, in the initial namespace"),
        (CONDITION, "see docs/verdicts.md"),
        (
            BLAME,
            "`local_host`, `local_process`, `path_transmit`, `path_receive`, `peer_host`, `peer_application`, `unknown`",
        ),
        (MAP, "`PATHS`, `CONNS`, `HALF_OPEN`; for media `FLOWS`, `STREAMS`, `MEDIA_PATHS`, `SESSIONS`"),
        (PROGRAM, "see `graylag check`"),
        (SOURCE, "`cgroup`: the cgroup hierarchy; `cri`: the container runtime"),
        (SIGNAL, "see `graylag check`"),
    ];
}

use attribute as a;

/// Identity of a metric; `Id::metric` gives its declaration.
macro_rules! catalog {
    ($($id:ident: $name:literal, $kind:ident, $unit:literal, [$($attribute:expr),*], $description:literal;)*) => {
        /// Every metric of the catalog.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Id { $(#[doc = $description] $id),* }

        impl Id {
            /// All of them, in the catalog's order.
            pub const ALL: &'static [Self] = &[$(Self::$id),*];

            /// Its declaration.
            pub const fn metric(self) -> &'static Metric {
                match self {
                    $(Self::$id => &Metric {
                        name: $name,
                        kind: Kind::$kind,
                        unit: $unit,
                        attributes: &[$($attribute),*],
                        description: $description,
                    }),*
                }
            }
        }
    };
}

catalog! {
    HandshakeDuration: "graylag.tcp.handshake.duration", ExponentialHistogram, "s",
        [a::PEER, a::ADDRESS, a::SERVICE, a::ROLE], "SYN to ESTABLISHED";
    HandshakeCount: "graylag.tcp.handshake.count", Counter, "{handshake}",
        [a::PEER, a::ADDRESS, a::SERVICE, a::ROLE, a::OUTCOME], "Ended handshakes by outcome";
    HandshakePending: "graylag.tcp.handshake.pending", UpDownCounter, "{handshake}",
        [a::PEER, a::ADDRESS, a::SERVICE, a::ROLE, a::STALLED], "Handshakes under way right now";
    SynRetransmitted: "graylag.tcp.syn.retransmitted", Counter, "{segment}",
        [a::PEER, a::ADDRESS, a::SERVICE, a::ROLE], "Retransmitted SYNs (client) and SYN-ACKs (server)";
    AcceptQueueOverflow: "graylag.tcp.accept_queue.overflow", Counter, "{connection}",
        [a::SERVICE], "SYNs and final ACKs dropped because the accept queue was full";
    RequestQueueOverflow: "graylag.tcp.request_queue.overflow", Counter, "{connection}",
        [a::SERVICE], "SYNs dropped because the request queue was full and SYN cookies are off";
    SynCookieCount: "graylag.tcp.syn_cookie.count", Counter, "{cookie}",
        [a::SERVICE, a::COOKIE], "SYNs answered with a cookie, and connections established from one";
    FirstByteDuration: "graylag.tcp.first_byte.duration", ExponentialHistogram, "s",
        [a::PEER, a::ADDRESS, a::SERVICE, a::ROLE], "First request of a connection to the first byte back";
    FirstBytePending: "graylag.tcp.first_byte.pending", UpDownCounter, "{connection}",
        [a::PEER, a::ADDRESS, a::SERVICE, a::ROLE, a::STALLED], "Connections that asked and have had nothing back yet";
    ResponseDuration: "graylag.tcp.response.duration", ExponentialHistogram, "s",
        [a::PEER, a::ADDRESS, a::SERVICE, a::ROLE], "Request to the first byte back, every turn of a connection";
    ReceiveSilence: "graylag.tcp.receive.silence", Gauge, "s",
        [a::PEER, a::ADDRESS, a::SERVICE], "Longest silence among connections that asked and wait";
    SegmentCount: "graylag.tcp.segment.count", Counter, "{segment}",
        [a::PEER, a::ADDRESS, a::DIRECTION], "Segments, retransmitted and empty ones included";
    SegmentRetransmitted: "graylag.tcp.segment.retransmitted", Counter, "{segment}",
        [a::PEER, a::ADDRESS, a::RETRANSMIT], "Retransmitted segments by kind; this is no loss rate";
    ConnectionReset: "graylag.tcp.connection.reset", Counter, "{connection}",
        [a::PEER, a::ADDRESS, a::SERVICE, a::ROLE], "Established connections that a RST of the peer ended";
    Rtt: "graylag.tcp.rtt", ExponentialHistogram, "s",
        [a::PEER, a::ADDRESS], "Smoothed round-trip time, at most ten samples a second of each connection";
    RtpPacketCount: "graylag.rtp.packet.count", Counter, "{packet}",
        [a::PEER, a::ADDRESS, a::DIRECTION], "RTP packets of valid streams, once each";
    RtpPacketLost: "graylag.rtp.packet.lost", Counter, "{packet}",
        [a::PEER, a::ADDRESS, a::DIRECTION], "RTP packets that had not come a look after a higher number came; what comes later, within 64 numbers, is taken off the next ones";
    RtpPacketReordered: "graylag.rtp.packet.reordered", Counter, "{packet}",
        [a::PEER, a::ADDRESS, a::DIRECTION], "RTP packets that came after a higher number, within the window";
    RtpPacketDuplicated: "graylag.rtp.packet.duplicated", Counter, "{packet}",
        [a::PEER, a::ADDRESS, a::DIRECTION], "RTP packets that came again";
    RtpLossBurst: "graylag.rtp.loss.burst", ExponentialHistogram, "{packet}",
        [a::PEER, a::ADDRESS, a::DIRECTION], "Lengths of the bursts in which RTP packets were lost";
    RtpJitter: "graylag.rtp.jitter", ExponentialHistogram, "s",
        [a::PEER, a::ADDRESS, a::DIRECTION], "Interarrival jitter (RFC 3550), a sample for each 32nd packet of a stream";
    PathEvidenceAge: "graylag.path.evidence.age", Gauge, "s",
        [a::PEER, a::ADDRESS, a::DIRECTION], "Age of the newest proof that a path delivers in this direction; that this host sent is none";
    PathState: "graylag.path.state", UpDownCounter, "1",
        [a::PEER, a::ADDRESS, a::DIRECTION, a::STATE], "1 for the state of a path with media or probes, 0 for the others";
    NodeState: "graylag.node.state", UpDownCounter, "1",
        [a::STATE], "1 for the state of this node, 0 for the others: whether its users get what health checks see";
    NodeWeight: "graylag.node.weight", Gauge, "1",
        [], "What part of its usual load this node should be given, 0 to 1";
    PathLossRatio: "graylag.path.loss.ratio", Gauge, "1",
        [a::PEER, a::ADDRESS, a::DIRECTION, a::METHOD], "Share of packets lost in the last five to ten seconds";
    ProbePacketSent: "graylag.probe.packet.sent", Counter, "{packet}",
        [a::PEER, a::ADDRESS, a::DIRECTION], "Test packets (transmit), and replies and the peer's test packets (receive), whose fate is known";
    ProbePacketLost: "graylag.probe.packet.lost", Counter, "{packet}",
        [a::PEER, a::ADDRESS, a::DIRECTION], "Of these, those that did not arrive, by sequence numbers (RFC 8762)";
    ProbePacketDuplicated: "graylag.probe.packet.duplicated", Counter, "{packet}",
        [a::PEER, a::ADDRESS, a::DIRECTION], "Test packets and replies that arrived again";
    ProbeAuthMismatch: "graylag.probe.packet.auth_mismatch", Counter, "{packet}",
        [a::PEER, a::ADDRESS, a::DIRECTION], "Test packets and replies that arrived and did not validate";
    ProbeDuration: "graylag.probe.duration", ExponentialHistogram, "s",
        [a::PEER, a::ADDRESS, a::KIND], "STAMP: round trip without the time that the reflector took; TCP: SYN to ESTABLISHED; TLS: its handshake, after that";
    ProbeCount: "graylag.probe.count", Counter, "{probe}",
        [a::PEER, a::ADDRESS, a::KIND, a::OUTCOME], "TCP and TLS probes of an address by outcome; the peer is the target as it is configured";
    RelayPacketCount: "graylag.relay.packet.count", Counter, "{packet}",
        [a::PROCESS, a::DIRECTION], "RTP packets that reached a process's sockets, and that these sent";
    RelayStalled: "graylag.relay.stalled", UpDownCounter, "{process}",
        [a::PROCESS], "Processes that take media in and put none out";
    ActivationDuration: "graylag.media.activation.duration", ExponentialHistogram, "s",
        [a::STAGE], "How long sessions took for a stage on their way to media";
    ActivationCount: "graylag.media.activation.count", Counter, "{session}",
        [a::STAGE, a::OUTCOME], "ICE sessions by the stage at which they ended, and what became of them";
    ActivationPending: "graylag.media.activation.pending", UpDownCounter, "{session}",
        [a::STAGE], "ICE sessions on their way to media";
    PacketDropped: "graylag.packet.dropped", Counter, "{packet}",
        [a::REASON, a::SIDE, a::DIRECTION, a::TRANSPORT], "Packets this host dropped";
    UdpReceiveBufferDropped: "graylag.udp.receive_buffer.dropped", Counter, "{packet}",
        [a::SERVICE], "Datagrams that found the socket's receive buffer full";
    Condition: "graylag.condition", UpDownCounter, "1",
        [a::CONDITION, a::PEER, a::ADDRESS, a::SERVICE, a::ROLE, a::PROCESS, a::PID, a::REASON, a::DIRECTION, a::BLAME],
        "1 while the condition stands";
    MapUsage: "graylag.agent.map.usage", UpDownCounter, "{entry}", [a::MAP], "Entries in use";
    MapLimit: "graylag.agent.map.limit", UpDownCounter, "{entry}", [a::MAP], "Entries there is room for";
    MapEvicted: "graylag.agent.map.evicted", Counter, "{entry}", [a::MAP], "Entries that found no room";
    ProgramTime: "graylag.agent.program.time", Counter, "s", [a::PROGRAM], "Time spent in a kernel program, where it is measured";
    ProgramRun: "graylag.agent.program.run", Counter, "{run}", [a::PROGRAM], "Runs of a kernel program, where they are measured";
    ProgramAttached: "graylag.agent.program.attached", UpDownCounter, "1", [a::PROGRAM], "1 where a kernel program is attached";
    EventLost: "graylag.agent.event.lost", Counter, "{event}", [], "Events that the kernel programs did not see or could not count, and transitions that could not be told";
    SeriesFolded: "graylag.agent.series.folded", Counter, "{series}", [], "How often a series was put into `~other`";
    ExportDropped: "graylag.agent.export.dropped", Counter, "{point}", [], "Points and records that could not be exported in time";
    PodCount: "graylag.agent.pod.count", UpDownCounter, "{pod}", [], "Pods and containers whose traffic is told apart";
    PodFolded: "graylag.agent.pod.folded", Counter, "{pod}", [], "Pods and containers that found no room; what they do counts as the host's";
    AttributionFailed: "graylag.agent.attribution.failed", Counter, "{lookup}", [a::SOURCE], "Lookups of whose a network namespace or a process is that failed";
    Coverage: "graylag.agent.coverage", Gauge, "1", [a::SIGNAL], "Share of what there was to be seen that was seen";
}

impl Id {
    /// Whether each pod has its own of it, under its own resource.
    pub const fn is_of_pods(self) -> bool {
        matches!(
            self,
            Self::HandshakeDuration
                | Self::HandshakeCount
                | Self::HandshakePending
                | Self::SynRetransmitted
                | Self::AcceptQueueOverflow
                | Self::RequestQueueOverflow
                | Self::SynCookieCount
                | Self::FirstByteDuration
                | Self::FirstBytePending
                | Self::ResponseDuration
                | Self::ReceiveSilence
                | Self::SegmentCount
                | Self::SegmentRetransmitted
                | Self::ConnectionReset
                | Self::Rtt
                | Self::RelayPacketCount
                | Self::UdpReceiveBufferDropped
        )
    }
}

/// The events that go out as log records.
pub mod event {
    /// A condition changed phase.
    pub const CONDITION_CHANGED: &str = "graylag.condition.changed";
    /// A path changed state in one direction.
    pub const PATH_CHANGED: &str = "graylag.path.changed";
    /// This node changed state.
    pub const NODE_CHANGED: &str = "graylag.node.changed";
    /// A signal is missing on this host.
    pub const DEGRADED: &str = "graylag.agent.degraded";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_conventions() {
        let mut seen = std::collections::BTreeSet::new();
        for id in Id::ALL {
            let metric = id.metric();
            assert!(
                metric.name.starts_with("graylag.") && !metric.name.ends_with("_total"),
                "{}",
                metric.name
            );
            assert!(seen.insert(metric.name), "{} twice", metric.name);
            assert!(matches!(metric.unit, "s" | "1") || metric.unit.starts_with('{'), "{}", metric.unit);
            for name in metric.attributes {
                assert!(a::ALL.iter().any(|(known, _)| known == name), "{name} is not explained");
            }
        }
        for (name, _) in a::ALL {
            assert!(Id::ALL.iter().any(|id| id.metric().attributes.contains(name)), "{name} is not used");
        }
    }
}
