//! UDP with what the kernel knows of each datagram: when it came (`SO_TIMESTAMPNS`), with which TTL, to which of this host's
//! addresses, and how many before it found the buffer full (`SO_RXQ_OVFL`).

use std::{
    io::{self, IoSlice, IoSliceMut},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6, UdpSocket},
    os::fd::{AsFd, AsRawFd, BorrowedFd},
    time::Duration,
};

use nix::libc::{
    SO_EE_ORIGIN_ICMP, SO_EE_ORIGIN_ICMP6, in_pktinfo, in6_pktinfo, sock_extended_err, sockaddr_in6,
};
use nix::sys::{
    socket::{
        ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, sendmsg, setsockopt, sockopt,
    },
    time::TimeSpec,
};
use rustix::net::sockopt as options;
use thiserror::Error;

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

/// To which of this host's addresses a datagram came: the reply leaves from there.
#[derive(Clone, Copy)]
enum Local {
    V4(in_pktinfo),
    V6(in6_pktinfo),
}

/// A datagram, without its octets.
pub struct Datagram {
    /// How many there are.
    pub length: usize,
    /// Where it came from; IPv4 is IPv4, whatever the socket.
    pub from: SocketAddr,
    /// When, by the wall clock, since 1970. The kernel's word.
    pub at: Option<Duration>,
    /// TTL or hop limit, 0 where the kernel did not say.
    pub ttl: u8,
    /// Datagrams, in all, that found the buffer full.
    pub overflowed: Option<u32>,
    back: SockaddrStorage,
    local: Option<Local>,
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
        UdpSocket::bind(address).and_then(|socket| Self::new(socket, address.is_ipv6())).map_err(|error| {
            match error.kind() {
                io::ErrorKind::AddrInUse => SocketError::InUse(address),
                io::ErrorKind::PermissionDenied => SocketError::Forbidden(address),
                _ => SocketError::Bind(address, error),
            }
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
        setsockopt(&socket, sockopt::RxqOvfl, &1)?;
        if is_ipv6 {
            setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)?;
            setsockopt(&socket, sockopt::Ipv6RecvHopLimit, &true)?;
            options::set_ipv6_unicast_hops(&socket, Some(TTL))?;
        } else {
            setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)?;
        }
        // IPv4 through a socket of both families has these too; where there is no such thing, nobody misses it.
        let _ = setsockopt(&socket, sockopt::Ipv4RecvTtl, &true);
        let _ = options::set_ip_ttl(&socket, TTL.into());
        let _ = options::set_socket_recv_buffer_size(&socket, RECEIVE_BUFFER);
        let control = nix::cmsg_space!(
            TimeSpec,
            in_pktinfo,
            in6_pktinfo,
            i32,
            i32,
            u32,
            sock_extended_err,
            sockaddr_in6
        );
        Ok(Self { socket, control })
    }

    /// Its own address.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// The next datagram, where one waits.
    pub fn receive(&mut self, octets: &mut [u8]) -> io::Result<Option<Datagram>> {
        let mut parts = [IoSliceMut::new(octets)];
        let received = recvmsg::<SockaddrStorage>(
            self.socket.as_raw_fd(),
            &mut parts,
            Some(&mut self.control),
            MsgFlags::MSG_DONTWAIT,
        );
        let received = match received {
            Ok(received) => received,
            Err(nix::Error::EAGAIN) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let back = received.address.ok_or(io::ErrorKind::InvalidData)?;
        let from = address_of(&back).ok_or(io::ErrorKind::InvalidData)?;
        let mut datagram =
            Datagram { length: received.bytes, from, at: None, ttl: 0, overflowed: None, back, local: None };
        for message in received.cmsgs()? {
            match message {
                ControlMessageOwned::ScmTimestampns(time) => datagram.at = Some(time.into()),
                ControlMessageOwned::Ipv4PacketInfo(info) => datagram.local = Some(Local::V4(info)),
                ControlMessageOwned::Ipv6PacketInfo(info) => datagram.local = Some(Local::V6(info)),
                ControlMessageOwned::Ipv4Ttl(ttl) | ControlMessageOwned::Ipv6HopLimit(ttl) => {
                    datagram.ttl = u8::try_from(ttl).unwrap_or(0);
                }
                ControlMessageOwned::RxqOvfl(count) => datagram.overflowed = Some(count),
                _ => {}
            }
        }
        Ok(Some(datagram))
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

    /// Sends to an address of the socket's family. An ICMP error of an earlier packet fails it once (`sock_alloc_send_pskb`
    /// takes `sk_err`), and is none of this one's: it is tried again.
    pub fn send(&self, octets: &[u8], to: SocketAddr) -> io::Result<()> {
        let sent = self.socket.send_to(octets, to);
        let sent = if sent.is_err() { self.socket.send_to(octets, to) } else { sent };
        sent.map(drop)
    }

    /// Answers a datagram, from the address it came to.
    pub fn answer(&self, octets: &[u8], datagram: &Datagram) -> io::Result<()> {
        let (v4, v6);
        let messages: &[ControlMessage<'_>] = match datagram.local {
            Some(Local::V4(mut info)) => {
                // The way back is the routing table's.
                info.ipi_ifindex = 0;
                v4 = info;
                &[ControlMessage::Ipv4PacketInfo(&v4)]
            }
            Some(Local::V6(mut info)) => {
                let link_local = matches!(datagram.from.ip(), IpAddr::V6(v6) if v6.is_unicast_link_local());
                if !link_local {
                    info.ipi6_ifindex = 0;
                }
                v6 = info;
                &[ControlMessage::Ipv6PacketInfo(&v6)]
            }
            None => &[],
        };
        let parts = [IoSlice::new(octets)];
        sendmsg(self.socket.as_raw_fd(), &parts, messages, MsgFlags::MSG_DONTWAIT, Some(&datagram.back))?;
        Ok(())
    }
}

fn address_of(storage: &SockaddrStorage) -> Option<SocketAddr> {
    let address = match (storage.as_sockaddr_in(), storage.as_sockaddr_in6()) {
        (Some(v4), _) => SocketAddr::V4(SocketAddrV4::from(*v4)),
        (_, Some(v6)) => SocketAddr::V6(SocketAddrV6::from(*v6)),
        _ => return None,
    };
    Some(match address.ip().to_canonical() {
        IpAddr::V4(v4) => SocketAddr::from((v4, address.port())),
        IpAddr::V6(_) => address,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_tells_time_ttl_and_address() {
        for listen in ["127.0.0.1:0", "[::1]:0", "[::]:0"] {
            let mut server = Socket::listen(listen.parse().unwrap()).unwrap();
            let port = server.address().unwrap().port();
            // To a socket of both families an IPv4 datagram comes as one.
            let to: SocketAddr = if listen == "[::1]:0" {
                ([0, 0, 0, 0, 0, 0, 0, 1], port).into()
            } else {
                ([127, 0, 0, 1], port).into()
            };
            let mut client = Socket::sender(to.is_ipv6()).unwrap();
            let mut octets = [0; 100];
            assert!(server.receive(&mut octets).unwrap().is_none());
            client.send(b"there", to).unwrap();
            let there = server.receive(&mut octets).unwrap().unwrap();
            assert_eq!((&octets[..there.length], there.ttl), (&b"there"[..], TTL), "{listen}");
            assert!(there.at.is_some() && there.local.is_some());
            assert_eq!(there.from.is_ipv4(), to.is_ipv4());
            server.answer(b"back", &there).unwrap();
            let back = client.receive(&mut octets).unwrap().unwrap();
            assert_eq!((&octets[..back.length], back.from), (&b"back"[..], to));
        }
    }

    #[test]
    fn a_port_without_a_listener_is_told_with_what_was_sent() {
        for host in ["127.0.0.1", "::1"] {
            let host: IpAddr = host.parse().unwrap();
            let closed = UdpSocket::bind((host, 0)).unwrap().local_addr().unwrap();
            let mut server = Socket::listen((host, 0).into()).unwrap();
            let open = server.address().unwrap();
            let mut client = Socket::sender(host.is_ipv6()).unwrap();
            let mut octets = [0; 100];
            assert!(client.refused(&mut octets).unwrap().is_none());
            client.send(b"nobody", closed).unwrap();
            // The error that waits is not the next packet's.
            client.send(b"there", open).unwrap();
            let refused = client.refused(&mut octets).unwrap().unwrap();
            assert_eq!(
                (&octets[..refused.length], refused.to, refused.port),
                (&b"nobody"[..], Some(closed), true)
            );
            assert!(client.refused(&mut octets).unwrap().is_none());
            assert!(
                server.receive(&mut octets).unwrap().is_some()
                    && client.receive(&mut octets).unwrap().is_none()
            );
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
