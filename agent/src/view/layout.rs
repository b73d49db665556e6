//! What stands where: header, banner, conditions, the middle, drops and signals, footer.

use ratatui::text::Line;

use super::{
    conditions, detail, drops, footer, header, help, media,
    page::Page,
    pen::plain,
    signals,
    snapshot::Snapshot,
    state::{Panel, View},
    table,
    theme::DIM,
};

/// Columns of the labels of the strip.
const LABEL: usize = 9;

/// The lines of a screen, from top to bottom.
pub struct Screen {
    /// Header and banner.
    pub top: Vec<Line<'static>>,
    /// What the agent said.
    pub middle: Vec<Line<'static>>,
    /// The keys.
    pub bottom: Vec<Line<'static>>,
}

impl Screen {
    /// Lays out a screen.
    pub fn new(snapshot: Option<&Snapshot>, view: &View, room: usize, height: usize) -> Self {
        let mut top = vec![header::line(snapshot, view, room)];
        top.extend(header::banner(view, room));
        let bottom = if has_footer(view, height) { vec![footer::line(view, room)] } else { Vec::new() };
        top.truncate(height.saturating_sub(bottom.len()));
        let left = height - top.len() - bottom.len();
        let mut middle = match snapshot {
            Some(snapshot) => middle(snapshot, view, room, height, left),
            None if view.help => help::page(room).lines(view.scroll, room, left, view.theme),
            None => header::waiting(view),
        };
        middle.truncate(left);
        Self { top, middle, bottom }
    }
}

/// Lines that a page of the middle has, and lines or rows there are.
pub fn extent(snapshot: &Snapshot, view: &View, room: usize, height: usize) -> (usize, usize) {
    let outside = 1 + header::banner(view, room).len() + usize::from(has_footer(view, height));
    let parts = Parts::new(snapshot, view, room, height, height.saturating_sub(outside));
    match page(snapshot, view, room) {
        Some(page) => (page.height(parts.body), page.lines.len()),
        None => (parts.body.saturating_sub(table::HEAD), 0),
    }
}

/// What fills the middle, and what stands above and below it.
struct Parts {
    above: Vec<Line<'static>>,
    body: usize,
    below: Vec<Line<'static>>,
}

impl Parts {
    fn new(snapshot: &Snapshot, view: &View, room: usize, height: usize, left: usize) -> Self {
        let whole = view.help || view.detail || view.panel == Panel::Conditions;
        let table = view.panel == Panel::Subjects && !whole;
        let below = if table && (height >= 14 || view.printed) {
            strip(snapshot, view, room, height)
        } else {
            Vec::new()
        };
        let above = if whole {
            Vec::new()
        } else {
            // A third of the screen, or what the table leaves over.
            let rows = if table { table::HEAD + snapshot.subjects.len().max(1) } else { left };
            let spare = left.saturating_sub(below.len() + rows);
            conditions::block(snapshot, view.theme, room, spare.max(height / 3).min(left))
        };
        let body = left.saturating_sub(above.len() + below.len());
        Self { above, body, below }
    }
}

fn middle(snapshot: &Snapshot, view: &View, room: usize, height: usize, left: usize) -> Vec<Line<'static>> {
    let parts = Parts::new(snapshot, view, room, height, left);
    let mut lines = parts.above;
    let until = lines.len() + parts.body;
    lines.extend(match page(snapshot, view, room) {
        Some(page) => page.lines(view.scroll, room, parts.body, view.theme),
        None => table::lines(snapshot, view, room, parts.body),
    });
    lines.resize(until, Line::default());
    lines.extend(parts.below);
    lines
}

/// The page that fills the middle, where it is not the table.
fn page(snapshot: &Snapshot, view: &View, room: usize) -> Option<Page> {
    if view.help {
        return Some(help::page(room));
    }
    match view.panel {
        Panel::Subjects if view.detail => Some(detail::page(snapshot, view, room)),
        Panel::Subjects => None,
        Panel::Media => Some(media::page(snapshot, view.theme, room)),
        Panel::Conditions => Some(conditions::page(snapshot, view.theme, room)),
        Panel::Drops => Some(drops::page(snapshot, room)),
        Panel::Signals => Some(signals::page(snapshot, view.theme, room)),
    }
}

/// Lines that it takes to print everything without cutting anything off.
pub fn needed(snapshot: &Snapshot, view: &View, room: usize) -> usize {
    let conditions = conditions::block(snapshot, view.theme, room, usize::MAX).len();
    let table = table::HEAD + snapshot.subjects.len().max(1);
    1 + conditions + table + strip(snapshot, view, room, usize::MAX).len()
}

/// A screen of three lines has better things to show than keys.
const fn has_footer(view: &View, height: usize) -> bool {
    height > 3 && !view.printed
}

/// Drops and signals below the table. At most as high as the screen allows, whatever drops: the table above must not
/// change its height with every new reason.
fn strip(snapshot: &Snapshot, view: &View, room: usize, height: usize) -> Vec<Line<'static>> {
    let limit = match height {
        _ if view.printed => usize::MAX,
        ..20 => 1,
        20..32 => 2,
        32..48 => 4,
        _ => 8,
    };
    let mut lines = vec![plain("─".repeat(room), DIM)];
    lines.extend(drops::strip(snapshot, LABEL, room, limit));
    lines.extend(signals::strip(snapshot, view.theme, LABEL, room));
    lines
}
