//! What the kernel counts anyway: interfaces over netlink, `/proc` where a program could not be attached.

use serde::{Deserialize, Serialize};
use std::fs;

use anyhow::{Context, Result, bail};
use netlink_packet_core::{
    DecodeError, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkBuffer, NetlinkHeader, NetlinkMessage,
    NetlinkPayload,
};
use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{LinkAttribute, LinkMessage},
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

use super::interfaces::Link;

/// How often all interfaces are listed in one look where they change meanwhile.
const ATTEMPTS: usize = 3;

/// Cumulative counters of this host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostCounters {
    /// Packets that the interfaces of this namespace received and sent.
    pub packets: u64,
    /// `rx_missed_errors`: frames for which an interface had no buffer.
    pub missed: u64,
    /// `rx_fifo_errors`: overruns inside an interface.
    pub fifo: u64,
    /// Second column of `/proc/net/softnet_stat`, where drops have no reasons.
    pub softnet_dropped: Option<u64>,
    /// `TcpExt: ListenOverflows`, where no program watches listeners.
    pub listen_overflows: Option<u64>,
}

/// Reads them; the socket is kept.
pub struct HostReader {
    socket: Socket,
    buffer: Vec<u8>,
    links: Vec<Link>,
    /// How many interfaces are not among them, and why.
    unread: Option<(usize, String)>,
    /// Whether drops have no reasons on this kernel.
    pub softnet: bool,
    /// Whether no program watches listeners.
    pub listen: bool,
}

impl HostReader {
    /// Opens a netlink socket in this namespace.
    pub fn open() -> Result<Self> {
        // A dump message is at most 32 KiB (`netlink_dump`, rtnetlink's min_dump_alloc).
        let (socket, buffer, links) = (connected()?, vec![0; 64 * 1024], Vec::new());
        Ok(Self { socket, buffer, links, unread: None, softnet: false, listen: false })
    }

    /// One look. Where the interfaces cannot be listed, or come and go all the while, those of the look before stand.
    pub fn read(&mut self) -> Result<HostCounters> {
        let before = self.unread.take();
        let listed = self.whole();
        if listed.is_err()
            && let Ok(socket) = connected()
        {
            // What was not read of the list would be taken for the next one, and until then the kernel makes none (EBUSY).
            self.socket = socket;
        }
        self.unread = match &listed {
            Ok(listed) => listed.unread.clone(),
            // One stands for all of them.
            Err(error) if self.links.is_empty() => Some((1, format!("{error:#}"))),
            Err(_) => before.clone(),
        };
        if let (None, Some((_, reason))) = (before, &self.unread) {
            tracing::warn!("of interfaces that cannot be read nothing is counted: {reason}");
        }
        let Listed { links, mut counters, .. } = listed?;
        self.links = links;
        if self.softnet {
            counters.softnet_dropped = softnet_dropped(&read("/proc/net/softnet_stat")?);
        }
        if self.listen {
            counters.listen_overflows = tcp_ext(&read("/proc/net/netstat")?, "ListenOverflows");
        }
        Ok(counters)
    }

    /// The interfaces of this namespace, as of the last look.
    pub fn links(&self) -> &[Link] {
        &self.links
    }

    /// How many interfaces could not be read in the last look, and why.
    pub fn unread(&self) -> Option<(usize, &str)> {
        self.unread.as_ref().map(|(count, reason)| (*count, reason.as_str()))
    }

    /// All interfaces. Where one came or went while they were listed, another may be missing (before Linux 6.8), which would seem to be
    /// gone.
    fn whole(&mut self) -> Result<Listed> {
        for _ in 0..ATTEMPTS {
            let listed = self.dump()?;
            if !listed.changed {
                return Ok(listed);
            }
        }
        bail!("netlink RTM_GETLINK: interfaces changed {ATTEMPTS} times while they were listed")
    }

    fn dump(&mut self) -> Result<Listed> {
        let request = RouteNetlinkMessage::GetLink(LinkMessage::default());
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_DUMP | NLM_F_REQUEST;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::from(request));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.socket.send(&bytes, 0).context("netlink RTM_GETLINK")?;
        let mut listed = Listed::default();
        loop {
            let size = self.socket.recv(&mut &mut self.buffer[..], 0).context("netlink RTM_GETLINK")?;
            let mut rest = &self.buffer[..size];
            while !rest.is_empty() {
                let head = NetlinkBuffer::new_checked(rest).map_err(not_understood)?;
                listed.changed |= head.flags() & NLM_F_DUMP_INTR != 0;
                let (message, after) =
                    rest.split_at((head.length() as usize).next_multiple_of(4).min(rest.len()));
                rest = after;
                if listed.take(message)? {
                    return Ok(listed);
                }
            }
        }
    }
}

fn connected() -> Result<Socket> {
    let mut socket = Socket::new(NETLINK_ROUTE).context("netlink socket")?;
    socket.bind_auto().context("netlink socket")?;
    socket.connect(&SocketAddr::new(0, 0)).context("netlink socket")?;
    Ok(socket)
}

