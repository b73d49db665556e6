//! `[[probe]]` of kind `tcp` or `tls`, checked.

use std::{collections::HashSet, time::Duration};

use toml::Spanned;

use super::{
    ConfigError,
    check::duration,
    error::Source,
    raw::{self, Raw},
};
use crate::model::{HTTPS_PORT, HostPort};

/// Targets of all probes of these kinds: each may have 256 addresses.
const MOST: usize = 100;
/// An attempt a second to each address of a target.
const INTERVAL: Duration = Duration::from_secs(1);
/// Below the time after which the kernel repeats a SYN: each attempt is one.
const TIMEOUT: Duration = Duration::from_millis(900);
const RESOLVE: Duration = Duration::from_secs(30);
const INTERVALS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(200));

/// One target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressProbe {
    /// As it is written.
    pub name: String,
    /// What that means.
    pub target: HostPort,
    /// Whether TLS follows.
    pub tls: bool,
    /// Time between two attempts to an address.
    pub interval: Duration,
    /// Time for each handshake.
    pub timeout: Duration,
    /// Time between two lookups.
    pub resolve: Duration,
}

/// Checks all of these kinds.
pub fn address_probes(raw: &Raw, source: &Source<'_>) -> Result<Vec<AddressProbe>, ConfigError> {
    let mut seen = HashSet::new();
    let mut probes = Vec::new();
    for probe in raw.probe.iter().filter(|probe| matches!(probe.kind.get_ref().as_str(), "tcp" | "tls")) {
        let checked = address_probe(probe, source)?;
        if !seen.insert((checked.name.clone(), checked.tls)) {
            let problem = format!("{} is there twice", checked.name);
            return Err(source.error(probe.target.span(), "probe.target", problem, "name each target once"));
        }
        probes.push(checked);
    }
    if probes.len() > MOST {
        let problem = format!("{} targets", probes.len());
        return Err(source.error(0..0, "probe", problem, &format!("at most {MOST} of kind tcp and tls")));
    }
    Ok(probes)
}

fn address_probe(raw: &raw::Probe, source: &Source<'_>) -> Result<AddressProbe, ConfigError> {
    let wrong = |span, field: &str| {
        let problem = format!("means nothing to `{}`", raw.kind.get_ref());
        Err(source.error(span, field, problem, "leave it out"))
    };
    if let Some(peer) = &raw.peer {
        return wrong(peer.span(), "probe.peer");
    }
    if let Some(authenticated) = &raw.authenticated {
        return wrong(authenticated.span(), "probe.authenticated");
    }
    let tls = raw.kind.get_ref() == "tls";
    let name = raw.target.get_ref();
    let target = HostPort::parse(name, tls.then_some(HTTPS_PORT)).ok_or_else(|| {
        let remedy = "use e.g. \"lb.example:443\", \"192.0.2.1:443\" or \"[2001:db8::1]:443\"";
        source.error(raw.target.span(), "probe.target", format!("`{name}` is no host and port"), remedy)
    })?;
    let time = |value: &Option<Spanned<String>>, field: &str, default| {
        value.as_ref().map_or(Ok(default), |value| duration(value, field, source))
    };
    let interval = time(&raw.interval, "probe.interval", INTERVAL)?;
    let resolve = time(&raw.resolve, "probe.resolve", RESOLVE)?;
    for (value, time, field) in
        [(&raw.interval, interval, "probe.interval"), (&raw.resolve, resolve, "probe.resolve")]
    {
        if let Some(value) = value
            && (time < INTERVALS.0 || time > INTERVALS.1)
        {
            let problem = format!("`{}` is out of range", value.get_ref());
            return Err(source.error(value.span(), field, problem, "use 100ms to 200s"));
        }
    }
    let timeout = time(&raw.timeout, "probe.timeout", TIMEOUT)?;
    Ok(AddressProbe { name: name.clone(), target, tls, interval, timeout, resolve })
}
