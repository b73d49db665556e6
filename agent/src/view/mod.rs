//! The terminal view: a [`Status`] at a time, for a person.
//!
//! The middle of the room is pure: [`keys`] and [`state`] turn keys and statuses into what is to be seen, [`layout`] and
//! the rooms below it turn that into lines. There is no clock (ages come from the status) and no I/O outside
//! [`terminal`]. Everything is text in lines, so that a test, `graylag status` and the terminal show the same.
//!
//! Deliberately absent: the mouse, colours beyond the sixteen, meaning told by colour alone, and any knowledge of where
//! a status comes from.

mod activation;
mod columns;
mod conditions;
mod detail;
mod draw;
mod drops;
mod fit;
mod footer;
mod format;
mod header;
mod help;
mod keys;
mod layout;
mod media;
mod page;
mod paths;
mod pen;
mod relays;
mod signals;
mod snapshot;
mod sort;
mod spark;
mod state;
mod subject;
mod table;
mod terminal;
#[cfg(test)]
mod tests;
mod text;
mod theme;

pub use terminal::{available, run};

use ratatui::{Terminal, backend::TestBackend, buffer::Cell};

use self::{snapshot::Snapshot, state::View, theme::Theme};
use crate::model::status::Status;

/// The crossterm whose feature agent/Cargo.toml asks for is the one that ratatui uses.
#[allow(unused_qualifications, reason = "that one says the same as the other is the point")]
const _: fn(crossterm::event::KeyCode) -> ratatui::crossterm::event::KeyCode = |same| same;

/// Where statuses come from.
pub trait Feed {
    /// The status now. Asked about twice a second, and the view stands still meanwhile.
    ///
    /// # Errors
    ///
    /// In words for a person: why there is none. The view shows them, greys what it knew and asks again.
    fn status(&mut self) -> Result<Status, String>;
}

/// A frame of the view as plain text: `height` lines without trailing blanks.
pub fn render_once(status: &Status, width: u16, height: u16) -> String {
    /// Nobody reads more, and every cell takes memory.
    const LIMIT: u16 = 1000;
    let snapshot = Snapshot::new(status.clone());
    picture(Some(&snapshot), View::new(Theme::PLAIN), width.min(LIMIT), height.min(LIMIT))
}

/// Everything the first screen has to say as plain text, as long as that gets, and without the keys: for
/// `graylag status`.
pub fn print_once(status: &Status, width: u16) -> String {
    let snapshot = Snapshot::new(status.clone());
    let mut view = View::new(Theme::PLAIN);
    view.printed = true;
    let height = layout::needed(&snapshot, &view, width.into());
    let screen = layout::Screen::new(Some(&snapshot), &view, width.into(), height);
    text(screen.top.iter().chain(&screen.middle).map(ToString::to_string))
}

/// A frame as text.
fn picture(snapshot: Option<&Snapshot>, mut view: View, width: u16, height: u16) -> String {
    let Ok(mut terminal) = Terminal::new(TestBackend::new(width, height));
    let Ok(frame) = terminal.draw(|frame| {
        view.settle(snapshot, frame.area());
        draw::draw(frame, snapshot, &view);
    });
    let cell = |x, y| frame.buffer.cell((x, y)).map_or("", Cell::symbol);
    text((0..height).map(|y| {
        let mut line = String::new();
        let mut x = 0;
        while x < width {
            line.push_str(cell(x, y));
            // The cells behind a wide character are blank in the buffer and not on the screen.
            x = x.saturating_add((text::width(cell(x, y)) as u16).max(1));
        }
        line
    }))
}

fn text(lines: impl Iterator<Item = String>) -> String {
    lines.map(|line| line.trim_end().to_owned() + "\n").collect()
}