/// The interfaces as they are listed.
#[derive(Default)]
struct Listed {
    links: Vec<Link>,
    counters: HostCounters,
    unread: Option<(usize, String)>,
    /// Whether any came or went meanwhile (`nl_dump_check_consistent`).
    changed: bool,
}

impl Listed {
    /// Takes a message; returns whether it is the last one. An interface of a kind that is not understood hides no other.
    fn take(&mut self, message: &[u8]) -> Result<bool> {
        match NetlinkMessage::<RouteNetlinkMessage>::deserialize(message).map(|message| message.payload) {
            Ok(NetlinkPayload::Done(_)) => return Ok(true),
            Ok(NetlinkPayload::Error(error)) => bail!("netlink RTM_GETLINK: {error}"),
            Ok(NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(link))) => {
                add(&mut self.counters, &link);
                self.links.push(Link::of(&link));
            }
            Ok(_) => {}
            Err(error) => {
                let (count, _) =
                    self.unread.get_or_insert_with(|| (0, format!("{:#}", not_understood(error))));
                *count += 1;
            }
        }
        Ok(false)
    }
}

fn not_understood(error: DecodeError) -> anyhow::Error {
    anyhow::Error::new(error).context("netlink RTM_GETLINK")
}

fn add(sum: &mut HostCounters, link: &LinkMessage) {
    for attribute in &link.attributes {
        if let LinkAttribute::Stats64(stats) = attribute {
            sum.packets += stats.rx_packets + stats.tx_packets;
            sum.missed += stats.rx_missed_errors;
            sum.fifo += stats.rx_fifo_errors;
        }
    }
}

fn read(path: &str) -> Result<String> {
    fs::read_to_string(path).with_context(|| path.to_owned())
}

/// Sum of the second column, hexadecimal, one line to a CPU (`softnet_seq_show`).
fn softnet_dropped(text: &str) -> Option<u64> {
    text.lines().map(|line| u64::from_str_radix(line.split_whitespace().nth(1)?, 16).ok()).sum()
}

/// A counter of `/proc/net/netstat`: names on one line, values on the next, both with the same prefix.
fn tcp_ext(text: &str, name: &str) -> Option<u64> {
    let mut lines = text.lines().filter(|line| line.starts_with("TcpExt:"));
    let (names, values) = (lines.next()?, lines.next()?);
    let position = names.split_whitespace().position(|n| n == name)?;
    values.split_whitespace().nth(position)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_this_host() {
        let mut reader = HostReader::open().unwrap();
        (reader.softnet, reader.listen) = (true, true);
        let counters = reader.read().unwrap();
        assert!(counters.softnet_dropped.is_some() && counters.listen_overflows.is_some(), "{counters:?}");
    }

    /// A message of netlink, of a type, with this after its header.
    fn message(kind: u16, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; 16];
        bytes[..4].copy_from_slice(&(16 + payload.len() as u32).to_ne_bytes());
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(payload);
        bytes
    }

    #[test]
    fn an_interface_that_is_not_understood_hides_no_other() {
        const NEW_LINK: u16 = 16;
        const DONE: u16 = 3;
        let mut listed = Listed::default();
        // Its name is said to be longer than the message.
        let broken = [vec![0; 16], vec![200, 0, 3, 0, b'x', 0, 0, 0]].concat();
        assert!(!listed.take(&message(NEW_LINK, &broken)).unwrap());
        let named = [vec![0; 16], vec![9, 0, 3, 0, b'e', b't', b'h', b'0', 0, 0, 0, 0]].concat();
        assert!(!listed.take(&message(NEW_LINK, &named)).unwrap());
        assert!(listed.take(&message(DONE, &[0; 4])).unwrap());
        assert_eq!(listed.links.iter().map(|link| link.name.as_str()).collect::<Vec<_>>(), ["eth0"]);
        assert_eq!(listed.unread.map(|(count, _)| count), Some(1));
    }

    #[test]
    fn a_list_that_broke_off_costs_one_look() {
        let mut reader = HostReader::open().unwrap();
        reader.read().unwrap();
        let all = reader.links.clone();
        // Asked, and not listened to.
        let mut request = message(18, &[0; 16]);
        request[6..8].copy_from_slice(&(NLM_F_DUMP | NLM_F_REQUEST).to_ne_bytes());
        reader.socket.send(&request, 0).unwrap();
        // Refused while the other list is not at its end, which kernels see at different times.
        let _ = reader.read();
        assert_eq!(reader.links, all);
        reader.read().unwrap();
        assert_eq!(reader.links, all);
    }

    #[test]
    fn columns_are_found_by_name() {
        let text = "TcpExt: SyncookiesSent ListenOverflows\nTcpExt: 3 7\nIpExt: InNoRoutes\nIpExt: 9\n";
        assert_eq!(tcp_ext(text, "ListenOverflows"), Some(7));
        assert_eq!(tcp_ext(text, "NoSuchThing"), None);
        assert_eq!(softnet_dropped("0000aa 0000000f 0\n0000bb 00000001 0\n"), Some(16));
    }
}
