//! From the configuration to the settings of each room.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    path::Path,
    sync::Arc,
};

use anyhow::{Result, bail};

use crate::{
    aggregate::{Naming, PeerName, ServiceName},
    collect,
    config::{self, AddressProbe, Config, ConfigError, KernelLog, Namespace, Peer},
    health,
    kernel::{
        Kernel, Watched, netns,
        programs::PROGRAMS,
        settings::{Limits, PeerPrefix, Prefixes, Settings},
    },
    model::Role,
    probe::{address, stamp},
};

/// Names remembered, configured ones and former ones.
const MOST_NAMES: usize = 5000;

/// Identifiers by which the kernel knows peers: a name keeps its own over reloads, so that what is counted under it stays
/// under it. So does one that is no longer configured: connections keep the path they began with.
#[derive(Debug, Default)]
pub struct PeerIds {
    /// Identifier, and whether each address is a path.
    ids: HashMap<String, (u16, bool)>,
}

impl PeerIds {
    /// As an earlier agent gave them: under these the kernel has counted.
    pub fn of_earlier(peers: &HashMap<u16, PeerName>) -> Self {
        let ids = peers.iter().map(|(id, peer)| (peer.name.to_string(), (*id, peer.per_address)));
        Self { ids: ids.collect() }
    }

    fn of(&mut self, peer: &Peer) -> u16 {
        if let Some((id, per_address)) = self.ids.get_mut(&peer.name) {
            *per_address = peer.per_address;
            return *id;
        }
        let used: BTreeSet<u16> = self.ids.values().map(|(id, _)| *id).collect();
        let id = (1..=u16::MAX).find(|id| !used.contains(id)).unwrap_or(u16::MAX);
        self.ids.insert(peer.name.clone(), (id, peer.per_address));
        id
    }

    /// Prefixes of all peers, for the kernel.
    pub fn prefixes(&mut self, config: &Config) -> Vec<PeerPrefix> {
        if self.ids.len() > MOST_NAMES {
            self.ids.retain(|name, _| config.peers.iter().any(|peer| peer.name == *name));
        }
        let mut prefixes = Vec::new();
        for peer in &config.peers {
            let id = self.of(peer);
            let per_address = peer.per_address;
            prefixes.extend(peer.cidrs.iter().map(|(address, bits)| PeerPrefix {
                address: *address,
                bits: *bits,
                id,
                per_address,
            }));
        }
        prefixes
    }

    /// Names of peers and services.
    pub fn naming(&mut self, config: &Config) -> Naming {
        for peer in &config.peers {
            self.of(peer);
        }
        let name = |(name, (id, per_address)): (&String, &(u16, bool))| {
            (*id, PeerName { name: name.as_str().into(), per_address: *per_address })
        };
        let peers = self.ids.iter().map(name).collect();
        Naming { peers, services: services(config) }
    }
}

fn services(config: &Config) -> Vec<ServiceName> {
    let name = |service: &config::Service| ServiceName {
        name: service.name.as_str().into(),
        transport: service.transport,
        role: if service.is_server { Role::Server } else { Role::Client },
        ports: service.ports.clone(),
    };
    config.services.iter().map(name).collect()
}

/// Attaches for a moment to the interfaces that would be watched: each with what became of it.
pub fn try_interfaces(config: &Config, kernel: &mut Kernel) -> Result<Vec<Watched>> {
    if config.media_interfaces.is_empty() {
        return Ok(Vec::new());
    }
    Ok(kernel.watch_interfaces(&collect::interfaces(&config.media_interfaces)?))
}

/// How many threads take in packets where softirqs cannot: as many as are watched for being late.
pub fn softirq_threads() -> usize {
    collect::Softirqs::find().threads()
}

