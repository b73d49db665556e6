//! Sockets that carry media, and whose they are.

use std::time::{Duration, Instant};

use anyhow::Result;
use graylag_ebpf::relay::SocketRecord;

use crate::kernel::Kernel;

/// Least time between two passes over the open files of all processes.
const LEAST_PAUSE: Duration = Duration::from_millis(500);
/// Sockets that no pass finds, such as those of the kernel itself, are looked for this rarely in the end; so often, too, is
/// asked whether a socket has changed hands.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// Share of the time that passes may take.
const SHARE: u32 = 100;

/// Reads the sockets, and has them told whose they are.
#[derive(Default)]
pub struct SocketReader {
    pass: u32,
    /// When the last pass began, nanoseconds.
    last_ns: u64,
    /// What the last pass took.
    took: Duration,
    /// Between passes while there are sockets that no pass finds.
    pause: Duration,
}

impl SocketReader {
    /// `start` is the number of the pass before the first.
    pub fn new(start: u32) -> Self {
        Self { pass: start, ..Self::default() }
    }

    /// All sockets at `at_ns`. Those that have come since the last pass may have no owner yet.
    pub fn look(&mut self, kernel: &mut Kernel, at_ns: u64) -> Result<Vec<SocketRecord>> {
        let mut sockets = Vec::new();
        kernel.sockets(|socket| sockets.push(*socket))?;
        if self.is_due(&sockets, at_ns) {
            self.pass = self.pass.wrapping_add(1).max(1);
            let began = Instant::now();
            kernel.own_sockets(self.pass)?;
            (self.last_ns, self.took) = (at_ns, began.elapsed());
        }
        Ok(sockets)
    }

    fn is_due(&mut self, sockets: &[SocketRecord], at_ns: u64) -> bool {
        let ownerless = || sockets.iter().filter(|socket| socket.media.pass == 0);
        let newcomers = ownerless().any(|socket| socket.media.began_ns >= self.last_ns);
        let pause = match (newcomers, ownerless().next()) {
            (true, _) => LEAST_PAUSE,
            (false, Some(_)) => self.pause,
            (false, None) => LONGEST_PAUSE,
        };
        let since = Duration::from_nanos(at_ns.saturating_sub(self.last_ns));
        if sockets.is_empty() || since < pause.max(self.took * SHARE) {
            return false;
        }
        self.pause = if newcomers { LEAST_PAUSE } else { (pause * 2).min(LONGEST_PAUSE) };
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytemuck::Zeroable;

    const SECOND: u64 = 1_000_000_000;

    fn socket(began_ns: u64, pass: u32) -> SocketRecord {
        let mut record = SocketRecord::zeroed();
        (record.media.began_ns, record.media.pass) = (began_ns, pass);
        record
    }

    #[test]
    fn newcomers_are_found_soon_and_what_nobody_owns_is_looked_for_ever_more_rarely() {
        let mut reader = SocketReader::default();
        assert!(!reader.is_due(&[], 100 * SECOND), "nothing to find");
        assert!(reader.is_due(&[socket(99 * SECOND, 0)], 100 * SECOND));
        reader.last_ns = 100 * SECOND;
        assert!(!reader.is_due(&[socket(100 * SECOND, 0)], 100 * SECOND + SECOND / 4));
        assert!(reader.is_due(&[socket(100 * SECOND, 0)], 100 * SECOND + SECOND / 2));
        reader.last_ns = 200 * SECOND;
        let mut passes = Vec::new();
        for tenth in 0..6000 {
            let at_ns = 200 * SECOND + tenth * SECOND / 10;
            if reader.is_due(&[socket(100 * SECOND, 0)], at_ns) {
                reader.last_ns = at_ns;
                passes.push(at_ns / SECOND - 200);
            }
        }
        assert!(passes.len() < 20 && passes.windows(2).all(|p| p[1] - p[0] <= 60), "{passes:?}");
    }

    #[test]
    fn passes_take_no_more_than_their_share() {
        let mut reader =
            SocketReader { last_ns: 100 * SECOND, took: Duration::from_millis(50), ..Default::default() };
        assert!(!reader.is_due(&[socket(101 * SECOND, 0)], 104 * SECOND));
        assert!(reader.is_due(&[socket(101 * SECOND, 0)], 105 * SECOND));
    }
}
