//! Which path a socket belongs to, decided once per connection.

#![allow(unsafe_code)] // `no_mangle` for the frozen globals

use aya_ebpf::Global;
use graylag_ebpf::key::{Address, PathKey, Role, V4_MAPPED, masked};

use super::{
    kptr::{Load, Sock},
    maps,
};

/// Prefix lengths of unnamed paths, in bits of the 128-bit address (IPv4: plus 96).
#[unsafe(no_mangle)]
static PREFIX_CLIENT_V4: Global<u32> = Global::new(128);
#[unsafe(no_mangle)]
static PREFIX_CLIENT_V6: Global<u32> = Global::new(128);
#[unsafe(no_mangle)]
static PREFIX_SERVER_V4: Global<u32> = Global::new(96 + 24);
#[unsafe(no_mangle)]
static PREFIX_SERVER_V6: Global<u32> = Global::new(48);
#[unsafe(no_mangle)]
static PREFIX_MEDIA_V4: Global<u32> = Global::new(96 + 24);
#[unsafe(no_mangle)]
static PREFIX_MEDIA_V6: Global<u32> = Global::new(48);

/// Path of a remote address at a service port.
#[inline(always)]
pub fn key(remote: Address, netns: u32, port: u16, role: Role) -> PathKey {
    let (peer, prefix) = match maps::peer(remote) {
        Some(peer) => (peer.id, if peer.per_address != 0 { 128 } else { 0 }),
        None => (0, unnamed_prefix(remote, role)),
    };
    PathKey {
        address: masked(remote, prefix),
        netns,
        port,
        peer,
        prefix: prefix as u8,
        role: role as u8,
        reserved: [0; 2],
    }
}

/// Masked address, peer and prefix length of the path of UDP to and from an address.
#[inline(always)]
pub fn of_media(remote: Address) -> (Address, u16, u8) {
    let (peer, prefix) = match maps::peer(remote) {
        Some(peer) => (peer.id, if peer.per_address != 0 { 128 } else { 0 }),
        None => (0, if is_v4(remote) { PREFIX_MEDIA_V4.load() } else { PREFIX_MEDIA_V6.load() }),
    };
    (masked(remote, prefix), peer, prefix as u8)
}

/// Path of a socket whose role is known.
#[inline(always)]
pub fn of<L: Load>(sk: Sock<L>, netns: u32, role: Role) -> PathKey {
    let port = match role {
        Role::Client => sk.remote_port(),
        Role::Server => sk.local_port(),
    };
    key(sk.remote(), netns, port, role)
}

#[inline(always)]
fn unnamed_prefix(remote: Address, role: Role) -> u32 {
    match (role, is_v4(remote)) {
        (Role::Client, true) => PREFIX_CLIENT_V4.load(),
        (Role::Client, false) => PREFIX_CLIENT_V6.load(),
        (Role::Server, true) => PREFIX_SERVER_V4.load(),
        (Role::Server, false) => PREFIX_SERVER_V6.load(),
    }
}

#[inline(always)]
fn is_v4(remote: Address) -> bool {
    remote[0] == 0 && remote[1] == 0 && remote[2] == V4_MAPPED
}
