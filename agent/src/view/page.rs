//! Lines that may be more than fit, below lines that stay.

use ratatui::text::Line;

use super::{
    pen::{Pen, indented, plain},
    theme::{DIM, TITLE, Theme},
};

/// A head that stays and lines that scroll.
#[derive(Debug, Default)]
pub struct Page {
    /// Always shown, at the top.
    pub head: Vec<Line<'static>>,
    /// Shown as they fit.
    pub lines: Vec<Line<'static>>,
}

impl Page {
    /// A page with a title.
    pub fn titled(title: impl Into<String>) -> Self {
        Self { head: vec![plain(title, TITLE)], lines: Vec::new() }
    }

    /// Says why there is nothing else to say.
    pub fn say(&mut self, text: &str, room: usize) {
        self.lines.extend(indented(text, room, DIM));
    }

    /// How many lines scroll in a given height.
    pub fn height(&self, height: usize) -> usize {
        height.saturating_sub(self.head.len())
    }

    /// What is to be seen from line `scroll` on. Says at the right of the title that there is more.
    pub fn lines(mut self, scroll: usize, room: usize, height: usize, theme: Theme) -> Vec<Line<'static>> {
        let shown = self.height(height);
        let scroll = scroll.min(self.lines.len().saturating_sub(shown));
        let last = (scroll + shown).min(self.lines.len());
        if last - scroll < self.lines.len()
            && let Some(title) = self.head.first_mut()
        {
            let note = format!("lines {}-{last} of {}: PgDn", scroll + 1, self.lines.len());
            let pad = room.saturating_sub(title.width() + note.len());
            if pad > 0 {
                let pen = Pen::new().gap(pad).put(note, theme.attention());
                title.spans.extend(pen.end().spans);
            }
        }
        self.head.into_iter().chain(self.lines.drain(scroll..last)).take(height).collect()
    }
}
