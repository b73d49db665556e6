//! Many datagrams in one system call, each with addresses and control messages of its own (`recvmmsg`, `sendmmsg`).
//!
//! nix has these calls, but its headers keep the sizes that the kernel wrote into them for the next call (0.31,
//! `MultiHeaders`: what follows is cut), and what it sends shares one set of control messages, while replies leave from different
//! addresses. The layouts read and written here are the kernel's own: `struct sockaddr_in`, `sockaddr_in6` and `cmsghdr`.
#![allow(unsafe_code)] // Two system calls.

use std::{
    io, mem,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6},
    ops::Range,
    os::fd::{AsRawFd, BorrowedFd},
    ptr,
};

use nix::libc::{self, c_int, iovec, mmsghdr};

/// Datagrams in one call. Of those that leave together the last is the later for it, by some microseconds each.
pub const MOST: usize = 16;
/// Largest UDP datagram.
const LARGEST: usize = 65_535;
/// From one datagram's place to the next: memory that is not touched is not taken, and not all begin in the same line of a cache.
const STRIDE: usize = (1 << 16) + 4096 + 64;
/// Room for a datagram's control messages: those that [`super::socket`] asks for take 128 octets at most.
const CONTROL: usize = 192;

/// `struct sockaddr_in6`, the larger of both.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(8))]
struct Name([u8; 28]);

#[derive(Clone, Copy, Debug)]
#[repr(C, align(8))]
struct Control([u8; CONTROL]);

/// An address as the kernel has it.
#[derive(Clone, Copy, Debug)]
pub struct RawAddress {
    name: Name,
    length: u32,
}

impl RawAddress {
    const NONE: Self = Self { name: Name([0; 28]), length: 0 };

    /// As others have it; an IPv4 address of a socket of both families stays what it is there.
    pub fn address(&self) -> Option<SocketAddr> {
        let name = self.name.0.get(..self.length as usize)?;
        let family = u16::from_ne_bytes(at(name, 0)?);
        let port = u16::from_be_bytes(at(name, 2)?);
        match c_int::from(family) {
            libc::AF_INET => Some((Ipv4Addr::from(at::<4>(name, 4)?), port).into()),
            libc::AF_INET6 => {
                let flow = u32::from_ne_bytes(at(name, 4)?);
                let address = Ipv6Addr::from(at::<16>(name, 8)?);
                let scope = u32::from_ne_bytes(at(name, 24)?);
                Some(SocketAddrV6::new(address, port, flow, scope).into())
            }
            _ => None,
        }
    }
}

impl From<SocketAddr> for RawAddress {
    fn from(address: SocketAddr) -> Self {
        let mut name = [0; 28];
        name[2..4].copy_from_slice(&address.port().to_be_bytes());
        let (family, length) = match address {
            SocketAddr::V4(v4) => {
                name[4..8].copy_from_slice(&v4.ip().octets());
                (libc::AF_INET, 16)
            }
            SocketAddr::V6(v6) => {
                name[4..8].copy_from_slice(&v6.flowinfo().to_ne_bytes());
                name[8..24].copy_from_slice(&v6.ip().octets());
                name[24..28].copy_from_slice(&v6.scope_id().to_ne_bytes());
                (libc::AF_INET6, 28)
            }
        };
        name[..2].copy_from_slice(&(family as u16).to_ne_bytes());
        Self { name: Name(name), length }
    }
}

/// Octets of a fixed number at a place.
fn at<const N: usize>(octets: &[u8], place: usize) -> Option<[u8; N]> {
    octets.get(place..place + N)?.try_into().ok()
}

/// Octets of `struct cmsghdr`: a length of the machine's word, two numbers of 32 bits.
const HEAD: usize = size_of::<usize>() + 8;

const fn aligned(length: usize) -> usize {
    length.next_multiple_of(size_of::<usize>())
}

/// A control message: level, type, octets.
pub type Message<'a> = (c_int, c_int, &'a [u8]);

/// Reads control messages.
fn messages(control: &[u8]) -> impl Iterator<Item = Message<'_>> {
    let mut rest = control;
    std::iter::from_fn(move || {
        let length = usize::from_ne_bytes(at(rest, 0)?);
        let level = c_int::from_ne_bytes(at(rest, HEAD - 8)?);
        let kind = c_int::from_ne_bytes(at(rest, HEAD - 4)?);
        let data = rest.get(HEAD..length)?;
        rest = rest.get(aligned(length)..).unwrap_or_default();
        Some((level, kind, data))
    })
}

/// Datagrams that came.
pub struct Incoming {
    octets: Box<[u8]>,
    names: [RawAddress; MOST],
    controls: [Control; MOST],
    /// Of each datagram: how many octets, and of which control messages.
    lengths: [(usize, usize); MOST],
}

/// One of them.
pub struct Arrived<'a> {
    /// What it holds.
    pub octets: &'a [u8],
    /// Where it came from.
    pub from: RawAddress,
    control: &'a [u8],
}

