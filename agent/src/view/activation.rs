//! The activation funnel: sessions by the stage on their way to media.

use ratatui::{style::Style, text::Line};

use super::{
    format::{count, latency},
    pen::{Pen, plain},
    snapshot::Snapshot,
    theme::{DIM, TITLE, Theme},
};

/// Left of a row: the mark of a condition.
const MARK: usize = 2;
const STAGE: usize = 5;
const NUMBER: usize = 7;

/// A line for each stage; nothing where there were no sessions.
pub fn lines(status: &Snapshot, theme: Theme) -> Vec<Line<'static>> {
    if status.activation.is_empty() {
        return Vec::new();
    }
    let raised = status.conditions.iter().any(|condition| condition.name == "media_activation");
    let mut header = Pen::new().gap(MARK).left("stage", STAGE, DIM);
    for title in ["pending", "through", "failed", "oneway", "idle", "active", "p50", "p99"] {
        header = header.gap(1).right(title, NUMBER, DIM);
    }
    let mut lines = vec![plain("activation: sessions on their way to media", TITLE), header.end()];
    for stage in &status.activation {
        let stopped = stage.failed + stage.one_way > 0;
        let trouble = raised && stopped;
        let style = if trouble { theme.alarm() } else { Style::new() };
        let noted = |n: u64| if n > 0 && !trouble { theme.attention() } else { style };
        let mut pen = Pen::new().left(if trouble { "!" } else { "" }, MARK, style);
        pen = pen.left(&stage.stage, STAGE, style);
        let cells = [
            (count(stage.pending), style),
            (count(stage.through), style),
            (count(stage.failed), noted(stage.failed)),
            (count(stage.one_way), noted(stage.one_way)),
            (count(stage.idle), style),
            (count(stage.active), style),
            (latency(stage.took.p50), style),
            (latency(stage.took.p99), style),
        ];
        for (text, style) in cells {
            pen = pen.gap(1).right(&text, NUMBER, style);
        }
        lines.push(pen.end());
    }
    lines
}
