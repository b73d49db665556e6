//! The numbers of a subject: name, group, value and text of each column.

use super::{
    format::{NOTHING, count, latency, rate, share},
    spark,
    subject::{failed, failures, retransmitted},
    text::width,
    theme::{DIM, Theme},
};
use crate::model::status::{SubjectStatus, WaitStatus};
use ratatui::style::Style;

/// A column of numbers in the table of subjects, in the order they stand in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Column {
    /// Handshakes a second.
    Rate,
    /// Handshakes that came to nothing, by outcome.
    Failed,
    /// Handshakes under way, and those that hang.
    Pending,
    /// Handshake latency, median.
    HandshakeP50,
    /// Handshake latency, tail.
    HandshakeP99,
    /// Connections without a first byte yet, and those that hang.
    FirstByteWaiting,
    /// Time to the first byte, median.
    FirstByteP50,
    /// Time to the first byte, tail.
    FirstByteP99,
    /// Requests without an answer yet, and those that hang.
    ResponseWaiting,
    /// Response time, median.
    ResponseP50,
    /// Response time, tail.
    ResponseP99,
    /// Round trip, median.
    RoundTripP50,
    /// Round trip, tail.
    RoundTripP99,
    /// Share of segments sent again.
    Retransmitted,
    /// Connections ended by a RST.
    Resets,
    /// Segments a second, received.
    SegmentsIn,
    /// Segments a second, sent.
    SegmentsOut,
    /// Handshakes a second over the last minute.
    Trend,
}

/// What neighbouring columns have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// Up to `ESTABLISHED`.
    Handshake,
    /// Up to the first byte of the peer.
    FirstByte,
    /// Request to answer.
    Response,
    /// There and back.
    RoundTrip,
    /// What got lost or broke.
    Loss,
    /// Traffic.
    Segments,
    /// The recent past.
    Trend,
}

impl Group {
    /// Its name, as long as there is room for.
    pub fn label(self, room: usize) -> &'static str {
        let names: &[&'static str] = match self {
            Self::Handshake => &["handshake", "hs"],
            Self::FirstByte => &["first byte", "first", "fb"],
            Self::Response => &["response", "resp", "rs"],
            Self::RoundTrip => &["round trip", "rtt"],
            Self::Loss => &["loss"],
            Self::Segments => &["segments/s", "seg/s"],
            Self::Trend => &["handshakes/s", "trend"],
        };
        names.iter().copied().find(|name| width(name) <= room).unwrap_or_default()
    }
}

impl Column {
    /// All of them, in their order.
    pub const ALL: [Self; 18] = [
        Self::Rate,
        Self::Failed,
        Self::Pending,
        Self::HandshakeP50,
        Self::HandshakeP99,
        Self::FirstByteWaiting,
        Self::FirstByteP50,
        Self::FirstByteP99,
        Self::ResponseWaiting,
        Self::ResponseP50,
        Self::ResponseP99,
        Self::RoundTripP50,
        Self::RoundTripP99,
        Self::Retransmitted,
        Self::Resets,
        Self::SegmentsIn,
        Self::SegmentsOut,
        Self::Trend,
    ];

