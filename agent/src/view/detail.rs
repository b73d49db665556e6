//! One subject, everything about it.

use ratatui::{style::Style, text::Line};

use super::{
    conditions,
    format::{NOTHING, age, count, latency, rate, share},
    page::Page,
    pen::{Pen, plain},
    snapshot::Snapshot,
    spark,
    state::View,
    subject::{arrow, concerns, failed, path_of, retransmitted},
    text::width,
    theme::{DIM, TITLE, Theme},
};
use crate::model::status::{Quantiles, SubjectStatus, WaitStatus};

/// Columns of the labels at the left.
const LABEL: usize = 13;
/// Columns of a number.
const NUMBER: usize = 8;
/// Rows of the large sparkline.
const HEIGHT: usize = 3;

/// The page of the selected subject.
pub fn page(status: &Snapshot, view: &View, room: usize) -> Page {
    let theme = view.theme;
    let Some(key) = view.selected() else { return Page::titled("no subject") };
    let Some(subject) = status.subjects.iter().find(|s| key.is(s)) else {
        let mut page = Page::titled(key.name());
        page.say("no traffic there any more; it appears again with the next connection", room);
        return page;
    };
    let mut page = Page { head: vec![title(subject, theme)], lines: Vec::new() };
    for condition in status.conditions.iter().filter(|condition| concerns(condition, subject)) {
        page.lines.extend(conditions::on_subject(condition, status, theme, room));
    }
    page.lines.push(Line::default());
    page.lines.extend(times(subject, theme));
    page.lines.push(Line::default());
    page.lines.extend(facts(subject, room, theme));
    page.lines.extend(trend(subject, room));
    page
}

fn title(subject: &SubjectStatus, theme: Theme) -> Line<'static> {
    let name = format!("{} {} {}", path_of(subject, usize::MAX), arrow(&subject.role), subject.service);
    let role = match subject.role.as_str() {
        "client" => "this host connects",
        "server" => "this host serves",
        other => other,
    };
    let (standing, style) = match subject.standing.as_str() {
        "troubled" => ("! troubled", theme.alarm()),
        "insufficient" => ("~ too few attempts to say", Style::new()),
        other => (other, Style::new()),
    };
    Pen::new().put(name, TITLE).gap(2).put(standing.to_owned(), style).gap(2).put(role.to_owned(), DIM).end()
}

/// The stages of a connection, one below the other.
fn times(s: &SubjectStatus, theme: Theme) -> Vec<Line<'static>> {
    let mut pen = Pen::new().gap(LABEL);
    for name in ["/s", "p50", "p99", "pending", "stalled", "longest"] {
        pen = pen.right(name, NUMBER, DIM);
    }
    let h = &s.handshake;
    let handshake = WaitStatus {
        rate: h.rate,
        pending: h.pending,
        stalled: h.stalled,
        longest: None,
        latency: h.latency,
    };
    vec![
        pen.end(),
        stage("handshake", &handshake, theme),
        stage("first byte", &s.first_byte, theme),
        stage("response", &s.response, theme),
        quantiles(Pen::new().left("round trip", LABEL, TITLE).right("", NUMBER, Style::new()), s.rtt).end(),
    ]
}

fn stage(name: &str, wait: &WaitStatus, theme: Theme) -> Line<'static> {
    let plain = Style::new();
    let pen = Pen::new().left(name, LABEL, TITLE).right(&rate(wait.rate), NUMBER, plain);
    let pen = quantiles(pen, wait.latency).right(&count(wait.pending), NUMBER, plain);
    let style = if wait.stalled > 0 { theme.alarm() } else { plain };
    let pen = pen.right(&count(wait.stalled), NUMBER, style);
    pen.right(&wait.longest.map_or_else(|| NOTHING.to_owned(), |s| latency(Some(s))), NUMBER, plain).end()
}

fn quantiles(pen: Pen, q: Quantiles) -> Pen {
    pen.right(&latency(q.p50), NUMBER, Style::new()).right(&latency(q.p99), NUMBER, Style::new())
}

/// Counts of the window, by kind.
fn facts(s: &SubjectStatus, room: usize, theme: Theme) -> Vec<Line<'static>> {
    let (h, r) = (&s.handshake, &s.retransmitted);
    let ended = count(h.established.saturating_add(failed(s)));
    let summary = format!("{ended} ended, {} came to nothing (last 5 to 10 s)", count(failed(s)));
    let traffic = format!("in {}/s  out {}/s  sent again ", rate(s.segments_in), rate(s.segments_out));
    let again = retransmitted(s).map_or_else(|| NOTHING.to_owned(), share);
    let outcomes = [
        ("established", h.established, false),
        ("refused", h.refused, true),
        ("reset", h.reset, true),
        ("timed out", h.timed_out, true),
        ("unreachable", h.unreachable, true),
        ("abandoned by the caller", h.abandoned, true),
    ];
    let queues =
        [("SYN sent again", h.syn_retransmitted, true), ("accept queue full", h.accept_queue_overflow, true)];
    let retransmits = [
        ("fast", r.fast, true),
        ("timeout", r.timeout, true),
        ("tail loss probe", r.tail_loss_probe, true),
        ("spurious", r.spurious, false),
    ];
    let mut lines = vec![Pen::new().left("outcomes", LABEL, TITLE).put(summary, Style::new()).end()];
    lines.extend(numbers("", &outcomes, room, theme));
    lines.extend(numbers("queues", &queues, room, theme));
    lines.push(Pen::new().left("segments", LABEL, TITLE).put(traffic + &again, Style::new()).end());
    lines.extend(numbers("retransmits", &retransmits, room, theme));
    lines.extend(numbers("resets", &[("ended by a RST", s.resets, true)], room, theme));
    lines
}

/// Names and numbers, in as many lines as they take. What did not happen steps back, what should not have comes forward.
fn numbers(label: &str, items: &[(&str, u64, bool)], room: usize, theme: Theme) -> Vec<Line<'static>> {
    let mut lines = Vec::new();
    let mut pen = Pen::new().left(label, LABEL, TITLE);
    for (name, n, bad) in items {
        let style = match (n, bad) {
            (0, _) => DIM,
            (_, true) => theme.attention(),
            (_, false) => Style::new(),
        };
        let text = format!("{name} {}", count(*n));
        if pen.used() > LABEL && pen.used() + width(&text) > room {
            lines.push(std::mem::replace(&mut pen, Pen::new().gap(LABEL)).end());
        }
        pen = pen.put(text, style).gap(2);
    }
    lines.push(pen.end());
    lines
}

fn trend(s: &SubjectStatus, room: usize) -> Vec<Line<'static>> {
    let points = room.saturating_sub(LABEL).min(s.trend.len());
    let newest = &s.trend[s.trend.len() - points..];
    let top = f64::from(spark::largest(newest));
    let label = |row: usize| match row {
        0 => "handshakes/s".to_owned(),
        1 => format!("last {}", age(points as f64)),
        2 => format!("top {}", rate(top)),
        _ => String::new(),
    };
    if points == 0 {
        return vec![plain("no trend yet", DIM)];
    }
    let rows = spark::rows(newest, points, HEIGHT).into_iter().enumerate();
    rows.map(|(at, blocks)| {
        let style = if at == 0 { TITLE } else { DIM };
        Pen::new().left(&label(at), LABEL, style).put(blocks, Style::new()).end()
    })
    .collect()
}
