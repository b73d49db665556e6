//! `[stamp]` and `[[probe]]`, checked.

use std::{
    collections::HashSet,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use ipnet::IpNet;
use toml::Spanned;

use super::{
    ConfigError, Peer,
    check::duration,
    error::Source,
    raw::{self, Raw},
};
use crate::model::STAMP_PORT;

/// Targets of all probes together.
const MOST: usize = 4000;
const INTERVAL: Duration = Duration::from_millis(100);
const INTERVALS: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(10));

/// STAMP, as it is meant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stamp {
    /// Where the reflector listens.
    pub listen: Option<SocketAddr>,
    /// File of the keys.
    pub key_file: Option<PathBuf>,
    /// Sessions.
    pub probes: Vec<StampProbe>,
}

impl Stamp {
    /// Whether there is neither a reflector nor a probe.
    pub const fn is_empty(&self) -> bool {
        self.listen.is_none() && self.probes.is_empty()
    }
}

/// One `[[probe]]` of kind `stamp`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StampProbe {
    /// Name of the peer, or the address.
    pub peer: String,
    /// Where to.
    pub target: SocketAddr,
    /// Time between two test packets, on average.
    pub interval: Duration,
    /// Whether they carry a digest.
    pub authenticated: bool,
}

/// Checks both.
pub fn stamp(raw: &Raw, peers: &[Peer], source: &Source<'_>) -> Result<Stamp, ConfigError> {
    let listen = raw.stamp.listen.as_ref().map(|value| {
        value.get_ref().parse().map_err(|_| {
            let problem = format!("`{}` is no address and port", value.get_ref());
            source.error(value.span(), "stamp.listen", problem, "use e.g. \"0.0.0.0:862\" or \"[::]:862\"")
        })
    });
    let key_file = raw.stamp.key_file.as_ref().map(|value| {
        if value.get_ref().starts_with('/') {
            return Ok(PathBuf::from(value.get_ref()));
        }
        let problem = format!("`{}` is no absolute path", value.get_ref());
        Err(source.error(value.span(), "stamp.key_file", problem, "use e.g. \"/etc/graylag/stamp.keys\""))
    });
    let (listen, key_file) = (listen.transpose()?, key_file.transpose()?);
    let mut seen = HashSet::new();
    let mut probes = Vec::new();
    for probe in raw.probe.iter().filter(|probe| !matches!(probe.kind.get_ref().as_str(), "tcp" | "tls")) {
        let checked = stamp_probe(probe, peers, key_file.is_some(), source)?;
        if !seen.insert(checked.target) {
            let problem = format!("{} is there twice", checked.target);
            return Err(source.error(probe.target.span(), "probe.target", problem, "name each target once"));
        }
        probes.push(checked);
    }
    if probes.len() > MOST {
        let problem = format!("{} targets", probes.len());
        return Err(source.error(0..0, "probe", problem, &format!("at most {MOST} in all probes together")));
    }
    Ok(Stamp { listen, key_file, probes })
}

