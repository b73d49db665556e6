//! `graylag probe stamp`: one round for a person, like ping. Needs no agent and no root.

use std::{
    net::{IpAddr, SocketAddr, ToSocketAddrs},
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context, Result};
use serde::Serialize;

use super::code;
use crate::{
    model::{Delays, StampPath},
    probe::stamp,
    run,
};

/// How often it is looked whether the round is over.
const LOOK: Duration = Duration::from_millis(20);

/// One round of STAMP.
pub struct StampRound<'a> {
    /// Address or name, with a port or without.
    pub target: &'a str,
    /// Packets.
    pub count: u64,
    /// Time between two of them, on average.
    pub interval: Duration,
    /// Keys; without, packets are not authenticated.
    pub key_file: Option<&'a Path>,
    /// As JSON.
    pub json: bool,
}

/// What a round came to. Times are milliseconds.
#[derive(Serialize)]
struct Report {
    target: SocketAddr,
    authenticated: bool,
    sent: u64,
    answered: u64,
    lost_out: u64,
    lost_back: u64,
    lost_unknown: u64,
    auth_mismatch: u64,
    refused: u64,
    duplicated_out: u64,
    duplicated_back: u64,
    reordered_out: u64,
    reordered_back: u64,
    late: u64,
    unsent: u64,
    reflector_restarts: u64,
    round_trip: Milliseconds,
    variation_out: Milliseconds,
    variation_back: Milliseconds,
}

/// Absent where there was nothing to measure. The median is 9.5 % off at most.
#[derive(Serialize)]
struct Milliseconds {
    #[serde(skip_serializing_if = "Option::is_none")]
    min: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    median: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max: Option<f64>,
}

impl Milliseconds {
    fn of(delays: &Delays) -> Self {
        let ms = |delay: Option<Duration>| delay.map(|delay| delay.as_secs_f64() * 1e3);
        Self { min: ms(delays.least), median: ms(delays.quantile(0.5)), max: ms(delays.most) }
    }

    fn line(&self) -> String {
        let (Some(min), Some(median), Some(max)) = (self.min, self.median, self.max) else {
            return "-".into();
        };
        format!("min {min:.3} ms, median {median:.3} ms, max {max:.3} ms")
    }
}

impl Report {
    fn of(path: &StampPath, authenticated: bool) -> Self {
        let delays = path.delays.clone().unwrap_or_default();
        Self {
            target: path.address,
            authenticated,
            sent: path.sent,
            answered: path.answered,
            lost_out: path.transmit.lost,
            lost_back: path.receive.lost,
            // The round is over: what is open will not be told any more.
            lost_unknown: path.unattributed + path.outstanding,
            auth_mismatch: path.auth_mismatch,
            refused: path.refused,
            duplicated_out: path.transmit.duplicated,
            duplicated_back: path.receive.duplicated,
            reordered_out: path.transmit.reordered,
            reordered_back: path.receive.reordered,
            late: path.late,
            unsent: path.unsent,
            reflector_restarts: path.resets,
            round_trip: Milliseconds::of(&delays.round_trip),
            variation_out: Milliseconds::of(&delays.variation_transmit),
            variation_back: Milliseconds::of(&delays.variation_receive),
        }
    }

    fn print(&self) {
        let mode = if self.authenticated { "authenticated" } else { "not authenticated" };
        println!("STAMP to {}, {mode}", self.target);
        let share = |n: u64| {
            let percent = if self.sent == 0 { 0.0 } else { n as f64 * 100.0 / self.sent as f64 };
            format!("{n:>8} {percent:>6.1} %")
        };
        println!("  {:24}{:>8}", "sent", self.sent);
        for (name, n) in [
            ("answered", self.answered),
            ("lost out", self.lost_out),
            ("lost back", self.lost_back),
            ("lost, direction unknown", self.lost_unknown),
            ("not valid", self.auth_mismatch),
        ] {
            println!("  {name:24}{}", share(n));
        }
        for (name, out, back) in [
            ("duplicated", self.duplicated_out, self.duplicated_back),
            ("reordered", self.reordered_out, self.reordered_back),
        ] {
            println!("  {name:24}{out:>8} out, {back} back");
        }
        for (name, n) in [
            ("late", self.late),
            ("refused by this host", self.unsent),
            ("reflector restarted", self.reflector_restarts),
            ("port unreachable", self.refused),
        ] {
            if n > 0 {
                println!("  {name:24}{n:>8}");
            }
        }
        for (name, delays) in [
            ("round trip", &self.round_trip),
            ("variation out", &self.variation_out),
            ("variation back", &self.variation_back),
        ] {
            println!("  {name:24}   {}", delays.line());
        }
        if self.auth_mismatch > 0 {
            println!(
                "  The other end has other keys, or is in the other mode: compare --key-file with its key_file."
            );
        }
        if self.refused > 0 {
            println!("  The other host is reached, and no reflector listens at this port.");
        }
    }
}

/// Runs one round; the exit code is that of a failure where nothing was answered.
pub fn stamp(round: &StampRound<'_>) -> Result<u8> {
    static STOP: AtomicBool = AtomicBool::new(false);
    let address = resolve(round.target)?;
    let keys = round.key_file.map(stamp::key_file::read).transpose()?;
    let authenticated = keys.is_some();
    let peer = address.ip().to_string();
    let target = stamp::Target { peer: peer.into(), address, interval: round.interval, authenticated };
    let settings = stamp::Settings {
        keys,
        targets: vec![target],
        answered: Vec::new(),
        count: Some(round.count),
        patience: stamp::PATIENCE,
    };
    run::on_termination(|| STOP.store(true, Ordering::Relaxed))?;
    let prober = stamp::bind(None, &settings)?.start()?;
    while !prober.is_over() && !STOP.load(Ordering::Relaxed) {
        thread::sleep(LOOK);
    }
    // All that is answered is settled, so that losses before the last answer have their direction.
    if !STOP.load(Ordering::Relaxed) {
        thread::sleep(stamp::PATIENCE);
    }
    let path = prober.look(true).pop().context("no session")?;
    let report = Report::of(&path, authenticated);
    if round.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        report.print();
    }
    Ok(if report.answered > 0 { code::OK } else { code::FAILED })
}

/// An address, or the first that a name resolves to; STAMP's port where there is none.
fn resolve(target: &str) -> Result<SocketAddr> {
    if let Ok(address) = target.parse::<SocketAddr>() {
        return Ok(address);
    }
    if let Ok(address) = target.parse::<IpAddr>() {
        return Ok((address, stamp::PORT).into());
    }
    let found =
        if target.contains(':') { target.to_socket_addrs() } else { (target, stamp::PORT).to_socket_addrs() };
    found.ok().and_then(|mut addresses| addresses.next()).with_context(|| {
        format!("{target} is no address and no name; use e.g. 192.0.2.1, [2001:db8::1]:862 or a host name")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_has_stamps_port_unless_it_says_otherwise() {
        for (text, expected) in [
            ("192.0.2.1", "192.0.2.1:862"),
            ("192.0.2.1:8620", "192.0.2.1:8620"),
            ("2001:db8::1", "[2001:db8::1]:862"),
            ("[2001:db8::1]:8620", "[2001:db8::1]:8620"),
        ] {
            assert_eq!(resolve(text).unwrap().to_string(), expected);
        }
        assert!(resolve("not an address").is_err());
    }
}