impl<'a> Arrived<'a> {
    /// What the kernel says of it.
    pub fn messages(&self) -> impl Iterator<Item = Message<'a>> + use<'a> {
        messages(self.control)
    }
}

impl Default for Incoming {
    fn default() -> Self {
        Self {
            octets: vec![0; MOST * STRIDE].into_boxed_slice(),
            names: [RawAddress::NONE; MOST],
            controls: [Control([0; CONTROL]); MOST],
            lengths: [(0, 0); MOST],
        }
    }
}

impl Incoming {
    /// Takes those that wait, at most [`MOST`], and says how many: fewer are all there were.
    pub fn receive(&mut self, socket: BorrowedFd<'_>) -> io::Result<usize> {
        let mut parts = [iovec { iov_base: ptr::null_mut(), iov_len: 0 }; MOST];
        // SAFETY: a header of zeros is one without any buffers.
        let mut headers: [mmsghdr; MOST] = unsafe { mem::zeroed() };
        let places = self.octets.chunks_exact_mut(STRIDE);
        let rooms = places.zip(&mut self.names).zip(&mut self.controls);
        for ((header, part), ((octets, name), control)) in headers.iter_mut().zip(&mut parts).zip(rooms) {
            *part = iovec { iov_base: octets.as_mut_ptr().cast(), iov_len: LARGEST };
            header.msg_hdr.msg_iov = part;
            header.msg_hdr.msg_iovlen = 1;
            header.msg_hdr.msg_name = name.name.0.as_mut_ptr().cast();
            header.msg_hdr.msg_namelen = size_of::<Name>() as u32;
            header.msg_hdr.msg_control = control.0.as_mut_ptr().cast();
            header.msg_hdr.msg_controllen = CONTROL as _;
        }
        // SAFETY: `MOST` headers, whose pointers are to memory of the lengths beside them: octets, names and control messages of
        // `self`, which is borrowed until the call has returned, and `parts`, which lives as long.
        let came = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                headers.as_mut_ptr(),
                MOST as _,
                libc::MSG_DONTWAIT as _,
                ptr::null_mut(),
            )
        };
        let came = match usize::try_from(came) {
            Ok(came) => came,
            Err(_) => match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::WouldBlock => 0,
                error => return Err(error),
            },
        };
        for ((header, name), length) in headers.iter().zip(&mut self.names).zip(&mut self.lengths).take(came)
        {
            name.length = header.msg_hdr.msg_namelen;
            *length = (header.msg_len as usize, controls(&header.msg_hdr));
        }
        Ok(came)
    }

    /// The first `count` of them.
    pub fn each(&self, count: usize) -> impl Iterator<Item = Arrived<'_>> {
        let places = self.octets.chunks_exact(STRIDE);
        let all = places.zip(&self.names).zip(&self.controls).zip(&self.lengths).take(count);
        all.map(|(((octets, from), control), (length, messages))| Arrived {
            octets: octets.get(..*length).unwrap_or_default(),
            from: *from,
            control: control.0.get(..*messages).unwrap_or_default(),
        })
    }
}

/// Octets of control messages that the kernel wrote. musl has another type for their number than glibc.
#[allow(clippy::unnecessary_cast)]
const fn controls(header: &libc::msghdr) -> usize {
    header.msg_controllen as usize
}

/// Datagrams that are to leave.
#[derive(Default)]
pub struct Outgoing {
    octets: Vec<u8>,
    all: Vec<Leaving>,
}

struct Leaving {
    octets: Range<usize>,
    to: RawAddress,
    control: Control,
    messages: usize,
}

impl Outgoing {
    /// Whether there is room for no more.
    pub fn is_full(&self) -> bool {
        self.all.len() >= MOST
    }

    /// One more, with a control message where there is any. Beyond [`MOST`] there is no place.
    pub fn push(&mut self, octets: &[u8], to: RawAddress, message: Option<Message<'_>>) {
        let begin = self.octets.len();
        self.octets.extend_from_slice(octets);
        let mut control = Control([0; CONTROL]);
        let mut messages = 0;
        if let Some((level, kind, data)) = message {
            let length = HEAD + data.len();
            if let Some(room) = control.0.get_mut(..length) {
                let (head, rest) = room.split_at_mut(HEAD);
                head[..HEAD - 8].copy_from_slice(&length.to_ne_bytes());
                head[HEAD - 8..HEAD - 4].copy_from_slice(&level.to_ne_bytes());
                head[HEAD - 4..].copy_from_slice(&kind.to_ne_bytes());
                rest.copy_from_slice(data);
                messages = aligned(length);
            }
        }
        self.all.push(Leaving { octets: begin..self.octets.len(), to, control, messages });
    }

