//! From what is written to what is meant.

use std::{collections::HashSet, net::SocketAddr, ops::RangeInclusive, time::Duration};

use ipnet::IpNet;
use toml::Spanned;

use super::{
    Config, ConfigError, KernelLog, Limits, Namespace, NodeHealth, Peer, Service, address_probe, attribution,
    error::Source,
    path_map, probe,
    raw::{self, Port, Raw},
    thresholds,
};

/// Checks everything, names the first thing that is wrong.
pub fn checked(raw: &Raw, source: &Source<'_>) -> Result<Config, ConfigError> {
    let limits = &raw.limits;
    let path_map = raw.api.path_map.as_ref().map(|path| path_map::checked(path, source)).transpose()?;
    let pin = raw.kernel.pin.as_ref();
    let pin = pin.map(|pin| path_map::directory(pin, path_map.as_deref(), source)).transpose()?;
    let peers = peers(&raw.peer, source)?;
    Ok(Config {
        node: node(raw),
        namespaces: namespaces(&raw.scope, source)?,
        prefixes: [
            bits(&raw.paths.client_prefix_v4, 32, "paths.client_prefix_v4", source)?,
            bits(&raw.paths.client_prefix_v6, 128, "paths.client_prefix_v6", source)?,
            bits(&raw.paths.server_prefix_v4, 32, "paths.server_prefix_v4", source)?,
            bits(&raw.paths.server_prefix_v6, 128, "paths.server_prefix_v6", source)?,
            bits(&raw.paths.media_prefix_v4, 32, "paths.media_prefix_v4", source)?,
            bits(&raw.paths.media_prefix_v6, 128, "paths.media_prefix_v6", source)?,
        ],
        media_interfaces: interfaces(&raw.media, source)?,
        stamp: probe::stamp(raw, &peers, source)?,
        address_probes: address_probe::address_probes(raw, source)?,
        peers,
        services: services(&raw.service, source)?,
        thresholds: thresholds::checked(&raw.thresholds, source)?,
        limits: Limits {
            connections: entries(&limits.connections, 256..=16_777_216, "limits.connections", source)?,
            half_open: entries(&limits.half_open, 256..=1_048_576, "limits.half_open", source)?,
            paths: entries(&limits.paths, 64..=65_536, "limits.paths", source)?,
            flows: entries(&limits.flows, 256..=1_048_576, "limits.flows", source)?,
            subjects: entries(&limits.subjects, 1..=10_000, "limits.subjects", source)?,
            pods: entries(&limits.pods, 1..=1000, "limits.pods", source)?,
        },
        attribution: attribution::checked(&raw.attribution, source)?,
        disabled_programs: raw.kernel.disable.iter().map(|name| name.get_ref().clone()).collect(),
        program_stats: raw.kernel.program_stats,
        kernel_log: kernel_log(&raw.kernel.log, source)?,
        interval: interval(&raw.collect.interval, source)?,
        socket: Some(raw.api.socket.get_ref()).filter(|path| !path.is_empty()).map(Into::into),
        listen: raw.api.listen.as_ref().map(|address| listen(address, source)).transpose()?,
        path_map,
        pin,
        node_health: node_health(&raw.node_health, source)?,
    })
}

fn node(raw: &Raw) -> String {
    raw.node.name.clone().unwrap_or_else(|| {
        std::fs::read_to_string("/proc/sys/kernel/hostname")
            .map_or_else(|_| "localhost".into(), |n| n.trim().into())
    })
}

fn namespaces(scope: &raw::Scope, source: &Source<'_>) -> Result<Option<Vec<Namespace>>, ConfigError> {
    const FIELD: &str = "scope.network_namespaces";
    let names = &scope.network_namespaces;
    if names.iter().any(|name| name.get_ref() == "all") {
        return Ok(None);
    }
    let namespace = |name: &Spanned<String>| match name.get_ref().as_str() {
        "host" => Ok(Namespace::Host),
        path if path.starts_with('/') => Ok(Namespace::Path(path.into())),
        other => Err(source.error(
            name.span(),
            FIELD,
            format!("`{other}` is no namespace"),
            "use \"all\", \"host\" or a path such as \"/run/netns/blue\"",
        )),
    };
    names.iter().map(namespace).collect::<Result<_, _>>().map(Some)
}

fn interfaces(media: &raw::Media, source: &Source<'_>) -> Result<Vec<String>, ConfigError> {
    // `IFNAMSIZ` less the final zero; a pattern may be a little longer than what it stands for.
    const LONGEST: usize = 32;
    let interface = |name: &Spanned<String>| {
        let text = name.get_ref();
        if text.is_empty() || text.len() > LONGEST || text.contains(|c: char| c.is_whitespace() || c == '/') {
            let remedy = "use names or patterns such as \"eth0\" or \"bond*\", and [] for none";
            return Err(source.error(
                name.span(),
                "media.interfaces",
                format!("`{text}` is no interface"),
                remedy,
            ));
        }
        Ok(text.clone())
    };
    media.interfaces.iter().map(interface).collect()
}

