//! Keeps the ABI's types in the object's BTF: the compiler describes only what a global or a function's signature names,
//! and maps name their types as sizes. `tests/tests/abi.rs` compares what it finds with the agent's own layouts.

#![allow(unsafe_code)] // `no_mangle`: the linker drops what nobody exports

use graylag_ebpf::{
    ABI_VERSION,
    flow::{Flow, Stream},
    key::{PathKey, Peer, Tuple, UdpPort},
    media::{FlowScan, MediaKey, PathFlows, PathQuality, PathTraffic},
    record::{Conn, HalfOpen, HalfOpenRecord, PathRecord, PathStats, Scan, Waiting},
    relay::{SocketMedia, SocketRecord},
    session::{Session, SessionRecord},
    task::TaskRecord,
};

/// Every type of the ABI; the arrays take no room.
#[repr(C)]
struct Layouts {
    version: u64,
    path_key: [PathKey; 0],
    tuple: [Tuple; 0],
    udp_port: [UdpPort; 0],
    peer: [Peer; 0],
    path_stats: [PathStats; 0],
    conn: [Conn; 0],
    half_open: [HalfOpen; 0],
    waiting: [Waiting; 0],
    half_open_record: [HalfOpenRecord; 0],
    path_record: [PathRecord; 0],
    scan: [Scan; 0],
    flow: [Flow; 0],
    stream: [Stream; 0],
    media_key: [MediaKey; 0],
    path_traffic: [PathTraffic; 0],
    path_quality: [PathQuality; 0],
    path_flows: [PathFlows; 0],
    flow_scan: [FlowScan; 0],
    socket_media: [SocketMedia; 0],
    socket_record: [SocketRecord; 0],
    session: [Session; 0],
    session_record: [SessionRecord; 0],
    task_record: [TaskRecord; 0],
}

#[unsafe(no_mangle)]
static LAYOUTS: Layouts = Layouts {
    version: ABI_VERSION as u64,
    path_key: [],
    tuple: [],
    udp_port: [],
    peer: [],
    path_stats: [],
    conn: [],
    half_open: [],
    waiting: [],
    half_open_record: [],
    path_record: [],
    scan: [],
    flow: [],
    stream: [],
    media_key: [],
    path_traffic: [],
    path_quality: [],
    path_flows: [],
    flow_scan: [],
    socket_media: [],
    socket_record: [],
    session: [],
    session_record: [],
    task_record: [],
};
