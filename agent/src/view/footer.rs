//! The last line: the keys that do something here, the most useful first.

use ratatui::text::Line;

use super::{
    pen::Pen,
    state::{Panel, View},
    text::width,
    theme::{DIM, SELECTED, TITLE},
};

/// The footer in `room` columns.
pub fn line(view: &View, room: usize) -> Line<'static> {
    if view.editing {
        let keys = "  Enter keeps it, Esc clears it";
        let pen = Pen::new().put("filter: ", TITLE);
        // The end of a filter is where one types.
        let mut shown = view.filter.as_str();
        while width(shown) + pen.used() + 1 > room && !shown.is_empty() {
            shown = shown.char_indices().nth(1).map_or("", |(at, _)| &shown[at..]);
        }
        let pen = pen.put(shown, TITLE).put(" ", SELECTED);
        return if pen.used() + width(keys) <= room { pen.put(keys, DIM).end() } else { pen.end() };
    }
    let mut pen = Pen::new();
    for (key, does) in keys(view) {
        let gap = if pen.used() == 0 { 0 } else { 2 };
        if pen.used() + gap + width(key) + 1 + width(does) > room {
            break;
        }
        pen = pen.gap(gap).put(key, TITLE).put(format!(" {does}"), DIM);
    }
    pen.end()
}

fn keys(view: &View) -> Vec<(&'static str, &'static str)> {
    let pause = ("p", if view.paused { "go on" } else { "pause" });
    let mut keys = vec![("q", "quit"), ("?", "help")];
    if view.help {
        keys.extend([("Esc", "close"), ("PgDn", "more")]);
    } else if view.detail {
        keys.extend([("Esc", "back"), ("↑↓", "other subject"), ("PgDn", "more"), pause]);
    } else if view.panel == Panel::Subjects {
        keys.extend([("Tab", "panel"), ("Enter", "detail"), ("/", "filter")]);
        if !view.filter.is_empty() {
            keys.push(("Esc", "clear filter"));
        }
        keys.extend([("s/S", "sort"), ("c", "columns"), pause, ("↑↓", "move")]);
    } else {
        keys.extend([("Tab", view.panel.next().name()), ("Esc", "back"), ("↑↓", "scroll"), pause]);
    }
    keys
}
