//! The programs: where each attaches, and what it needs of the kernel.

pub use super::signal::Signal;

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
