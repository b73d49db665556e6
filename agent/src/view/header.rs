//! The first line: the verdict, and whose it is. Below it, for as long as the agent does not answer, why not.

use ratatui::{style::Style, text::Line};

use super::{
    format::age,
    pen::{Pen, plain},
    snapshot::Snapshot,
    state::View,
    text::{clean, truncate, width, wrap},
    theme::{DIM, TITLE},
};
use crate::model::status::Status;

/// The error of a reader that cannot connect may be long; the data below it is worth more.
const BANNER_LIMIT: usize = 3;

/// The header in `room` columns: what is important comes first, the rest as it fits.
pub fn line(snapshot: Option<&Snapshot>, view: &View, room: usize) -> Line<'static> {
    let theme = view.theme;
    let (word, style) = verdict(snapshot, view);
    let mut pen = Pen::new().put(truncate(&format!(" {word} "), room), style);
    let Some(status) = snapshot else { return pen.end() };
    let mut items = vec![(truncate(&status.node, 32), TITLE)];
    if view.paused {
        items.insert(0, (" PAUSED ".to_owned(), theme.attention_badge()));
    }
    let recovering = standing(status, "recovering");
    if recovering > 0 && standing(status, "raised") > 0 {
        items.push((format!("+{recovering} recovering"), theme.attention()));
    }
    if matches!(status.health.state.as_str(), "gray" | "failing" | "recovering") {
        let text = format!("node {}, {} % of its load", status.health.state, status.health.weight);
        items.push((text, theme.attention()));
    }
    let missing = status.signals.iter().filter(|signal| !signal.available).count();
    if missing > 0 {
        let signals = if missing == 1 { "signal" } else { "signals" };
        items.push((format!("{missing} {signals} missing"), theme.attention()));
    }
    items.push((format!("up {}", age(status.uptime)), Style::new()));
    let (version, kernel) = (format!("graylag {}", status.version), format!("kernel {}", status.kernel));
    let needed =
        items.iter().map(|(text, _)| width(text) + 2).sum::<usize>() + width(&version) + width(&kernel) + 4;
    let short = pen.used() + needed > room;
    items.push((if short { format!("v{}", status.version) } else { version }, Style::new()));
    items.push((if short { status.kernel.clone() } else { kernel }, Style::new()));
    for (text, style) in items {
        if pen.used() + 2 + width(&text) <= room {
            pen = pen.gap(2).put(text, style);
        }
    }
    pen.end()
}

/// Why there is no answer, and how old everything else is.
pub fn banner(view: &View, room: usize) -> Vec<Line<'static>> {
    let Some(silence) = &view.silence else { return Vec::new() };
    let since = silence.seconds.map(|seconds| format!("; below is what it said {} ago", age(seconds)));
    let text = format!("no answer from the agent: {}{}", clean(&silence.error), since.unwrap_or_default());
    let style = view.theme.attention_badge();
    wrap(&text, room.saturating_sub(2))
        .into_iter()
        .take(BANNER_LIMIT)
        .map(|line| Pen::new().put(" ", style).left(&line, room.saturating_sub(1), style).end())
        .collect()
}

/// What stands in the middle before the first answer.
pub fn waiting(view: &View) -> Vec<Line<'static>> {
    let text = if view.silence.is_some() { "asking again twice a second" } else { "asking the agent…" };
    vec![Line::default(), plain(format!("  {text}"), DIM)]
}

fn verdict(snapshot: Option<&Snapshot>, view: &View) -> (String, Style) {
    let theme = view.theme;
    let Some(status) = snapshot.filter(|_| view.silence.is_none()) else {
        let word = if view.silence.is_some() { "NO ANSWER" } else { "graylag" };
        return (word.to_owned(), theme.attention_badge());
    };
    match standing(status, "raised") {
        0 if standing(status, "recovering") > 0 => ("RECOVERING".to_owned(), theme.attention_badge()),
        // Without a single signal there is nothing that could be clear.
        0 if !status.signals.is_empty() && status.signals.iter().all(|signal| !signal.available) => {
            ("BLIND".to_owned(), theme.attention_badge())
        }
        // Neither is there in silence.
        0 if status.subjects.is_empty() && status.media.is_empty() => {
            ("NO TRAFFIC".to_owned(), theme.attention_badge())
        }
        0 => ("ALL CLEAR".to_owned(), theme.clear_badge()),
        1 => ("1 CONDITION".to_owned(), theme.alarm_badge()),
        n => (format!("{n} CONDITIONS"), theme.alarm_badge()),
    }
}

fn standing(status: &Status, phase: &str) -> usize {
    status.conditions.iter().filter(|condition| condition.phase == phase).count()
}
