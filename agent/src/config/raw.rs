//! The configuration file as it is written: every key, its default, nothing checked beyond its type.

use serde::{Deserialize, Serialize};
use toml::Spanned;

/// One TOML file; every key has a default, unknown keys are refused.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Raw {
    /// This node.
    pub node: Node,
    /// What is watched.
    pub scope: Scope,
    /// How addresses become paths where no peer names them.
    pub paths: Paths,
    /// Named remote sites, relays or services.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub peer: Vec<Peer>,
    /// Named services.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub service: Vec<Service>,
    /// What is probed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub probe: Vec<Probe>,
    /// STAMP: the reflector, and the keys of both roles.
    pub stamp: Stamp,
    /// When something hangs, is slow, and how long a verdict holds.
    pub thresholds: Thresholds,
    /// UDP at the interfaces: RTP, its loss and its directions.
    pub media: Media,
    /// Sizes, fixed at start.
    pub limits: Limits,
    /// Pods and containers.
    pub attribution: Attribution,
    /// The kernel half.
    pub kernel: Kernel,
    /// The collector.
    pub collect: Collect,
    /// The local API.
    pub api: Api,
    /// What load balancers ask.
    pub node_health: NodeHealth,
}

/// `[node]`
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Node {
    /// Default: the host name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// `[scope]`
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Scope {
    /// `["all"]`, or a list of `"host"` and of paths such as `/run/netns/blue`.
    pub network_namespaces: Vec<Spanned<String>>,
}

impl Default for Scope {
    fn default() -> Self {
        Self { network_namespaces: vec![Spanned::new(0..0, "all".into())] }
    }
}

/// `[paths]`: significant bits of an unnamed remote address.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Paths {
    /// Destinations, IPv4.
    pub client_prefix_v4: Spanned<u8>,
    /// Destinations, IPv6.
    pub client_prefix_v6: Spanned<u8>,
    /// Clients, IPv4.
    pub server_prefix_v4: Spanned<u8>,
    /// Clients, IPv6.
    pub server_prefix_v6: Spanned<u8>,
    /// Remote ends of UDP, IPv4.
    pub media_prefix_v4: Spanned<u8>,
    /// Remote ends of UDP, IPv6.
    pub media_prefix_v6: Spanned<u8>,
}

impl Default for Paths {
    fn default() -> Self {
        let bits = |bits| Spanned::new(0..0, bits);
        Self {
            client_prefix_v4: bits(32),
            client_prefix_v6: bits(128),
            server_prefix_v4: bits(24),
            server_prefix_v6: bits(48),
            media_prefix_v4: bits(24),
            media_prefix_v6: bits(48),
        }
    }
}

/// `[[peer]]`
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Peer {
    /// What it is called everywhere.
    pub name: Spanned<String>,
    /// Its addresses.
    pub cidrs: Vec<Spanned<String>>,
    /// A path for every address.
    #[serde(default)]
    pub per_address: bool,
}

/// `[[service]]`
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Service {
    /// What it is called everywhere.
    pub name: Spanned<String>,
    /// `tcp` or `udp`.
    #[serde(default = "tcp")]
    pub transport: Spanned<String>,
    /// Ports where this host is the client.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remote_ports: Vec<Spanned<Port>>,
    /// Ports where this host serves.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub local_ports: Vec<Spanned<Port>>,
    /// Whether it answers every client (`false`: log shipping and the like). Default: learned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answers: Option<bool>,
    /// Exchanges a minute that there should be at least, on all paths together, or `learned`. Default: not judged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_floor: Option<Spanned<Floor>>,
}

fn tcp() -> Spanned<String> {
    Spanned::new(0..0, "tcp".into())
}

/// `600` or `"learned"`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(untagged)]
pub enum Floor {
    /// Exchanges a minute.
    Number(i64),
    /// A word.
    Text(String),
}

/// `443`, `"443"` or `"8000-8100"`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(untagged)]
pub enum Port {
    /// One port.
    Number(i64),
    /// One port, or a range.
    Text(String),
}

/// `[[probe]]`
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Probe {
    /// `stamp`, `tcp` or `tls`.
    pub kind: Spanned<String>,
    /// Where to: of STAMP an address, with a port or without; else host and port.
    pub target: Spanned<String>,
    /// The configured peer it belongs to. Default: the one whose prefix holds it, else its address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<Spanned<String>>,
    /// Time between two test packets, on average; of TCP and TLS between two attempts to each address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<Spanned<String>>,
    /// Whether test packets carry a digest. Default: where there is a `[stamp] key_file`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authenticated: Option<Spanned<bool>>,
    /// Of TCP and TLS: time for each handshake.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Spanned<String>>,
    /// Of TCP and TLS: time between two lookups of the name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolve: Option<Spanned<String>>,
}

/// `[stamp]`
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Stamp {
    /// Where the reflector listens; none listens where it is absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listen: Option<Spanned<String>>,
    /// File of the pre-shared keys, of the reflector and of probes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_file: Option<Spanned<String>>,
}

