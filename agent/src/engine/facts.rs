//! What does not change while the agent runs: the node, the kernel, what could be attached.

use graylag_ebpf::{counter::Counter, media::MediaCounter};

use crate::{
    aggregate::{Aggregator, Coverage},
    kernel::{
        Found, Kernel, Pins, ProgramState, Unwatched,
        programs::{Signal, TASKS},
        settings::Limits,
    },
    model::status::{JITTER, MapStatus},
    telemetry::AgentFacts,
};

/// What was found at start, and which interfaces are not watched now.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Name of the node.
    pub node: String,
    /// Release of the running kernel.
    pub kernel: String,
    /// `(program, state)`, in load order.
    pub programs: Vec<(&'static str, ProgramState)>,
    /// Why existing connections of some namespaces are not seen.
    pub not_adopted: Option<String>,
    /// Interfaces whose UDP should be seen and is not.
    pub unwatched: Option<Unwatched>,
    /// Sizes of the maps.
    pub limits: Option<Limits>,
    /// How this agent came by its kernel half, where it outlives agents.
    pub pins: Option<String>,
}

/// How much of a signal there is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Availability {
    /// All of it.
    Full,
    /// Some of it.
    Partial(String),
    /// Nothing.
    Missing(String),
}

/// In words.
fn taken_over(pins: &Pins) -> String {
    match pins.found() {
        Found::Nothing => "began".into(),
        Found::Unfit(why) => format!("began anew: {why}"),
        Found::Left if pins.exchanges() => "goes on, with other programs".into(),
        Found::Left => "goes on".into(),
    }
}

impl Facts {
    /// Asks the attached kernel half.
    pub fn of(kernel: &Kernel, node: String, limits: Limits) -> Self {
        let unreachable = kernel.not_adopted();
        let not_adopted = unreachable.first().map(|first| {
            format!(
                "{} namespaces could not be entered, e.g. {}: {}",
                unreachable.len(),
                first.inode,
                first.reason
            )
        });
        Self {
            node,
            kernel: release(),
            programs: kernel.programs().map(|(program, state)| (program.name, state.clone())).collect(),
            not_adopted,
            unwatched: kernel.unwatched_interfaces(),
            limits: Some(limits),
            pins: kernel.pins().map(taken_over),
        }
    }

    /// The signals that are wanted: media has to be asked for.
    pub fn signals(&self) -> impl Iterator<Item = Signal> {
        let media = self.limits.is_some_and(|limits| limits.media());
        // So has attribution to be wanted.
        let there = self.programs.iter().any(|(name, _)| *name == TASKS);
        Signal::ALL
            .into_iter()
            .filter(move |signal| media || !signal.is_of_media())
            .filter(move |signal| there || *signal != Signal::Attribution)
    }

    /// How much of a signal this host gives.
    pub fn availability(&self, signal: Signal) -> Availability {
        for (i, any) in signal.needs().iter().enumerate() {
            let state = |name: &str| self.programs.iter().find(|(p, _)| *p == name).map(|(_, state)| state);
            if any.iter().any(|name| state(name) == Some(&ProgramState::Attached)) {
                continue;
            }
            let reason = any
                .iter()
                .filter_map(|name| match state(name)? {
                    ProgramState::Unavailable { reason } => Some(format!("{name}: {reason}")),
                    ProgramState::Disabled => Some(format!("{name}: disabled in the configuration")),
                    _ => None,
                })
                .collect::<Vec<_>>()
                .join("; ");
            return match i {
                0 => Availability::Missing(reason),
                _ => Availability::Partial(format!("{}; {reason}", signal.loses(i))),
            };
        }
        match (signal, &self.not_adopted, &self.unwatched) {
            (Signal::Adoption, Some(reason), _) => Availability::Partial(reason.clone()),
            (Signal::Media, _, Some(Unwatched { count, of, example, reason })) => {
                let reason = format!("{count} of {of} interfaces are not watched, e.g. {example}: {reason}");
                if count == of { Availability::Missing(reason) } else { Availability::Partial(reason) }
            }
            _ => Availability::Full,
        }
    }

