//! The view as a whole: what it shows (golden), how it reacts (keys), and that nothing makes it panic (anything).

mod anything;
mod colours;
mod fixture;
mod golden;
mod keys;

use ratatui::{
    crossterm::event::{KeyCode, KeyEvent, KeyModifiers},
    layout::Rect,
};

use super::{
    keys::{Reaction, on_key},
    picture,
    snapshot::Snapshot,
    state::View,
    theme::Theme,
};
use crate::model::status::Status;

/// A user before a screen.
struct User {
    view: View,
    snapshot: Snapshot,
    size: (u16, u16),
}

impl User {
    fn before(status: Status) -> Self {
        let mut user =
            Self { view: View::new(Theme::COLOUR), snapshot: Snapshot::new(status), size: (80, 24) };
        user.settles();
        user
    }

    fn sees(&mut self, status: Status) {
        self.snapshot = Snapshot::new(status);
        self.settles();
    }

    fn resizes(&mut self, width: u16, height: u16) {
        self.size = (width, height);
        self.settles();
    }

    fn presses(&mut self, code: KeyCode) -> Reaction {
        let reaction = on_key(&mut self.view, KeyEvent::new(code, KeyModifiers::NONE), Some(&self.snapshot));
        self.settles();
        reaction
    }

    fn types(&mut self, text: &str) {
        for c in text.chars() {
            self.presses(KeyCode::Char(c));
        }
    }

    /// As the loop does before it draws.
    fn settles(&mut self) {
        let (width, height) = self.size;
        self.view.settle(Some(&self.snapshot), Rect::new(0, 0, width, height));
    }

    fn look(&self) -> String {
        let (width, height) = self.size;
        picture(Some(&self.snapshot), self.view.clone(), width, height)
    }
}
