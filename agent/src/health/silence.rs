//! Silence of those who speak of themselves: connections on which the peer said something regularly, and no longer does, while they stay
//! open. A controller that has stopped to dispatch.
//!
//! What is regular was found in the kernel (`graylag_ebpf::rhythm`), by connection. Here the connections of one path and service
//! are looked at together, for one that falls silent may be finished, and one that closes is. What was ever silent for longer and
//! spoke again by itself is allowed to be: senders pause.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use super::{
    Cusum, Settings,
    lifecycle::{Lifecycle, Look},
};
use crate::model::{Phase, Spoken, fade};

/// A connection is silent when it has missed so many of its usual words …
const WORDS: u32 = 3;
/// … and this much more, for what the network and the look add.
const SLACK: Duration = Duration::from_secs(1);
/// Who has been silent for so long has nothing more to say, and is no evidence: no state stays because of it.
const FINISHED: Duration = Duration::from_secs(3600);
/// How long a pause is remembered: half of it after this.
const MEMORY: Duration = Duration::from_secs(86_400);

/// The detector for one path and service.
#[derive(Debug, Default)]
pub struct Silence {
    cusum: Cusum,
    life: Lifecycle,
    known: HashMap<u64, Known>,
    first: Option<Duration>,
    /// When there last was a connection.
    seen: Duration,
    last: Duration,
    /// The longest silence that ended by itself, lately.
    longest: Duration,
    /// The longest that ended by itself while the condition stands, and while it stood before. Once it may have been mended; twice it
    /// is its way.
    while_raised: (Duration, Duration),
    /// Connections of the last look, of these the silent ones, and of these those at which segments still arrive.
    connections: (u64, u64, u64),
    /// How long the one that spoke last has been silent, of the silent ones.
    least: Duration,
    bound: Duration,
}

/// One connection, as it was.
#[derive(Clone, Copy, Debug)]
struct Known {
    heard: Duration,
    segments_in: u32,
    /// Whether segments have come since it last spoke.
    arrives: bool,
}

impl Silence {
    /// Takes one look at its connections, `late` after it was due.
    pub fn look(&mut self, settings: &Settings, at: Duration, late: Duration, connections: &[Spoken]) {
        if self.first.is_none() && !connections.is_empty() {
            self.first = Some(at);
        }
        if !connections.is_empty() {
            self.seen = at;
        }
        self.longest = self.longest.mul_f64(fade(at.saturating_sub(self.last), MEMORY));
        for connection in connections {
            self.follow(connection);
        }
        let here: HashSet<u64> = connections.iter().map(|connection| connection.id).collect();
        self.known.retain(|id, _| here.contains(id));
        self.last = at;

        let widen = if late >= settings.late { late } else { Duration::ZERO };
        let bound = |connection: &Spoken| connection.usual.max(self.longest) * WORDS + SLACK + widen;
        let (mut all, mut silent, mut arriving, mut least) = (0, 0, 0, Duration::MAX);
        let mut longest_bound = Duration::ZERO;
        for connection in connections {
            let silence = at.saturating_sub(connection.heard);
            if silence >= FINISHED {
                continue;
            }
            all += 1;
            longest_bound = longest_bound.max(bound(connection));
            if silence > bound(connection) {
                silent += 1;
                arriving += u64::from(self.known.get(&connection.id).is_some_and(|known| known.arrives));
                least = least.min(silence);
            }
        }
        let is_learned =
            self.first.is_some_and(|first| at.saturating_sub(first) >= settings.silence_learning);
        let any = all > 0 && is_learned;
        let bad = any && silent * 2 >= all;
        let test = settings.silence;
        if any {
            self.cusum.observe(&test, u64::from(!bad), u64::from(bad));
            self.connections = (all, silent, arriving);
            self.bound = longest_bound;
            if silent > 0 {
                self.least = least;
            }
        }
        let alarm = self.cusum.alarmed(&test) && bad;
        self.cusum.cap(&test);
        let good = match (any, bad) {
            (false, _) => 0.0,
            (true, true) => -test.up(),
            // Who spoke again, spoke.
            (true, false) => settings.recovery / 2.0,
        };
        if self.life.look(settings, at, Look { alarm, bad, any, good }).is_some() {
            self.cusum.follow(self.life.phase());
            if self.life.phase() == Phase::Cleared {
                let (now, before) = self.while_raised;
                self.longest = self.longest.max(now.min(before));
                self.while_raised = (Duration::ZERO, now.max(before));
            }
        }
    }

    fn follow(&mut self, now: &Spoken) {
        let news = Known { heard: now.heard, segments_in: now.segments_in, arrives: false };
        let Some(known) = self.known.get_mut(&now.id) else {
            self.known.insert(now.id, news);
            return;
        };
        if known.heard == now.heard {
            known.arrives |= known.segments_in != now.segments_in;
            known.segments_in = now.segments_in;
            return;
        }
        // It was silent at the last look, at least until then.
        let silence = self.last.saturating_sub(known.heard).min(FINISHED);
        *known = news;
        if self.life.phase() == Phase::Cleared {
            self.longest = self.longest.max(silence);
        } else {
            self.while_raised.0 = self.while_raised.0.max(silence);
        }
    }

    /// `(connections that are regularly spoken to, of these silent for too long, of these with segments that still arrive)`.
    pub const fn evidence(&self) -> (u64, u64, u64) {
        self.connections
    }

    /// How long the silent ones have been silent, at least, and what would have been in order.
    pub const fn silence(&self) -> (Duration, Duration) {
        (self.least, self.bound)
    }

    /// Its life.
    pub const fn life(&self) -> &Lifecycle {
        &self.life
    }

    /// Whether nothing would be lost by forgetting it.
    pub fn is_idle(&self, settings: &Settings, at: Duration) -> bool {
        at.saturating_sub(self.seen) >= MEMORY && self.life.is_idle(settings, at)
    }
}
