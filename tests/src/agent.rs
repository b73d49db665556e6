//! The agent as users run it: the release binary, a configuration file, the local API.

use std::{
    cell::Cell,
    fmt::Write as _,
    fs::{File, OpenOptions},
    path::{Path, PathBuf},
    process::Command,
    sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
    time::Duration,
};

use graylag::model::status::{ConditionStatus, Message, SignalStatus, Status};
use rustix::fs::{FlockOperation, flock};

use crate::{
    eventually,
    http::get,
    metrics::Scrape,
    net::Host,
    proc::{Directory, Ended, Process, finish, run},
};

/// The binary under test: `target/release/graylag`, or what `GRAYLAG_BIN` says.
pub fn binary() -> PathBuf {
    let default = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/release/graylag");
    let path = std::env::var_os("GRAYLAG_BIN").map_or(default, PathBuf::from);
    assert!(path.exists(), "{} is missing: cargo xtask build", path.display());
    path
}

/// While a program is attached to a tracepoint or detached from it, the kernel passes over others that are attached there:
/// one event in some hundreds, and it counts no miss (seen on 6.18, where an ftrace event at the same tracepoint misses
/// nothing). Whoever compares counts with the truth has the machine alone: among the tests of this program by this lock, among
/// those of others, of another checkout perhaps, by [`machine`].
static TURNS: RwLock<()> = RwLock::new(());

thread_local! {
    /// Turns that this thread holds: a second agent of one test takes part in the first one's.
    static HELD: Cell<u32> = const { Cell::new(0) };
}

/// A lock of the whole machine, shared or not, that goes with the file.
fn machine(alone: bool) -> File {
    let path = std::env::temp_dir().join("graylag-tests.turns");
    let file = OpenOptions::new().create(true).append(true).open(&path);
    let file = file.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let operation = if alone { FlockOperation::LockExclusive } else { FlockOperation::LockShared };
    flock(&file, operation).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    file
}

/// Held while an agent runs. The machine's lock goes first.
pub struct Turn {
    _machine: Option<File>,
    _guard: Option<Result<RwLockReadGuard<'static, ()>, RwLockWriteGuard<'static, ()>>>,
}

impl Turn {
    fn take(alone: bool) -> Self {
        let before = HELD.replace(HELD.get() + 1);
        // Poison is nothing here: a test that failed says so itself.
        let guard = || {
            if alone {
                Err(TURNS.write().unwrap_or_else(PoisonError::into_inner))
            } else {
                Ok(TURNS.read().unwrap_or_else(PoisonError::into_inner))
            }
        };
        let guard = (before == 0).then(guard);
        Self { _machine: (before == 0).then(|| machine(alone)), _guard: guard }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        HELD.set(HELD.get() - 1);
    }
}

/// The machine alone, for an agent that something else than [`Setup`] starts and whose counts are compared with the truth.
#[must_use]
pub fn alone() -> Turn {
    Turn::take(true)
}

/// How an agent is to be started.
#[derive(Default)]
pub struct Setup {
    config: String,
    environment: Vec<(String, String)>,
    scope: Vec<String>,
    inside: Option<String>,
    through: Vec<String>,
    arguments: Vec<String>,
    user: Option<u32>,
    socket: Option<PathBuf>,
    alone: bool,
}

/// Everything that starting an agent takes; the directory goes when the last owner does.
struct Prepared {
    command: Command,
    socket: PathBuf,
    config: PathBuf,
    directory: Directory,
}

impl Setup {
    /// Watching these hosts only: tests run beside each other.
    pub fn watching(hosts: &[&Host]) -> Self {
        let scope = hosts.iter().map(|host| host.path().display().to_string()).collect();
        Self { scope, ..Self::default() }
    }

