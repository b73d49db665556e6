//! Putting a screen into a frame.

use ratatui::{
    Frame,
    layout::Rect,
    text::Text,
    widgets::{Paragraph, Widget},
};

use super::{layout::Screen, snapshot::Snapshot, state::View, theme::STALE};

/// Draws the view of a status; without one, that it is awaited.
pub fn draw(frame: &mut Frame<'_>, snapshot: Option<&Snapshot>, view: &View) {
    let area = frame.area();
    let screen = Screen::new(snapshot, view, area.width.into(), area.height.into());
    let (top, bottom) = (screen.top.len() as u16, screen.bottom.len() as u16);
    let middle = Rect { y: area.y + top, height: area.height.saturating_sub(top + bottom), ..area };
    let buffer = frame.buffer_mut();
    Paragraph::new(Text::from(screen.top)).render(Rect { height: top, ..area }, buffer);
    Paragraph::new(Text::from(screen.middle)).render(middle, buffer);
    if view.silence.is_some() {
        buffer.set_style(middle, STALE);
    }
    Paragraph::new(Text::from(screen.bottom))
        .render(Rect { y: middle.bottom(), height: bottom, ..area }, buffer);
}
