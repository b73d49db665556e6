//! The signals, what each takes of the programs, and what is lost without.

/// What an operator loses when nothing provides it; the value of `graylag.signal`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Signal {
    /// Handshakes that this host begins: latency, outcome, pending.
    HandshakeClient,
    /// Handshakes that reach this host: latency, outcome, pending, queue overflows.
    HandshakeServer,
    /// Retransmitted SYNs and SYN-ACKs.
    SynRetransmit,
    /// First byte and response time.
    Response,
    /// Retransmissions by kind.
    Loss,
    /// Segments and round-trip times.
    Segments,
    /// Drops of this host by reason.
    Drops,
    /// Receive-buffer drops by UDP port.
    UdpReceiveBuffer,
    /// UDP at the interfaces: RTP by path and direction.
    Media,
    /// RTP by socket and process.
    Relay,
    /// Connections older than the agent.
    Adoption,
    /// What is pending right now, read without copying whole tables.
    Scan,
    /// Which pod or container a network namespace belongs to.
    Attribution,
}

impl Signal {
    /// All signals.
    pub const ALL: [Self; 13] = [
        Self::HandshakeClient,
        Self::HandshakeServer,
        Self::SynRetransmit,
        Self::Response,
        Self::Loss,
        Self::Segments,
        Self::Drops,
        Self::UdpReceiveBuffer,
        Self::Media,
        Self::Relay,
        Self::Adoption,
        Self::Scan,
        Self::Attribution,
    ];

    /// The value of `graylag.signal`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::HandshakeClient => "handshake_client",
            Self::HandshakeServer => "handshake_server",
            Self::SynRetransmit => "syn_retransmit",
            Self::Response => "response",
            Self::Loss => "loss",
            Self::Segments => "segments",
            Self::Drops => "drops",
            Self::UdpReceiveBuffer => "udp_receive_buffer",
            Self::Media => "media",
            Self::Relay => "relay",
            Self::Adoption => "adoption",
            Self::Scan => "scan",
            Self::Attribution => "attribution",
        }
    }

    /// What it takes: all of these, and of each any one. The first is the signal's core; without one of the others it is
    /// there but partial.
    pub const fn needs(self) -> &'static [&'static [&'static str]] {
        match self {
            Self::HandshakeClient => &[&["inet_sock_set_state"], &["inet_sk_error_report"]],
            Self::HandshakeServer => &[&["inet_sock_set_state"], &["listen"]],
            Self::SynRetransmit => &[&["tcp_retransmit_skb"], &["tcp_retransmit_synack"]],
            Self::Response => &[
                &["sk_data_ready", "payload_in"],
                &["tcp_sendmsg_locked", "sock_send_length", "payload_out"],
                &["inet_sock_set_state"],
            ],
            Self::Loss => &[&["tcp_retransmit_skb"], &["inet_sock_set_state"]],
            Self::Segments => &[&["inet_sock_set_state"]],
            Self::Drops => &[&["kfree_skb"]],
            Self::UdpReceiveBuffer => &[&["udp_fail_queue_rcv_skb"]],
            Self::Media => &[
                &["flow_ingress"],
                &["flow_egress"],
                &["flow_ingress_ip"],
                &["flow_egress_ip"],
                &["scan_flows"],
                &["scan_sessions"],
            ],
            Self::Relay => {
                &[&["scan_sockets"], &["own_sockets"], &["relay_in"], &["relay_out"], &["relay_dropped"]]
            }
            Self::Adoption => &[&["adopt"]],
            Self::Scan => &[&["scan_paths"], &["scan_conns"], &["scan_half_open"]],
            Self::Attribution => &[&["scan_tasks"]],
        }
    }

    /// Whether it is there only where the configuration asks for media.
    pub const fn is_of_media(self) -> bool {
        matches!(self, Self::Media | Self::Relay)
    }

    /// What is lost where only need number `need` of [`Signal::needs`] is not met. Without the first nothing is left.
    pub const fn loses(self, need: usize) -> &'static str {
        match (self, need) {
            (_, 0) => "all of it",
            (Self::HandshakeClient, _) => "an attempt that an ICMP error ended may count as abandoned",
            (Self::HandshakeServer, _) => {
                "only what completes is counted, without latency, pending or overflows"
            }
            (Self::SynRetransmit, _) => "SYN-ACKs are not counted",
            (Self::Media, 1) => "what Ethernet interfaces send is not seen",
            (Self::Media, 2 | 3) => "interfaces without link headers are not watched",
            (Self::Media, 4) => "one-way media is not found",
            (Self::Media, _) => "activation is not followed",
            (Self::Relay, 1) => "nothing tells which process a socket belongs to",
            (Self::Relay, 2 | 3) => "relays are not judged",
            (Self::Relay, _) => "what finds a relay's receive buffer full is no evidence",
            (Self::Response, 1) => "nothing tells when a request or an answer is sent",
            (Self::Scan, _) => "whole tables are copied at each look",
            _ => "connections are not followed, and nothing is counted for them",
        }
    }
}
