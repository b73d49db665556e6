//! This host's drops: the busiest below the table, all of them on a page.

use ratatui::{style::Style, text::Line};

use super::{
    format::{count, rate},
    page::Page,
    pen::Pen,
    snapshot::Snapshot,
    text::{elide, width},
    theme::{DIM, TITLE},
};
use crate::model::status::DropStatus;

/// Where there is less room, only reason and numbers are shown.
const LEAST: usize = 58;
/// `receive`, `transmit`.
const DIRECTION: usize = 8;
const TRANSPORT: usize = 5;
const SIDE: usize = 4;
/// `12/s`.
const RATE: usize = 7;
const TOTAL: usize = 6;

/// The busiest drops behind a label, in at most `limit` lines.
pub fn strip(status: &Snapshot, label: usize, room: usize, limit: usize) -> Vec<Line<'static>> {
    if status.drops.is_empty() {
        return vec![Pen::new().left("drops", label, TITLE).put("no drops", Style::new()).end()];
    }
    let columns = Columns::new(&status.drops, room.saturating_sub(label));
    let shown = status.drops.len().min(limit);
    let mut lines = Vec::new();
    for (at, drop) in status.drops[..shown].iter().enumerate() {
        let pen = Pen::new().left(if at == 0 { "drops" } else { "" }, label, TITLE);
        let mut pen = columns.row(pen, drop);
        let more = format!("  +{} more", status.drops.len() - shown);
        if at + 1 == shown && shown < status.drops.len() && pen.used() + width(&more) <= room {
            pen = pen.put(more, DIM);
        }
        lines.push(pen.end());
    }
    lines
}

/// All drops.
pub fn page(status: &Snapshot, room: usize) -> Page {
    let mut page = Page::titled(format!("drops of this host, by reason: {}", status.drops.len()));
    if status.drops.is_empty() {
        page.say("no drops", room);
        return page;
    }
    let columns = Columns::new(&status.drops, room.saturating_sub(2));
    page.head.push(columns.header(Pen::new().gap(2)));
    page.lines = status.drops.iter().map(|drop| columns.row(Pen::new().gap(2), drop).end()).collect();
    page.lines.push(Line::default());
    page.say("side host: no room for the packet, or told to drop it; side path: it came broken", room);
    page
}

struct Columns {
    reason: usize,
    full: bool,
}

impl Columns {
    fn new(drops: &[DropStatus], room: usize) -> Self {
        let natural = drops.iter().map(|drop| width(&drop.reason)).fold(6, usize::max);
        let full = room >= LEAST;
        let beside = RATE + TOTAL + 2 + if full { DIRECTION + TRANSPORT + SIDE + 3 } else { 0 };
        Self { reason: natural.min(room.saturating_sub(beside)), full }
    }

    fn header(&self, pen: Pen) -> Line<'static> {
        let style = DIM;
        let mut pen = pen.left("reason", self.reason, style).gap(1);
        if self.full {
            pen = pen.left("way", DIRECTION, style).gap(1).left("trans", TRANSPORT, style).gap(1);
            pen = pen.left("side", SIDE, style).gap(1);
        }
        pen.right("rate", RATE, style).gap(1).right("total", TOTAL, style).end()
    }

    fn row(&self, pen: Pen, drop: &DropStatus) -> Pen {
        // What dropped once and no more is history.
        let style = if drop.rate > 0.0 { Style::new() } else { DIM };
        let mut pen = pen.left(&elide(&drop.reason, self.reason), self.reason, style).gap(1);
        if self.full {
            pen = pen
                .left(&drop.direction, DIRECTION, style)
                .gap(1)
                .left(&drop.transport, TRANSPORT, style)
                .gap(1);
            pen = pen.left(&drop.side, SIDE, style).gap(1);
        }
        pen.right(&(rate(drop.rate) + "/s"), RATE, style).gap(1).right(&count(drop.packets), TOTAL, style)
    }
}
