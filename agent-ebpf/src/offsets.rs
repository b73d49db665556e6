//! Kernel structure members that the programs read, by name.
//!
//! No offset is known here: user space looks each member up in the running kernel's BTF and hands it over as a
//! frozen global of the same name (`aya::EbpfLoader::override_global`). A member that the kernel does not have is
//! [`MISSING`], and the programs that need it are not loaded.

/// Value of an offset that the running kernel does not have.
pub const MISSING: u32 = u32::MAX;

/// Calls `$callback!` with `(NAME, "structure.member")` for every member.
#[macro_export]
macro_rules! for_each_offset {
    ($callback:ident) => {
        $callback! {
            (SKC_FAMILY, "sock_common.skc_family"),
            (SKC_STATE, "sock_common.skc_state"),
            (SKC_NUM, "sock_common.skc_num"),
            (SKC_DPORT, "sock_common.skc_dport"),
            (SKC_DADDR, "sock_common.skc_daddr"),
            (SKC_RCV_SADDR, "sock_common.skc_rcv_saddr"),
            (SKC_V6_DADDR, "sock_common.skc_v6_daddr"),
            (SKC_V6_RCV_SADDR, "sock_common.skc_v6_rcv_saddr"),
            (SKC_NET, "sock_common.skc_net.net"),
            (NET_INUM, "net.ns.inum"),
            (NET_SYNCOOKIES, "net.ipv4.sysctl_tcp_syncookies"),
            (SK_PROTOCOL, "sock.sk_protocol"),
            (SK_ERR, "sock.sk_err"),
            (SK_ERR_SOFT, "sock.sk_err_soft"),
            (SK_SHUTDOWN, "sock.sk_shutdown"),
            (SK_RMEM_ALLOC, "sock.sk_backlog.rmem_alloc.counter"),
            (UDP_FORWARD_DEFICIT, "udp_sock.forward_deficit"),
            (SOCKET_SK, "socket.sk"),
            (TASK_TGID, "task_struct.tgid"),
            (TASK_COMM, "task_struct.comm"),
            (TASK_PID, "task_struct.pid"),
            (TASK_NSPROXY, "task_struct.nsproxy"),
            (NSPROXY_NET, "nsproxy.net_ns"),
            (TASK_CGROUPS, "task_struct.cgroups"),
            (CSS_SET_CGROUP, "css_set.dfl_cgrp"),
            (CGROUP_NODE, "cgroup.kn"),
            (KERNFS_ID, "kernfs_node.id"),
            (SK_ACK_BACKLOG, "sock.sk_ack_backlog"),
            (SK_MAX_ACK_BACKLOG, "sock.sk_max_ack_backlog"),
            (ICSK_QLEN, "inet_connection_sock.icsk_accept_queue.qlen.counter"),
            (ICSK_CA_STATE, "inet_connection_sock.icsk_ca_state"),
            (TP_SRTT_US, "tcp_sock.srtt_us"),
            (TP_SEGS_IN, "tcp_sock.segs_in"),
            (TP_SEGS_OUT, "tcp_sock.segs_out"),
            (TP_DSACK_DUPS, "tcp_sock.dsack_dups"),
            (TP_SND_UNA, "tcp_sock.snd_una"),
            (TP_WRITE_SEQ, "tcp_sock.write_seq"),
            (TP_BYTES_RECEIVED, "tcp_sock.bytes_received"),
            (SKB_HEAD, "sk_buff.head"),
            (SKB_NETWORK_HEADER, "sk_buff.network_header"),
            (SKB_PROTOCOL, "sk_buff.protocol"),
            (SKB_IIF, "sk_buff.skb_iif"),
            (SKB_DEV, "sk_buff.dev"),
            (SKB_SK, "sk_buff.sk"),
            (SKB_CB, "sk_buff.cb"),
            (DEV_NET, "net_device.nd_net.net"),
            (TCP_CB_GSO_SEGS, "tcp_skb_cb.tcp_gso_segs")
        }
    };
}

macro_rules! table {
    ($(($name:ident, $path:literal)),*) => {
        /// `(global, "structure.member")` of every offset.
        pub const OFFSETS: &[(&str, &str)] = &[$((stringify!($name), $path)),*];
    };
}
for_each_offset!(table);
