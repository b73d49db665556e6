//! Where and when it was measured.

use std::{fs, process::Command};

use super::Options;

/// The machine and the command.
pub struct Facts {
    machine: String,
    date: String,
    command: String,
}

impl Facts {
    /// Of this machine, now.
    pub fn gather(options: &Options) -> Self {
        let release = read("/proc/sys/kernel/osrelease");
        // What follows the version is the builder's own.
        let kernel = release.split(['-', '+']).next().unwrap_or("?").trim().to_owned();
        let cpuinfo = read("/proc/cpuinfo");
        let field = |name: &str| {
            let line = cpuinfo.lines().find(|line| line.starts_with(name))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        };
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        let virtual_machine = field("flags").is_some_and(|flags| flags.split(' ').any(|f| f == "hypervisor"));
        let kilobytes: f64 = read("/proc/meminfo")
            .lines()
            .find_map(|line| line.strip_prefix("MemTotal:")?.split_whitespace().next()?.parse().ok())
            .unwrap_or(0.0);
        let date = Command::new("date").args(["-u", "+%F %H:%M UTC"]).output();
        Self {
            machine: format!(
                "Linux {kernel}, {cpus} CPUs ({}{}), {:.0} GiB",
                field("model name").unwrap_or_else(|| std::env::consts::ARCH.into()),
                if virtual_machine { ", a virtual machine" } else { "" },
                kilobytes / 1_048_576.0
            ),
            date: date.map_or_else(|_| "?".into(), |o| String::from_utf8_lossy(&o.stdout).trim().to_owned()),
            command: options.command(),
        }
    }

    /// On one line, with what else was going on.
    pub fn line(&self, before: &Weather, after: &Weather) -> String {
        let others = match before.others.max(after.others) {
            0 => String::new(),
            n => format!(", {n} other graylag process(es) running"),
        };
        format!(
            "`{}`, {}; {}; load average {} before, {} after{others}.",
            self.command, self.date, self.machine, before.load, after.load
        )
    }
}

/// What else goes on: figures from a busy machine are worth less.
pub struct Weather {
    load: String,
    /// Other agents hook the same kernel, and are there when ours is not.
    others: usize,
}

impl Weather {
    /// Just now.
    pub fn now() -> Self {
        let load = read("/proc/loadavg").split(' ').take(2).collect::<Vec<_>>().join(" and ");
        let is_agent =
            |entry: &fs::DirEntry| read(&entry.path().join("comm").to_string_lossy()).trim() == "graylag";
        let others = fs::read_dir("/proc").into_iter().flatten().flatten().filter(is_agent).count();
        Self { load, others }
    }
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}
