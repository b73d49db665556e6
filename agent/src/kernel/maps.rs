//! Typed access to the maps, from the user's side.
#![allow(unsafe_code)] // `Pod`

use std::{
    collections::BTreeSet,
    net::IpAddr,
    os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd},
};

use aya::{
    Ebpf, Pod,
    maps::{Array, HashMap, LpmTrie, Map, MapData, MapError, PerCpuArray, lpm_trie},
};
use graylag_ebpf::{
    counter::{Counter, REASONS},
    key::{Address, PathKey, Peer, Role, Tuple, UdpPort, V4_MAPPED},
    record::{Conn, HalfOpen, PathStats, Scan},
};

use super::{KernelError, error::chain, settings::PeerPrefix};

/// Lends a record of the ABI to aya.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Raw<T>(pub T);

// SAFETY: transparent, and `T` is plain data without padding.
unsafe impl<T: bytemuck::Pod> Pod for Raw<T> {}

pub(super) fn failed(map: &'static str) -> impl FnOnce(MapError) -> KernelError {
    move |error| KernelError::Map { map, error: chain(&error) }
}

pub(super) fn find<'a>(ebpf: &'a Ebpf, map: &'static str) -> Result<&'a Map, KernelError> {
    ebpf.map(map).ok_or(KernelError::Map { map, error: "not in the kernel object".into() })
}

pub(super) fn find_mut<'a>(ebpf: &'a mut Ebpf, map: &'static str) -> Result<&'a mut Map, KernelError> {
    ebpf.map_mut(map).ok_or(KernelError::Map { map, error: "not in the kernel object".into() })
}

macro_rules! open {
    ($ebpf:expr, $map:literal, $kind:ty) => {
        <$kind>::try_from($crate::kernel::maps::find($ebpf, $map)?)
            .map_err($crate::kernel::maps::failed($map))?
    };
}
macro_rules! open_mut {
    ($ebpf:expr, $map:literal, $kind:ty) => {
        <$kind>::try_from($crate::kernel::maps::find_mut($ebpf, $map)?)
            .map_err($crate::kernel::maps::failed($map))?
    };
}

pub(super) use {open, open_mut};

/// Descriptor of a map.
pub fn fd<'a>(ebpf: &'a Ebpf, map: &'static str) -> Result<BorrowedFd<'a>, KernelError> {
    let data: &MapData = match find(ebpf, map)? {
        Map::HashMap(data) | Map::LruHashMap(data) | Map::Array(data) | Map::SkStorage(data) => data,
        _ => return Err(KernelError::Map { map, error: "unexpected kind of map".into() }),
    };
    Ok(data.fd().as_fd())
}

/// Memory of all maps in bytes.
pub fn all_memory(ebpf: &Ebpf) -> u64 {
    ebpf.maps().filter_map(|(_, map)| memory(map)).sum()
}

/// Memory of a map in bytes: `memlock` of its descriptor (`bpf_map_show_fdinfo`).
fn memory(map: &Map) -> Option<u64> {
    let data: &MapData = match map {
        Map::HashMap(data)
        | Map::LruHashMap(data)
        | Map::Array(data)
        | Map::PerCpuArray(data)
        | Map::LpmTrie(data)
        | Map::Queue(data)
        | Map::SkStorage(data)
        | Map::RingBuf(data) => data,
        _ => return None,
    };
    fdinfo(data.fd().as_fd().as_raw_fd(), "memlock:")
}

/// A number that the kernel tells of one of our descriptors (`proc_pid_fdinfo(5)`).
pub fn fdinfo(fd: RawFd, field: &str) -> Option<u64> {
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).ok()?;
    info.lines().find_map(|line| line.strip_prefix(field)?.trim().parse().ok())
}

/// An address as the maps hold it.
pub fn words(address: IpAddr) -> Address {
    match address {
        IpAddr::V4(v4) => [0, 0, V4_MAPPED, u32::from_ne_bytes(v4.octets())],
        IpAddr::V6(v6) => bytemuck::cast(v6.octets()),
    }
}

/// Makes the two entries that take what finds no room.
pub fn insert_other_paths(ebpf: &mut Ebpf) -> Result<(), KernelError> {
    let mut paths = open_mut!(ebpf, "PATHS", HashMap<_, Raw<PathKey>, Raw<PathStats>>);
    for role in [Role::Client, Role::Server] {
        let stats: PathStats = bytemuck::Zeroable::zeroed();
        paths.insert(Raw(PathKey::other(role)), Raw(stats), 0).map_err(failed("PATHS"))?;
    }
    Ok(())
}

