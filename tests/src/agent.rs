//! The agent as users run it: the release binary, a configuration file, the local API.

use std::{
    fmt::Write as _,
    io::{Read, Write as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use graylag::model::status::{ConditionStatus, Message, Status};

use crate::{
    eventually,
    metrics::Scrape,
    net::Host,
    proc::{Directory, Process},
};

/// The binary under test: `target/release/graylag`, or what `GRAYLAG_BIN` says.
pub fn binary() -> PathBuf {
    let default = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/release/graylag");
    let path = std::env::var_os("GRAYLAG_BIN").map_or(default, PathBuf::from);
    assert!(path.exists(), "{} is missing: cargo xtask build", path.display());
    path
}

/// How an agent is to be started.
#[derive(Default)]
pub struct Setup {
    config: String,
    environment: Vec<(String, String)>,
    scope: Vec<String>,
    inside: Option<String>,
}

impl Setup {
    /// Watching these hosts only: tests run beside each other.
    pub fn watching(hosts: &[&Host]) -> Self {
        let scope = hosts.iter().map(|host| host.path().display().to_string()).collect();
        Self { scope, ..Self::default() }
    }

    /// More configuration, TOML.
    pub fn config(mut self, toml: &str) -> Self {
        self.config.push_str(toml);
        self.config.push('\n');
        self
    }

    /// An environment variable.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// Runs it in a host's namespace.
    pub fn inside(mut self, host: &Host) -> Self {
        self.inside = Some(host.name().into());
        self
    }

    /// The configuration file's text.
    pub fn toml(&self) -> String {
        let mut text = self.config.clone();
        if !self.scope.is_empty() {
            let _ = writeln!(text, "[scope]\nnetwork_namespaces = {:?}", self.scope);
        }
        if !text.contains("[collect]") {
            text.push_str("[collect]\ninterval = \"200ms\"\n");
        }
        text
    }

    /// Starts it and waits until it is ready.
    #[track_caller]
    pub fn start(self) -> Agent {
        crate::require_root();
        let directory = Directory::new();
        let config = directory.write("graylag.toml", &self.toml());
        let socket = directory.path().join("agent.sock");
        let mut command = match &self.inside {
            Some(host) => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", host]).arg(binary());
                command
            }
            None => Command::new(binary()),
        };
        command.arg("run").arg("--config").arg(&config).arg("--socket").arg(&socket);
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("OTEL_")) {
            command.env_remove(name);
        }
        command.envs(self.environment);
        let mut agent = Agent { process: Process::start(&mut command), socket, config, directory };
        eventually("the agent is ready", Duration::from_secs(60), || {
            if let Some(status) = agent.process.ended() {
                panic!("the agent ended with {status}:\n{}", agent.process.output().join("\n"));
            }
            (agent.get("/readyz")?.0 == 200).then_some(())
        });
        agent
    }
}

/// A running agent.
pub struct Agent {
    /// The process.
    pub process: Process,
    /// Its socket.
    pub socket: PathBuf,
    /// Its configuration file.
    pub config: PathBuf,
    /// Where its files are.
    pub directory: Directory,
}

impl Agent {
    /// One request: status code and body; nothing where nobody answers.
    pub fn get(&self, path: &str) -> Option<(u16, String)> {
        get(&self.socket, path)
    }

    /// `/v1/status`.
    #[track_caller]
    pub fn status(&self) -> Status {
        let (code, body) = self.get("/v1/status").expect("the agent answers");
        assert_eq!(code, 200, "{body}");
        serde_json::from_str(&body).unwrap_or_else(|e| panic!("{e}: {body}"))
    }

    /// `/metrics`.
    #[track_caller]
    pub fn scrape(&self) -> Scrape {
        let (code, body) = self.get("/metrics").expect("the agent answers");
        assert_eq!(code, 200, "{body}");
        Scrape::parse(&body)
    }

    /// The conditions that stand.
    pub fn conditions(&self) -> Vec<ConditionStatus> {
        self.status().conditions
    }

    /// Waits until a scrape fits; fails with what it was instead.
    #[track_caller]
    pub fn until<T: PartialEq + std::fmt::Debug>(
        &self,
        limit: Duration,
        expected: &T,
        probe: impl Fn(&Scrape) -> T,
    ) {
        let start = std::time::Instant::now();
        loop {
            let found = probe(&self.scrape());
            if found == *expected {
                return;
            }
            assert!(start.elapsed() < limit, "after {limit:?} {found:?}, expected {expected:?}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Changes the configuration and asks for a reload.
    pub fn reload(&self, toml: &str) {
        std::fs::write(&self.config, toml).expect("configuration");
        self.process.signal(rustix::process::Signal::HUP);
    }
}

/// One HTTP/1.1 request over a Unix socket, by hand: the test's client shares nothing with the agent's.
pub fn get(socket: &Path, path: &str) -> Option<(u16, String)> {
    let mut stream = UnixStream::connect(socket).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(20))).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let code = head.split(' ').nth(1)?.parse().ok()?;
    let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
    Some((code, if chunked { unchunked(body) } else { body.to_owned() }))
}

fn unchunked(mut body: &str) -> String {
    let mut out = String::new();
    while let Some((size, rest)) = body.split_once("\r\n") {
        let size = usize::from_str_radix(size.trim(), 16).unwrap_or(0);
        if size == 0 || rest.len() < size {
            break;
        }
        out.push_str(&rest[..size]);
        body = rest[size..].trim_start_matches("\r\n");
    }
    out
}

/// Everything `/v1/watch` says, through `graylag watch --json`, from when this was made on.
pub struct Watch {
    process: Process,
}

impl Watch {
    /// Begins to watch an agent.
    pub fn start(agent: &Agent) -> Self {
        let mut command = Command::new(binary());
        let process = Process::start(command.args(["watch", "--json", "--socket"]).arg(&agent.socket));
        let watch = Self { process };
        eventually("the first state", Duration::from_secs(20), || {
            watch.messages().iter().any(|m| matches!(m, Message::State { .. })).then_some(())
        });
        watch
    }

    /// All messages so far.
    pub fn messages(&self) -> Vec<Message> {
        let parse = |line: &String| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
        self.process.output().iter().map(parse).collect()
    }

    /// All transitions so far: phase now, and the condition.
    pub fn transitions(&self) -> Vec<(String, ConditionStatus)> {
        let transition = |message| match message {
            Message::Transition { to, condition, .. } => Some((to, condition)),
            _ => None,
        };
        self.messages().into_iter().filter_map(transition).collect()
    }

    /// What was raised so far: condition, `peer address service`, blame.
    pub fn raised(&self) -> Vec<(String, String, String)> {
        let raised = self.transitions().into_iter().filter(|(to, _)| to == "raised");
        raised.map(|(_, c)| (c.name.clone(), about(&c), c.blame)).collect()
    }
}

/// What a condition is about, on a line.
pub fn about(condition: &ConditionStatus) -> String {
    let t = &condition.target;
    [&t.peer, &t.address, &t.service, &t.role, &t.reason, &t.direction]
        .into_iter()
        .flatten()
        .cloned()
        .collect::<Vec<_>>()
        .join(" ")
}
