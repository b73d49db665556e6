//! The programs: where each attaches, what it needs of the kernel, and which signals are lost without it.

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
}

impl Signal {
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
}

impl Signal {
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

impl Hook {
    /// What an iterator iterates over, as the kernel names it (`bpf_iter_reg`); nothing for other programs.
    pub const fn iterates_over(self) -> Option<&'static str> {
        match self {
            Self::MapIterator { .. } => Some("bpf_map_elem"),
            Self::SocketIterator { .. } => Some("bpf_sk_storage_map"),
            Self::TcpIterator => Some("tcp"),
            Self::FileIterator => Some("task_file"),
            Self::TaskIterator => Some("task"),
            _ => None,
        }
    }
}

/// Where a program attaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// A BTF tracepoint whose prototype begins with these argument types.
    Tracepoint {
        /// Its name, the program's section.
        name: &'static str,
        /// Leading argument types, as `KernelTypes::tracepoint` spells them.
        arguments: &'static [&'static str],
    },
    /// The root cgroup, packets towards sockets.
    CgroupIngress,
    /// The root cgroup, packets from sockets.
    CgroupEgress,
    /// An iterator over a map.
    MapIterator {
        /// The map's name.
        map: &'static str,
    },
    /// Interfaces, as they come and go.
    Interface,
    /// An iterator over the TCP sockets of one namespace.
    TcpIterator,
    /// An iterator over the sockets that have an entry in a map.
    SocketIterator {
        /// The map's name.
        map: &'static str,
    },
    /// An iterator over the open files of all processes.
    FileIterator,
    /// An iterator over all tasks.
    TaskIterator,
}

impl Program {
    /// Whether it is there for media, which has to be asked for.
    pub fn is_of_media(&self) -> bool {
        Signal::ALL.into_iter().any(|signal| signal.is_of_media() && self.serves(signal))
    }

    fn serves(&self, signal: Signal) -> bool {
        signal.needs().iter().any(|any| any.contains(&self.name))
    }

    /// What it takes of a kernel that is younger than the oldest one: a helper, by its name in `enum bpf_func_id`, and the
    /// version of Linux that brought it.
    pub fn helper(&self) -> Option<(&'static str, &'static str)> {
        if self.hook == Hook::Interface {
            Some(("BPF_FUNC_loop", "5.17"))
        } else if self.serves(Signal::Relay) {
            // The same version lets tracing programs see what sockets store.
            Some(("BPF_FUNC_sock_from_file", "5.11"))
        } else {
            None
        }
    }
}

/// One program of the object.
#[derive(Clone, Copy, Debug)]
pub struct Program {
    /// Its name in the object and in `graylag.program.name`.
    pub name: &'static str,
    /// Where it attaches.
    pub hook: Hook,
    /// Structure members it reads, by the names of `graylag_ebpf::offsets`.
    pub members: &'static [&'static str],
    /// Loaded only where none of these programs could be: it does the same for more.
    pub instead_of: &'static [&'static str],
}

const ENDPOINTS: &[&str] = &[
    "SKC_FAMILY",
    "SKC_STATE",
    "SKC_NUM",
    "SKC_DPORT",
    "SKC_DADDR",
    "SKC_RCV_SADDR",
    "SKC_V6_DADDR",
    "SKC_V6_RCV_SADDR",
    "SKC_NET",
    "NET_INUM",
];

