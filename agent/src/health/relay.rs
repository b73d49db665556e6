//! Relays that take media in and put none out.
//!
//! A process is a relay when it puts out what it takes in: that is learned from itself. It stalls when media goes on coming
//! from where it came from and nothing, or next to nothing, leaves. Two kinds are told apart. A process that does not read
//! lets its receive queues grow, which proves the stall, whatever the process usually does. One that reads and does not send
//! proves nothing by itself, for an assistant listens while its caller speaks, and who is alone in a room is sent
//! nothing: it is judged only where output has followed input without a pause for as long as it was watched, where it ended all
//! at once, and only while its sources go on.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{
    Settings,
    collapse::{Collapse, LEARNING, Part, Usual},
    lifecycle::{Lifecycle, Look},
    verdict::Verdict,
};
use crate::model::{Blame, ConditionName, Phase, Process, RelayCounts, RelayTick, fade};

/// Packets that must have come in without any going out …
pub(super) const LEAST_PACKETS: u64 = 100;
/// … and for how long.
pub(super) const LEAST_TIME: Duration = Duration::from_millis(250);
/// Output of less than this share of what is usual is none.
const COLLAPSED: f64 = 0.1;
/// Output of at least this share of what is usual is good.
const GOOD: f64 = 0.5;
/// A process that usually puts out less than this for each packet it takes in is no relay.
const LEAST_FAN_OUT: f64 = 0.2;
/// Fan-out is that of the last so many seconds, fading.
const HALF_LIFE: Duration = Duration::from_secs(30);
/// Input rate and sources are those of the last second or so.
const RECENT: Duration = Duration::from_millis(700);
/// A packet that waits takes at least this much memory (`SKB_TRUESIZE`, and half of it to be sure).
pub(super) const QUEUED: u64 = 384;
/// A pause of the output that ended by itself is remembered for this long: it fades by half in …
const PAUSE_HALF_LIFE: Duration = Duration::from_secs(600);
/// A process with longer pauses is no relay that could be judged by one.
const LONGEST_PAUSE: Duration = Duration::from_millis(500);
/// What counts must be this many times as long as the longest that ended by itself.
const PAUSES: u32 = 4;
/// Fewer sources may all fall silent by themselves, or be muted.
const LEAST_SOURCES: f64 = 2.0;
/// Where fewer of the sources go on than this, they are leaving.
const SAME_SOURCES: f64 = 0.9;
/// Where less comes in than this share of what came before, they are leaving too.
const SAME_INPUT: f64 = 0.75;
/// Where less than this share of the usual output was left just before, it ended bit by bit: those who spoke fell silent one after
/// the other.
const AT_ONCE: f64 = 0.8;
/// Good output for this long is worth all of [`Settings::recovery`].
const RECOVERY: Duration = Duration::from_millis(500);
/// Without any input for this long a run is over, and proves nothing.
const IDLE: Duration = Duration::from_secs(1);
/// A process with media within this is active.
const ACTIVE: Duration = Duration::from_secs(2);
/// A process without media for this long is forgotten.
const FORGET: Duration = Duration::from_secs(300);

/// What is wrong with a relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    NotReading,
    NotSending,
    /// A part of it.
    Part(Part),
}

/// Input without output, so far.
#[derive(Clone, Copy, Debug, Default)]
struct Run {
    age: Duration,
    idle: Duration,
    received: u64,
    sent: u64,
    dropped: u64,
    queued_before: u64,
    rate_before: f64,
    sent_before: f64,
    sources_before: f64,
    /// Its end, however it comes, is no natural one.
    proven: bool,
}

/// The detector for one process.
#[derive(Clone, Copy, Debug, Default)]
pub struct RelayStall {
    /// Fading sums of packets.
    received: f64,
    sent: f64,
    /// Packets received and sent a second, and sources, lately.
    rate: f64,
    sent_rate: f64,
    sources: f64,
    queued: u64,
    /// Since when output has been seen to follow input.
    since: Option<Duration>,
    /// The longest pause that ended by itself.
    pause: Duration,
    run: Option<Run>,
    collapse: Collapse,
    cause: Option<Cause>,
    last_seen: Duration,
    life: Lifecycle,
}

