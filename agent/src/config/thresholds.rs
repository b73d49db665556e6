//! `[thresholds]`, and the floors of services: the bounds of the detectors.

use std::time::Duration;

use toml::Spanned;

use super::{
    ConfigError, Floor, Thresholds,
    check::{duration, duration_up_to},
    error::Source,
    raw,
};

/// What is rare by nature may have to be watched for long.
const LONGEST_LEARNING: Duration = Duration::from_secs(86_400);

/// Checks them.
pub fn checked(raw: &raw::Thresholds, source: &Source<'_>) -> Result<Thresholds, ConfigError> {
    let bound = |value, field| duration(value, field, source);
    Ok(Thresholds {
        handshake_stall: bound(&raw.handshake_stall, "thresholds.handshake_stall")?,
        first_byte_stall: bound(&raw.first_byte_stall, "thresholds.first_byte_stall")?,
        response_slow: bound(&raw.response_slow, "thresholds.response_slow")?,
        relay_learning: bound(&raw.relay_learning, "thresholds.relay_learning")?,
        silence_learning: duration_up_to(
            &raw.silence_learning,
            "thresholds.silence_learning",
            LONGEST_LEARNING,
            source,
        )?,
        reroute: bound(&raw.reroute, "thresholds.reroute")?,
        lease: bound(&raw.lease, "thresholds.lease")?,
    })
}

/// A service's `rate_floor`.
pub fn floor(value: &Spanned<raw::Floor>, source: &Source<'_>) -> Result<Floor, ConfigError> {
    let problem = match value.get_ref() {
        raw::Floor::Number(number @ 1..=1_000_000) => return Ok(Floor::Configured(*number as u32)),
        raw::Floor::Text(text) if text == "learned" => return Ok(Floor::Learned),
        raw::Floor::Number(number) => format!("{number} is out of range"),
        raw::Floor::Text(text) => format!("`{text}` is no number"),
    };
    Err(source.error(value.span(), "service.rate_floor", problem, "use 1 to 1000000, or \"learned\""))
}
