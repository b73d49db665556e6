//! What each key does.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::{
    snapshot::Snapshot,
    state::{Panel, View},
};

/// A filter longer than this finds nothing anyway.
const FILTER_LIMIT: usize = 64;

/// Whether the user stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reaction {
    /// Go on.
    Stay,
    /// The user is done.
    Quit,
}

/// Lets a key change the view.
pub fn on_key(view: &mut View, key: KeyEvent, snapshot: Option<&Snapshot>) -> Reaction {
    if key.kind == KeyEventKind::Release {
        return Reaction::Stay;
    }
    if key.modifiers.contains(KeyModifiers::CONTROL) {
        return if key.code == KeyCode::Char('c') { Reaction::Quit } else { Reaction::Stay };
    }
    if view.editing {
        edit(view, key.code);
        return Reaction::Stay;
    }
    match key.code {
        KeyCode::Char('q') => return Reaction::Quit,
        KeyCode::Char('?') => {
            view.help = !view.help;
            view.scroll = 0;
        }
        KeyCode::Char('p') => view.paused = !view.paused,
        KeyCode::Char('/') => {
            show(view, Panel::Subjects);
            view.editing = true;
        }
        KeyCode::Tab => show(view, view.panel.next()),
        KeyCode::BackTab => show(view, view.panel.previous()),
        KeyCode::Esc => back(view),
        KeyCode::Char('s') if view.on_table() => {
            view.sort.by = view.sort.by.next();
            view.sort.reversed = false;
        }
        KeyCode::Char('S') if view.on_table() => view.sort.reversed = !view.sort.reversed,
        KeyCode::Char('c') if view.on_table() => view.preset = view.preset.next(),
        KeyCode::Enter if view.panel == Panel::Subjects && !view.help => detail(view, snapshot),
        code => movement(view, code, snapshot),
    }
    Reaction::Stay
}

fn edit(view: &mut View, code: KeyCode) {
    match code {
        KeyCode::Enter => view.editing = false,
        KeyCode::Esc => {
            view.filter.clear();
            view.editing = false;
        }
        KeyCode::Backspace if view.filter.pop().is_none() => view.editing = false,
        KeyCode::Char(c) if !c.is_control() && view.filter.chars().count() < FILTER_LIMIT => {
            view.filter.push(c);
        }
        _ => {}
    }
}

fn show(view: &mut View, panel: Panel) {
    view.panel = panel;
    view.detail = false;
    view.help = false;
    view.scroll = 0;
}

/// One step back: what was opened last closes first.
fn back(view: &mut View) {
    if view.help {
        view.help = false;
    } else if view.detail {
        view.detail = false;
    } else if view.panel != Panel::Subjects {
        view.panel = Panel::Subjects;
    } else {
        view.filter.clear();
    }
    view.scroll = 0;
}

fn detail(view: &mut View, snapshot: Option<&Snapshot>) {
    if view.detail {
        view.detail = false;
    } else if let Some(snapshot) = snapshot {
        // From here on the subject is meant, not the row.
        let rows = view.rows(snapshot);
        view.select(&rows, view.row);
        view.detail = !rows.is_empty();
    }
    view.scroll = 0;
}

fn movement(view: &mut View, code: KeyCode, snapshot: Option<&Snapshot>) {
    let step: isize = match code {
        KeyCode::Up | KeyCode::Char('k') => -1,
        KeyCode::Down | KeyCode::Char('j') => 1,
        KeyCode::PageUp => -(view.page as isize),
        KeyCode::PageDown => view.page as isize,
        KeyCode::Home => isize::MIN,
        KeyCode::End => isize::MAX,
        _ => return,
    };
    // In the detail, arrows leaf through the subjects and pages scroll.
    let leafs = view.detail && !view.help && !matches!(code, KeyCode::PageUp | KeyCode::PageDown);
    if !view.on_table() && !leafs {
        view.scroll = view.scroll.saturating_add_signed(step);
        return;
    }
    if code == KeyCode::Home {
        view.follow();
        return;
    }
    let Some(snapshot) = snapshot else { return };
    let rows = view.rows(snapshot);
    view.select(&rows, view.row.saturating_add_signed(step));
    view.scroll = 0;
}
