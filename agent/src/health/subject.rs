//! What is known of one subject: its detectors, and what blame looks at.

use std::time::Duration;

use super::{
    Settings, Shift,
    blame::{FirstByteFacts, HandshakeFacts, PathFacts, blame_first_byte, blame_handshake, blame_response},
    lifecycle::Lifecycle,
    recent::Recent,
    stall::{Sample, Stall},
    verdict::Verdict,
};
use crate::model::{ConditionName, Counts, Distribution, Outcome, Pending, Phase, Role, SubjectTick};

/// A bound is this many times the p99 of the path's round trip, where that is more than the configured one.
const ROUND_TRIPS: u32 = 3;
/// Established handshakes of a server's path before its hanging ones are judged: a peer that never completed one is a
/// scanner or a spoofed address, not a user.
const KNOWN_PEER: u64 = 20;
/// The network explains slow answers when its own round trip rose by at least this factor …
const RTT_FACTOR: f64 = 1.5;
/// … and by at least this share of the increase.
const RTT_SHARE: f64 = 0.3;
/// … or when this share of its segments is lost.
const LOSS_SHARE: f64 = 0.02;

/// One subject.
#[derive(Default)]
pub struct SubjectState {
    handshake: Stall,
    first_byte: Stall,
    response: Shift,
    recent: Recent,
    rtt: Distribution,
    usual_rtt: f64,
    current_rtt: Duration,
    established: u64,
    last_seen: Duration,
}

/// What is known beyond the subject itself when its detectors look.
pub struct Looking {
    /// When.
    pub at: Duration,
    /// How much longer than usual everything may take: this host was late.
    pub widen: Duration,
    /// Data of its path, all services together.
    pub path: PathFacts,
    /// Whether silence of its service means something.
    pub answers: bool,
}

/// What the blame of one subject needs of all others.
pub struct Surroundings {
    /// This host drops packets for want of room.
    pub host_drops: bool,
    /// By role: paths that have handshakes, lately.
    pub active_paths: [usize; 2],
    /// By role: of these, paths on which handshakes stall.
    pub stalling_paths: [usize; 2],
}

/// What there is to tell of a subject: detectors that changed, or whose conditions stand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct News {
    handshake: bool,
    first_byte: bool,
    response: bool,
}

impl News {
    /// Whether there is anything.
    pub fn is_any(self) -> bool {
        self != Self::default()
    }
}

impl SubjectState {
    /// Takes what was seen of it at `at`.
    pub fn remember(&mut self, at: Duration, seen: &SubjectTick) {
        self.last_seen = at;
        self.established += seen.counts.outcome(Outcome::Established);
        self.recent.decay_to(at);
        self.recent.add(&seen.counts);
        self.recent.pending = seen.pending.handshake.count();
        self.recent.syn_repeated = seen.pending.syn_repeated;
        if !seen.counts.rtt.is_empty() {
            self.remember_rtt(&seen.counts.rtt);
        }
    }

    fn remember_rtt(&mut self, rtt: &Distribution) {
        const MOST: u64 = 2000;
        // Slow enough not to follow an incident, quick enough to follow a route change within minutes.
        const WEIGHT: f64 = 0.01;
        if self.rtt.count() > MOST {
            self.rtt.clear();
        }
        self.rtt.add(rtt);
        if let Some(median) = rtt.quantile(0.5) {
            let x = median.as_secs_f64().log2();
            self.usual_rtt =
                if self.usual_rtt == 0.0 { x } else { self.usual_rtt + WEIGHT * (x - self.usual_rtt) };
            self.current_rtt = median;
        }
    }

    /// Lets its detectors look at what was seen.
    pub fn look(&mut self, settings: &Settings, role: Role, seen: &SubjectTick, looking: &Looking) -> News {
        let is_news =
            |changed: Option<Phase>, life: &Lifecycle| changed.is_some() || life.phase() != Phase::Cleared;
        let at = looking.at;
        let judged = role == Role::Client || self.established >= KNOWN_PEER;
        let handshake = self.handshake_sample(settings, &seen.counts, &seen.pending, looking.widen);
        let handshake = self.handshake.look(settings, at, handshake, judged);
        let first_byte = first_byte_sample(settings, &seen.counts, &seen.pending, looking.widen);
        let first_byte = self.first_byte.look(settings, at, first_byte, looking.answers);
        let network = self.network_explains(looking.path);
        let response = self.response.look(settings, at, &seen.counts.response, network);
        News {
            handshake: is_news(handshake, self.handshake.life()),
            first_byte: is_news(first_byte, self.first_byte.life()),
            response: is_news(response, self.response.life()),
        }
    }

    /// What its news are, each with the life of its condition.
    pub fn verdicts(
        &self,
        settings: &Settings,
        role: Role,
        seen: &SubjectTick,
        (looking, around): (&Looking, &Surroundings),
        news: News,
    ) -> impl Iterator<Item = (Verdict, Lifecycle)> {
        let (counts, pending) = (&seen.counts, &seen.pending);
        let handshake = news.handshake.then(|| {
            let sample = self.handshake_sample(settings, counts, pending, looking.widen);
            (self.handshake_verdict(role, &sample, looking.path, around), *self.handshake.life())
        });
        let first_byte = news.first_byte.then(|| {
            let sample = first_byte_sample(settings, counts, pending, looking.widen);
            (self.first_byte_verdict(role, &sample, looking.path, around), *self.first_byte.life())
        });
        let response = news.response.then(|| (self.response_verdict(role), *self.response.life()));
        [handshake, first_byte, response].into_iter().flatten()
    }

