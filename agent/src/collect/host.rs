//! What the kernel counts anyway: interfaces over netlink, `/proc` where a program could not be attached.

use serde::{Deserialize, Serialize};
use std::{fs, io};

use anyhow::{Context, Result, bail};
use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{LinkAttribute, LinkMessage},
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

use super::interfaces::Link;

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
    /// Whether drops have no reasons on this kernel.
    pub softnet: bool,
    /// Whether no program watches listeners.
    pub listen: bool,
}

impl HostReader {
    /// Opens a netlink socket in this namespace.
    pub fn open() -> Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE).context("netlink socket")?;
        socket.bind_auto().context("netlink socket")?;
        socket.connect(&SocketAddr::new(0, 0)).context("netlink socket")?;
        // A dump message is at most 32 KiB (`netlink_dump`, rtnetlink's min_dump_alloc).
        Ok(Self { socket, buffer: vec![0; 64 * 1024], links: Vec::new(), softnet: false, listen: false })
    }

    /// One look.
    pub fn read(&mut self) -> Result<HostCounters> {
        let mut counters = HostCounters::default();
        let mut links = Vec::new();
        self.dump(|link| {
            add(&mut counters, link);
            links.push(Link::of(link));
        })?;
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

    fn dump(&mut self, mut visit: impl FnMut(&LinkMessage)) -> Result<()> {
        let request = RouteNetlinkMessage::GetLink(LinkMessage::default());
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_DUMP | NLM_F_REQUEST;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::from(request));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.socket.send(&bytes, 0).context("netlink RTM_GETLINK")?;
        loop {
            let size = self.socket.recv(&mut &mut self.buffer[..], 0).context("netlink RTM_GETLINK")?;
            let mut rest = &self.buffer[..size];
            while !rest.is_empty() {
                let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest)
                    .map_err(|e| io::Error::other(format!("netlink RTM_GETLINK: {e}")))?;
                let length = (message.header.length as usize).next_multiple_of(4).min(rest.len());
                match message.payload {
                    NetlinkPayload::Done(_) => return Ok(()),
                    NetlinkPayload::Error(error) => bail!("netlink RTM_GETLINK: {error}"),
                    NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(link)) => visit(&link),
                    _ => {}
                }
                if length == 0 {
                    break;
                }
                rest = &rest[length..];
            }
        }
    }
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

    #[test]
    fn columns_are_found_by_name() {
        let text = "TcpExt: SyncookiesSent ListenOverflows\nTcpExt: 3 7\nIpExt: InNoRoutes\nIpExt: 9\n";
        assert_eq!(tcp_ext(text, "ListenOverflows"), Some(7));
        assert_eq!(tcp_ext(text, "NoSuchThing"), None);
        assert_eq!(softnet_dropped("0000aa 0000000f 0\n0000bb 00000001 0\n"), Some(16));
    }
}