fn peer_key(peer: &PeerPrefix) -> lpm_trie::Key<Raw<Address>> {
    let bits = u32::from(peer.bits) + if peer.address.is_ipv4() { 96 } else { 0 };
    lpm_trie::Key::new(bits, Raw(words(peer.address)))
}

/// Enters the configured peers.
pub fn insert_peers(ebpf: &mut Ebpf, peers: &[PeerPrefix]) -> Result<(), KernelError> {
    let mut trie = open_mut!(ebpf, "PEERS", LpmTrie<_, Raw<Address>, Raw<Peer>>);
    for peer in peers {
        let value = Peer { id: peer.id, per_address: u16::from(peer.per_address) };
        trie.insert(&peer_key(peer), Raw(value), 0).map_err(failed("PEERS"))?;
    }
    Ok(())
}

/// Removes peers that are no longer configured.
pub fn remove_peers<'a>(
    ebpf: &mut Ebpf,
    peers: impl Iterator<Item = &'a PeerPrefix>,
) -> Result<(), KernelError> {
    let mut trie = open_mut!(ebpf, "PEERS", LpmTrie<_, Raw<Address>, Raw<Peer>>);
    for peer in peers {
        absent_is_fine("PEERS", trie.remove(&peer_key(peer)))?;
    }
    Ok(())
}

/// Enters the namespaces in scope.
pub fn insert_netns(ebpf: &mut Ebpf, inodes: impl IntoIterator<Item = u32>) -> Result<(), KernelError> {
    let mut map = open_mut!(ebpf, "NETNS", HashMap<_, u32, u32>);
    for inode in inodes {
        map.insert(inode, 1, 0).map_err(failed("NETNS"))?;
    }
    Ok(())
}

/// Marks drop reasons that are no loss.
pub fn ignore_drop_reasons(ebpf: &mut Ebpf, reasons: &[u32]) -> Result<(), KernelError> {
    let mut map = open_mut!(ebpf, "DROP_IGNORED", Array<_, u32>);
    for reason in reasons {
        map.set(*reason, 1, 0).map_err(failed("DROP_IGNORED"))?;
    }
    Ok(())
}

/// Removes what an earlier agent entered that is not wanted now: peers, namespaces, reasons.
pub fn forget_settings(
    ebpf: &mut Ebpf,
    peers: &[PeerPrefix],
    netns: Option<&BTreeSet<u32>>,
) -> Result<(), KernelError> {
    let wanted: Vec<_> = peers.iter().map(peer_key).collect();
    let mut trie = open_mut!(ebpf, "PEERS", LpmTrie<_, Raw<Address>, Raw<Peer>>);
    let there: Vec<_> = trie.keys().collect::<Result<_, _>>().map_err(failed("PEERS"))?;
    let same =
        |a: &lpm_trie::Key<_>, b: &lpm_trie::Key<_>| (a.prefix_len(), a.data()) == (b.prefix_len(), b.data());
    for key in there.iter().filter(|key| !wanted.iter().any(|wanted| same(wanted, key))) {
        absent_is_fine("PEERS", trie.remove(key))?;
    }
    let mut scope = open_mut!(ebpf, "NETNS", HashMap<_, u32, u32>);
    let there: Vec<u32> = scope.keys().collect::<Result<_, _>>().map_err(failed("NETNS"))?;
    for inode in there.iter().filter(|inode| netns.is_none_or(|wanted| !wanted.contains(inode))) {
        absent_is_fine("NETNS", scope.remove(inode))?;
    }
    let mut ignored = open_mut!(ebpf, "DROP_IGNORED", Array<_, u32>);
    (0..REASONS).try_for_each(|reason| ignored.set(reason, 0, 0)).map_err(failed("DROP_IGNORED"))
}

/// Tells the iterators what to emit.
pub fn set_scan(ebpf: &mut Ebpf, scan: Scan) -> Result<(), KernelError> {
    open_mut!(ebpf, "SCAN", Array<_, Raw<Scan>>).set(0, Raw(scan), 0).map_err(failed("SCAN"))
}

