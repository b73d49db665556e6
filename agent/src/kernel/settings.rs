//! What the kernel half is told at load time; nothing else flows from user space to the kernel.

use std::{collections::BTreeSet, net::IpAddr};

use graylag_ebpf::table;

/// Settings of the kernel half.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Network namespaces to watch, by inode; all of them where `None`.
    pub netns: Option<BTreeSet<u32>>,
    /// How many bits of an unnamed address make a path.
    pub prefixes: Prefixes,
    /// Sizes of the maps.
    pub limits: Limits,
    /// Configured peers.
    pub peers: Vec<PeerPrefix>,
    /// Programs not to load, by name.
    pub disabled: Vec<String>,
    /// Most detailed level of the programs' own diagnostics: 0 off, 2 warn, 3 info, 4 debug (`aya_log_common::Level`).
    pub log_level: u8,
    /// Whether processes are gone through, to know whose network namespaces are.
    pub attribution: bool,
    /// Whether the kernel shall measure program run time (`BPF_ENABLE_STATS`, needs `CAP_SYS_ADMIN`).
    pub program_stats: bool,
}

/// Significant bits of an unnamed remote address, by role and family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefixes {
    /// 0 to 32.
    pub client_v4: u8,
    /// 0 to 128.
    pub client_v6: u8,
    /// 0 to 32.
    pub server_v4: u8,
    /// 0 to 128.
    pub server_v6: u8,
    /// 0 to 32.
    pub media_v4: u8,
    /// 0 to 128.
    pub media_v6: u8,
}

/// Entries of the maps; their memory is taken when the agent starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Paths: remote prefix or peer × service × role.
    pub paths: u32,
    /// Connections at once.
    pub connections: u32,
    /// Unfinished handshakes of listeners at once.
    pub half_open: u32,
    /// UDP flows at once; 0 where media is not watched.
    pub flows: u32,
}

impl Limits {
    /// `(map, entries)` of every map whose size is set here.
    pub fn tables(&self) -> Vec<(&'static str, u32)> {
        let (flows, paths) = (self.flow_entries(), self.media_paths());
        let buckets = table::buckets(flows);
        let mut all = self.maps().to_vec();
        all.extend([
            ("FLOW_INDEX", buckets),
            ("FLOWS", flows),
            ("STREAM_INDEX", buckets),
            ("STREAMS", flows),
            ("SESSIONS", self.sessions()),
        ]);
        let by_path = ["MEDIA_PATHS", "FREE_PATHS", "PATH_TRAFFIC", "PATH_QUALITY", "PATH_FLOWS"];
        all.extend(by_path.map(|map| (map, paths)));
        all
    }

    /// Whether media is watched.
    pub const fn media(&self) -> bool {
        self.flows > 0
    }

    /// Entries of the flow table, and of the stream table: there is no map without any.
    pub const fn flow_entries(&self) -> u32 {
        if self.flows == 0 { 1 } else { self.flows }
    }

    /// ICE sessions at once, those among them that began in the last ten minutes: each has several flows.
    pub const fn sessions(&self) -> u32 {
        if self.flows == 0 { 1 } else { self.flows / 2 }
    }

    /// Paths of media, `~other` among them.
    pub const fn media_paths(&self) -> u32 {
        if self.flows == 0 { 1 } else { self.paths }
    }

    /// `(map, entries)`.
    pub const fn maps(&self) -> [(&'static str, u32); 3] {
        [("PATHS", self.paths), ("CONNS", self.connections), ("HALF_OPEN", self.half_open)]
    }
}

/// One prefix of a configured peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerPrefix {
    /// Network address.
    pub address: IpAddr,
    /// Significant bits.
    pub bits: u8,
    /// Identifier of the peer, not 0.
    pub id: u16,
    /// Whether each of its addresses is a path of its own.
    pub per_address: bool,
}
