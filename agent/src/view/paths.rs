//! States of paths, each direction for itself, and what probes say of them.

use ratatui::{style::Style, text::Line};

use super::{
    format::{NOTHING, age, latency, share},
    media::arrow,
    pen::{Pen, plain},
    snapshot::Snapshot,
    subject,
    text::width,
    theme::{DIM, TITLE, Theme},
};
use crate::model::status::PathStatus;

/// Left of a row: the mark of a condition.
const MARK: usize = 2;
const WAY: usize = 2;
const STATE: usize = 10;
const NUMBER: usize = 6;
/// Widest path.
const MOST_PATH: usize = 40;

/// Paths with probes, and those in trouble, worst first; nothing where there are none.
pub fn lines(status: &Snapshot, theme: Theme, room: usize) -> Vec<Line<'static>> {
    let mut paths: Vec<&PathStatus> =
        status.paths.iter().filter(|path| path.probes.is_some() || rank(path) > 0).collect();
    if paths.is_empty() {
        return Vec::new();
    }
    paths.sort_by_key(|path| (std::cmp::Reverse(rank(path)), &path.peer, &path.address, &path.direction));
    let used = MARK + 1 + WAY + STATE + 5 * (NUMBER + 1);
    let natural = paths.iter().map(|path| width(&name(path, MOST_PATH))).fold(4, usize::max);
    let column = natural.min(room.saturating_sub(used));
    let mut header = Pen::new().gap(MARK).left("path", column, DIM).gap(1 + WAY).left("state", STATE, DIM);
    for title in ["since", "proof", "lost", "rtt50", "rtt99"] {
        header = header.gap(1).right(title, NUMBER, DIM);
    }
    let mut lines = vec![plain("paths: does it deliver, by direction", TITLE), header.end()];
    lines.extend(paths.iter().map(|path| row(theme, path, column)));
    lines
}

fn row(theme: Theme, path: &PathStatus, column: usize) -> Line<'static> {
    let style = match rank(path) {
        2 => theme.alarm(),
        1 => theme.attention(),
        _ => Style::new(),
    };
    let probes = path.probes.clone().unwrap_or_default();
    let cells = [
        age(path.age),
        path.proven.map_or(NOTHING.to_owned(), |proven| latency(Some(proven))),
        probes.loss.map_or(NOTHING.to_owned(), share),
        latency(probes.round_trip.p50),
        latency(probes.round_trip.p99),
    ];
    let mut pen = Pen::new().left(if rank(path) == 2 { "!" } else { "" }, MARK, style);
    pen = pen.left(&name(path, column), column, style).gap(1);
    pen = pen.left(arrow(&path.direction), WAY, style);
    pen = pen.left(&path.state, STATE, style);
    for text in cells {
        pen = pen.gap(1).right(&text, NUMBER, style);
    }
    pen.end()
}

/// How bad it is.
fn rank(path: &PathStatus) -> u8 {
    match path.state.as_str() {
        "down" | "degraded" => 2,
        "recovering" => 1,
        _ => 0,
    }
}

fn name(path: &PathStatus, limit: usize) -> String {
    subject::path(&path.peer, path.address.as_deref(), limit)
}