/// The programs' own counters, summed over the CPUs.
pub fn counters(ebpf: &Ebpf) -> Result<[u64; Counter::COUNT], KernelError> {
    let map = open!(ebpf, "COUNTERS", PerCpuArray<_, [u64; Counter::COUNT]>);
    let mut sum = [0; Counter::COUNT];
    for cpu in map.get(&0, 0).map_err(failed("COUNTERS"))?.iter() {
        for (total, value) in sum.iter_mut().zip(cpu) {
            *total += value;
        }
    }
    Ok(sum)
}

/// Dropped packets by `graylag_ebpf::counter::drop_index`.
pub fn drops(ebpf: &Ebpf) -> Result<Vec<(u32, u64)>, KernelError> {
    open!(ebpf, "DROPS", HashMap<_, u32, u64>).iter().collect::<Result<_, _>>().map_err(failed("DROPS"))
}

/// Receive-buffer drops by UDP port.
pub fn udp_drops(ebpf: &Ebpf) -> Result<Vec<(UdpPort, u64)>, KernelError> {
    let map = open!(ebpf, "UDP_DROPS", HashMap<_, Raw<UdpPort>, u64>);
    map.iter()
        .map(|entry| entry.map(|(port, n)| (port.0, n)))
        .collect::<Result<_, _>>()
        .map_err(failed("UDP_DROPS"))
}

/// Forgets a path; a connection that still uses it starts it anew.
pub fn remove_path(ebpf: &mut Ebpf, key: &PathKey) -> Result<(), KernelError> {
    absent_is_fine(
        "PATHS",
        open_mut!(ebpf, "PATHS", HashMap<_, Raw<PathKey>, Raw<PathStats>>).remove(&Raw(*key)),
    )
}

/// Forgets a connection.
pub fn remove_conn(ebpf: &mut Ebpf, id: u64) -> Result<(), KernelError> {
    absent_is_fine("CONNS", open_mut!(ebpf, "CONNS", HashMap<_, u64, Raw<Conn>>).remove(&id))
}

/// Forgets a handshake that will not complete. Whether it was still there: the kernel may have completed it since.
pub fn remove_half_open(ebpf: &mut Ebpf, tuple: &Tuple) -> Result<bool, KernelError> {
    let mut map = open_mut!(ebpf, "HALF_OPEN", HashMap<_, Raw<Tuple>, Raw<HalfOpen>>);
    match map.remove(&Raw(*tuple)) {
        Ok(()) => Ok(true),
        Err(MapError::KeyNotFound) => Ok(false),
        Err(error) if is_absent(&error) => Ok(false),
        Err(error) => Err(failed("HALF_OPEN")(error)),
    }
}

pub(super) fn absent_is_fine(map: &'static str, result: Result<(), MapError>) -> Result<(), KernelError> {
    match result {
        Err(error) if !is_absent(&error) => Err(failed(map)(error)),
        _ => Ok(()),
    }
}

fn is_absent(error: &MapError) -> bool {
    match error {
        MapError::KeyNotFound => true,
        MapError::SyscallError(error) => error.io_error.raw_os_error() == Some(libc::ENOENT),
        _ => false,
    }
}

/// Walks a whole map entry by entry: the way of kernels that have no map iterators.
pub fn walk_paths(ebpf: &Ebpf, mut visit: impl FnMut(&PathKey, &PathStats)) -> Result<(), KernelError> {
    for entry in &open!(ebpf, "PATHS", HashMap<_, Raw<PathKey>, Raw<PathStats>>) {
        let (key, stats) = entry.map_err(failed("PATHS"))?;
        visit(&key.0, &stats.0);
    }
    Ok(())
}

/// See [`walk_paths`].
pub fn walk_conns(ebpf: &Ebpf, mut visit: impl FnMut(u64, &Conn)) -> Result<(), KernelError> {
    for entry in &open!(ebpf, "CONNS", HashMap<_, u64, Raw<Conn>>) {
        let (id, conn) = entry.map_err(failed("CONNS"))?;
        visit(id, &conn.0);
    }
    Ok(())
}

/// See [`walk_paths`].
pub fn walk_half_open(ebpf: &Ebpf, mut visit: impl FnMut(&Tuple, &HalfOpen)) -> Result<(), KernelError> {
    for entry in &open!(ebpf, "HALF_OPEN", HashMap<_, Raw<Tuple>, Raw<HalfOpen>>) {
        let (tuple, state) = entry.map_err(failed("HALF_OPEN"))?;
        visit(&tuple.0, &state.0);
    }
    Ok(())
}
