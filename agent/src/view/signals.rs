//! What graylag itself can see and hold: signals, kernel tables, the agent.

use ratatui::{style::Style, text::Line};

use super::{
    format::{count, latency, share},
    page::Page,
    pen::{Pen, indented, plain},
    snapshot::Snapshot,
    text::{truncate, width, wrap},
    theme::{DIM, TITLE, Theme},
};
use crate::model::status::{JITTER, MapStatus, SignalStatus};

/// Below this, a coverage is worth telling.
const WHOLE: f64 = 0.995;
/// Later than this, the agent's numbers are old when they are seen.
const LATE: f64 = 0.5;
/// `missing`.
const STATE: usize = 7;
/// `1.2k`, `>999P`.
const NUMBER: usize = 6;

/// One line on the signals, behind a label; one more if the agent has troubles of its own.
pub fn strip(status: &Snapshot, theme: Theme, label: usize, room: usize) -> Vec<Line<'static>> {
    let (summary, whole) = summary(status);
    let style = if whole { Style::new() } else { theme.attention() };
    let left = room.saturating_sub(label);
    let mut lines = vec![Pen::new().left("signals", label, TITLE).put(truncate(&summary, left), style).end()];
    let troubles = troubles(status);
    if !troubles.is_empty() {
        let text = truncate(&troubles.join("; "), left);
        lines.push(Pen::new().left("agent", label, TITLE).put(text, theme.attention()).end());
    }
    lines
}

/// Everything about signals, tables and the agent.
pub fn page(status: &Snapshot, theme: Theme, room: usize) -> Page {
    let (seen, all) = counted(status);
    let mut page = Page::titled(format!("signals {seen} of {all}"));
    let name =
        status.signals.iter().map(|s| width(&s.name)).chain(status.maps.iter().map(|m| width(&m.name)));
    let name = name.fold(8, usize::max).min(room / 2);
    for signal in &status.signals {
        page.lines.extend(signal_lines(signal, name, room, theme));
    }
    if !status.maps.is_empty() {
        page.lines.push(Line::default());
        let pen = Pen::new().left("kernel tables", name + 2, TITLE);
        let pen = pen.right("used", NUMBER, DIM).gap(1).right("limit", NUMBER, DIM);
        let pen = pen.gap(1).right("full", NUMBER, DIM).gap(1).right("evicted", STATE, DIM);
        page.lines.push(pen.end());
        page.lines.extend(status.maps.iter().map(|map| map_line(map, name, theme)));
    }
    page.lines.push(Line::default());
    page.lines.push(plain("agent", TITLE));
    for (text, bad) in agent(status) {
        let style = if bad { theme.attention() } else { Style::new() };
        page.lines.extend(indented(&text, room, style));
    }
    page
}

/// How many are seen, of how many; a part of one is none of its own, so that `graylag check` says the same.
fn counted(status: &Snapshot) -> (usize, usize) {
    let whole = || status.signals.iter().filter(|signal| signal.name != JITTER);
    (whole().filter(|signal| signal.available).count(), whole().count())
}

fn summary(status: &Snapshot) -> (String, bool) {
    let (seen, all) = counted(status);
    let missing: Vec<&str> =
        status.signals.iter().filter(|s| !s.available).map(|s| s.name.as_str()).collect();
    let partial: Vec<(&str, f64)> = status
        .signals
        .iter()
        .filter(|s| s.available)
        .filter_map(|s| s.coverage.filter(|c| *c < WHOLE).map(|c| (s.name.as_str(), c)))
        .collect();
    let mut text = format!("{seen} of {all}");
    if !missing.is_empty() {
        text.push_str("; missing: ");
        text.push_str(&missing.join(", "));
    }
    if !partial.is_empty() {
        text.push_str("; partly seen: ");
        let partial: Vec<String> = partial.iter().map(|(name, c)| format!("{name} {}", share(*c))).collect();
        text.push_str(&partial.join(", "));
    }
    let is_trouble = |(name, _): &(&str, f64)| *name != JITTER;
    (text, missing.is_empty() && !partial.iter().any(is_trouble))
}

/// What keeps the agent from telling the truth, or from telling it to others.
fn troubles(status: &Snapshot) -> Vec<String> {
    let mut troubles: Vec<String> =
        agent(status).into_iter().filter_map(|(text, bad)| bad.then_some(text)).collect();
    for map in status.maps.iter().filter(|map| map.evicted > 0) {
        troubles.push(format!("table {} was full for {}", map.name, count(map.evicted)));
    }
    troubles
}

/// Sentences on the agent, and whether each is bad news.
fn agent(status: &Snapshot) -> Vec<(String, bool)> {
    let agent = &status.agent;
    let mut texts = vec![(format!("last look late by {}", latency(Some(agent.late))), agent.late >= LATE)];
    match (&agent.export_to, &agent.export_error) {
        (to, Some(error)) => {
            let to = to.as_deref().map_or_else(String::new, |to| format!(" to {to}"));
            texts.push((format!("export{to} fails: {error}"), true));
        }
        (Some(to), None) => texts.push((format!("exports to {to}"), false)),
        (None, None) => texts.push(("exports nowhere: no OTEL_EXPORTER_OTLP_ENDPOINT".to_owned(), false)),
    }
    texts.push((format!("{} points not exported", count(agent.export_dropped)), agent.export_dropped > 0));
    texts.push((format!("{} events lost", count(agent.events_lost)), agent.events_lost > 0));
    texts
}

fn signal_lines(signal: &SignalStatus, name: usize, room: usize, theme: Theme) -> Vec<Line<'static>> {
    let (state, style) =
        if signal.available { ("seen", Style::new()) } else { ("missing", theme.attention()) };
    let coverage = signal.coverage.filter(|_| signal.available).map(share).unwrap_or_default();
    let pen = Pen::new().gap(2).left(&signal.name, name, style).gap(1).left(state, STATE, style);
    let pen = pen.gap(1).right(&coverage, NUMBER, Style::new());
    let (column, first) = (pen.used() + 2, pen);
    let Some(reason) = &signal.reason else { return vec![first.end()] };
    let mut texts = wrap(reason, room.saturating_sub(column)).into_iter();
    let first = first.gap(2).put(texts.next().unwrap_or_default(), Style::new()).end();
    std::iter::once(first)
        .chain(texts.map(|text| Pen::new().gap(column).put(text, Style::new()).end()))
        .collect()
}

fn map_line(map: &MapStatus, name: usize, theme: Theme) -> Line<'static> {
    let full = if map.limit == 0 { 0.0 } else { map.used as f64 / map.limit as f64 };
    let plain = Style::new();
    let style = |bad: bool| if bad { theme.attention() } else { plain };
    let pen = Pen::new().gap(2).left(&map.name, name, plain).right(&count(map.used), NUMBER, plain).gap(1);
    let pen =
        pen.right(&count(map.limit), NUMBER, plain).gap(1).right(&share(full), NUMBER, style(full > 0.9));
    pen.gap(1).right(&count(map.evicted), STATE, style(map.evicted > 0)).end()
}
