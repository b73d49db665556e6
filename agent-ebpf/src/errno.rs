//! The error numbers a TCP socket ends with (`include/uapi/asm-generic/errno.h`; the same on x86-64 and arm64).

/// No route to the network.
pub const ENETUNREACH: u32 = 101;
/// The local network is down.
pub const ENETDOWN: u32 = 100;
/// Aborted by this host (`ss --kill`, `SOCK_DESTROY`).
pub const ECONNABORTED: u32 = 103;
/// Reset by the peer.
pub const ECONNRESET: u32 = 104;
/// Reset by the peer while it had already closed its side.
pub const EPIPE: u32 = 32;
/// No answer in time.
pub const ETIMEDOUT: u32 = 110;
/// A RST answered the SYN.
pub const ECONNREFUSED: u32 = 111;
/// ICMP: host down.
pub const EHOSTDOWN: u32 = 112;
/// ICMP: host unreachable.
pub const EHOSTUNREACH: u32 = 113;
/// ICMP: protocol unreachable (`icmp_err_convert`).
pub const ENOPROTOOPT: u32 = 92;
/// ICMP: fragmentation needed and cannot be done.
pub const EMSGSIZE: u32 = 90;
/// ICMP: administratively prohibited, IPv6 (`tab_unreach`).
pub const EACCES: u32 = 13;
/// ICMP: parameter problem.
pub const EPROTO: u32 = 71;