fn bits(value: &Spanned<u8>, most: u8, field: &str, source: &Source<'_>) -> Result<u8, ConfigError> {
    if *value.get_ref() <= most {
        return Ok(*value.get_ref());
    }
    let problem = format!("{} bits", value.get_ref());
    Err(source.error(value.span(), field, problem, &format!("an address has 0 to {most}")))
}

fn entries(
    value: &Spanned<u32>,
    range: RangeInclusive<u32>,
    field: &str,
    source: &Source<'_>,
) -> Result<u32, ConfigError> {
    if range.contains(value.get_ref()) {
        return Ok(*value.get_ref());
    }
    let remedy = format!("use {} to {}", range.start(), range.end());
    Err(source.error(value.span(), field, format!("{} is out of range", value.get_ref()), &remedy))
}

pub fn duration(value: &Spanned<String>, field: &str, source: &Source<'_>) -> Result<Duration, ConfigError> {
    duration_up_to(value, field, Duration::from_secs(200), source)
}

/// A duration of a millisecond at least.
pub fn duration_up_to(
    value: &Spanned<String>,
    field: &str,
    most: Duration,
    source: &Source<'_>,
) -> Result<Duration, ConfigError> {
    const REMEDY: &str = "use a duration such as \"500ms\" or \"2s\"";
    let parsed = humantime::parse_duration(value.get_ref())
        .map_err(|e| source.error(value.span(), field, format!("`{}`: {e}", value.get_ref()), REMEDY))?;
    if parsed < Duration::from_millis(1) || parsed > most {
        let problem = format!("`{}` is out of range", value.get_ref());
        return Err(source.error(value.span(), field, problem, &format!("use 1ms to {}s", most.as_secs())));
    }
    Ok(parsed)
}

fn interval(value: &Spanned<String>, source: &Source<'_>) -> Result<Duration, ConfigError> {
    let parsed = duration(value, "collect.interval", source)?;
    if (Duration::from_millis(100)..=Duration::from_secs(10)).contains(&parsed) {
        return Ok(parsed);
    }
    let problem = format!("`{}` is out of range", value.get_ref());
    Err(source.error(value.span(), "collect.interval", problem, "use 100ms to 10s"))
}

fn kernel_log(value: &Spanned<String>, source: &Source<'_>) -> Result<KernelLog, ConfigError> {
    match value.get_ref().as_str() {
        "off" => Ok(KernelLog::Off),
        "warn" => Ok(KernelLog::Warn),
        "info" => Ok(KernelLog::Info),
        "debug" => Ok(KernelLog::Debug),
        other => {
            let problem = format!("`{other}` is no level");
            Err(source.error(value.span(), "kernel.log", problem, "use off, warn, info or debug"))
        }
    }
}

fn listen(value: &Spanned<String>, source: &Source<'_>) -> Result<SocketAddr, ConfigError> {
    const FIELD: &str = "api.listen";
    let address = socket_address(value, FIELD, "127.0.0.1:9464", source)?;
    if address.ip().is_loopback() {
        return Ok(address);
    }
    let problem = format!("{} is not a loopback address", address.ip());
    Err(source.error(value.span(), FIELD, problem, "the API has no authentication: use 127.0.0.1 or [::1]"))
}

fn socket_address(
    value: &Spanned<String>,
    field: &str,
    example: &str,
    source: &Source<'_>,
) -> Result<SocketAddr, ConfigError> {
    value.get_ref().parse().map_err(|_| {
        let problem = format!("`{}` is no address and port", value.get_ref());
        source.error(value.span(), field, problem, &format!("use e.g. \"{example}\""))
    })
}

fn node_health(raw: &raw::NodeHealth, source: &Source<'_>) -> Result<NodeHealth, ConfigError> {
    let address = |value: &Option<Spanned<String>>, field, example| {
        value.as_ref().map(|value| socket_address(value, field, example, source)).transpose()
    };
    let canary = *raw.canary.get_ref();
    // A gray node that kept more would hardly be left alone.
    if canary > 50 {
        let problem = format!("{canary} is out of range");
        return Err(source.error(raw.canary.span(), "node_health.canary", problem, "use 0 to 50 (percent)"));
    }
    let listen = address(&raw.listen, "node_health.listen", "0.0.0.0:9180")?;
    let agent_check = address(&raw.agent_check, "node_health.agent_check", "0.0.0.0:9181")?;
    Ok(NodeHealth { listen, agent_check, canary })
}

