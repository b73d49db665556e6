//! Writing a line piece by piece, in columns.

use ratatui::{
    style::Style,
    text::{Line, Span},
};

use super::text::{left, right, width, wrap};

/// A line under way.
#[derive(Default)]
pub struct Pen {
    spans: Vec<Span<'static>>,
    used: usize,
}

impl Pen {
    /// An empty line.
    pub fn new() -> Self {
        Self::default()
    }

    /// Columns written so far.
    pub const fn used(&self) -> usize {
        self.used
    }

    /// Writes a text as it is.
    pub fn put(mut self, text: impl Into<String>, style: Style) -> Self {
        let text = text.into();
        self.used += width(&text);
        self.spans.push(Span::styled(text, style));
        self
    }

    /// Writes a text into a column, at its left.
    pub fn left(self, text: &str, room: usize, style: Style) -> Self {
        self.put(left(text, room), style)
    }

    /// Writes a text into a column, at its right.
    pub fn right(self, text: &str, room: usize, style: Style) -> Self {
        self.put(right(text, room), style)
    }

    /// Leaves blanks.
    pub fn gap(self, blanks: usize) -> Self {
        self.put(" ".repeat(blanks), Style::new())
    }

    /// The line.
    pub fn end(self) -> Line<'static> {
        self.spans.into()
    }
}

/// A sentence in as many lines as it takes, a little to the right.
pub fn indented(text: &str, room: usize, style: Style) -> Vec<Line<'static>> {
    const INDENT: usize = 2;
    let lines = wrap(text, room.saturating_sub(INDENT)).into_iter();
    lines.map(|line| Pen::new().gap(INDENT).put(line, style).end()).collect()
}

/// A line of one style.
pub fn plain(text: impl Into<String>, style: Style) -> Line<'static> {
    Pen::new().put(text, style).end()
}
