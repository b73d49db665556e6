//! The keys, and how to read what is on the screen.

use super::{
    page::Page,
    pen::{Pen, plain},
    text::wrap,
    theme::TITLE,
};

const KEYS: &[(&str, &str)] = &[
    ("↑ ↓ j k", "move; also PgUp PgDn Home End. Home follows the first row again"),
    ("Enter", "everything about the selected subject; ↑ ↓ leaf through them there"),
    ("Tab", "subjects, conditions, drops, signals with kernel tables and agent"),
    ("s  S", "sort by the next column; reverse"),
    ("c", "other columns first: overview, times, loss and traffic"),
    ("/", "only what has this in path, service or role; Esc clears"),
    ("p", "hold the picture; the agent goes on"),
    ("q", "quit"),
];

const WORDS: &[(&str, &str)] = &[
    ("verdict", "ALL CLEAR no condition; NO TRAFFIC none seen yet; BLIND no signal"),
    ("! ~ ↑", "a condition stands; too few attempts to say; it recovers"),
    ("→ ←", "this host connects to that service; it serves that path"),
    (
        "failed",
        "handshakes: ref refused, rst reset, tmo timed out, unr unreachable, abd abandoned by the caller; +n others",
    ),
    ("pend wait", "9/2: nine under way, two of them longer than their bound: stalled"),
    ("p50 p99", "half, and 99 of 100, took no longer than this"),
    ("retr rst", "share of segments sent again, about; connections ended by a RST"),
    ("blame", "whose doing it is as far as this host can tell"),
    ("lease", "how long a condition stands without fresh bad evidence"),
    ("numbers", "are of the last five to ten seconds; trends of the last minute, a block a second"),
];

/// Columns of keys and words.
const LABEL: usize = 11;

/// The help.
pub fn page(room: usize) -> Page {
    let mut page = Page::titled("help: keys");
    page.lines.extend(entries(KEYS, room));
    page.lines.push(plain("how to read it", TITLE));
    page.lines.extend(entries(WORDS, room));
    page
}

fn entries(
    entries: &'static [(&'static str, &'static str)],
    room: usize,
) -> impl Iterator<Item = ratatui::text::Line<'static>> {
    entries.iter().flat_map(move |(key, meaning)| {
        let texts = wrap(meaning, room.saturating_sub(LABEL + 2));
        texts.into_iter().enumerate().map(move |(at, text)| {
            let pen = Pen::new().gap(2).left(if at == 0 { key } else { "" }, LABEL, TITLE);
            pen.put(text, ratatui::style::Style::new()).end()
        })
    })
}
