//! What the detectors are set to. Defaults are the ones whose rates docs/verdicts.md states.

use std::time::Duration;

use super::Bernoulli;

/// Settings of all detectors.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// A handshake hangs when it is not complete by this, or by three times the p99 of its path's round trip.
    pub handshake_bound: Duration,
    /// A connection hangs when its request has no first byte back by this.
    pub first_byte_bound: Duration,
    /// Test over attempts and connections.
    pub stall: Bernoulli,
    /// Test over looks at a drop reason.
    pub drops: Bernoulli,
    /// Test over packets and loss events of a path.
    pub loss: Bernoulli,
    /// Test over probes of a path.
    pub probe_loss: Bernoulli,
    /// Test over looks at a path's flows.
    pub one_way: Bernoulli,
    /// Test over looks at connections that are regularly spoken to.
    pub silence: Bernoulli,
    /// How long such connections are watched before their silence is judged.
    pub silence_learning: Duration,
    /// Test over sessions on their way to media.
    pub activation: Bernoulli,
    /// How long a relay has to be watched before it is judged by its output alone.
    pub relay_learning: Duration,
    /// A look is bad when at least this many packets were dropped …
    pub drops_least: u64,
    /// … and at least this share of all packets.
    pub drops_share: f64,
    /// Test over response times.
    pub shift: ShiftSettings,
    /// How long a condition stands without fresh bad evidence.
    pub lease: Duration,
    /// How long it recovers at most: "never stays", even where no traffic is left to prove it.
    pub quiet: Duration,
    /// Log-likelihood ratio of `p0` against `p1` at which a share is good again.
    pub recovery: f64,
    /// A look this late widens the bounds and lowers confidence.
    pub late: Duration,
    /// Media must have left a path that is down by this.
    pub reroute: Duration,
    /// What a node that is gray keeps of its load, percent: who gets nothing proves nothing.
    pub canary: u8,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            handshake_bound: Duration::from_secs(1),
            first_byte_bound: Duration::from_secs(3),
            stall: Bernoulli { p0: 0.005, p1: 0.04, threshold: 14.0 },
            drops: Bernoulli { p0: 0.01, p1: 0.5, threshold: 15.0 },
            loss: Bernoulli { p0: 0.001, p1: 0.005, threshold: 12.0 },
            probe_loss: Bernoulli { p0: 0.005, p1: 0.2, threshold: 9.0 },
            one_way: Bernoulli { p0: 0.005, p1: 0.5, threshold: 12.0 },
            silence: Bernoulli { p0: 0.005, p1: 0.5, threshold: 9.0 },
            silence_learning: Duration::from_secs(600),
            activation: Bernoulli { p0: 0.03, p1: 0.3, threshold: 12.0 },
            relay_learning: Duration::from_secs(120),
            drops_least: 5,
            drops_share: 0.005,
            shift: ShiftSettings::default(),
            lease: Duration::from_secs(10),
            quiet: Duration::from_secs(60),
            recovery: 6.0,
            late: Duration::from_millis(250),
            reroute: Duration::from_secs(5),
            canary: 5,
        }
    }
}

/// Settings of the test over response times.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ShiftSettings {
    /// Standard deviations of the logarithm that one look may exceed its past by without counting.
    pub slack: f64,
    /// Alarm at this sum of excesses.
    pub threshold: f64,
    /// Smallest factor over its own median that matters.
    pub factor: f64,
    /// Smallest increase of the median that matters.
    pub least: Duration,
    /// Samples before anything is judged.
    pub learn_samples: u64,
    /// Looks with samples before anything is judged.
    pub learn_looks: u64,
}

impl Default for ShiftSettings {
    fn default() -> Self {
        Self {
            slack: 1.0,
            threshold: 8.0,
            factor: 2.0,
            least: Duration::from_millis(50),
            learn_samples: 100,
            learn_looks: 20,
        }
    }
}