    /// No other agent of a test runs beside it: its counts are compared with the truth.
    pub fn alone(mut self) -> Self {
        self.alone = true;
        self
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

    /// Runs it through a program that prepares the ground and then becomes the agent, such as `setpriv` or `unshare`.
    pub fn through(mut self, command: &[&str]) -> Self {
        self.through = command.iter().map(|&word| word.into()).collect();
        self
    }

    /// One more argument of `graylag run`.
    pub fn argument(mut self, argument: &str) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// Its socket is here, not in a directory of its own.
    pub fn socket(mut self, path: &Path) -> Self {
        self.socket = Some(path.into());
        self
    }

    /// Its files belong to this user, who may lack access to the place where the binary was built.
    pub fn for_user(mut self, uid: u32) -> Self {
        self.user = Some(uid);
        self
    }

    /// The configuration file's text.
    pub fn toml(&self) -> String {
        let mut text = self.config.clone();
        if !self.scope.is_empty() {
            let _ = writeln!(text, "[scope]\nnetwork_namespaces = {:?}", self.scope);
        }
        // What is not under test costs memory, and attaches to interfaces that others use.
        if !text.contains("[media]") {
            text.push_str("[media]\ninterfaces = []\n");
        }
        if !text.contains("[collect]") {
            text.push_str("[collect]\ninterval = \"200ms\"\n");
        }
        text
    }

    fn prepare(self) -> Prepared {
        crate::require_root();
        let directory = Directory::new();
        let config = directory.write("graylag.toml", &self.toml());
        let socket = self.socket.clone().unwrap_or_else(|| directory.path().join("agent.sock"));
        let mut program = binary();
        if let Some(uid) = self.user {
            let copy = directory.path().join("graylag");
            // Not by this process: its other threads start programs, each of which would for a moment hold the copy open
            // for writing, and such a file cannot be run.
            run(Command::new("cp").arg(&program).arg(&copy));
            std::os::unix::fs::chown(directory.path(), Some(uid), Some(uid)).expect("owner");
            program = copy;
        }
        let mut words: Vec<String> = Vec::new();
        if let Some(host) = &self.inside {
            // `ip netns exec` would mount another /sys, without the cgroups.
            words.extend(["nsenter".to_owned(), format!("--net=/run/netns/{host}")]);
        }
        words.extend(self.through);
        words.push(program.display().to_string());
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).arg("run").arg("--config").arg(&config).arg("--socket").arg(&socket);
        command.args(self.arguments);
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("OTEL_")) {
            command.env_remove(name);
        }
        command.envs(self.environment);
        Prepared { command, socket, config, directory }
    }

    /// Starts it and waits until it is ready.
    #[track_caller]
    pub fn start(self) -> Agent {
        self.start_until("/readyz")
    }

    /// Starts it and waits until a path of its API answers with 200.
    #[track_caller]
    pub fn start_until(self, path: &str) -> Agent {
        self.spawn().answering(path)
    }

    /// Starts it and waits for nothing.
    #[track_caller]
    pub fn spawn(self) -> Agent {
        let turn = Turn::take(self.alone);
        let Prepared { mut command, socket, config, directory } = self.prepare();
        Agent { process: Process::start(&mut command), command, socket, config, directory, _turn: turn }
    }

    /// Starts it where it cannot run; returns its exit code and everything it said.
    #[track_caller]
    pub fn refused(self) -> Ended {
        let _turn = Turn::take(false);
        finish(&mut self.prepare().command)
    }
}

/// `graylag` with arguments, to its end.
#[track_caller]
pub fn graylag(arguments: &[&str]) -> Ended {
    let _turn = Turn::take(false);
    finish(Command::new(binary()).args(arguments))
}

/// A running agent.
pub struct Agent {
    /// The process.
    pub process: Process,
    command: Command,
    /// Its socket.
    pub socket: PathBuf,
    /// Its configuration file.
    pub config: PathBuf,
    /// Where its files are.
    pub directory: Directory,
    /// Last, so that it ends when the process has.
    _turn: Turn,
}

impl Agent {
    #[track_caller]
    fn answering(mut self, path: &str) -> Self {
        eventually("the agent is there", Duration::from_secs(60), || {
            if let Some(status) = self.process.ended() {
                panic!("the agent ended with {status}:\n{}", self.process.output().join("\n"));
            }
            (self.get(path)?.0 == 200).then_some(())
        });
        self
    }

    /// Starts it anew after its process has ended, as it was started before.
    #[track_caller]
    pub fn again(mut self) -> Self {
        self.process = Process::start(&mut self.command);
        self.answering("/readyz")
    }

    /// Waits until it has said something; returns the line.
    #[track_caller]
    pub fn said(&self, what: &str) -> String {
        eventually(&format!("it says {what:?}"), Duration::from_secs(20), || {
            self.process.output().into_iter().find(|line| line.contains(what))
        })
    }

    /// `graylag COMMAND --socket …` of this agent.
    #[track_caller]
    pub fn ask(&self, arguments: &[&str]) -> Ended {
        finish(Command::new(binary()).args(arguments).arg("--socket").arg(&self.socket))
    }

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

    /// How one of its signals is seen.
    #[track_caller]
    pub fn signal(&self, name: &str) -> SignalStatus {
        let mut signals = self.status().signals.into_iter();
        signals.find(|signal| signal.name == name).unwrap_or_else(|| panic!("no signal {name}"))
    }

    /// Changes the configuration and asks for a reload.
    pub fn reload(&self, toml: &str) {
        std::fs::write(&self.config, toml).expect("configuration");
        self.process.signal(rustix::process::Signal::HUP);
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the agent said:\n{}", self.process.output().join("\n"));
            let of_itself = |line: &&str| {
                ["_agent_", "_tcp_handshake_count", "_syn_", "_segment_", "_relay_"]
                    .iter()
                    .any(|n| line.contains(n))
            };
            let metrics = self.get("/metrics").map(|(_, text)| text).unwrap_or_default();
            eprintln!("and counted:\n{}", metrics.lines().filter(of_itself).collect::<Vec<_>>().join("\n"));
        }
    }
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

    /// Its exit code, where the stream has ended.
    pub fn ended(&mut self) -> Option<std::process::ExitStatus> {
        self.process.ended()
    }

    /// All messages so far, as they came.
    pub fn lines(&self) -> Vec<String> {
        self.process.output()
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

    /// States of the node so far.
    pub fn node_states(&self) -> Vec<String> {
        let state = |message| if let Message::Node { to, .. } = message { Some(to) } else { None };
        self.messages().into_iter().filter_map(state).collect()
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
    [&t.peer, &t.address, &t.service, &t.role, &t.process, &t.reason, &t.direction]
        .into_iter()
        .flatten()
        .cloned()
        .collect::<Vec<_>>()
        .join(" ")
}
