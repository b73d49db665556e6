//! Bounded back-off, the same for every state that may come back: what returns soon after its end is the same trouble, and has to be
//! well for twice as long as the last time, twice at most (RFC 5882 §3).

use std::time::Duration;

use super::Settings;

/// Most times that it is doubled.
pub const MOST: u32 = 2;
/// What returns within this many quiet periods of its end is the same trouble.
const RELAPSE_PERIODS: u32 = 5;

/// How often trouble has come back, and when it last ended.
#[derive(Clone, Copy, Debug, Default)]
pub struct BackOff {
    doubled: u32,
    ended: Option<Duration>,
}

impl BackOff {
    /// Trouble begins at `at`; or goes on, where it had not quite ended.
    pub fn begin(&mut self, settings: &Settings, at: Duration, goes_on: bool) {
        let relapsed = goes_on || self.ended.is_some() && !self.is_forgotten(settings, at);
        self.doubled = if relapsed { (self.doubled + 1).min(MOST) } else { 0 };
    }

    /// It is over.
    pub const fn end(&mut self, at: Duration) {
        self.ended = Some(at);
    }

    /// How many times as long as at first it takes to be well: 1, 2, 4.
    pub const fn factor(&self) -> u32 {
        1 << self.doubled
    }

    /// Whether its return would be another trouble. An end in the future is wrong, and counts as now.
    pub fn is_forgotten(&self, settings: &Settings, at: Duration) -> bool {
        self.ended.is_none_or(|end| at.saturating_sub(end) >= settings.quiet * RELAPSE_PERIODS)
    }

    /// Whatever it may have come to, for tests.
    #[cfg(test)]
    pub const fn any(doubled: u32, ended: Option<Duration>) -> Self {
        Self { doubled, ended }
    }
}
