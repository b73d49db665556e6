//! The least that a service usually has to do: what its floor is where it is learned.
//!
//! Exchanges of five minutes at a time, of the last seven days, so that nights and weekends are in it. Half of the least of them is
//! the floor, once there is a day of them; a service that ever had five minutes with nothing to do has none. Nothing is learned
//! while the condition stands.

use std::{collections::VecDeque, time::Duration};

/// Exchanges are counted for so long at a time.
const SPAN: Duration = Duration::from_secs(300);
/// A day of these is learned before anything is judged.
const LEAST: usize = 288;
/// Seven days of these are remembered.
const MOST: usize = 7 * LEAST;

/// The past of one service.
#[derive(Clone, Debug, Default)]
pub struct RatePast {
    spans: VecDeque<f64>,
    exchanges: u64,
    time: Duration,
}

impl RatePast {
    /// Takes the exchanges of a look after `elapsed`; `frozen` where they say nothing of what is usual.
    pub fn look(&mut self, elapsed: Duration, exchanges: u64, frozen: bool) {
        if frozen {
            (self.exchanges, self.time) = (0, Duration::ZERO);
            return;
        }
        self.exchanges += exchanges;
        self.time += elapsed;
        if self.time >= SPAN {
            self.spans.push_back(self.exchanges as f64 / self.time.as_secs_f64());
            (self.exchanges, self.time) = (0, Duration::ZERO);
            if self.spans.len() > MOST {
                self.spans.pop_front();
            }
        }
    }

    /// Exchanges a second that there should be at least; `None` where too little is known, or nothing can be expected.
    pub fn floor(&self) -> Option<f64> {
        if self.spans.len() < LEAST {
            return None;
        }
        let least = self.spans.iter().copied().fold(f64::INFINITY, f64::min);
        Some(least / 2.0).filter(|floor| *floor > 0.0)
    }
}
