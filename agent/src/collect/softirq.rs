//! Whether this host is late with what it receives: how long its `ksoftirqd` threads wait for a CPU.
//!
//! Packets are taken in by softirqs. Where these cannot finish at once they are handed to `ksoftirqd/N`, a thread like any
//! other: with no CPU for it, packets wait in the rings although nothing is wrong with the network. `/proc/PID/schedstat` says
//! how long it ran and waited (`sched_info`), for every kernel that has `CONFIG_SCHED_INFO`, as distributions do.
//!
//! The sum of many short waits is no lateness: what counts is one wait. Of a wait that ended since the last look, so much is
//! certain as exceeds the time between the two, for no earlier wait fits in there; of one that lasts, the time in which the
//! thread was runnable and did not run.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    time::Duration,
};

/// Looks at the threads that were there at the start; CPUs that come later are not looked at.
pub struct Softirqs {
    threads: Vec<Thread>,
}

struct Thread {
    schedstat: File,
    stat: File,
    waits: Waits,
}

/// What the kernel says of a thread, cumulative.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sample {
    ran: Duration,
    waited: Duration,
    times: u64,
}

/// How long a thread has been kept waiting.
#[derive(Clone, Copy, Debug, Default)]
struct Waits {
    last: Option<(Duration, Sample)>,
    /// Since when it has been seen runnable without running.
    since: Option<Duration>,
}

impl Softirqs {
    /// Finds the threads; none where this process may not see them, in a PID namespace of its own or with `hidepid`.
    pub fn find() -> Self {
        let mut threads = Vec::new();
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let path = entry.path();
            let name = fs::read_to_string(path.join("comm")).unwrap_or_default();
            if !name.starts_with("ksoftirqd/") {
                continue;
            }
            let opened = File::open(path.join("schedstat")).and_then(|schedstat| {
                let stat = File::open(path.join("stat"))?;
                Ok(Thread { schedstat, stat, waits: Waits::default() })
            });
            threads.extend(opened.ok().filter(|thread| thread.sample().is_some()));
        }
        Self { threads }
    }

    /// How many are looked at.
    pub const fn threads(&self) -> usize {
        self.threads.len()
    }

    /// The longest wait that is certain, of all CPUs, as of the look at `at`.
    pub fn late(&mut self, at: Duration) -> Duration {
        self.threads.iter_mut().map(|thread| thread.late(at)).max().unwrap_or_default()
    }
}

impl Thread {
    fn sample(&self) -> Option<Sample> {
        let mut buffer = [0; 96];
        parse(std::str::from_utf8(read(&self.schedstat, &mut buffer)?).ok()?)
    }

    fn late(&mut self, at: Duration) -> Duration {
        let Some(sample) = self.sample() else { return Duration::ZERO };
        let stat = &self.stat;
        self.waits.look(at, sample, || {
            let mut buffer = [0; 64];
            read(stat, &mut buffer).is_some_and(is_runnable)
        })
    }
}

impl Waits {
    fn look(&mut self, at: Duration, sample: Sample, runnable: impl FnOnce() -> bool) -> Duration {
        let Some((before, last)) = self.last.replace((at, sample)) else { return Duration::ZERO };
        if (sample.ran, sample.times) == (last.ran, last.times) {
            // Most of the time it sleeps.
            if !runnable() {
                self.since = None;
                return Duration::ZERO;
            }
            return at.saturating_sub(*self.since.get_or_insert(at));
        }
        self.since = None;
        sample.waited.saturating_sub(last.waited).saturating_sub(at.saturating_sub(before))
    }
}

fn read<'a>(file: &File, buffer: &'a mut [u8]) -> Option<&'a [u8]> {
    let size = file.read_at(buffer, 0).ok()?;
    buffer.get(..size)
}

/// `schedstat` of a thread: nanoseconds on a CPU, nanoseconds waiting for one, times it got one (`proc_pid_schedstat`).
fn parse(text: &str) -> Option<Sample> {
    let mut words = text.split_whitespace().map(str::parse::<u64>);
    let mut next = || words.next()?.ok();
    Some(Sample { ran: Duration::from_nanos(next()?), waited: Duration::from_nanos(next()?), times: next()? })
}

/// The third field of `stat`, after the name in parentheses: `R` is running or waiting for a CPU.
fn is_runnable(stat: &[u8]) -> bool {
    let end = stat.iter().rposition(|byte| *byte == b')');
    end.is_some_and(|end| stat.get(end + 2) == Some(&b'R'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOOK: Duration = Duration::from_millis(100);

    fn sample(ran: u64, waited: u64, times: u64) -> Sample {
        let ms = Duration::from_millis;
        Sample { ran: ms(ran), waited: ms(waited), times }
    }

    fn run(samples: &[(Sample, bool)]) -> Vec<u128> {
        let mut waits = Waits::default();
        let look = |(i, (sample, runnable)): (usize, &(Sample, bool))| {
            waits.look(LOOK * i as u32, *sample, || *runnable).as_millis()
        };
        samples.iter().enumerate().map(look).collect()
    }

    #[test]
    fn who_sleeps_or_waits_little_is_not_late() {
        assert_eq!(run(&[(sample(5, 5, 5), false); 9]), [0; 9]);
        // Runs half the time and waits the other half, three milliseconds each.
        let busy: Vec<_> = (0..20).map(|i| (sample(50 * i, 50 * i, 16 * i), true)).collect();
        assert_eq!(run(&busy), [0; 20]);
    }

    #[test]
    fn one_long_wait_is_late_while_it_lasts_and_when_it_ends() {
        let mut samples = vec![(sample(10, 0, 1), false); 2];
        samples.extend([(sample(10, 0, 1), true); 5]);
        samples.extend([(sample(20, 530, 2), true), (sample(20, 530, 2), false)]);
        assert_eq!(run(&samples), [0, 0, 0, 100, 200, 300, 400, 430, 0]);
    }

    #[test]
    fn reads_what_the_kernel_writes() {
        assert_eq!(parse("51000000 617000000 326329\n"), Some(sample(51, 617, 326_329)));
        assert_eq!(parse("0 0"), None);
        assert!(is_runnable(b"14 (ksoftirqd/0) R 2 0 0"));
        assert!(!is_runnable(b"14 (ksoftirqd/R) S 2 0 0"));
        assert!(!is_runnable(b"14 (ksoftirqd/0)"));
    }
}
