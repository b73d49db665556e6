//! Frames put on a link as they are, through a packet socket (`AF_PACKET`).
#![allow(unsafe_code)] // the address of a packet socket, which no library of ours has

use std::{thread, time::Duration};

use rustix::net::netdevice::name_to_index;
use socket2::{Domain, SockAddr, Socket, Type};

use crate::net::Host;

/// Sends frames from a host's `eth0`, slowly enough for any queue on the way.
pub fn send(host: &Host, frames: &[Vec<u8>]) {
    let link = host.run(|| {
        let link = Socket::new(Domain::PACKET, Type::RAW, None).expect("a packet socket");
        let index = name_to_index(&link, "eth0").expect("eth0");
        link.bind(&address(index)).expect("eth0");
        link
    });
    for (i, frame) in frames.iter().enumerate() {
        link.send(frame).expect("a frame");
        if i % 20 == 19 {
            thread::sleep(Duration::from_millis(1));
        }
    }
}

fn address(index: u32) -> SockAddr {
    let fill = |storage: *mut socket2::SockAddrStorage, length: *mut libc::socklen_t| {
        // SAFETY: the storage has room for any address; all of this one is written.
        unsafe {
            let mut link: libc::sockaddr_ll = std::mem::zeroed();
            link.sll_family = libc::AF_PACKET as u16;
            link.sll_ifindex = index as i32;
            storage.cast::<libc::sockaddr_ll>().write(link);
            *length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
        }
        Ok(())
    };
    // SAFETY: see above.
    unsafe { SockAddr::try_init(fill) }.expect("an address").1
}