    /// Share of what there was to be seen that was seen, by signal: 0 where a signal is missing, absent where it is partial in
    /// a way that nobody can put a number on, or where nothing was there to be seen.
    pub fn coverage(&self, measured: Coverage) -> Vec<(&'static str, f64)> {
        let share = |signal: Signal| {
            let share = match (self.availability(signal), signal) {
                (Availability::Missing(_), _) => 0.0,
                // What goes by there nobody counts: each stands for as much as any other.
                (Availability::Partial(_), Signal::Media) => {
                    // What goes by an interface that is not watched nobody counts: each stands for as much as any other.
                    let Unwatched { count, of, .. } = self.unwatched.as_ref()?;
                    measured.media.unwrap_or(1.0) * (of - count) as f64 / *of as f64
                }
                (Availability::Partial(_), _) => return None,
                (Availability::Full, Signal::HandshakeServer) => {
                    measured.connections.unwrap_or(1.0) * measured.half_open.unwrap_or(1.0)
                }
                (
                    Availability::Full,
                    Signal::HandshakeClient | Signal::Response | Signal::Loss | Signal::Segments,
                ) => measured.connections.unwrap_or(1.0),
                (Availability::Full, Signal::Media) => measured.media.unwrap_or(1.0),
                (Availability::Full, _) => 1.0,
            };
            Some((signal.name(), share))
        };
        let watched = self.limits.is_some_and(|limits| limits.media())
            && !matches!(self.availability(Signal::Media), Availability::Missing(_));
        let jitter = watched.then_some((JITTER, measured.jitter));
        self.signals().filter_map(share).chain(jitter).collect()
    }

    /// Tables of which somebody should know how full they are.
    pub fn maps(&self, aggregator: &Aggregator) -> Vec<MapStatus> {
        let Some(limits) = self.limits else { return Vec::new() };
        let usage = aggregator.usage();
        let used = [usage.paths, usage.connections, usage.half_open];
        let evicted = [Counter::PathFull, Counter::ConnectionFull, Counter::HalfOpenFull];
        let mut maps: Vec<MapStatus> = limits
            .maps()
            .into_iter()
            .zip(used.into_iter().zip(evicted))
            .map(|((name, limit), (used, counter))| map(name, used, limit, aggregator.counter(counter)))
            .collect();
        if limits.media() {
            let counter = |counter| aggregator.media_counter(counter);
            // Places are given out once, and then change hands.
            let given = |created| counter(created).min(u64::from(limits.flows));
            let flows = given(MediaCounter::FlowCreated);
            let streams = given(MediaCounter::StreamCreated);
            maps.extend([
                map("FLOWS", flows, limits.flows, counter(MediaCounter::FlowRefused)),
                map("STREAMS", streams, limits.flows, counter(MediaCounter::StreamRefused)),
                map("MEDIA_PATHS", usage.media_paths, limits.media_paths(), counter(MediaCounter::PathFull)),
                map("SESSIONS", usage.sessions, limits.sessions(), counter(MediaCounter::SessionFull)),
            ]);
        }
        maps
    }

    pub(super) fn agent_facts(&self) -> AgentFacts {
        let attached = |state: &ProgramState| *state == ProgramState::Attached;
        AgentFacts {
            programs: self.programs.iter().map(|(name, state)| (*name, attached(state))).collect(),
            ..AgentFacts::default()
        }
    }
}

fn map(name: &str, used: u64, limit: u32, evicted: u64) -> MapStatus {
    MapStatus { name: name.into(), used, limit: limit.into(), evicted }
}

/// `uname -r`.
pub fn release() -> String {
    std::fs::read_to_string("/proc/sys/kernel/osrelease").map(|r| r.trim().to_owned()).unwrap_or_default()
}
