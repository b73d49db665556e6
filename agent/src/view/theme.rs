//! How meaning looks: sixteen colours, and never by colour alone.
//!
//! Only colours that are legible on a dark *and* on a light background are used for text: red and magenta. Green and
//! yellow appear only behind black text. Secondary text is dim, not grey: bright black is the background itself in some
//! palettes.

use ratatui::style::{Color, Modifier, Style};

/// Names of things: titles, headers, keys.
pub const TITLE: Style = Style::new().add_modifier(Modifier::BOLD);
/// Explanations, rules, numbers that say nothing.
pub const DIM: Style = Style::new().add_modifier(Modifier::DIM);
/// The selected row.
pub const SELECTED: Style = Style::new().add_modifier(Modifier::REVERSED);
/// What was true when the agent last answered. Takes the alarm out of old alarms.
pub const STALE: Style = Style::new()
    .fg(Color::Reset)
    .add_modifier(Modifier::DIM)
    .remove_modifier(Modifier::BOLD.union(Modifier::REVERSED));

/// Whether colours may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Theme {
    colour: bool,
}

impl Theme {
    /// With the sixteen ANSI colours.
    #[cfg(test)]
    pub const COLOUR: Self = Self { colour: true };
    /// With bold, dim and reversed text only.
    pub const PLAIN: Self = Self { colour: false };

    /// As `NO_COLOR` (no-color.org: present and not empty) asks for.
    pub fn from_environment() -> Self {
        Self { colour: std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()) }
    }

    /// Something is wrong here.
    pub fn alarm(self) -> Style {
        self.foreground(Color::Red).add_modifier(Modifier::BOLD)
    }

    /// Worth a look, not wrong by itself.
    pub fn attention(self) -> Style {
        self.foreground(Color::Magenta)
    }

    /// The verdict when nothing is wrong.
    pub fn clear_badge(self) -> Style {
        self.badge(Color::Black, Color::Green)
    }

    /// The verdict when something is wrong.
    pub fn alarm_badge(self) -> Style {
        self.badge(Color::White, Color::Red)
    }

    /// The verdict in between, and everything else that must not be overlooked.
    pub fn attention_badge(self) -> Style {
        self.badge(Color::Black, Color::Yellow)
    }

    fn foreground(self, colour: Color) -> Style {
        if self.colour { Style::new().fg(colour) } else { Style::new() }
    }

    fn badge(self, text: Color, behind: Color) -> Style {
        if self.colour {
            Style::new().fg(text).bg(behind).add_modifier(Modifier::BOLD)
        } else {
            Style::new().add_modifier(Modifier::BOLD | Modifier::REVERSED)
        }
    }
}
