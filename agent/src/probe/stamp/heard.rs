//! What came from an address that is also a target, whichever of its sessions it belongs to.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use super::tlv::Report;
use crate::model::{PeerReport, StampCounts, StampPath};

/// What came from one address.
#[derive(Clone, Copy, Debug, Default)]
pub struct Heard {
    /// Valid test packets, and when the newest came.
    received: u64,
    at: Option<Duration>,
    /// Packets of either kind that do not validate, and when the newest came.
    mismatched: u64,
    mismatch_at: Option<Duration>,
    /// What it said of us, and when.
    report: Option<(Report, Duration)>,
    /// Of its own test packets, by their numbers.
    counts: StampCounts,
    /// Whether too much of what it sends is lost; what this node tells it.
    lossy: bool,
}

impl Heard {
    /// A valid test packet that was not there before, and what it says of us.
    pub const fn valid(&mut self, report: Option<Report>, now: Duration) {
        self.received += 1;
        self.at = Some(now);
        if let Some(report) = report {
            self.report = Some((report, now));
        }
    }

    /// Adds what one of its test packets came to.
    pub const fn count(&mut self, more: StampCounts) {
        self.counts.add(&more);
    }

    /// A packet that does not validate.
    pub const fn mismatched(&mut self, now: Duration) {
        self.mismatched += 1;
        self.mismatch_at = Some(now);
    }

    /// What this node has concluded of what comes from there.
    pub const fn loses(&mut self, lossy: bool) {
        self.lossy = lossy;
    }

    /// What this node says of the other.
    pub fn to_report(self, now: Duration) -> Report {
        let newest = self.at.map(|at| now.saturating_sub(at));
        Report { received: self.received, newest, lossy: self.lossy }
    }

    /// Copies into `path`, which has its session's part already, what is known at `now`.
    pub fn look(&self, now: Duration, path: &mut StampPath) {
        let age = |at: Option<Duration>| at.map(|at| now.saturating_sub(at));
        path.last_receive = newer(path.last_receive, age(self.at));
        path.heard = self.counts;
        path.auth_mismatch = self.mismatched;
        path.last_mismatch = age(self.mismatch_at);
        path.report = self.report.map(|(report, at)| {
            let age = now.saturating_sub(at);
            let newest = report.newest.map(|newest| newest.saturating_add(age));
            PeerReport { received: report.received, newest, age, lossy: report.lossy }
        });
        path.last_delivery = newer(path.last_delivery, path.report.and_then(|report| report.newest));
    }
}

/// The smaller of two ages.
fn newer(a: Option<Duration>, b: Option<Duration>) -> Option<Duration> {
    a.into_iter().chain(b).min()
}

/// A path with nothing in it yet.
pub fn blank(peer: Arc<str>, address: SocketAddr, interval: Duration) -> StampPath {
    StampPath {
        peer,
        address,
        interval,
        sent: 0,
        answered: 0,
        transmit: StampCounts::default(),
        receive: StampCounts::default(),
        heard: StampCounts::default(),
        unattributed: 0,
        mismatched: 0,
        refused: 0,
        outstanding: 0,
        auth_mismatch: 0,
        late: 0,
        unsent: 0,
        resets: 0,
        delays: None,
        last_receive: None,
        last_delivery: None,
        last_mismatch: None,
        last_echo: None,
        last_refused: None,
        report: None,
        unanswered: 0,
    }
}