/// Settings of the kernel half, without peers.
pub fn kernel_settings(config: &Config) -> Result<Settings> {
    let [client_v4, client_v6, server_v4, server_v6, media_v4, media_v6] = config.prefixes;
    let namespaces = config.namespaces.as_ref().map(|names| names.iter().map(inode).collect()).transpose()?;
    Ok(Settings {
        netns: namespaces,
        prefixes: Prefixes { client_v4, client_v6, server_v4, server_v6, media_v4, media_v6 },
        limits: Limits {
            paths: config.limits.paths,
            connections: config.limits.connections,
            half_open: config.limits.half_open,
            flows: if config.media_interfaces.is_empty() { 0 } else { config.limits.flows },
        },
        peers: Vec::new(),
        disabled: config.disabled_programs.iter().cloned().collect(),
        log_level: match config.kernel_log {
            KernelLog::Off => 0,
            KernelLog::Warn => 2,
            KernelLog::Info => 3,
            KernelLog::Debug => 4,
        },
        attribution: config.attribution != config::Attribution::Off,
        program_stats: config.program_stats,
    })
}

fn inode(namespace: &Namespace) -> Result<u32> {
    let path = match namespace {
        Namespace::Host => Path::new("/proc/self/ns/net"),
        Namespace::Path(path) => path,
    };
    netns::inode(path).map_err(|error| {
        let problem = format!("{}: {error}", path.display());
        let remedy = "name a namespace that exists when graylag starts".to_owned();
        ConfigError { path: None, line: 0, field: "scope.network_namespaces".into(), problem, remedy }.into()
    })
}

/// Settings of the prober; the keys are read from their file. `None` where neither a reflector nor a probe is configured.
pub fn stamp_settings(config: &Config) -> Result<Option<stamp::Settings>, stamp::KeyFileError> {
    if config.stamp.is_empty() {
        return Ok(None);
    }
    let targets = config.stamp.probes.iter().map(|probe| stamp::Target {
        peer: probe.peer.as_str().into(),
        address: probe.target,
        interval: probe.interval,
        authenticated: probe.authenticated,
    });
    Ok(Some(stamp::Settings {
        keys: config.stamp.key_file.as_deref().map(stamp::key_file::read).transpose()?,
        targets: targets.collect(),
        answered: config.peers.iter().flat_map(|peer| peer.cidrs.iter().copied()).collect(),
        count: None,
        patience: stamp::PATIENCE,
    }))
}

/// Settings of the judge, and what the configuration says of services.
pub fn judge_settings(config: &Config) -> (health::Settings, BTreeMap<Arc<str>, health::Declared>) {
    let mut settings = health::Settings {
        handshake_bound: config.thresholds.handshake_stall,
        first_byte_bound: config.thresholds.first_byte_stall,
        relay_learning: config.thresholds.relay_learning,
        silence_learning: config.thresholds.silence_learning,
        reroute: config.thresholds.reroute,
        lease: config.thresholds.lease,
        canary: config.node_health.canary,
        ..health::Settings::default()
    };
    settings.shift.least = config.thresholds.response_slow;
    let mut declared: BTreeMap<Arc<str>, health::Declared> = BTreeMap::new();
    for service in &config.services {
        let floor = service.rate_floor.map(|floor| match floor {
            config::Floor::Configured(a_minute) => health::Floor::Configured(f64::from(a_minute) / 60.0),
            config::Floor::Learned => health::Floor::Learned,
        });
        if service.answers.is_some() || floor.is_some() {
            let declared = declared.entry(service.name.as_str().into()).or_default();
            *declared = health::Declared {
                answers: service.answers.or(declared.answers),
                floor: floor.or(declared.floor),
                ..*declared
            };
        }
    }
    let asked_at = [config.node_health.listen, config.node_health.agent_check];
    let names = Naming { services: services(config), ..Naming::default() };
    for address in asked_at.into_iter().flatten() {
        declared.entry(names.service("tcp", address.port(), Role::Server)).or_default().is_asking = true;
    }
    (settings, declared)
}