/// One look at a process.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sample {
    /// Time since the last look, less by how much this one was late: a host that stood still proves nothing.
    pub elapsed: Duration,
    /// What was counted.
    pub counts: RelayCounts,
    /// Memory of what waits, bytes.
    pub queued: u64,
    /// Sources that are there.
    pub sources: u64,
}

impl RelayStall {
    /// Takes one look. Returns the phase before, where it changed.
    pub fn look(&mut self, settings: &Settings, at: Duration, sample: Sample) -> Option<Phase> {
        let RelayCounts { received, sent, .. } = sample.counts;
        if received + sent > 0 {
            self.last_seen = at;
        }
        let expected = self.fan_out().map_or(0.0, |fan_out| fan_out * received as f64);
        let starved = received > 0 && (sent as f64) < COLLAPSED * expected;
        self.follow(&sample, starved);
        // A part of it that had failed says nothing of the rest.
        let stands = self.life.phase() == Phase::Raised && starved && !self.has_collapsed();
        let found = if stands { self.cause } else { self.found(settings, at, &sample) };
        let part = self.part(settings, at, &sample);
        let found = found.or(part.map(Cause::Part));
        if let Some(run) = self.run.as_mut().filter(|_| found == Some(Cause::NotReading)) {
            run.proven = true;
        }
        self.cause = found.or(self.cause);
        let low = matches!(self.cause, Some(Cause::Part(_))) && self.collapse.is_low();
        let good = match (starved || low, expected > 0.0) {
            (true, _) => -settings.recovery,
            (false, true) if sent as f64 >= GOOD * expected => {
                settings.recovery * sample.elapsed.as_secs_f64() / RECOVERY.as_secs_f64()
            }
            _ => 0.0,
        };
        let bad = (starved && found.is_some()) || low;
        self.life.look(settings, at, Look { alarm: found.is_some(), bad, any: received > 0, good })
    }

    /// Packets put out for each one taken in; nothing while that is not known, or too few for a relay.
    fn fan_out(&self) -> Option<f64> {
        let known = self.received >= LEAST_PACKETS as f64 && self.sent >= LEAST_FAN_OUT * self.received;
        known.then(|| self.sent / self.received)
    }

    /// What part of it has failed, where not all has.
    fn part(&mut self, settings: &Settings, at: Duration, sample: &Sample) -> Option<Part> {
        let fan_out = self.fan_out()?;
        if self.run.is_some() {
            self.collapse.pass_over();
            return None;
        }
        let watched = self.since.map_or(Duration::ZERO, |since| at.saturating_sub(since));
        let usual = Usual {
            fan_out,
            rate: self.rate,
            sources: self.sources,
            queued: self.queued,
            known: watched >= settings.relay_learning * LEARNING,
        };
        self.collapse.look(usual, sample, self.has_collapsed())
    }

    fn has_collapsed(&self) -> bool {
        self.life.phase() != Phase::Cleared && matches!(self.cause, Some(Cause::Part(_)))
    }

    /// Follows a run of input without output, or learns from a look that is none.
    fn follow(&mut self, sample: &Sample, starved: bool) {
        let RelayCounts { received, sent, dropped } = sample.counts;
        if self.run.is_none() && starved {
            self.run = Some(Run {
                queued_before: self.queued,
                rate_before: self.rate,
                sent_before: self.sent_rate,
                sources_before: self.sources,
                ..Run::default()
            });
        }
        let fan_out = self.fan_out().unwrap_or(0.0);
        if let Some(run) = &mut self.run {
            run.received += received;
            run.sent += sent;
            run.dropped += dropped;
            run.idle = if received == 0 { run.idle + sample.elapsed } else { Duration::ZERO };
            let over = run.sent as f64 > COLLAPSED * fan_out * run.received as f64;
            if !over && run.idle < IDLE {
                run.age += sample.elapsed;
                return;
            }
            // A pause that raised an alarm and ended by itself is learned as well: who pauses is told of once.
            if over && !run.proven {
                self.pause = self.pause.max(run.age);
            }
            self.run = None;
        }
        self.learn(sample);
    }

