//! Judgement: samples and time in, verdicts out. No I/O, no clock, no async.
//!
//! Detectors are sequential tests ([`cusum`], [`shift`]); [`lifecycle`] turns their alarms into conditions with lease
//! and recovery; [`blame`] names the culprit from all evidence at once; [`judge`] feeds them tick by tick. Defaults
//! and their delays and false-alarm rates are in docs/verdicts.md, confirmed by seeded simulation in
//! `simulation.rs`.

mod activation;
mod back_off;
mod blame;
mod collapse;
mod conditions;
mod cusum;
mod drops;
mod judge;
mod judge_node;
mod judge_paths;
mod judge_rate;
mod judge_routing;
mod judge_silence;
mod judge_subjects;
mod learned;
mod lifecycle;
mod loss;
mod media;
#[cfg(test)]
mod media_simulation;
mod node;
mod one_way;
mod path_life;
#[cfg(test)]
mod path_simulation;
mod paths;
mod rate;
mod rate_past;
mod recent;
mod relay;
#[cfg(test)]
mod relay_simulation;
mod routing;
mod settings;
mod shares;
mod shift;
mod silence;
#[cfg(test)]
mod silence_simulation;
#[cfg(test)]
mod simulation;
mod stall;
mod subject;
mod verdict;

pub use blame::{FirstByteFacts, HandshakeFacts, blame_first_byte, blame_handshake, blame_response};
pub use cusum::{Bernoulli, Cusum};
pub use judge::{Change, Declared, Judge, Standing};
pub use rate::Floor;
pub use settings::{Settings, ShiftSettings};
pub use shift::Shift;
