//! What the kernel's drop reasons mean, by name. Numbers differ from kernel to kernel, names are only added to.

use super::Blame;

/// How a drop reason is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DropClass {
    /// No loss at all: queues of dead sockets, duplicates, copies for others. Not counted.
    Benign,
    /// There was no room, or no CPU: this host loses what it should have carried. Judged.
    Capacity(Blame),
    /// Somebody configured it: firewall, filter, policy.
    Policy,
    /// The packet was broken when it came: the path's doing.
    Damage,
    /// Everything else: no socket, out of window, a reason newer than this program. Counted, not judged.
    Other,
}

/// Reasons that are no loss.
pub const BENIGN: &[&str] = &[
    "NOT_DROPPED_YET",
    // Packets of a socket that is being closed.
    "QUEUE_PURGE",
    "SOCKET_CLOSE",
    "UNIX_DISCONNECT",
    "UNIX_SKIP_OOB",
    // Duplicates and late comers that TCP has no use for.
    "TCP_INVALID_SYN",
    "TCP_OLD_DATA",
    "TCP_OLD_ACK",
    "TCP_OLD_SEQUENCE",
    "TCP_OFOMERGE",
    "TCP_RFC7323_PAWS_ACK",
    "DUP_FRAG",
    // RSTs and FINs that did their work.
    "TCP_RESET",
    "TCP_CLOSE",
    // Copies meant for others.
    "OTHERHOST",
    "UNICAST_IN_L2_MULTICAST",
    "UNHANDLED_PROTO",
    "IPV6_NDISC_NS_OTHERHOST",
    "PACKET_SOCK_ERROR",
    "TAP_FILTER",
    "TAP_TXFILTER",
];

/// How to read a reason.
pub fn class(reason: &str) -> DropClass {
    if BENIGN.contains(&reason) {
        return DropClass::Benign;
    }
    match reason {
        "SOCKET_RCVBUFF"
        | "SOCKET_BACKLOG"
        | "TCP_OFO_QUEUE_PRUNE"
        | "TCP_OFO_DROP"
        | "TCP_LISTEN_OVERFLOW" => DropClass::Capacity(Blame::LocalProcess),
        "PROTO_MEM" | "CPU_BACKLOG" | "QDISC_DROP" | "QDISC_OVERLIMIT" | "QDISC_CONGESTED" | "CAKE_FLOOD"
        | "FQ_BAND_LIMIT" | "FQ_FLOW_LIMIT" | "FQ_HORIZON_LIMIT" | "DUALPI2_STEP_DROP" | "FULL_RING"
        | "NOMEM" | "NEIGH_QUEUEFULL" | "NEIGH_CREATEFAIL" | "PFMEMALLOC" | INTERFACE_MISSED
        | INTERFACE_FIFO | SOFTNET => DropClass::Capacity(Blame::LocalHost),
        "NETFILTER_DROP" | "SOCKET_FILTER" | "XDP" | "TC_INGRESS" | "TC_EGRESS" | "BPF_CGROUP_EGRESS"
        | "SECURITY_HOOK" | "XFRM_POLICY" | "IP_RPFILTER" | "TCP_MINTTL" | "IPV6DISABLED" => {
            DropClass::Policy
        }
        "TCP_CSUM" | "UDP_CSUM" | "IP_CSUM" | "ICMP_CSUM" | "SKB_CSUM" | "PKT_TOO_SMALL" | "HDR_TRUNC"
        | "IP_INHDR" | "IPV6_BAD_EXTHDR" | "FRAG_REASM_TIMEOUT" | "FRAG_TOO_FAR" => DropClass::Damage,
        _ => DropClass::Other,
    }
}

/// The interface had no buffer for a frame (`rx_missed_errors`): lost before the kernel saw it.
pub const INTERFACE_MISSED: &str = "INTERFACE_MISSED";
/// The interface's own queue overran (`rx_fifo_errors`).
pub const INTERFACE_FIFO: &str = "INTERFACE_FIFO";
/// Second column of `/proc/net/softnet_stat`, where the kernel gives no reasons.
pub const SOFTNET: &str = "SOFTNET_BACKLOG";

impl DropClass {
    /// The value of `graylag.drop.side`.
    pub const fn side(self) -> &'static str {
        match self {
            Self::Damage => "path",
            _ => "host",
        }
    }
}
