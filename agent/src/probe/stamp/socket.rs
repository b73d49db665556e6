//! UDP with what the kernel knows of each datagram: when it came (`SO_TIMESTAMPNS`), with which TTL, to which of this host's
//! addresses, and how many before it found the buffer full (`SO_RXQ_OVFL`).

use std::{
    io::{self, IoSliceMut},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    os::fd::{AsFd, AsRawFd, BorrowedFd},
    time::Duration,
};

use nix::libc::{
    self, SO_EE_ORIGIN_ICMP, SO_EE_ORIGIN_ICMP6, c_int, in_pktinfo, in6_pktinfo, sock_extended_err,
    sockaddr_in6,
};
use nix::sys::{
    socket::{ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, setsockopt, sockopt},
    time::TimeSpec,
};
use rustix::net::sockopt::{self as options, Ipv4PathMtuDiscovery};
use thiserror::Error;

use super::batch::{Arrived, Incoming, Message, Outgoing, RawAddress, canonical};

/// Datagrams that wait while a round goes on, in octets of kernel memory; the kernel's own limit goes before it.
const RECEIVE_BUFFER: usize = 1 << 20;
/// TTL of what is sent: the other end tells the number of hops by it.
const TTL: u8 = 255;

/// Why there is no socket.
#[derive(Debug, Error)]
pub enum SocketError {
    /// Another program has the port.
    #[error("`[stamp] listen`: another program has {0}; stop it, or listen on another port")]
    InUse(SocketAddr),
    /// A port below 1024.
    #[error("`[stamp] listen`: {0} takes CAP_NET_BIND_SERVICE; add it, or listen on a port from 1024 on")]
    Forbidden(SocketAddr),
    /// Anything else.
    #[error("`[stamp] listen`: {0}: {1}; name an address of this host")]
    Bind(SocketAddr, io::Error),
    /// No socket to send from.
    #[error("no socket for probes: {0}")]
    Sender(io::Error),
}

/// To which of this host's addresses a datagram came, as the kernel says it: the reply leaves from there.
#[derive(Clone, Copy)]
enum Local {
    V4([u8; size_of::<in_pktinfo>()]),
    V6([u8; size_of::<in6_pktinfo>()]),
}

impl Local {
    fn message(&self) -> Message<'_> {
        match self {
            Self::V4(info) => (libc::IPPROTO_IP, libc::IP_PKTINFO, info),
            Self::V6(info) => (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, info),
        }
    }
}

/// A datagram, and what the kernel says of it.
pub struct Datagram<'a> {
    /// What it holds.
    pub octets: &'a [u8],
    /// Where it came from; IPv4 is IPv4, whatever the socket.
    pub from: SocketAddr,
    /// When, by the wall clock, since 1970. The kernel's word.
    pub at: Option<Duration>,
    /// TTL or hop limit, 0 where the kernel did not say.
    pub ttl: u8,
    /// Datagrams, in all, that found the buffer full.
    pub overflowed: Option<u32>,
    back: RawAddress,
    local: Option<Local>,
}

impl<'a> Datagram<'a> {
    /// Of what came; nothing where it came from nowhere.
    pub fn of(arrived: &Arrived<'a>) -> Option<Self> {
        let from = canonical(arrived.from.address()?);
        let mut datagram = Self {
            octets: arrived.octets,
            from,
            at: None,
            ttl: 0,
            overflowed: None,
            back: arrived.from,
            local: None,
        };
        for (level, kind, data) in arrived.messages() {
            match (level, kind) {
                (libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS) => datagram.at = timespec(data),
                (libc::SOL_SOCKET, libc::SO_RXQ_OVFL) => {
                    datagram.overflowed = data.try_into().ok().map(u32::from_ne_bytes);
                }
                (libc::IPPROTO_IP, libc::IP_PKTINFO) => datagram.local = data.try_into().ok().map(Local::V4),
                (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                    datagram.local = data.try_into().ok().map(Local::V6);
                }
                (libc::IPPROTO_IP, libc::IP_TTL) | (libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT) => {
                    let ttl = data.try_into().ok().map(c_int::from_ne_bytes);
                    datagram.ttl = ttl.and_then(|ttl| u8::try_from(ttl).ok()).unwrap_or(0);
                }
                _ => {}
            }
        }
        Some(datagram)
    }

