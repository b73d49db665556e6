//! What no type information tells: behaviour that differs between kernels and has to be tried.
//!
//! A request queue is full at `sk_max_ack_backlog` entries on older kernels, at one more since "tcp/dccp: allow a
//! connection when `sk_max_ack_backlog` is zero" (Linux 6.14, and back in stable series from 5.4 on): the version says
//! nothing. One connection over loopback to a listener with a backlog of zero tells them apart.

use std::{fs, io, net::Ipv4Addr, thread, time::Duration};

use rustix::{
    event::{PollFd, PollFlags, poll},
    net::{
        AddressFamily, SocketAddrV4, SocketFlags, SocketType, bind, connect, getsockname, listen, socket_with,
    },
};

/// How long the connection may take; on loopback it takes microseconds.
const PATIENCE: Duration = Duration::from_millis(300);

/// Whether a request queue is full when it has as many entries as the backlog; `None` where it cannot be tried.
pub fn request_queue_full_at_backlog() -> Option<bool> {
    let before = full_queues()?;
    try_connection().inspect_err(|error| tracing::debug!("request queue rule not tried: {error}")).ok()?;
    Some(full_queues()? > before)
}

/// One connection, or an attempt at one, to a listener that has room for no request.
fn try_connection() -> io::Result<()> {
    let socket = || {
        socket_with(
            AddressFamily::INET,
            SocketType::STREAM,
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            None,
        )
    };
    let listener = socket()?;
    bind(&listener, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0))?;
    listen(&listener, 0)?;
    let address: SocketAddrV4 = getsockname(&listener)?.try_into()?;
    let client = socket()?;
    match connect(&client, &address) {
        Ok(()) | Err(rustix::io::Errno::INPROGRESS) => {}
        Err(error) => return Err(error.into()),
    }
    let timeout = rustix::event::Timespec::try_from(PATIENCE).map_err(io::Error::other)?;
    poll(&mut [PollFd::new(&client, PollFlags::OUT)], Some(&timeout))?;
    // The counter is that of another CPU, perhaps.
    thread::yield_now();
    Ok(())
}

/// `TCPReqQFullDrop` and `TCPReqQFullDoCookies` of this namespace.
fn full_queues() -> Option<u64> {
    let text = fs::read_to_string("/proc/thread-self/net/netstat").ok()?;
    let mut lines = text.lines().filter(|line| line.starts_with("TcpExt:"));
    let (names, values) = (lines.next()?, lines.next()?);
    let counters = names.split_whitespace().zip(values.split_whitespace());
    Some(
        counters
            .filter(|(name, _)| name.starts_with("TCPReqQFull"))
            .filter_map(|(_, n)| n.parse::<u64>().ok())
            .sum(),
    )
}

#[cfg(test)]
mod tests {
    #[test]
    fn it_can_be_tried_here() {
        assert!(super::request_queue_full_at_backlog().is_some());
    }
}