/// All programs, in the order they are loaded.
pub const PROGRAMS: &[Program] = &[
    Program {
        name: "inet_sock_set_state",
        hook: Hook::Tracepoint { name: "inet_sock_set_state", arguments: &["sock *", "int", "int"] },
        members: &[
            "SKC_FAMILY",
            "SKC_STATE",
            "SKC_NUM",
            "SKC_DPORT",
            "SKC_DADDR",
            "SKC_RCV_SADDR",
            "SKC_V6_DADDR",
            "SKC_V6_RCV_SADDR",
            "SKC_NET",
            "NET_INUM",
            "SK_PROTOCOL",
            "SK_ERR",
            "SK_SHUTDOWN",
            "TP_SRTT_US",
            "TP_SEGS_IN",
            "TP_SEGS_OUT",
            "TP_DSACK_DUPS",
        ],
        instead_of: &[],
    },
    Program {
        name: "inet_sk_error_report",
        hook: Hook::Tracepoint { name: "inet_sk_error_report", arguments: &["sock *"] },
        members: &["SKC_STATE", "SK_ERR", "SK_ERR_SOFT"],
        instead_of: &[],
    },
    Program {
        name: "listen",
        hook: Hook::CgroupIngress,
        members: &[
            "SKC_NET",
            "NET_INUM",
            "NET_SYNCOOKIES",
            "SK_ACK_BACKLOG",
            "SK_MAX_ACK_BACKLOG",
            "ICSK_QLEN",
        ],
        instead_of: &[],
    },
    Program {
        name: "tcp_retransmit_skb",
        hook: Hook::Tracepoint { name: "tcp_retransmit_skb", arguments: &["sock *", "sk_buff *"] },
        members: &["SKC_STATE", "SKC_NET", "NET_INUM", "ICSK_CA_STATE", "SKB_CB", "TCP_CB_GSO_SEGS"],
        instead_of: &[],
    },
    Program {
        name: "tcp_retransmit_synack",
        hook: Hook::Tracepoint { name: "tcp_retransmit_synack", arguments: &["sock *", "request_sock *"] },
        members: ENDPOINTS,
        instead_of: &[],
    },
    Program {
        name: "sk_data_ready",
        hook: Hook::Tracepoint { name: "sk_data_ready", arguments: &["sock *"] },
        members: RESPONSE,
        instead_of: &[],
    },
    Program {
        name: "tcp_sendmsg_locked",
        hook: Hook::Tracepoint { name: "tcp_sendmsg_locked", arguments: &["sock *"] },
        members: RESPONSE,
        instead_of: &[],
    },
    Program {
        name: "sock_send_length",
        hook: Hook::Tracepoint { name: "sock_send_length", arguments: &["sock *", "int"] },
        members: RESPONSE,
        instead_of: &["tcp_sendmsg_locked"],
    },
    Program { name: "payload_in", hook: Hook::CgroupIngress, members: &[], instead_of: &["sk_data_ready"] },
    Program {
        name: "payload_out",
        hook: Hook::CgroupEgress,
        members: &[],
        instead_of: &["tcp_sendmsg_locked", "sock_send_length"],
    },
    Program {
        name: "kfree_skb",
        hook: Hook::Tracepoint { name: "kfree_skb", arguments: &["sk_buff *", "void *", "skb_drop_reason"] },
        members: &[
            "SKB_HEAD",
            "SKB_NETWORK_HEADER",
            "SKB_PROTOCOL",
            "SKB_IIF",
            "SKB_DEV",
            "SKB_SK",
            "DEV_NET",
            "SKC_NET",
            "NET_INUM",
        ],
        instead_of: &[],
    },
    Program {
        name: "udp_fail_queue_rcv_skb",
        hook: Hook::Tracepoint { name: "udp_fail_queue_rcv_skb", arguments: &["int", "sock *"] },
        members: &["SKC_NUM", "SKC_NET", "NET_INUM"],
        instead_of: &[],
    },
    at_interfaces("flow_ingress"),
    at_interfaces("flow_egress"),
    at_interfaces("flow_ingress_ip"),
    at_interfaces("flow_egress_ip"),
    Program {
        name: "scan_flows",
        hook: Hook::MapIterator { map: FLOW_INDEX },
        members: &[],
        instead_of: &[],
    },
    Program {
        name: "scan_sessions",
        hook: Hook::MapIterator { map: SESSIONS },
        members: &[],
        instead_of: &[],
    },
    Program { name: "relay_in", hook: Hook::CgroupIngress, members: SOCKET_SCOPE, instead_of: &[] },
    Program { name: "relay_out", hook: Hook::CgroupEgress, members: SOCKET_SCOPE, instead_of: &[] },
    Program {
        name: "relay_dropped",
        hook: Hook::Tracepoint { name: "udp_fail_queue_rcv_skb", arguments: &["int", "sock *"] },
        members: &[],
        instead_of: &[],
    },
    Program {
        name: "scan_sockets",
        hook: Hook::SocketIterator { map: SOCKET_MEDIA },
        members: &["SK_RMEM_ALLOC", "UDP_FORWARD_DEFICIT"],
        instead_of: &[],
    },
    Program {
        name: "own_sockets",
        hook: Hook::FileIterator,
        members: &["SOCKET_SK", "TASK_TGID", "TASK_COMM"],
        instead_of: &[],
    },
    Program {
        name: "adopt",
        hook: Hook::TcpIterator,
        members: &[
            "SKC_FAMILY",
            "SKC_STATE",
            "SKC_NUM",
            "SKC_DPORT",
            "SKC_DADDR",
            "SKC_V6_DADDR",
            "SKC_NET",
            "NET_INUM",
            "TP_SEGS_IN",
            "TP_SEGS_OUT",
            "TP_DSACK_DUPS",
            "TP_BYTES_RECEIVED",
        ],
        instead_of: &[],
    },
    Program { name: "scan_paths", hook: Hook::MapIterator { map: "PATHS" }, members: &[], instead_of: &[] },
    Program {
        name: "scan_conns",
        hook: Hook::MapIterator { map: "CONNS" },
        members: &["SKC_STATE", "SKC_DPORT", "TP_SEGS_IN"],
        instead_of: &[],
    },
    Program {
        name: "scan_half_open",
        hook: Hook::MapIterator { map: "HALF_OPEN" },
        members: &[],
        instead_of: &[],
    },
    Program {
        name: TASKS,
        hook: Hook::TaskIterator,
        members: &[
            "TASK_TGID",
            "TASK_PID",
            "TASK_COMM",
            "TASK_NSPROXY",
            "NSPROXY_NET",
            "NET_INUM",
            "TASK_CGROUPS",
            "CSS_SET_CGROUP",
            "CGROUP_NODE",
            "KERNFS_ID",
        ],
        instead_of: &[],
    },
];