    /// Puts the answer among what is to leave, from the address that this came to.
    pub fn answer(&self, octets: &[u8], outgoing: &mut Outgoing) {
        let mut local = self.local;
        match &mut local {
            // The way back is the routing table's. `ipi_ifindex` is the first member.
            Some(Local::V4(info)) => info[..4].fill(0),
            Some(Local::V6(info)) => {
                let is_link_local = matches!(self.from.ip(), IpAddr::V6(v6) if v6.is_unicast_link_local());
                if !is_link_local {
                    // `ipi6_ifindex` is the last one.
                    info[16..].fill(0);
                }
            }
            None => {}
        }
        outgoing.push(octets, self.back, local.as_ref().map(Local::message));
    }
}

/// `struct timespec`: two words.
fn timespec(data: &[u8]) -> Option<Duration> {
    let (seconds, rest) = data.split_first_chunk()?;
    let (seconds, nanos) = (i64::from_ne_bytes(*seconds), i64::from_ne_bytes(*rest.first_chunk()?));
    Some(Duration::new(seconds.try_into().ok()?, nanos.try_into().ok()?))
}

/// What an ICMP error says of a datagram that was sent.
pub struct Unreachable {
    /// Octets that it quotes of what was sent.
    pub length: usize,
    /// Where that was sent to.
    pub to: Option<SocketAddr>,
    /// Whether nobody listens at that port.
    pub port: bool,
}

/// RFC 792: destination unreachable, port unreachable; RFC 4443, 3.1: the same.
fn is_port_unreachable(error: &sock_extended_err) -> bool {
    let said = (error.ee_origin, error.ee_type, error.ee_code);
    said == (SO_EE_ORIGIN_ICMP, 3, 3) || said == (SO_EE_ORIGIN_ICMP6, 1, 4)
}