/// `[media]`
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Media {
    /// Interfaces of the agent's own namespace, by name, with `*` for any characters; none: media is not watched. Of
    /// interfaces that lie on one another (bond, bridge, VLAN) the lowest is taken.
    pub interfaces: Vec<Spanned<String>>,
}

impl Default for Media {
    fn default() -> Self {
        Self { interfaces: vec![Spanned::new(0..0, "*".into())] }
    }
}

/// `[attribution]`
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Attribution {
    /// Where it is asked whose a network namespace is: `auto`, `cgroup` or `off`.
    pub source: Spanned<String>,
    /// The container runtime's socket. Default: of the usual places the first that is there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cri_socket: Option<Spanned<String>>,
}

impl Default for Attribution {
    fn default() -> Self {
        Self { source: Spanned::new(0..0, "auto".into()), cri_socket: None }
    }
}

/// `[thresholds]`
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Thresholds {
    /// A handshake hangs when it is not complete by this.
    pub handshake_stall: Spanned<String>,
    /// A connection hangs when its request has no first byte back by this.
    pub first_byte_stall: Spanned<String>,
    /// Smallest increase of a median response time that matters.
    pub response_slow: Spanned<String>,
    /// How long a relay is watched before it is judged by its output alone.
    pub relay_learning: Spanned<String>,
    /// How long connections that are regularly spoken to are watched before their silence is judged.
    pub silence_learning: Spanned<String>,
    /// Media must have left a path that is down by this.
    pub reroute: Spanned<String>,
    /// How long a condition stands without fresh bad evidence.
    pub lease: Spanned<String>,
}

impl Default for Thresholds {
    fn default() -> Self {
        let text = |text: &str| Spanned::new(0..0, text.to_owned());
        Self {
            handshake_stall: text("1s"),
            first_byte_stall: text("3s"),
            response_slow: text("50ms"),
            relay_learning: text("2m"),
            silence_learning: text("10m"),
            reroute: text("5s"),
            lease: text("10s"),
        }
    }
}

/// `[limits]`
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Connections tracked at once.
    pub connections: Spanned<u32>,
    /// Unfinished handshakes of listeners tracked at once.
    pub half_open: Spanned<u32>,
    /// Paths counted by themselves in the kernel; the rest is `~other`.
    pub paths: Spanned<u32>,
    /// UDP flows tracked at once.
    pub flows: Spanned<u32>,
    /// Subjects (path × service × role) published by themselves; the rest is `~other`.
    pub subjects: Spanned<u32>,
    /// Pods and containers told apart; the rest is the host's.
    pub pods: Spanned<u32>,
}

impl Default for Limits {
    fn default() -> Self {
        let entries = |entries| Spanned::new(0..0, entries);
        Self {
            connections: entries(65_536),
            half_open: entries(16_384),
            paths: entries(4096),
            flows: entries(16_384),
            subjects: entries(100),
            pods: entries(100),
        }
    }
}

/// `[kernel]`
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Kernel {
    /// Programs not to load, by name (`graylag check` lists them).
    pub disable: Vec<Spanned<String>>,
    /// Measure the programs' run time; needs `CAP_SYS_ADMIN`, costs some 20 ns a run.
    pub program_stats: bool,
    /// Diagnostics of the kernel programs: `off`, `warn`, `info` or `debug`.
    pub log: Spanned<String>,
    /// Directory where maps and programs are pinned, so that they outlive the agent; nothing does where this is absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pin: Option<Spanned<String>>,
}

impl Default for Kernel {
    fn default() -> Self {
        Self { disable: Vec::new(), program_stats: false, log: Spanned::new(0..0, "off".into()), pin: None }
    }
}

/// `[collect]`
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Collect {
    /// Time between two looks at the kernel.
    pub interval: Spanned<String>,
}

impl Default for Collect {
    fn default() -> Self {
        Self { interval: Spanned::new(0..0, "500ms".into()) }
    }
}

/// `[api]`
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Api {
    /// Unix socket of the local API; empty for none.
    pub socket: Spanned<String>,
    /// Loopback address to serve the same on, e.g. `127.0.0.1:9464`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listen: Option<Spanned<String>>,
    /// Where the map of path states is pinned; there is none where this is absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path_map: Option<Spanned<String>>,
}

/// `[node_health]`
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct NodeHealth {
    /// Where `/health/node` is served, e.g. `0.0.0.0:9180`; nowhere where it is absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listen: Option<Spanned<String>>,
    /// Where `HAProxy`'s agent-check is answered, e.g. `0.0.0.0:9181`; nowhere where it is absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent_check: Option<Spanned<String>>,
    /// What a gray node keeps of its load, percent; 0 drains it.
    pub canary: Spanned<u8>,
}

impl Default for NodeHealth {
    fn default() -> Self {
        Self { listen: None, agent_check: None, canary: Spanned::new(0..0, 5) }
    }
}

impl Default for Api {
    fn default() -> Self {
        Self { socket: Spanned::new(0..0, "/run/graylag/agent.sock".into()), listen: None, path_map: None }
    }
}