fn peers(raw: &[raw::Peer], source: &Source<'_>) -> Result<Vec<Peer>, ConfigError> {
    const MOST: usize = 1000;
    let mut names = HashSet::new();
    let mut cidrs_seen = HashSet::new();
    let mut peers = Vec::new();
    for peer in raw {
        name(&peer.name, "peer.name", source)?;
        if !names.insert(peer.name.get_ref()) {
            let problem = format!("`{}` is there twice", peer.name.get_ref());
            return Err(source.error(
                peer.name.span(),
                "peer.name",
                problem,
                "give each peer a name of its own",
            ));
        }
        let mut cidrs = Vec::new();
        for cidr in &peer.cidrs {
            let net = cidr_of(cidr, source)?;
            if !cidrs_seen.insert(net) {
                let problem = format!("{net} belongs to another peer already");
                return Err(source.error(cidr.span(), "peer.cidrs", problem, "name each prefix once"));
            }
            cidrs.push((net.network(), net.prefix_len()));
        }
        if cidrs.is_empty() {
            let problem = format!("`{}` has no addresses", peer.name.get_ref());
            return Err(source.error(
                peer.name.span(),
                "peer.cidrs",
                problem,
                "add e.g. cidrs = [\"192.0.2.0/24\"]",
            ));
        }
        peers.push(Peer { name: peer.name.get_ref().clone(), cidrs, per_address: peer.per_address });
    }
    if cidrs_seen.len() > MOST {
        let problem = format!("{} prefixes", cidrs_seen.len());
        return Err(source.error(
            0..0,
            "peer.cidrs",
            problem,
            &format!("at most {MOST} in all peers together"),
        ));
    }
    Ok(peers)
}

fn cidr_of(cidr: &Spanned<String>, source: &Source<'_>) -> Result<IpNet, ConfigError> {
    let text = cidr.get_ref();
    let net = text
        .parse::<IpNet>()
        .or_else(|error| text.parse::<std::net::IpAddr>().map(IpNet::from).map_err(|_| error));
    net.map(|net| net.trunc()).map_err(|_| {
        let remedy = "use an address or a prefix such as 192.0.2.0/24 or 2001:db8::/32";
        source.error(cidr.span(), "peer.cidrs", format!("`{text}` is no CIDR"), remedy)
    })
}

fn name(value: &Spanned<String>, field: &str, source: &Source<'_>) -> Result<(), ConfigError> {
    let text = value.get_ref();
    if text.is_empty() || text.len() > 63 || text.starts_with('~') || text.contains(char::is_control) {
        let remedy = "use 1 to 63 characters, the first of them not `~`";
        return Err(source.error(value.span(), field, format!("`{text}` is no name"), remedy));
    }
    Ok(())
}

fn services(raw: &[raw::Service], source: &Source<'_>) -> Result<Vec<Service>, ConfigError> {
    let mut services = Vec::new();
    for service in raw {
        name(&service.name, "service.name", source)?;
        let transport = match service.transport.get_ref().as_str() {
            "tcp" => "tcp",
            "udp" => "udp",
            other => {
                let problem = format!("`{other}` is no transport");
                return Err(source.error(
                    service.transport.span(),
                    "service.transport",
                    problem,
                    "use tcp or udp",
                ));
            }
        };
        if service.remote_ports.is_empty() && service.local_ports.is_empty() {
            let problem = format!("`{}` has no ports", service.name.get_ref());
            let remedy = "add remote_ports where this host is the client, local_ports where it serves";
            return Err(source.error(service.name.span(), "service", problem, remedy));
        }
        let rate_floor = service.rate_floor.as_ref();
        let rate_floor = rate_floor.map(|value| thresholds::floor(value, source)).transpose()?;
        if let (Some(floor), "udp") = (service.rate_floor.as_ref(), transport) {
            let problem = "exchanges are counted of TCP".to_owned();
            return Err(source.error(floor.span(), "service.rate_floor", problem, "leave it out"));
        }
        for (is_server, ports) in [(false, &service.remote_ports), (true, &service.local_ports)] {
            let field = if is_server { "service.local_ports" } else { "service.remote_ports" };
            let ports: Vec<_> = ports.iter().map(|p| port(p, field, source)).collect::<Result<_, _>>()?;
            if !ports.is_empty() {
                let (name, answers) = (service.name.get_ref().clone(), service.answers);
                services.push(Service { name, transport, is_server, ports, answers, rate_floor });
            }
        }
    }
    Ok(services)
}

fn port(value: &Spanned<Port>, field: &str, source: &Source<'_>) -> Result<RangeInclusive<u16>, ConfigError> {
    let range = match value.get_ref() {
        Port::Number(number) => u16::try_from(*number).ok().map(|port| port..=port),
        Port::Text(text) => match text.split_once('-') {
            Some((low, high)) => {
                low.trim().parse().ok().zip(high.trim().parse().ok()).map(|(low, high)| low..=high)
            }
            None => text.trim().parse().ok().map(|port| port..=port),
        },
    };
    range.filter(|range| !range.is_empty() && *range.start() > 0).ok_or_else(|| {
        let shown = match value.get_ref() {
            Port::Number(number) => number.to_string(),
            Port::Text(text) => format!("`{text}`"),
        };
        source.error(
            value.span(),
            field,
            format!("{shown} is no port"),
            "use 1 to 65535, or a range such as \"8000-8100\"",
        )
    })
}

#[cfg(test)]
mod tests;