/// A socket; nothing it does waits.
pub struct Socket {
    socket: UdpSocket,
    control: Vec<u8>,
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Socket {
    /// A reflector's socket.
    pub fn listen(address: SocketAddr) -> Result<Self, SocketError> {
        let told = |socket: Self| {
            // Of replies nobody asks these, and each of them costs.
            setsockopt(&socket.socket, sockopt::RxqOvfl, &1)?;
            if address.is_ipv6() {
                setsockopt(&socket.socket, sockopt::Ipv6RecvPacketInfo, &true)?;
                setsockopt(&socket.socket, sockopt::Ipv6RecvHopLimit, &true)?;
            } else {
                setsockopt(&socket.socket, sockopt::Ipv4PacketInfo, &true)?;
            }
            // IPv4 through a socket of both families has it too; where there is no such thing, nobody misses it.
            let _ = setsockopt(&socket.socket, sockopt::Ipv4RecvTtl, &true);
            Ok(socket)
        };
        UdpSocket::bind(address)
            .and_then(|socket| Self::new(socket, address.is_ipv6()))
            .and_then(told)
            .map_err(|error| match error.kind() {
                io::ErrorKind::AddrInUse => SocketError::InUse(address),
                io::ErrorKind::PermissionDenied => SocketError::Forbidden(address),
                _ => SocketError::Bind(address, error),
            })
    }

    /// A sender's socket of one family, on a port of its own.
    pub fn sender(is_ipv6: bool) -> Result<Self, SocketError> {
        let any: IpAddr = if is_ipv6 { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
        let told = |socket: Self| {
            // ICMP errors go into the error queue, each with the packet that it quotes.
            if is_ipv6 {
                setsockopt(&socket.socket, sockopt::Ipv6RecvErr, &true)?;
            } else {
                setsockopt(&socket.socket, sockopt::Ipv4RecvErr, &true)?;
                // Test packets are small: what is never to be cut up needs no number for its pieces (`ip_select_ident`).
                options::set_ip_mtu_discover(&socket.socket, Ipv4PathMtuDiscovery::PROBE)?;
            }
            Ok(socket)
        };
        UdpSocket::bind((any, 0))
            .and_then(|socket| Self::new(socket, is_ipv6))
            .and_then(told)
            .map_err(SocketError::Sender)
    }

    fn new(socket: UdpSocket, is_ipv6: bool) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        setsockopt(&socket, sockopt::ReceiveTimestampns, &true)?;
        if is_ipv6 {
            options::set_ipv6_unicast_hops(&socket, Some(TTL))?;
        }
        // IPv4 through a socket of both families has one too; where there is no such thing, nobody misses it.
        let _ = options::set_ip_ttl(&socket, TTL.into());
        let _ = options::set_socket_recv_buffer_size(&socket, RECEIVE_BUFFER);
        // Of errors that wait: what came is read elsewhere.
        let control = nix::cmsg_space!(TimeSpec, sock_extended_err, sockaddr_in6);
        Ok(Self { socket, control })
    }

    /// Its own address.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Takes the datagrams that wait, as far as there is room; how many there were.
    pub fn receive(&self, incoming: &mut Incoming) -> io::Result<usize> {
        incoming.receive(self.socket.as_fd())
    }

    /// Sends what is to leave; `refused` is told which did not.
    pub fn send(&self, outgoing: &mut Outgoing, refused: impl FnMut(usize)) {
        outgoing.send(self.socket.as_fd(), refused);
    }

    /// The next ICMP error of what was sent, where one waits; what is quoted of the datagram is put into `octets`. An error that
    /// waits keeps the socket readable, and fails the next send, to whomever (`sk_err`).
    pub fn refused(&mut self, octets: &mut [u8]) -> io::Result<Option<Unreachable>> {
        let mut parts = [IoSliceMut::new(octets)];
        let flags = MsgFlags::MSG_ERRQUEUE | MsgFlags::MSG_DONTWAIT;
        let received =
            recvmsg::<SockaddrStorage>(self.socket.as_raw_fd(), &mut parts, Some(&mut self.control), flags);
        let received = match received {
            Ok(received) => received,
            Err(nix::Error::EAGAIN) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let to = received.address.as_ref().and_then(address_of);
        let mut unreachable = Unreachable { length: received.bytes, to, port: false };
        for message in received.cmsgs()? {
            if let ControlMessageOwned::Ipv4RecvErr(error, _) | ControlMessageOwned::Ipv6RecvErr(error, _) =
                message
            {
                unreachable.port |= is_port_unreachable(&error);
            }
        }
        Ok(Some(unreachable))
    }
}

fn address_of(storage: &SockaddrStorage) -> Option<SocketAddr> {
    let address = match (storage.as_sockaddr_in(), storage.as_sockaddr_in6()) {
        (Some(v4), _) => SocketAddr::V4((*v4).into()),
        (_, Some(v6)) => SocketAddr::V6((*v6).into()),
        _ => return None,
    };
    Some(canonical(address))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn send(socket: &Socket, octets: &[u8], to: SocketAddr) {
        let mut outgoing = Outgoing::default();
        outgoing.push(octets, to.into(), None);
        socket.send(&mut outgoing, |_| panic!("not sent"));
    }

    #[test]
    fn the_kernel_tells_time_ttl_and_address() {
        for listen in ["127.0.0.1:0", "[::1]:0", "[::]:0"] {
            let server = Socket::listen(listen.parse().unwrap()).unwrap();
            let port = server.address().unwrap().port();
            // To a socket of both families an IPv4 datagram comes as one.
            let to: SocketAddr = if listen == "[::1]:0" {
                ([0, 0, 0, 0, 0, 0, 0, 1], port).into()
            } else {
                ([127, 0, 0, 1], port).into()
            };
            let client = Socket::sender(to.is_ipv6()).unwrap();
            let (mut incoming, mut outgoing) = (Incoming::default(), Outgoing::default());
            // What the kernel wrote for one call is not taken for room in the next.
            for _ in 0..3 {
                assert_eq!(server.receive(&mut incoming).unwrap(), 0);
                send(&client, b"there", to);
                assert_eq!(server.receive(&mut incoming).unwrap(), 1);
                let arrived = incoming.each(1).next().unwrap();
                let there = Datagram::of(&arrived).unwrap();
                assert_eq!((there.octets, there.ttl), (&b"there"[..], TTL), "{listen}");
                assert!(there.at.is_some() && there.local.is_some());
                assert_eq!(there.from.is_ipv4(), to.is_ipv4());
                there.answer(b"back", &mut outgoing);
                server.send(&mut outgoing, |_| panic!("no answer"));
                assert_eq!(client.receive(&mut incoming).unwrap(), 1);
                let arrived = incoming.each(1).next().unwrap();
                let back = Datagram::of(&arrived).unwrap();
                assert!(back.at.is_some());
                assert_eq!((back.octets, back.from), (&b"back"[..], to));
            }
        }
    }

    #[test]
    fn each_answer_leaves_from_the_address_that_was_asked() {
        let server = Socket::listen("0.0.0.0:0".parse().unwrap()).unwrap();
        let port = server.address().unwrap().port();
        let client = Socket::sender(false).unwrap();
        let (mut incoming, mut outgoing) = (Incoming::default(), Outgoing::default());
        let asked: Vec<SocketAddr> = (1..6).map(|i| ([127, 0, 0, i], port).into()).collect();
        for to in &asked {
            send(&client, b"there", *to);
        }
        let count = server.receive(&mut incoming).unwrap();
        for arrived in incoming.each(count) {
            Datagram::of(&arrived).unwrap().answer(b"back", &mut outgoing);
        }
        server.send(&mut outgoing, |_| panic!("no answer"));
        let count = client.receive(&mut incoming).unwrap();
        let from: Vec<_> = incoming.each(count).map(|arrived| Datagram::of(&arrived).unwrap().from).collect();
        assert_eq!(from, asked);
    }

    #[test]
    fn a_port_without_a_listener_is_told_with_what_was_sent() {
        for host in ["127.0.0.1", "::1"] {
            let host: IpAddr = host.parse().unwrap();
            let closed = UdpSocket::bind((host, 0)).unwrap().local_addr().unwrap();
            let server = Socket::listen((host, 0).into()).unwrap();
            let open = server.address().unwrap();
            let mut client = Socket::sender(host.is_ipv6()).unwrap();
            let mut octets = [0; 100];
            assert!(client.refused(&mut octets).unwrap().is_none());
            send(&client, b"nobody", closed);
            // The error that waits is not the next packet's.
            send(&client, b"there", open);
            let refused = client.refused(&mut octets).unwrap().unwrap();
            assert_eq!(
                (&octets[..refused.length], refused.to, refused.port),
                (&b"nobody"[..], Some(closed), true)
            );
            assert!(client.refused(&mut octets).unwrap().is_none());
            let mut incoming = Incoming::default();
            assert_eq!(server.receive(&mut incoming).unwrap(), 1);
            assert_eq!(client.receive(&mut incoming).unwrap(), 0);
        }
    }

    #[test]
    fn a_port_in_use_is_named_with_the_remedy() {
        let first = Socket::listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let Err(error) = Socket::listen(first.address().unwrap()) else { panic!("twice") };
        let text = error.to_string();
        assert!(text.starts_with("`[stamp] listen`: another program has 127.0.0.1:"), "{text}");
    }
}