    fn learn(&mut self, sample: &Sample) {
        let seconds = sample.elapsed.as_secs_f64();
        let abnormal = self.has_collapsed() && !self.collapse.is_accepted();
        if !abnormal && !self.collapse.is_falling() {
            let keep = fade(sample.elapsed, HALF_LIFE);
            self.received = self.received * keep + sample.counts.received as f64;
            self.sent = self.sent * keep + sample.counts.sent as f64;
        }
        self.queued = sample.queued;
        self.pause = self.pause.mul_f64(fade(sample.elapsed, PAUSE_HALF_LIFE));
        if seconds > 0.0 {
            let keep = fade(sample.elapsed, RECENT);
            let recent = |before: f64, n: u64| before * keep + (1.0 - keep) * n as f64 / seconds;
            self.rate = recent(self.rate, sample.counts.received);
            self.sent_rate = recent(self.sent_rate, sample.counts.sent);
            self.sources = self.sources * keep + (1.0 - keep) * sample.sources as f64;
        }
    }

    fn found(&mut self, settings: &Settings, at: Duration, sample: &Sample) -> Option<Cause> {
        let Some(fan_out) = self.fan_out() else {
            self.since = None;
            return None;
        };
        let since = *self.since.get_or_insert(at);
        let run = self.run.filter(|run| run.received >= LEAST_PACKETS && run.age >= LEAST_TIME)?;
        let waiting = sample.queued.saturating_sub(run.queued_before);
        if run.dropped > 0 || waiting >= QUEUED * run.received {
            return Some(Cause::NotReading);
        }
        let watched = at.saturating_sub(since) >= settings.relay_learning;
        let steady = self.pause <= LONGEST_PAUSE && run.age >= self.pause * PAUSES;
        let sources = run.sources_before >= LEAST_SOURCES
            && sample.sources as f64 >= SAME_SOURCES * run.sources_before
            && run.received as f64 >= SAME_INPUT * run.rate_before * run.age.as_secs_f64();
        let at_once = run.sent_before >= AT_ONCE * fan_out * run.rate_before;
        (watched && steady && sources && at_once).then_some(Cause::NotSending)
    }

    /// Its life.
    pub const fn life(&self) -> &Lifecycle {
        &self.life
    }

    fn verdict(&self) -> Verdict {
        let run = self.run.map(|run| (run.received, run.sent, run.age));
        let part = self.collapse.fallen().filter(|_| matches!(self.cause, Some(Cause::Part(_))));
        let (received, sent, age) =
            run.or(part.map(|fallen| (fallen.received, fallen.sent, fallen.age))).unwrap_or_default();
        let fan_out = self.fan_out().unwrap_or(0.0);
        let usual = (fan_out * received as f64).max(1.0);
        let missing = 1.0 - (sent as f64 / usual).min(1.0);
        let how = match self.cause {
            Some(Cause::NotReading) => "they wait in its receive queues: it does not read",
            Some(Cause::Part(Part::NotReading)) => {
                "what is missing waits in its receive queues: part of it does not read"
            }
            Some(Cause::Part(Part::NotSending)) => "part of it reads and does not send",
            Some(Cause::NotSending) | None => "it reads and does not send",
        };
        let text = if received > 0 {
            format!(
                "took in {received} RTP packets in {:.1} s and put out {sent}, usually {fan_out:.2} for each; {how}",
                age.as_secs_f64(),
            )
        } else {
            format!("puts out {fan_out:.2} RTP packets for each it takes in, as usual")
        };
        let bad = (missing * received as f64).round() as u64;
        Verdict {
            name: ConditionName::RelayStall,
            blame: Blame::LocalProcess,
            n: received,
            bad: bad.min(received),
            text,
        }
    }
}

/// The detectors of all processes.
#[derive(Default)]
pub struct RelayJudge {
    processes: BTreeMap<Process, RelayStall>,
    last_at: Option<Duration>,
}

