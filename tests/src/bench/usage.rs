//! What a process has used, from `/proc`.

use std::{collections::BTreeMap, fs, time::Instant};

/// `USER_HZ`, the unit of times in `/proc`, whatever the kernel's own tick.
const TICKS_PER_SECOND: f64 = 100.0;

/// Processor time of a process so far, by thread.
pub struct Usage {
    at: Instant,
    /// Nanoseconds on a CPU by thread, with its name (`/proc/PID/task/TID/schedstat`): what `utime + stime` samples at every
    /// tick, which misses threads that sleep at ticks.
    threads: BTreeMap<u32, (String, u64)>,
    ticks: u64,
}

/// Processor time over an interval.
pub struct Spent {
    /// Length of the interval, seconds.
    pub seconds: f64,
    /// Share of one core, all threads, by the scheduler's count.
    pub share: f64,
    /// The same by `utime + stime`.
    pub sampled: f64,
    /// Seconds by thread name.
    pub threads: BTreeMap<String, f64>,
}

impl Usage {
    /// Now.
    pub fn of(pid: u32) -> Self {
        let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("the agent runs");
        let thread = |entry: fs::DirEntry| {
            let id = entry.file_name().to_string_lossy().parse().ok()?;
            let name = fs::read_to_string(entry.path().join("comm")).ok()?.trim().to_owned();
            let times = fs::read_to_string(entry.path().join("schedstat")).ok()?;
            Some((id, (name, times.split(' ').next()?.parse().ok()?)))
        };
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("the agent runs");
        // The name is in parentheses and may hold anything; fields 14 and 15 of proc_pid_stat(5) follow.
        let (_, fields) = stat.rsplit_once(')').expect("a name");
        let times = fields.split_whitespace().skip(11).take(2).map(|n| n.parse::<u64>().expect("ticks"));
        Self { at: Instant::now(), threads: tasks.flatten().filter_map(thread).collect(), ticks: times.sum() }
    }

    /// From then to now.
    pub fn since(&self, before: &Self) -> Spent {
        let seconds = (self.at - before.at).as_secs_f64();
        let mut threads = BTreeMap::new();
        for (id, (name, time)) in &self.threads {
            let had = before.threads.get(id).map_or(0, |(_, time)| *time);
            *threads.entry(name.clone()).or_insert(0.0) += (time - had) as f64 * 1e-9;
        }
        Spent {
            seconds,
            share: threads.values().sum::<f64>() / seconds,
            sampled: (self.ticks - before.ticks) as f64 / TICKS_PER_SECOND / seconds,
            threads,
        }
    }
}

/// Memory of a process, MiB.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    /// `VmRSS`.
    pub now: f64,
    /// `VmHWM`.
    pub peak: f64,
    /// Maps of the kernel half: `memlock` of its descriptors.
    pub maps: f64,
}

impl Memory {
    /// Now.
    pub fn of(pid: u32) -> Self {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the agent runs");
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("a field");
            line.split_whitespace().next().and_then(|n| n.parse::<f64>().ok()).expect("kilobytes") / 1024.0
        };
        Self { now: field("VmRSS:"), peak: field("VmHWM:"), maps: maps(pid) }
    }
}

fn maps(pid: u32) -> f64 {
    let mut by_id = BTreeMap::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fdinfo")).into_iter().flatten().flatten() {
        let info = fs::read_to_string(entry.path()).unwrap_or_default();
        let field = |name: &str| -> Option<u64> {
            info.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
        };
        if let (Some(id), Some(bytes)) = (field("map_id:"), field("memlock:")) {
            by_id.insert(id, bytes);
        }
    }
    by_id.values().sum::<u64>() as f64 / 1_048_576.0
}
