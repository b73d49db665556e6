//! Datagrams, and sockets that may be too small for them.

use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    time::Duration,
};

use socket2::{Domain, Socket, Type};

use crate::net::Host;

/// A socket with a receive buffer of about this size; nobody reads it unless told.
pub fn bind(host: &Host, address: IpAddr, port: u16, buffer: usize) -> UdpSocket {
    let socket: UdpSocket = host.run(|| {
        let address = SocketAddr::new(address, port);
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM, None).expect("socket");
        socket.set_recv_buffer_size(buffer).expect("buffer");
        socket.bind(&address.into()).unwrap_or_else(|e| panic!("{address}: {e}"));
        socket.into()
    });
    socket.set_nonblocking(true).expect("non-blocking");
    socket
}

/// A socket to send from.
pub fn sender(host: &Host, target: SocketAddr) -> UdpSocket {
    host.run(|| {
        let socket = Socket::new(Domain::for_address(target), Type::DGRAM, None).expect("socket");
        socket.connect(&target.into()).expect("connect");
        socket.into()
    })
}

/// Sends datagrams, a few at a time so that no queue on the way fills; returns how many the kernel took.
pub fn send(socket: &UdpSocket, n: usize, bytes: usize) -> usize {
    let payload = vec![7; bytes];
    let taken = |i: usize| {
        if i % 20 == 19 {
            std::thread::sleep(Duration::from_millis(1));
        }
        // An ICMP error for one before it, or a local refusal, is told here.
        usize::from(socket.send(&payload).is_ok())
    };
    (0..n).map(taken).sum()
}

/// Reads everything that has arrived.
pub fn drain(socket: &UdpSocket) -> usize {
    let mut buffer = [0; 2048];
    std::iter::from_fn(|| socket.recv(&mut buffer).ok()).count()
}
