//! The table of subjects.

use ratatui::{style::Style, text::Line};

use super::{
    columns::{Column, Group},
    fit::Plan,
    pen::{Pen, indented, plain},
    snapshot::Snapshot,
    sort::SortBy,
    state::View,
    subject::{arrow, concerns, path_of},
    text::{elide, truncate, width},
    theme::{DIM, SELECTED, TITLE, Theme},
};
use crate::model::status::SubjectStatus;

/// Lines above the rows: title with groups, names.
pub const HEAD: usize = 2;

/// The table in `room` columns and `height` lines.
pub fn lines(status: &Snapshot, view: &View, room: usize, height: usize) -> Vec<Line<'static>> {
    let all: Vec<&SubjectStatus> = status.subjects.iter().collect();
    if all.is_empty() {
        let text = "no TCP traffic seen yet; open a connection and it appears here";
        let mut lines = vec![plain("subjects 0", TITLE)];
        lines.extend(indented(text, room, Style::new()));
        lines.truncate(height);
        return lines;
    }
    // Widths come from all subjects, not from those that happen to be shown: scrolling moves rows, not columns.
    let plan = Plan::new(&all, view.preset, view.sort.by.column(), room);
    let rows = view.rows(status);
    let shown = height.saturating_sub(HEAD);
    let mut lines = vec![title(&plan, view, rows.len(), all.len(), shown, room), names(&plan, view)];
    if rows.is_empty() {
        let text = format!("nothing matches \"{}\"; Esc clears the filter", view.filter);
        lines.extend(indented(&text, room, Style::new()));
    }
    for (at, subject) in rows.iter().enumerate().skip(view.offset).take(shown) {
        let line = row(&plan, subject, status, view.theme);
        let selected = at == view.row && !view.printed;
        lines.push(if selected { highlighted(line, room) } else { line });
    }
    lines.truncate(height);
    lines
}

/// How many subjects in which order; above the numbers, what they are numbers of.
fn title(plan: &Plan, view: &View, found: usize, all: usize, shown: usize, room: usize) -> Line<'static> {
    let names = if plan.columns.is_empty() { room } else { plan.names().min(room) };
    let last = (view.offset + shown).min(found);
    let part =
        if found > shown && shown > 0 { format!("{}-{last} of ", view.offset + 1) } else { String::new() };
    let filter = if view.filter.is_empty() { String::new() } else { format!("/{all} \"{}\"", view.filter) };
    let mut text = format!("subjects {part}{found}{filter}");
    let order = if view.sort.reversed { ", trouble last" } else { ", trouble first" };
    if view.sort.by == SortBy::Trouble && width(&text) + width(order) <= names {
        text.push_str(order);
    }
    let mut pen = Pen::new().left(&text, names, TITLE);
    let mut columns = plan.columns.as_slice();
    while let Some(group) = columns.first().map(|(column, _)| column.group()) {
        let (own, rest) =
            columns.split_at(columns.iter().take_while(|(column, _)| column.group() == group).count());
        pen = bracket(pen.gap(1), group, own.iter().map(|(_, width)| width + 1).sum::<usize>() - 1);
        columns = rest;
    }
    pen.end()
}

fn bracket(pen: Pen, group: Group, room: usize) -> Pen {
    let label = group.label(room);
    let pen = pen.put(label, DIM);
    let blanks = room.saturating_sub(width(label));
    // A bracket of one character looks like a slip of the pen.
    let rule = if blanks > 2 { format!(" {}", "─".repeat(blanks - 1)) } else { " ".repeat(blanks) };
    pen.put(rule, DIM)
}

fn names(plan: &Plan, view: &View) -> Line<'static> {
    let mark = |by: SortBy, name: &str| {
        if view.sort.by == by { format!("{name}{}", view.sort.mark()) } else { name.to_owned() }
    };
    let style = |by: SortBy| if view.sort.by == by { TITLE } else { DIM };
    let mut pen = Pen::new().left(&mark(SortBy::Trouble, ""), 2, style(SortBy::Trouble));
    pen = pen.left(&mark(SortBy::Path, "path"), plan.path, style(SortBy::Path)).gap(3);
    pen = pen.left(&mark(SortBy::Service, "service"), plan.service, style(SortBy::Service));
    for (column, width) in &plan.columns {
        let by = SortBy::Number(*column);
        let name = mark(by, column.name());
        let at_left = matches!(column, Column::Failed);
        pen = pen.gap(1);
        pen = if at_left { pen.left(&name, *width, style(by)) } else { pen.right(&name, *width, style(by)) };
    }
    pen.end()
}

fn row(plan: &Plan, subject: &SubjectStatus, status: &Snapshot, theme: Theme) -> Line<'static> {
    let (mark, style) = mark(subject, status, theme);
    let mut pen = Pen::new().put(mark, style).gap(1);
    pen = pen.left(&path_of(subject, plan.path), plan.path, style);
    pen = pen.gap(1).put(arrow(&subject.role), Style::new()).gap(1);
    pen = pen.left(&elide(&subject.service, plan.service), plan.service, Style::new());
    for (column, width) in &plan.columns {
        let (text, style) = column.cell(subject, *width, theme);
        pen = pen.gap(1);
        pen = match column {
            Column::Failed => pen.left(&text, *width, style),
            _ => pen.right(&truncate(&text, *width), *width, style),
        };
    }
    pen.end()
}

fn highlighted(mut line: Line<'static>, room: usize) -> Line<'static> {
    line.push_span(" ".repeat(room.saturating_sub(line.width())));
    line.patch_style(SELECTED)
}

fn mark(subject: &SubjectStatus, status: &Snapshot, theme: Theme) -> (&'static str, Style) {
    let mut own = status.conditions.iter().filter(|condition| concerns(condition, subject)).peekable();
    match subject.standing.as_str() {
        "troubled" if own.peek().is_some() && own.all(|c| c.phase == "recovering") => {
            ("↑", theme.attention())
        }
        "troubled" => ("!", theme.alarm()),
        "insufficient" => ("~", Style::new()),
        _ => (" ", Style::new()),
    }
}