    /// Its name below that of its group.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rate => "/s",
            Self::Failed => "failed",
            Self::Pending => "pend",
            Self::HandshakeP50 | Self::FirstByteP50 | Self::ResponseP50 | Self::RoundTripP50 => "p50",
            Self::HandshakeP99 | Self::FirstByteP99 | Self::ResponseP99 | Self::RoundTripP99 => "p99",
            Self::FirstByteWaiting | Self::ResponseWaiting => "wait",
            Self::Retransmitted => "retr",
            Self::Resets => "rst",
            Self::SegmentsIn => "in",
            Self::SegmentsOut => "out",
            Self::Trend => "",
        }
    }

    /// Its group.
    pub const fn group(self) -> Group {
        match self {
            Self::Rate | Self::Failed | Self::Pending | Self::HandshakeP50 | Self::HandshakeP99 => {
                Group::Handshake
            }
            Self::FirstByteWaiting | Self::FirstByteP50 | Self::FirstByteP99 => Group::FirstByte,
            Self::ResponseWaiting | Self::ResponseP50 | Self::ResponseP99 => Group::Response,
            Self::RoundTripP50 | Self::RoundTripP99 => Group::RoundTrip,
            Self::Retransmitted | Self::Resets => Group::Loss,
            Self::SegmentsIn | Self::SegmentsOut => Group::Segments,
            Self::Trend => Group::Trend,
        }
    }

    /// The least width at which it is worth its place, of `room` in all.
    pub const fn least(self, room: usize) -> usize {
        match self {
            Self::Failed if room < 100 => 8,
            Self::Trend if room < 100 => 6,
            Self::Failed | Self::Trend => 12,
            _ => 5,
        }
    }

    /// What it is sorted by; nothing sorts last.
    pub fn value(self, s: &SubjectStatus) -> Option<f64> {
        let value = match self {
            Self::Rate | Self::Trend => Some(s.handshake.rate),
            Self::Failed => Some(failed(s) as f64),
            Self::Pending => Some(waiting_order(s.handshake.pending, s.handshake.stalled)),
            Self::HandshakeP50 => s.handshake.latency.p50,
            Self::HandshakeP99 => s.handshake.latency.p99,
            Self::FirstByteWaiting => Some(waiting_order(s.first_byte.pending, s.first_byte.stalled)),
            Self::FirstByteP50 => s.first_byte.latency.p50,
            Self::FirstByteP99 => s.first_byte.latency.p99,
            Self::ResponseWaiting => Some(waiting_order(s.response.pending, s.response.stalled)),
            Self::ResponseP50 => s.response.latency.p50,
            Self::ResponseP99 => s.response.latency.p99,
            Self::RoundTripP50 => s.rtt.p50,
            Self::RoundTripP99 => s.rtt.p99,
            Self::Retransmitted => retransmitted(s),
            Self::Resets => Some(s.resets as f64),
            Self::SegmentsIn => Some(s.segments_in),
            Self::SegmentsOut => Some(s.segments_out),
        };
        value.filter(|value| !value.is_nan())
    }

    /// What it says of a subject in `room` columns, and how that looks.
    pub fn cell(self, s: &SubjectStatus, room: usize, theme: Theme) -> (String, Style) {
        let plain = Style::new();
        match self {
            Self::Rate => (rate(s.handshake.rate), plain),
            Self::Failed => (failures_in(s, room), if failed(s) > 0 { theme.attention() } else { DIM }),
            Self::Pending => waiting(s.handshake.pending, s.handshake.stalled, theme),
            Self::FirstByteWaiting => waits(&s.first_byte, theme),
            Self::ResponseWaiting => waits(&s.response, theme),
            Self::Retransmitted => (retransmitted(s).map_or_else(|| NOTHING.to_owned(), share), plain),
            Self::Resets => (count(s.resets), plain),
            Self::SegmentsIn => (rate(s.segments_in), plain),
            Self::SegmentsOut => (rate(s.segments_out), plain),
            Self::Trend => (spark::line(&s.trend, room), plain),
            _ => (latency(self.value(s)), plain),
        }
    }
}

/// Under way, and how many of them hang: `9`, `9/2`.
pub fn pending_and_stalled(pending: u64, stalled: u64) -> String {
    if stalled == 0 { count(pending) } else { format!("{}/{}", count(pending), count(stalled)) }
}

/// Failures by outcome, the most frequent first; what does not fit is added up: `abd 14 +5`.
pub fn failures_in(subject: &SubjectStatus, room: usize) -> String {
    let mut failures: Vec<_> = failures(subject).into_iter().filter(|(_, n)| *n > 0).collect();
    failures.sort_by_key(|(_, n)| std::cmp::Reverse(*n));
    let names: Vec<String> = failures.iter().map(|(name, n)| format!("{name} {}", count(*n))).collect();
    for shown in (1..=names.len()).rev() {
        let mut text = names[..shown].join(" ");
        let rest = failures[shown..].iter().fold(0_u64, |sum, (_, n)| sum.saturating_add(*n));
        if rest > 0 {
            text = format!("{text} +{}", count(rest));
        }
        if width(&text) <= room {
            return text;
        }
    }
    if names.is_empty() { "0".to_owned() } else { count(failed(subject)) }
}

fn waits(wait: &WaitStatus, theme: Theme) -> (String, Style) {
    waiting(wait.pending, wait.stalled, theme)
}

fn waiting(pending: u64, stalled: u64, theme: Theme) -> (String, Style) {
    (pending_and_stalled(pending, stalled), if stalled > 0 { theme.alarm() } else { Style::new() })
}

/// What hangs before what is merely under way.
fn waiting_order(pending: u64, stalled: u64) -> f64 {
    stalled as f64 * 1e9 + pending as f64
}
