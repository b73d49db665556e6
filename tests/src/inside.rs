//! A process on a host, and all that it starts, in namespaces that end with it: of mounts, of processes, and of whatever else is asked
//! for. What it mounts and leaves running ends with it too.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use rustix::process::{Pid, Signal, kill_process};

use crate::{net::Host, proc::Process, servers::children};

/// It.
pub struct Inside(Process);

impl Inside {
    /// Starts a command with `unshare --fork --pid --kill-child` somewhere in it. It ends with whoever started it, killed or not.
    pub fn start(host: &Host, command: impl FnOnce(&mut Command) -> &mut Command) -> Self {
        let mut all = Command::new("setpriv");
        all.args(["--pdeathsig", "KILL", "nsenter", &format!("--net={}", host.path().display())]);
        Self(Process::start(command(&mut all)))
    }

    /// The first process of the namespace, as this machine numbers it, once there is one.
    pub fn first(&self) -> Option<u32> {
        children(self.0.id()).first().copied()
    }

    /// A place in its file system.
    #[track_caller]
    pub fn place(&self, path: &str) -> PathBuf {
        let first = self.first().unwrap_or_else(|| panic!("it runs; it said {}", self.said()));
        Path::new("/proc").join(first.to_string()).join("root").join(path.trim_start_matches('/'))
    }

    /// Fails where it has ended.
    #[track_caller]
    pub fn must_run(&mut self) {
        assert!(self.0.ended().is_none(), "it ended:\n{}", self.said());
    }

    /// Everything it has said so far.
    pub fn said(&self) -> String {
        self.0.output().join("\n")
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        // The kernel ends all others of the namespace with the first one. What waits for that one does not pass on signals.
        let first = self.first().and_then(|first| Pid::from_raw(first as i32));
        let _ = first.map(|first| kill_process(first, Signal::KILL));
    }
}
