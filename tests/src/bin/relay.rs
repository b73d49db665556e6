//! `relay LISTEN TARGET N`: passes datagrams on between whoever sends to a port of LISTEN and the same port of TARGET, for N
//! ports from 7000 on. Told `mute` at port 6999 it goes on reading and no longer sends, told `half` it sends every other datagram,
//! told `deaf` it no longer reads a third of its ports; `speak` ends all that.
#![allow(clippy::expect_used)] // a fixture

use std::{
    net::{SocketAddr, UdpSocket},
    os::fd::AsFd,
};

use rustix::event::{PollFd, PollFlags, poll};

fn main() {
    let mut arguments = std::env::args().skip(1);
    let mut next = || arguments.next().expect("relay LISTEN TARGET N");
    let (listen, target, n) = (next(), next(), next().parse::<u16>().expect("a number"));
    let bind = |port: u16| {
        let socket = UdpSocket::bind(format!("{listen}:{port}")).expect("a port");
        socket.set_nonblocking(true).expect("non-blocking");
        socket
    };
    let control = bind(6999);
    let sockets: Vec<UdpSocket> = (7000..7000 + n).map(bind).collect();
    let targets: Vec<SocketAddr> =
        (7000..7000 + n).map(|port| format!("{target}:{port}").parse().expect("an address")).collect();
    let mut callers: Vec<Option<SocketAddr>> = vec![None; sockets.len()];
    let mut told = Vec::new();
    let mut n = 0u64;
    let mut buffer = [0; 2048];
    loop {
        let heard = |i: &usize| told != b"deaf" || !i.is_multiple_of(3);
        let mut waiting: Vec<PollFd<'_>> = (0..sockets.len())
            .filter(heard)
            .map(|i| &sockets[i])
            .chain([&control])
            .map(|socket| PollFd::from_borrowed_fd(socket.as_fd(), PollFlags::IN))
            .collect();
        if poll(&mut waiting, None).is_err() {
            continue;
        }
        let heard: Vec<usize> = (0..sockets.len()).filter(heard).collect();
        if let Ok((length, _)) = control.recv_from(&mut buffer) {
            told = buffer[..length].to_vec();
        }
        for i in heard {
            let socket = &sockets[i];
            while let Ok((length, from)) = socket.recv_from(&mut buffer) {
                let to = if from == targets[i] {
                    callers[i]
                } else {
                    callers[i] = Some(from);
                    Some(targets[i])
                };
                n += 1;
                let sends = match &told[..] {
                    b"mute" => false,
                    b"half" => n.is_multiple_of(2),
                    _ => true,
                };
                if let Some(to) = to.filter(|_| sends) {
                    let _ = socket.send_to(&buffer[..length], to);
                }
            }
        }
    }
}