/// Passes over the flow table go over its index.
pub const FLOW_INDEX: &str = "FLOW_INDEX";
/// ICE sessions.
pub const SESSIONS: &str = "SESSIONS";
/// Passes over all processes go over no map; their program stands for it.
pub const TASKS: &str = "scan_tasks";
/// What sockets of relays hold.
pub const SOCKET_MEDIA: &str = "SOCKET_MEDIA";

const SOCKET_SCOPE: &[&str] = &["SKC_NET", "NET_INUM"];

const fn at_interfaces(name: &'static str) -> Program {
    Program { name, hook: Hook::Interface, members: &[], instead_of: &[] }
}

const RESPONSE: &[&str] = &[
    "SKC_STATE",
    "SK_PROTOCOL",
    "TP_SRTT_US",
    "TP_SEGS_IN",
    "TP_SEGS_OUT",
    "TP_DSACK_DUPS",
    "TP_SND_UNA",
    "TP_WRITE_SEQ",
    "TP_BYTES_RECEIVED",
];

#[cfg(test)]
mod tests {
    use super::*;
    use graylag_ebpf::offsets::OFFSETS;

    #[test]
    fn every_member_is_one_that_is_looked_up() {
        for program in PROGRAMS {
            for member in program.members {
                assert!(OFFSETS.iter().any(|(name, _)| name == member), "{}: {member}", program.name);
            }
        }
    }

    #[test]
    fn every_offset_has_a_reader() {
        for (offset, _) in OFFSETS {
            assert!(PROGRAMS.iter().any(|p| p.members.contains(offset)), "{offset} is read by no program");
        }
    }

    #[test]
    fn signals_need_programs_that_exist_and_every_program_serves_one() {
        let needed: Vec<&str> =
            Signal::ALL.iter().flat_map(|s| s.needs()).flat_map(|any| any.iter()).copied().collect();
        for name in &needed {
            assert!(PROGRAMS.iter().any(|p| p.name == *name), "{name}");
        }
        for program in PROGRAMS {
            assert!(needed.contains(&program.name), "{}", program.name);
        }
    }

    #[test]
    fn every_need_says_what_is_lost_without_it() {
        for signal in Signal::ALL {
            let lost: Vec<&str> = (0..signal.needs().len()).map(|need| signal.loses(need)).collect();
            assert!(lost.iter().all(|text| !text.is_empty()), "{}: {lost:?}", signal.name());
            assert_eq!(lost[0], "all of it");
        }
    }

    #[test]
    fn alternatives_are_programs_loaded_before() {
        for (i, program) in PROGRAMS.iter().enumerate() {
            for other in program.instead_of {
                assert!(PROGRAMS[..i].iter().any(|p| p.name == *other), "{}: {other}", program.name);
            }
        }
    }
}
