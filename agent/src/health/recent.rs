//! The recent past of a subject.

use std::time::Duration;

use crate::model::{Counts, Outcome, fade};

/// Half-life of the recent past that blame looks at.
const RECENT: Duration = Duration::from_secs(15);

/// Decaying sums of what blame looks at.
#[derive(Clone, Copy, Debug, Default)]
pub struct Recent {
    /// As of when.
    pub at: Duration,
    /// Segments sent.
    pub segments: f64,
    /// Of these, lost.
    pub lost: f64,
    /// Handshakes that ended.
    pub handshakes: f64,
    /// Found the accept queue full.
    pub accept_queue: f64,
    /// Found the request queue full.
    pub request_queue: f64,
    /// Ended by ICMP.
    pub unreachable: f64,
    /// Pending handshakes whose SYN came again, at the last look.
    pub syn_repeated: u64,
    /// Pending handshakes, at the last look.
    pub pending: u64,
}

impl Recent {
    /// Lets the sums fade to a later time.
    pub fn decay_to(&mut self, at: Duration) {
        let elapsed = at.saturating_sub(self.at);
        self.at = at;
        let factor = fade(elapsed, RECENT);
        for sum in [
            &mut self.segments,
            &mut self.lost,
            &mut self.handshakes,
            &mut self.accept_queue,
            &mut self.request_queue,
            &mut self.unreachable,
        ] {
            *sum *= factor;
        }
    }

    /// The same as of a later time.
    pub fn at(mut self, at: Duration) -> Self {
        self.decay_to(at);
        self
    }

    /// Takes the counts of a look.
    pub fn add(&mut self, counts: &Counts) {
        self.segments += counts.segments_out as f64;
        self.lost += counts.lost() as f64;
        self.handshakes += counts.handshakes() as f64;
        self.accept_queue += counts.accept_queue_overflow as f64;
        self.request_queue += counts.request_queue_overflow as f64;
        self.unreachable += counts.outcome(Outcome::Unreachable) as f64;
    }
}