/// Names of programs in the configuration must be names of programs.
pub fn check_program_names(config: &Config) -> Result<()> {
    let known: BTreeSet<&str> = PROGRAMS.iter().map(|p| p.name).collect();
    if let Some(unknown) = config.disabled_programs.iter().find(|name| !known.contains(name.as_str())) {
        let problem = format!("`{unknown}` is no program");
        let remedy = format!("use one of {}", known.into_iter().collect::<Vec<_>>().join(", "));
        bail!(ConfigError { path: None, line: 0, field: "kernel.disable".into(), problem, remedy });
    }
    Ok(())
}

/// Targets of TCP and TLS probes.
pub fn address_probes(config: &Config) -> Vec<address::Probe> {
    let probe = |probe: &AddressProbe| address::Probe {
        name: probe.name.clone(),
        target: probe.target.clone(),
        tls: probe.tls,
        interval: probe.interval,
        patience: probe.timeout,
        resolve: probe.resolve,
    };
    config.address_probes.iter().map(probe).collect()
}

/// What differs between two configurations that a reload cannot change.
pub fn needs_restart(old: &Config, new: &Config) -> Vec<&'static str> {
    [
        ("node", old.node != new.node),
        ("scope", old.namespaces != new.namespaces),
        ("paths", old.prefixes != new.prefixes),
        ("media", old.media_interfaces != new.media_interfaces),
        ("limits", old.limits != new.limits),
        (
            "kernel",
            (&old.disabled_programs, old.program_stats, &old.pin)
                != (&new.disabled_programs, new.program_stats, &new.pin),
        ),
        ("kernel.log", old.kernel_log != new.kernel_log),
        ("attribution", (&old.attribution, old.limits.pods) != (&new.attribution, new.limits.pods)),
        ("collect", old.interval != new.interval),
        ("stamp.listen", old.stamp.listen != new.stamp.listen),
        // Without any there is no prober that could take up new ones.
        ("probe", old.stamp.is_empty() != new.stamp.is_empty() || old.address_probes != new.address_probes),
        (
            "node_health",
            (old.node_health.listen, old.node_health.agent_check)
                != (new.node_health.listen, new.node_health.agent_check),
        ),
        ("api", old.socket != new.socket || old.listen != new.listen || old.path_map != new.path_map),
    ]
    .into_iter()
    .filter_map(|(field, differs)| differs.then_some(field))
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_keeps_its_identifier_over_reloads() {
        let config = |names: &[&str]| {
            let peer = |n: &&str| format!("[[peer]]\nname = \"{n}\"\ncidrs = [\"10.{}.0.0/16\"]\n", n.len());
            Config::parse(&names.iter().map(peer).collect::<String>(), None).unwrap()
        };
        let mut ids = PeerIds::default();
        assert_eq!(ids.prefixes(&config(&["a", "bb"])).iter().map(|p| p.id).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(ids.prefixes(&config(&["ccc", "bb"])).iter().map(|p| p.id).collect::<Vec<_>>(), [3, 2]);
        let naming = ids.naming(&config(&["bb"]));
        assert_eq!(naming.peers[&2].name.as_ref(), "bb");
        assert_eq!(naming.peers[&1].name.as_ref(), "a", "its connections may still be there");
    }

    #[test]
    fn unknown_programs_are_refused() {
        let config = Config::parse("[kernel]\ndisable = [\"listen\", \"nosuch\"]", None).unwrap();
        let error = check_program_names(&config).unwrap_err().to_string();
        assert!(error.starts_with("kernel.disable: `nosuch` is no program; use one of adopt, "), "{error}");
    }

    #[test]
    fn reload_tells_what_it_cannot_change() {
        let config = |text| Config::parse(text, None).unwrap();
        let new = config("[limits]\npaths = 100\n[thresholds]\nlease = \"5s\"");
        assert_eq!(needs_restart(&config(""), &new), ["limits"]);
    }
}
