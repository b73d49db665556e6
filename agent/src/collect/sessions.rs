//! ICE sessions on their way to media, and when they are forgotten.

use std::time::Duration;

use anyhow::Result;
use graylag_ebpf::session::SessionRecord;

use crate::kernel::Kernel;

/// Every session is decided by this age (`aggregate::standing`).
const DECIDED: Duration = Duration::from_secs(60);
/// A session is remembered for this long: a candidate pair that is tried later is part of it, and no new one.
const REMEMBERED: Duration = Duration::from_secs(600);
/// Every so many looks all of them are gone through.
const ALL_EVERY: u64 = 16;
/// Share of the table from which those that are decided are forgotten early, oldest first.
const CROWDED: f64 = 0.75;

/// Reads the sessions.
pub struct SessionReader {
    limit: u64,
    looks: u64,
    used: u64,
}

impl SessionReader {
    /// For a table of so many sessions.
    pub const fn new(limit: u32) -> Self {
        Self { limit: limit as u64, looks: 0, used: 0 }
    }

    /// Sessions in the table, when they were last counted.
    pub const fn used(&self) -> u64 {
        self.used
    }

    /// The sessions that may not be decided yet.
    pub fn look(&mut self, kernel: &mut Kernel, at_ns: u64) -> Result<Vec<SessionRecord>> {
        let mut young = Vec::new();
        let since = at_ns.saturating_sub(DECIDED.as_nanos() as u64);
        let all = self.looks.is_multiple_of(ALL_EVERY);
        self.looks += 1;
        if !all {
            kernel.sessions(since, |record| young.push(*record))?;
            return Ok(young);
        }
        let mut old = Vec::new();
        kernel.sessions(0, |record| {
            if record.session.began_ns >= since {
                young.push(*record);
            } else {
                old.push((record.session.began_ns, record.key));
            }
        })?;
        self.used = (young.len() + old.len()) as u64;
        for key in forgotten(old, self.used, self.limit, at_ns) {
            kernel.forget_session(key)?;
            self.used -= 1;
        }
        Ok(young)
    }
}

/// Which of the decided sessions, `(began, key)`, to forget.
fn forgotten(mut old: Vec<(u64, u64)>, used: u64, limit: u64, at_ns: u64) -> Vec<u64> {
    old.sort_unstable();
    let oldest = at_ns.saturating_sub(REMEMBERED.as_nanos() as u64);
    let too_many = used.saturating_sub((CROWDED * limit as f64) as u64) as usize;
    let over = old.iter().take_while(|(began, _)| *began < oldest).count();
    old.iter().take(over.max(too_many)).map(|(_, key)| *key).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn what_is_over_is_forgotten_and_where_it_is_crowded_more() {
        let old: Vec<(u64, u64)> = (1..=5).rev().map(|i| (i * 200 * SECOND, i)).collect();
        assert_eq!(forgotten(old.clone(), 5, 100, 1100 * SECOND), [1, 2]);
        assert_eq!(forgotten(old.clone(), 5, 4, 700 * SECOND), [1, 2]);
        assert_eq!(forgotten(old, 5, 100, 700 * SECOND), [0; 0]);
    }
}