    /// Sends all of them, and forgets them. `refused` is told which did not leave, by the order in which they came in. An
    /// ICMP error of an earlier datagram fails the next one, whatever that is, once (`sock_alloc_send_pskb` takes `sk_err`): each
    /// is tried again.
    pub fn send(&mut self, socket: BorrowedFd<'_>, mut refused: impl FnMut(usize)) {
        let mut begin = 0;
        let mut again = false;
        while begin < self.all.len() {
            match self.send_from(begin, socket) {
                Ok(left) if left > 0 => (begin, again) = (begin + left, false),
                _ if again => {
                    refused(begin);
                    (begin, again) = (begin + 1, false);
                }
                _ => again = true,
            }
        }
        self.clear();
    }

    /// Forgets all of them.
    pub fn clear(&mut self) {
        self.all.clear();
        self.octets.clear();
    }

    /// Sends those from this one on; how many left. What failed is the next one.
    fn send_from(&mut self, begin: usize, socket: BorrowedFd<'_>) -> io::Result<usize> {
        let mut parts = [iovec { iov_base: ptr::null_mut(), iov_len: 0 }; MOST];
        // SAFETY: a header of zeros is one without any buffers.
        let mut headers: [mmsghdr; MOST] = unsafe { mem::zeroed() };
        let leaving = self.all.get_mut(begin..).unwrap_or_default();
        let count = leaving.len().min(MOST);
        for ((header, part), leaving) in headers.iter_mut().zip(&mut parts).zip(leaving) {
            let octets = self.octets.get_mut(leaving.octets.clone()).unwrap_or_default();
            *part = iovec { iov_base: octets.as_mut_ptr().cast(), iov_len: octets.len() };
            header.msg_hdr.msg_iov = part;
            header.msg_hdr.msg_iovlen = 1;
            header.msg_hdr.msg_name = leaving.to.name.0.as_mut_ptr().cast();
            header.msg_hdr.msg_namelen = leaving.to.length;
            if leaving.messages > 0 {
                header.msg_hdr.msg_control = leaving.control.0.as_mut_ptr().cast();
                header.msg_hdr.msg_controllen = leaving.messages as _;
            }
        }
        // SAFETY: `count` headers of at most `MOST`, whose pointers are to memory of the lengths beside them: octets, addresses and
        // control messages of `self`, which is borrowed until the call has returned, and `parts`, which lives as long.
        let left = unsafe {
            libc::sendmmsg(socket.as_raw_fd(), headers.as_mut_ptr(), count as _, libc::MSG_DONTWAIT as _)
        };
        usize::try_from(left).map_err(|_| io::Error::last_os_error())
    }
}

/// An address without what a socket of both families does to it: IPv4 is IPv4.
pub fn canonical(address: SocketAddr) -> SocketAddr {
    match address.ip().to_canonical() {
        IpAddr::V4(v4) => (v4, address.port()).into(),
        IpAddr::V6(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{net::UdpSocket, os::fd::AsFd};

    #[test]
    fn addresses_are_the_kernels_and_back() {
        for text in ["192.0.2.7:862", "[2001:db8::7]:862", "[fe80::1%3]:9", "[::ffff:192.0.2.7]:1"] {
            let address: SocketAddr = text.parse().unwrap();
            assert_eq!(RawAddress::from(address).address(), Some(address), "{text}");
        }
        assert_eq!(RawAddress::NONE.address(), None);
        assert_eq!(canonical("[::ffff:192.0.2.7]:1".parse().unwrap()), "192.0.2.7:1".parse().unwrap());
    }

    #[test]
    fn many_leave_and_arrive_in_order_each_with_its_own_size() {
        let (here, there) =
            (UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
        let to = there.local_addr().unwrap().into();
        let (mut outgoing, mut incoming) = (Outgoing::default(), Incoming::default());
        assert_eq!(incoming.receive(there.as_fd()).unwrap(), 0);
        let datagram = |i: usize| vec![i as u8; i * 300];
        for round in 0..3 {
            for i in 0..MOST {
                assert!(!outgoing.is_full());
                outgoing.push(&datagram(round + i), to, None);
            }
            assert!(outgoing.is_full());
            outgoing.send(here.as_fd(), |i| panic!("{i} did not leave"));
            assert_eq!(incoming.receive(there.as_fd()).unwrap(), MOST);
            for (i, arrived) in incoming.each(MOST).enumerate() {
                assert_eq!(arrived.octets, datagram(round + i));
                assert_eq!(arrived.from.address(), Some(here.local_addr().unwrap()));
            }
        }
    }

    #[test]
    fn one_that_cannot_leave_keeps_no_other() {
        let (here, there) =
            (UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
        let to = there.local_addr().unwrap().into();
        // Nothing goes to the network from a socket of loopback's address.
        let nowhere = "192.0.2.1:9".parse::<SocketAddr>().unwrap().into();
        let mut outgoing = Outgoing::default();
        for to in [nowhere, to, to, nowhere, nowhere, to] {
            outgoing.push(b"x", to, None);
        }
        let mut refused = Vec::new();
        outgoing.send(here.as_fd(), |i| refused.push(i));
        assert_eq!(refused, [0, 3, 4]);
        assert_eq!(Incoming::default().receive(there.as_fd()).unwrap(), 3);
    }
}
