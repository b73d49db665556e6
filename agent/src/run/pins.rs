//! What the kernel half leaves for the next agent, and what an earlier one left.

use anyhow::Result;

use crate::{
    config::{Config, ConfigError},
    engine::Kept,
    kernel::{Found, PinError, Pins, settings::Limits},
};

/// Takes the directory, where the configuration names one, and what an earlier agent kept there, if it can be gone on from.
pub fn open(config: &Config, limits: &Limits) -> Result<(Option<Pins>, Option<Kept>)> {
    let Some(directory) = &config.pin else { return Ok((None, None)) };
    let pins = Pins::open(directory, limits).map_err(|error| wrong(&error))?;
    if *pins.found() != Found::Left {
        return Ok((Some(pins), None));
    }
    let kept = pins.checkpoint().map_err(|error| error.to_string()).and_then(|bytes| Kept::read(&bytes));
    match kept {
        Ok(kept) => Ok((Some(pins), Some(kept))),
        Err(error) => {
            let why = format!("what it had counted cannot be read: {error}");
            Ok((Some(pins.discard(limits, why).map_err(|error| wrong(&error))?), None))
        }
    }
}

fn wrong(error: &PinError) -> ConfigError {
    ConfigError {
        path: None,
        line: 0,
        field: "kernel.pin".into(),
        problem: error.to_string(),
        remedy: error.remedy().into(),
    }
}

/// Tells what was found.
pub fn tell(pins: &Pins) {
    match pins.found() {
        Found::Nothing => {}
        Found::Unfit(why) => {
            tracing::warn!("what an earlier agent left is removed, and everything is counted anew: {why}");
        }
        Found::Left if pins.exchanges() => tracing::info!(
            "goes on where an earlier agent stopped; its programs, of another build or with other settings, were replaced one by one: \
             what happened at each in that moment may be counted twice"
        ),
        Found::Left => tracing::info!("goes on where an earlier agent stopped"),
    }
}