    fn handshake_sample<'a>(
        &self,
        settings: &Settings,
        counts: &'a Counts,
        pending: &'a Pending,
        widen: Duration,
    ) -> Sample<'a> {
        let round_trips = self.rtt.quantile(0.99).unwrap_or_default() * ROUND_TRIPS;
        Sample {
            completed: &counts.handshake,
            failed: &counts.handshake_failed,
            pending: &pending.handshake,
            bound: settings.handshake_bound.max(round_trips) + widen,
        }
    }

    fn handshake_verdict(
        &self,
        role: Role,
        sample: &Sample<'_>,
        path: PathFacts,
        around: &Surroundings,
    ) -> Verdict {
        let (n, bad) = self.handshake.evidence();
        let blame = blame_handshake(&HandshakeFacts {
            role,
            stalls: bad,
            accept_queue_overflow: self.recent.accept_queue as u64,
            request_queue_overflow: self.recent.request_queue as u64,
            syn_repeated: self.recent.syn_repeated,
            pending: self.recent.pending,
            unreachable: self.recent.unreachable as u64,
            path,
            host_drops: around.host_drops,
            stalling_paths: around.stalling_paths[role as usize],
            active_paths: around.active_paths[role as usize],
        });
        let pending = sample.pending.at_least(sample.bound);
        let text = format!(
            "{bad} of {n} handshakes not complete within {:.1?}, {pending} hanging now",
            sample.bound
        );
        Verdict { name: ConditionName::HandshakeStall, blame, n, bad, text }
    }

    fn first_byte_verdict(
        &self,
        role: Role,
        sample: &Sample<'_>,
        path: PathFacts,
        around: &Surroundings,
    ) -> Verdict {
        let (n, bad) = self.first_byte.evidence();
        let blame = blame_first_byte(&FirstByteFacts { role, path, host_drops: around.host_drops });
        let pending = sample.pending.at_least(sample.bound);
        let text = format!(
            "{bad} of {n} connections without a first byte within {:.1?}, {pending} waiting now",
            sample.bound
        );
        Verdict { name: ConditionName::FirstByteStall, blame, n, bad, text }
    }

    fn response_verdict(&self, role: Role) -> Verdict {
        let (n, bad) = self.response.evidence();
        let current = self.response.current().unwrap_or_default();
        let text = format!(
            "median answer {current:.0?}, usually {:.0?}; round trip and loss as before",
            self.response.usual()
        );
        Verdict { name: ConditionName::ResponseSlow, blame: blame_response(role), n, bad, text }
    }

    /// Whether the path itself slowed or loses, so that slow answers are not the service's doing.
    fn network_explains(&self, path: PathFacts) -> bool {
        if path.segments > 0.0 && path.lost / path.segments >= LOSS_SHARE {
            return true;
        }
        let (usual, current) = (self.usual_rtt.exp2(), self.current_rtt.as_secs_f64());
        let slower =
            self.response.current().unwrap_or_default().saturating_sub(self.response.usual()).as_secs_f64();
        self.usual_rtt != 0.0 && current >= usual * RTT_FACTOR && current - usual >= RTT_SHARE * slower
    }

    /// Adds its data to that of its path.
    pub fn add_to(&self, path: &mut PathFacts, at: Duration) {
        let recent = self.recent.at(at);
        path.segments += recent.segments;
        path.lost += recent.lost;
    }

    /// Whether it lately had handshakes.
    pub fn is_active(&self, at: Duration) -> bool {
        // They only become fewer: of most there is no need to know how few.
        self.recent.pending > 0 || self.recent.handshakes >= 1.0 && self.recent.at(at).handshakes >= 1.0
    }

    /// Whether its handshakes stall.
    pub fn stalls(&self) -> bool {
        self.handshake.life().phase() == Phase::Raised
    }

    /// Whether enough was seen of it to call it healthy.
    pub fn sufficient(&self, settings: &Settings) -> bool {
        self.handshake.sufficient(settings) || self.first_byte.sufficient(settings)
    }

    /// Whether nothing would be lost by forgetting it, but that it was here `within` this time.
    pub fn is_forgotten(&self, settings: &Settings, at: Duration, within: Duration) -> bool {
        at.saturating_sub(self.last_seen) >= within
            && [self.handshake.life(), self.first_byte.life(), self.response.life()]
                .iter()
                .all(|life| life.is_idle(settings, at))
    }
}

fn first_byte_sample<'a>(
    settings: &Settings,
    counts: &'a Counts,
    pending: &'a Pending,
    widen: Duration,
) -> Sample<'a> {
    Sample {
        completed: &counts.first_byte,
        failed: &counts.first_byte_failed,
        pending: &pending.first_byte,
        bound: settings.first_byte_bound + widen,
    }
}