fn stamp_probe(
    raw: &raw::Probe,
    peers: &[Peer],
    has_keys: bool,
    source: &Source<'_>,
) -> Result<StampProbe, ConfigError> {
    let kind = raw.kind.get_ref();
    if kind != "stamp" {
        let problem = format!("`{kind}` is no kind of probe");
        return Err(source.error(raw.kind.span(), "probe.kind", problem, "use stamp, tcp or tls"));
    }
    for (value, field) in [(&raw.timeout, "probe.timeout"), (&raw.resolve, "probe.resolve")] {
        if let Some(value) = value {
            let problem = "means nothing to `stamp`".to_owned();
            return Err(source.error(value.span(), field, problem, "leave it out"));
        }
    }
    let target = target(&raw.target, source)?;
    let interval = match &raw.interval {
        None => INTERVAL,
        Some(value) => {
            let interval = duration(value, "probe.interval", source)?;
            if interval < INTERVALS.0 || interval > INTERVALS.1 {
                let problem = format!("`{}` is out of range", value.get_ref());
                return Err(source.error(value.span(), "probe.interval", problem, "use 10ms to 10s"));
            }
            interval
        }
    };
    let peer = match &raw.peer {
        Some(name) if peers.iter().any(|peer| peer.name == *name.get_ref()) => name.get_ref().clone(),
        Some(name) => {
            let problem = format!("no [[peer]] is called `{}`", name.get_ref());
            return Err(source.error(name.span(), "probe.peer", problem, "add one, or leave it out"));
        }
        None => peer_of(target.ip(), peers).map_or_else(|| target.ip().to_string(), |peer| peer.name.clone()),
    };
    let authenticated = match &raw.authenticated {
        Some(wanted) if *wanted.get_ref() && !has_keys => {
            let remedy = "name their file in [stamp] key_file";
            let problem = "there are no keys".to_owned();
            return Err(source.error(wanted.span(), "probe.authenticated", problem, remedy));
        }
        Some(wanted) => *wanted.get_ref(),
        None => has_keys,
    };
    Ok(StampProbe { peer, target, interval, authenticated })
}

/// The time between two test packets, from a command line.
pub fn probe_interval(text: &str) -> Result<Duration, String> {
    let parsed = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if parsed < INTERVALS.0 || parsed > INTERVALS.1 {
        return Err("use 10ms to 10s".into());
    }
    Ok(parsed)
}

fn target(value: &Spanned<String>, source: &Source<'_>) -> Result<SocketAddr, ConfigError> {
    let text = value.get_ref();
    let address = text.parse().or_else(|_| text.parse::<IpAddr>().map(|ip| (ip, STAMP_PORT).into()));
    address.map_err(|_| {
        let remedy = "use one with a port or without, such as \"192.0.2.1:862\" or \"2001:db8::1\"";
        source.error(value.span(), "probe.target", format!("`{text}` is no address"), remedy)
    })
}

/// The peer with the longest prefix that holds an address.
fn peer_of(address: IpAddr, peers: &[Peer]) -> Option<&Peer> {
    let longest = |peer: &Peer| {
        let holds =
            |(net, bits): &&(IpAddr, u8)| IpNet::new(*net, *bits).is_ok_and(|net| net.contains(&address));
        peer.cidrs.iter().filter(holds).map(|(_, bits)| *bits).max()
    };
    peers.iter().filter_map(|peer| Some((longest(peer)?, peer))).max_by_key(|(bits, _)| *bits).map(|(_, p)| p)
}

#[cfg(test)]
mod tests {
    use crate::config::Config;

    #[test]
    fn a_probe_belongs_to_the_peer_whose_prefix_holds_it() {
        let text = r#"
            [stamp]
            listen = "[::]:862"
            key_file = "/etc/graylag/stamp.keys"
            [[peer]]
            name = "all"
            cidrs = ["10.0.0.0/8"]
            [[peer]]
            name = "site-b"
            cidrs = ["10.1.0.0/16"]
            [[probe]]
            kind = "stamp"
            target = "10.1.2.3:8620"
            authenticated = false
            [[probe]]
            kind = "stamp"
            target = "2001:db8::1"
            interval = "1s"
            [[probe]]
            kind = "stamp"
            target = "10.1.2.4"
            peer = "all"
        "#;
        let stamp = Config::parse(text, None).unwrap().stamp;
        let shown: Vec<_> = stamp
            .probes
            .iter()
            .map(|p| format!("{} {} {:?} {}", p.peer, p.target, p.interval, p.authenticated))
            .collect();
        assert_eq!(
            shown,
            [
                "site-b 10.1.2.3:8620 100ms false",
                "2001:db8::1 [2001:db8::1]:862 1s true",
                "all 10.1.2.4:862 100ms true"
            ]
        );
        assert!(stamp.listen.is_some_and(|listen| listen.is_ipv6()));
    }
}