/// About which process, what, and the detector's life.
type Concluded = (Process, Verdict, Lifecycle);

impl RelayJudge {
    /// Takes one look at all processes, `late` after it was due.
    pub fn observe(
        &mut self,
        settings: &Settings,
        at: Duration,
        late: Duration,
        seen: &[RelayTick],
    ) -> Vec<Concluded> {
        let elapsed = at.saturating_sub(self.last_at.replace(at).unwrap_or(at)).saturating_sub(late);
        let mut verdicts = Vec::new();
        let mut silent: BTreeSet<Process> = self.processes.keys().cloned().collect();
        for tick in seen.iter().filter(|tick| tick.process.id != 0) {
            silent.remove(&tick.process);
            let sample = Sample { elapsed, counts: tick.counts, queued: tick.queued, sources: tick.sources };
            self.look(settings, at, &tick.process, sample, &mut verdicts);
        }
        // A process without sockets is silent, or gone: what stands about it ends with its lease.
        for process in silent {
            self.look(settings, at, &process, Sample { elapsed, ..Sample::default() }, &mut verdicts);
        }
        self.processes.retain(|_, state| {
            at.saturating_sub(state.last_seen) < FORGET || !state.life.is_idle(settings, at)
        });
        verdicts
    }

    /// Processes with media in the last seconds, and those of them that are stalled.
    pub fn active(&self, at: Duration) -> (u64, u64) {
        let active = self.processes.values().filter(|state| at.saturating_sub(state.last_seen) < ACTIVE);
        active.fold((0, 0), |(all, stalled), state| {
            (all + 1, stalled + u64::from(state.life.phase() == Phase::Raised))
        })
    }

