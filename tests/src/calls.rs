//! WebRTC calls between the hosts of a pair, by aiortc (tests/peers/call.py).

use std::{net::SocketAddr, path::PathBuf, process::Command, time::Duration};

use crate::{
    eventually,
    net::{Host, Pair},
    proc::{Directory, Process},
};

/// What a peer says of what it received in one call.
#[derive(Clone, Debug, PartialEq)]
pub struct Statistics {
    /// `connectionState` at the end.
    pub state: String,
    /// RTP packets.
    pub received: u64,
    /// Of those expected, not received.
    pub lost: i64,
    /// Interarrival jitter, seconds: the mean of what aiortc says from the fourth second on. 0 of who calls.
    pub jitter: f64,
}

/// A peer that answers.
pub struct Answerer {
    process: Process,
    _directory: Option<Directory>,
    signalling: String,
    turn: Option<SocketAddr>,
}

impl Answerer {
    /// Starts it on a host.
    pub fn start(host: &Host) -> Self {
        Self::through(host, None)
    }

    /// The same; it, and who calls it, connect through a TURN server and in no other way.
    pub fn through(host: &Host, turn: Option<SocketAddr>) -> Self {
        let directory = Directory::new();
        let signalling = directory.path().join("signalling").display().to_string();
        Self::ready(host, turn, signalling, Some(directory))
    }

    /// The same; its signalling is at an address and port, for a balancer in front.
    pub fn at(host: &Host, signalling: SocketAddr) -> Self {
        Self::ready(host, None, signalling.to_string(), None)
    }

    fn ready(
        host: &Host,
        turn: Option<SocketAddr>,
        signalling: String,
        directory: Option<Directory>,
    ) -> Self {
        let process = Process::start(python(host, turn).args(["answer", &signalling]));
        let answerer = Self { process, _directory: directory, signalling, turn };
        eventually("aiortc listens", Duration::from_secs(60), || {
            answerer.process.output().iter().any(|line| line.contains("listening")).then_some(())
        });
        answerer
    }

    /// Begins calls from the client's host, a quarter of a second apart, so many at once at most, for so many seconds each.
    pub fn call(&self, pair: &Pair, calls: usize, at_once: usize, seconds: u32) -> Calls {
        self.call_late(pair, calls, at_once, seconds, Duration::ZERO)
    }

    /// The same, every other packet of the client's host `late`.
    pub fn call_late(
        &self,
        pair: &Pair,
        calls: usize,
        at_once: usize,
        seconds: u32,
        late: Duration,
    ) -> Calls {
        calls_to(&pair.client, &self.signalling, self.turn, calls, at_once, seconds, late)
    }

    /// Calls that have begun.
    pub fn begun(&self) -> usize {
        self.process.output().iter().filter(|line| line.contains("begun")).count()
    }

    /// What it received, call by call.
    pub fn received(&self) -> Vec<Statistics> {
        statistics(&self.process)
    }
}

/// Begins calls from a host to whoever signals at this address and port.
pub fn call_through(
    host: &Host,
    signalling: SocketAddr,
    calls: usize,
    at_once: usize,
    seconds: u32,
) -> Calls {
    calls_to(host, &signalling.to_string(), None, calls, at_once, seconds, Duration::ZERO)
}

fn calls_to(
    host: &Host,
    signalling: &str,
    turn: Option<SocketAddr>,
    calls: usize,
    at_once: usize,
    seconds: u32,
    late: Duration,
) -> Calls {
    let arguments =
        [calls.to_string(), at_once.to_string(), seconds.to_string(), late.as_secs_f64().to_string()];
    let process = Process::start(python(host, turn).args(["offer", signalling]).args(arguments));
    Calls { process, calls }
}

/// Calls under way.
pub struct Calls {
    process: Process,
    calls: usize,
}

impl Calls {
    /// Waits for their end; what the client's host received.
    pub fn ended(&self) -> Vec<Statistics> {
        eventually("the calls end", Duration::from_secs(180), || {
            let all = statistics(&self.process);
            (all.len() == self.calls).then_some(all)
        })
    }
}

fn python(host: &Host, turn: Option<SocketAddr>) -> Command {
    let tests = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let mut command = host.command(&tests.join("../target/venv/bin/python").display().to_string());
    command.arg(tests.join("peers/call.py"));
    if let Some(turn) = turn {
        command.env("TURN_SERVER", turn.to_string());
    }
    command
}

fn statistics(process: &Process) -> Vec<Statistics> {
    let parse = |line: &String| {
        let value: serde_json::Value = serde_json::from_str(line).ok()?;
        Some(Statistics {
            state: value["state"].as_str()?.to_owned(),
            received: value["received"].as_u64()?,
            lost: value["lost"].as_i64()?,
            jitter: value["jitter"].as_f64()?,
        })
    };
    process.output().iter().filter_map(parse).collect()
}
