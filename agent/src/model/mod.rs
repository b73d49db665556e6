//! The words every room uses: subjects, distributions, ticks, conditions. Plain values; no I/O, no clock.

mod activation;
pub mod avoid;
mod cause;
mod condition;
mod distribution;
pub mod drops;
mod fade;
mod media;
mod node;
mod path;
mod pod;
mod probe;
mod relay;
pub mod status;
mod subject;
mod tick;

pub use activation::{ActivationCounts, ActivationTick, DecidedSession, MediaOutcome, MediaStage};
pub use cause::with_causes;
pub use condition::{
    Blame, Condition, ConditionKey, ConditionName, Evidence, Interval, Phase, Target, Transition,
};
pub use distribution::Distribution;
pub use fade::fade;
pub use graylag_ebpf::{
    counter::{Direction, Transport},
    key::Role,
    outcome::Outcome,
    record::Retransmit,
};
pub use media::{Flows, Leg, LegTick, MediaCounts};
pub use node::{NodeReport, NodeState, NodeTransition, Served, Share};
pub use path::{Expectation, PathEvidence, PathReport, PathState, PathTransition, ProbeTick};
pub use pod::{Container, Owner, Places, Pod};
pub use probe::{
    AddressCounts, AddressOutcome, AddressPath, AddressTarget, Delays, HTTPS_PORT, HostPort, PeerReport,
    ReflectorCounts, STAMP_PORT, StampCounts, StampDelays, StampPath,
};
pub use relay::{Process, RelayCounts, RelayTick};
pub use subject::{OTHER, Path, Subject, role_name};
pub use tick::{Ages, Counts, Drops, HostTick, Pending, Spoken, SpokenTick, SubjectTick, Tick};