    fn look(
        &mut self,
        settings: &Settings,
        at: Duration,
        process: &Process,
        sample: Sample,
        verdicts: &mut Vec<Concluded>,
    ) {
        let state = self.processes.entry(process.clone()).or_default();
        let changed = state.look(settings, at, sample);
        if changed.is_some() || state.life.phase() != Phase::Cleared {
            verdicts.push((process.clone(), state.verdict(), *state.life()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICK: Duration = Duration::from_millis(100);

    struct Relay {
        detector: RelayStall,
        settings: Settings,
        at: Duration,
    }

    impl Relay {
        fn new() -> Self {
            Self {
                detector: RelayStall::default(),
                settings: Settings::default(),
                at: Duration::from_secs(1000),
            }
        }

        /// One that has relayed for a while, at 500 packets a second from 10 sources.
        fn known(seconds: u64) -> Self {
            let mut relay = Self::new();
            for _ in 0..10 * seconds {
                relay.look(50, 50, 0, 10);
            }
            relay
        }

        fn look(&mut self, received: u64, sent: u64, queued: u64, sources: u64) -> Phase {
            self.at += TICK;
            let counts = RelayCounts { received, sent, dropped: 0 };
            let sample = Sample { elapsed: TICK, counts, queued, sources };
            self.detector.look(&self.settings, self.at, sample);
            self.detector.life.phase()
        }
    }

    #[test]
    fn one_that_no_longer_reads_is_found_in_three_looks_and_clears_within_a_second() {
        let mut relay = Relay::known(3);
        let phases: Vec<Phase> = (1..=5).map(|i| relay.look(50, 0, i * 50 * 768, 10)).collect();
        assert_eq!(phases[1..3], [Phase::Cleared, Phase::Raised]);
        assert!(relay.detector.verdict().text.contains("does not read"), "{}", relay.detector.verdict().text);
        assert_eq!(relay.look(50, 300, 0, 10), Phase::Raised, "one look is not enough");
        let after = (0..20).position(|_| relay.look(50, 50, 0, 10) == Phase::Cleared);
        assert!(after.is_some_and(|looks| looks < 9), "{after:?}");
    }

    #[test]
    fn one_that_reads_and_does_not_send_is_found_once_it_is_known() {
        let mut relay = Relay::known(130);
        let found = (1..20).find(|_| relay.look(50, 0, 0, 10) == Phase::Raised);
        assert_eq!(found, Some(3));
        assert!(relay.detector.verdict().text.contains("does not send"));
        let mut unknown = Relay::known(100);
        assert!((0..50).all(|_| unknown.look(50, 0, 0, 10) == Phase::Cleared));
    }

    #[test]
    fn who_is_left_alone_in_a_room_is_sent_nothing_and_that_is_right() {
        let mut relay = Relay::known(150);
        assert!((0..100).all(|_| relay.look(5, 0, 0, 1) == Phase::Cleared), "its sources have left");
    }

    #[test]
    fn one_that_only_takes_in_is_no_relay() {
        let mut recorder = Relay::new();
        assert!((0..1000).all(|_| recorder.look(50, 0, 0, 10) == Phase::Cleared));
    }

    #[test]
    fn a_host_that_stood_still_is_no_relay_that_does() {
        let mut relay = Relay::known(150);
        relay.at += Duration::from_secs(3);
        let counts = RelayCounts { received: 1500, sent: 0, dropped: 0 };
        let late = Sample { elapsed: TICK, counts, queued: 200_000, sources: 10 };
        relay.detector.look(&relay.settings, relay.at, late);
        assert_eq!(relay.look(50, 1500, 0, 10), Phase::Cleared);
    }

    #[test]
    fn a_thread_of_four_that_no_longer_reads_is_found_in_a_second() {
        let mut relay = Relay::known(10);
        let found = (1..20).find(|i| relay.look(50, 38, i * 12 * 768, 10) == Phase::Raised);
        assert!(found.is_some_and(|looks| looks <= 10), "{found:?}");
        assert!(relay.detector.verdict().text.contains("part of it does not read"));
        assert!(
            (0..600).all(|_| relay.look(50, 38, 212_992, 10) == Phase::Raised),
            "it stands while it lasts"
        );
        let after = (0..30).position(|_| relay.look(50, 50, 0, 10) == Phase::Cleared);
        assert!(after.is_some_and(|looks| looks < 12), "{after:?}");
    }

    #[test]
    fn half_of_the_output_is_missed_where_a_relay_is_known_for_long() {
        let mut relay = Relay::known(610);
        let found = (1..40).find(|_| relay.look(50, 25, 0, 10) == Phase::Raised);
        assert!(found.is_some_and(|looks| looks <= 10), "{found:?}");
        assert!(relay.detector.verdict().text.contains("part of it reads and does not send"));
        // Whoever wants it so has been told, and is not told for ever.
        let after = (0..20_000).position(|_| relay.look(50, 25, 0, 10) == Phase::Cleared);
        assert!(after.is_some_and(|looks| (6000..7000).contains(&looks)), "{after:?}");
        let mut unknown = Relay::known(300);
        assert!((0..50).all(|_| unknown.look(50, 25, 0, 10) == Phase::Cleared));
    }

    #[test]
    fn one_call_of_two_that_is_no_longer_relayed_is_no_collapse() {
        let mut relay = Relay::new();
        (0..6100).for_each(|_| _ = relay.look(20, 20, 0, 4));
        assert!((0..300).all(|_| relay.look(20, 10, 0, 4) == Phase::Cleared));
    }

    #[test]
    fn callers_who_come_before_they_may_are_no_collapse() {
        let mut relay = Relay::known(610);
        assert!((0..50).all(|_| relay.look(100, 50, 0, 20) == Phase::Cleared));
    }

    #[test]
    fn it_stays_raised_while_it_lasts_and_ends_when_the_process_is_gone() {
        let mut relay = Relay::known(5);
        for i in 0..600 {
            relay.look(50, 0, (i + 1).min(50) * 50 * 768, 10);
        }
        assert_eq!(relay.detector.life.phase(), Phase::Raised);
        let phases: BTreeSet<Phase> = (0..900).map(|_| relay.look(0, 0, 0, 0)).collect();
        assert!(phases.contains(&Phase::Recovering));
        assert_eq!(relay.detector.life.phase(), Phase::Cleared);
    }
}
