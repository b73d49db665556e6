//! coturn, and clients of it (RFC 8656): an allocation each, a channel to a peer of its own, RTP both ways.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket},
    time::Duration,
};

use crate::{
    eventually,
    every::Every20ms,
    net::{Host, Pair, address},
    proc::{Directory, Process},
    rtp::Stream,
    udp,
};

/// Where coturn listens.
pub const PORT: u16 = 3478;
const COOKIE: u32 = 0x2112_a442;
const CHANNEL: u16 = 0x4001;

/// A running coturn.
pub struct Coturn {
    /// The process.
    pub process: Process,
    _directory: Directory,
}

impl Coturn {
    /// Relays for everybody, on one address.
    pub fn start(host: &Host) -> Self {
        let directory = Directory::new();
        let at = address::SERVER_V4;
        let root = directory.path().display();
        let config = format!(
            "listening-ip={at}\nrelay-ip={at}\nlistening-port={PORT}\nmin-port=50000\nmax-port=51000\nrealm=test\n\
             no-auth\nno-tls\nno-dtls\nno-cli\nno-rfc5780\nsimple-log\nlog-file=stdout\nverbose\n\
             pidfile={root}/pid\nuserdb={root}/db\n"
        );
        let path = directory.write("turn.conf", &config);
        let process = Process::start(host.command("turnserver").arg("-c").arg(path));
        let coturn = Self { process, _directory: directory };
        eventually("coturn answers", Duration::from_secs(20), || {
            let probe = udp::sender(host, SocketAddr::new(at, PORT));
            request(&probe, 0x0001, &[]).map(|_| ())
        });
        coturn
    }

    /// What it has logged of the sessions that have ended.
    pub fn usage(&self) -> Usage {
        let number = |line: &str, field: &str| -> u64 {
            let found = line.split([' ', ',']).find_map(|word| word.strip_prefix(field)?.parse().ok());
            found.unwrap_or_else(|| panic!("no {field} in {line}"))
        };
        let mut usage = Usage::default();
        // Two lines for each session: its client's traffic, its peers'.
        for line in self.process.output().iter().filter(|line| line.contains("usage: realm=")) {
            usage.sessions += u64::from(line.contains("peer usage:"));
            usage.received += number(line, "rp=");
            usage.sent += number(line, "sp=");
        }
        usage
    }
}

/// Packets of all sessions that have ended, to and from clients and peers, requests and answers included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Sessions.
    pub sessions: u64,
    /// Packets in.
    pub received: u64,
    /// Packets out.
    pub sent: u64,
}

/// A client with an allocation and a peer.
pub struct Session {
    client: UdpSocket,
    peer: UdpSocket,
    stream: Stream,
    /// Packets that each end has sent.
    sent: [u64; 2],
    /// Requests sent so far.
    pub requests: u64,
}

impl Session {
    /// Allocates, and binds a channel to a new peer; both are on the client's host.
    pub fn begin(pair: &Pair, number: u32) -> Self {
        let client = udp::sender(&pair.client, SocketAddr::new(address::SERVER_V4, PORT));
        // REQUESTED-TRANSPORT: UDP.
        let (answer, first) =
            request(&client, 0x0003, &attribute(0x0019, &[17, 0, 0, 0])).expect("an allocation");
        let relayed = relayed_address(&answer).expect("XOR-RELAYED-ADDRESS");
        let peer = udp::bind(&pair.client, address::CLIENT_V4, 0, 1 << 20);
        let SocketAddr::V4(at) = peer.local_addr().expect("address") else { panic!("not IPv4") };
        let mut bind = attribute(0x000c, &[&CHANNEL.to_be_bytes()[..], &[0, 0]].concat());
        bind.extend(attribute(0x0012, &xor_address(at)));
        let (_, second) = request(&client, 0x0009, &bind).expect("a channel");
        peer.connect(relayed).expect("connect");
        client.set_nonblocking(true).expect("non-blocking");
        Self { client, peer, stream: Stream::audio(number), sent: [0; 2], requests: first + second }
    }

    /// Sends the next packet of each end that speaks.
    pub fn send(&mut self, client_speaks: bool, peer_speaks: bool) {
        if client_speaks {
            let _ = self.client.send(&Stream { channel: CHANNEL, ..self.stream }.packet(self.sent[0]));
            self.sent[0] += 1;
        }
        if peer_speaks {
            let answer = Stream { ssrc: self.stream.ssrc + 100_000, ..self.stream };
            let _ = self.peer.send(&answer.packet(self.sent[1]));
            self.sent[1] += 1;
        }
    }

    /// Reads what has come to both ends; how many datagrams.
    pub fn drain(&self) -> usize {
        udp::drain(&self.client) + udp::drain(&self.peer)
    }

    /// Gives the allocation back.
    pub fn end(self) {
        self.client.set_nonblocking(false).expect("blocking");
        let _ = request(&self.client, 0x0004, &attribute(0x000d, &[0; 4]));
    }
}

/// Calls through coturn, both ways, until this goes out of scope.
pub fn calls(pair: &Pair, n: u32) -> Every20ms {
    let mut sessions: Vec<Session> = (0..n).map(|i| Session::begin(pair, i)).collect();
    Every20ms::start(move |_| {
        for session in &mut sessions {
            session.send(true, true);
            session.drain();
        }
    })
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    [&kind.to_be_bytes()[..], &(value.len() as u16).to_be_bytes(), value].concat()
}

/// RFC 8489 §14.2, IPv4.
fn xor_address(at: SocketAddrV4) -> Vec<u8> {
    let port = at.port() ^ (COOKIE >> 16) as u16;
    let address = u32::from(*at.ip()) ^ COOKIE;
    [&[0, 1][..], &port.to_be_bytes(), &address.to_be_bytes()].concat()
}

fn relayed_address(message: &[u8]) -> Option<SocketAddr> {
    let mut at = 20;
    while at + 4 <= message.len() {
        let word = |i: usize| u16::from_be_bytes([message[i], message[i + 1]]);
        let (kind, length) = (word(at), usize::from(word(at + 2)));
        if kind == 0x0016 && length == 8 {
            let port = word(at + 6) ^ (COOKIE >> 16) as u16;
            let address = u32::from_be_bytes(message[at + 8..at + 12].try_into().ok()?) ^ COOKIE;
            return Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::from(address)), port));
        }
        at += 4 + length.next_multiple_of(4);
    }
    None
}

/// A request: its answer, which must be a success, and how often it was sent. Tried for a second.
fn request(socket: &UdpSocket, method: u16, attributes: &[u8]) -> Option<(Vec<u8>, u64)> {
    socket.set_read_timeout(Some(Duration::from_millis(250))).expect("timeout");
    let mut message = [&method.to_be_bytes()[..], &(attributes.len() as u16).to_be_bytes()].concat();
    message.extend(COOKIE.to_be_bytes());
    message.extend([method as u8; 12]);
    message.extend(attributes);
    for sent in 1..=4 {
        let _ = socket.send(&message);
        let mut answer = [0; 1500];
        while let Ok(n) = socket.recv(&mut answer) {
            if n >= 20 && answer[..2] == (method | 0x0100).to_be_bytes() {
                return Some((answer[..n].to_vec(), sent));
            }
        }
    }
    None
}
