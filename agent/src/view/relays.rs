//! Relays: what processes take in and put out, and what waits for them.

use ratatui::{style::Style, text::Line};

use super::{
    format::{NOTHING, bytes, count, rate},
    pen::{Pen, plain},
    snapshot::Snapshot,
    spark,
    text::{elide, width},
    theme::{DIM, TITLE, Theme},
};
use crate::model::status::RelayStatus;

/// Left of a row: the mark of a condition.
const MARK: usize = 2;
const NUMBER: usize = 7;
/// Widest name: the kernel's have fifteen bytes.
const NAME: usize = 15;
const TREND: usize = 60;
/// A sparkline narrower than this says nothing.
const LEAST_TREND: usize = 6;

/// Processes that carry media, those in trouble first; nothing where there are none.
pub fn lines(status: &Snapshot, theme: Theme, room: usize) -> Vec<Line<'static>> {
    let mut relays: Vec<&RelayStatus> =
        status.relays.iter().filter(|relay| relay.sockets > 0 || relay.received > 0.0).collect();
    if relays.is_empty() {
        return Vec::new();
    }
    relays.sort_by(|a, b| {
        let trouble = |relay| troubled(status, relay);
        trouble(b).cmp(&trouble(a)).then(b.received.total_cmp(&a.received)).then(a.process.cmp(&b.process))
    });
    let name = relays.iter().map(|relay| width(&relay.process)).fold(7, usize::max).min(NAME);
    let used = MARK + name + 6 * (NUMBER + 1) + 2;
    let trend = room.saturating_sub(used).min(TREND);
    let trend = if trend < LEAST_TREND { 0 } else { trend };
    let mut header = Pen::new().gap(MARK).left("process", name, DIM);
    for title in ["sockets", "in/s", "out/s", "out/in", "waiting", "dropped"] {
        header = header.gap(1).right(title, NUMBER, DIM);
    }
    if trend > 0 {
        header = header.gap(2).right("out/s", trend, DIM);
    }
    let mut lines = vec![plain("relays: RTP by process", TITLE), header.end()];
    lines.extend(relays.iter().map(|relay| row(status, theme, relay, name, trend)));
    lines
}

fn row(status: &Snapshot, theme: Theme, relay: &RelayStatus, name: usize, trend: usize) -> Line<'static> {
    let trouble = troubled(status, relay);
    let style = if trouble { theme.alarm() } else { Style::new() };
    let noted = |is: bool| if is && !trouble { theme.attention() } else { style };
    let fan_out = relay.sent / relay.received;
    let fan_out = if fan_out.is_finite() { format!("{fan_out:.2}") } else { NOTHING.to_owned() };
    let cells = [
        (count(relay.sockets), style),
        (rate(relay.received), style),
        (rate(relay.sent), style),
        (fan_out, style),
        (bytes(relay.queued), style),
        (count(relay.dropped), noted(relay.dropped > 0)),
    ];
    let mut pen = Pen::new().left(if trouble { "!" } else { "" }, MARK, style);
    pen = pen.left(&elide(&relay.process, name), name, style);
    for (text, style) in cells {
        pen = pen.gap(1).right(&text, NUMBER, style);
    }
    if trend > 0 {
        pen = pen.gap(2).put(spark::line(&relay.trend, trend), style);
    }
    pen.end()
}

fn troubled(status: &Snapshot, relay: &RelayStatus) -> bool {
    status.conditions.iter().any(|condition| condition.target.process.as_ref() == Some(&relay.process))
}
