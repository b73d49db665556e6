//! What a routing controller says it avoids, and what it is answered.

use std::net::IpAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    Direction,
    status::{PathStatus, Stamp},
};

/// Most directions that may be avoided at once.
pub const MOST_AVOIDED: usize = 1000;
/// Longest time for which it may be said, seconds.
pub const LONGEST_AVOIDED: f64 = 300.0;

/// Body of `POST /v1/avoid`: all that a controller avoids now.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Avoid {
    /// Paths, or one direction of each.
    pub avoid: Vec<AvoidedPath>,
    /// For how many seconds this holds unless it is said again.
    #[serde(default = "usual")]
    pub valid_for: f64,
}

const fn usual() -> f64 {
    10.0
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AvoidedPath {
    /// Peer, as the status names it.
    pub peer: String,
    /// Address, where each address is a path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    /// `transmit` or `receive`; both where it is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub direction: Option<AvoidedDirection>,
}

/// Direction of an avoided path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AvoidedDirection {
    /// What this host sends.
    Transmit,
    /// What it receives.
    Receive,
}

impl AvoidedPath {
    /// The directions that are meant.
    pub fn directions(&self) -> Vec<Direction> {
        match self.direction {
            Some(AvoidedDirection::Transmit) => vec![Direction::Transmit],
            Some(AvoidedDirection::Receive) => vec![Direction::Receive],
            None => Direction::BOTH.into(),
        }
    }
}

/// What is wrong with such a body.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum AvoidError {
    /// Too many.
    #[error("avoid: {0} entries; at most {MOST_AVOIDED}")]
    TooMany(usize),
    /// For too long, or for no time.
    #[error("valid_for: {0} is out of range; use more than 0 and at most {LONGEST_AVOIDED} seconds")]
    ValidFor(f64),
}

impl Avoid {
    /// Checks what its types do not.
    pub fn check(&self) -> Result<(), AvoidError> {
        if self.avoid.len() > MOST_AVOIDED {
            return Err(AvoidError::TooMany(self.avoid.len()));
        }
        if !(self.valid_for > 0.0 && self.valid_for <= LONGEST_AVOIDED) {
            return Err(AvoidError::ValidFor(self.valid_for));
        }
        Ok(())
    }
}

/// Answer to `POST /v1/avoid`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Avoided {
    /// Identity.
    #[serde(flatten)]
    pub stamp: Stamp,
    /// Every direction that was named, as it stands now.
    pub avoid: Vec<AvoidedStatus>,
}

/// One direction that is avoided.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AvoidedStatus {
    /// How it stands; `unknown` where graylag knows no such path.
    pub path: PathStatus,
    /// Whether it has been healthy for longer than a lease while it was avoided: `stuck_avoid` stands.
    pub stuck: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_out_of_range_is_named() {
        let of = |text: &str| serde_json::from_str::<Avoid>(text).unwrap();
        assert_eq!(of(r#"{"avoid":[{"peer":"b"}]}"#).check(), Ok(()));
        let error = of(r#"{"avoid":[],"valid_for":0}"#).check().unwrap_err().to_string();
        assert_eq!(error, "valid_for: 0 is out of range; use more than 0 and at most 300 seconds");
        let many = vec![AvoidedPath { peer: "b".into(), address: None, direction: None }; 1001];
        let error = Avoid { avoid: many, valid_for: 1.0 }.check().unwrap_err().to_string();
        assert_eq!(error, "avoid: 1001 entries; at most 1000");
        assert!(serde_json::from_str::<Avoid>(r#"{"avoid":[{"peer":"b","direction":"up"}]}"#).is_err());
        assert!(serde_json::from_str::<Avoid>(r#"{"avoid":[{"pear":"b"}]}"#).is_err());
    }

    #[test]
    fn without_a_direction_both_are_meant() {
        let path = |direction| AvoidedPath { peer: "b".into(), address: None, direction };
        assert_eq!(path(None).directions().len(), 2);
        assert_eq!(path(Some(AvoidedDirection::Receive)).directions(), [Direction::Receive]);
    }
}
