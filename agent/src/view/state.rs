//! What the user chose to look at. No clock, no terminal: keys and statuses go in, see [`super::keys`].

use super::{
    columns::Column,
    layout,
    snapshot::Snapshot,
    sort::{Sort, SortBy},
    subject::{SubjectKey, matches},
    theme::Theme,
};
use crate::model::status::{Status, SubjectStatus};
use ratatui::layout::Rect;

/// What fills the middle of the screen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Panel {
    /// The table of subjects.
    Subjects,
    /// Paths that carry media.
    Media,
    /// All conditions with all their evidence.
    Conditions,
    /// This host's drops.
    Drops,
    /// Signals, kernel tables and the agent itself.
    Signals,
}

impl Panel {
    const ALL: [Self; 5] = [Self::Subjects, Self::Media, Self::Conditions, Self::Drops, Self::Signals];

    /// The next one.
    pub const fn next(self) -> Self {
        Self::ALL[(self as usize + 1) % Self::ALL.len()]
    }

    /// The one before.
    pub const fn previous(self) -> Self {
        Self::ALL[(self as usize + Self::ALL.len() - 1) % Self::ALL.len()]
    }

    /// As the footer calls it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Subjects => "subjects",
            Self::Media => "media",
            Self::Conditions => "conditions",
            Self::Drops => "drops",
            Self::Signals => "signals",
        }
    }
}

/// Which columns come first where not all of them fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preset {
    /// What finds trouble.
    Overview,
    /// All quantiles.
    Times,
    /// Loss and traffic.
    Loss,
}

impl Preset {
    /// The next one.
    pub const fn next(self) -> Self {
        match self {
            Self::Overview => Self::Times,
            Self::Times => Self::Loss,
            Self::Loss => Self::Overview,
        }
    }

    /// Columns, the most important first. `waiting`: somewhere a first byte does not come.
    pub fn order(self, waiting: bool) -> impl Iterator<Item = Column> {
        use Column::{
            Failed, FirstByteP50, FirstByteP99, FirstByteWaiting, HandshakeP50, HandshakeP99, Pending, Rate,
            Resets, ResponseP50, ResponseP99, Retransmitted, RoundTripP50, RoundTripP99, SegmentsIn,
            SegmentsOut, Trend,
        };
        let first: &[Column] = match self {
            Self::Overview if waiting => &[Rate, Failed, Pending, FirstByteWaiting],
            Self::Overview => &[Rate, Failed, Pending],
            Self::Times => &[
                HandshakeP50,
                HandshakeP99,
                FirstByteP50,
                FirstByteP99,
                ResponseP50,
                ResponseP99,
                RoundTripP50,
            ],
            Self::Loss => {
                &[Retransmitted, Resets, RoundTripP50, RoundTripP99, SegmentsIn, SegmentsOut, Failed]
            }
        };
        let rest = [
            HandshakeP99,
            ResponseP99,
            Trend,
            FirstByteP99,
            Rate,
            HandshakeP50,
            ResponseP50,
            FirstByteWaiting,
        ];
        first
            .iter()
            .copied()
            .chain(rest)
            .chain([Retransmitted, RoundTripP50, FirstByteP50])
            .chain(Column::ALL)
    }
}

/// The agent does not answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Silence {
    /// What went wrong.
    pub error: String,
    /// Seconds since it last answered; none if it never did.
    pub seconds: Option<f64>,
}

/// Everything the screen depends on besides the status.
#[derive(Clone, Debug)]
#[allow(clippy::struct_excessive_bools, reason = "each is a switch of its own")]
pub struct View {
    /// What fills the middle.
    pub panel: Panel,
    /// Which columns.
    pub preset: Preset,
    /// In which order.
    pub sort: Sort,
    /// Only subjects with this in their names.
    pub filter: String,
    /// Whether keys go into the filter.
    pub editing: bool,
    /// Whether the status stands still.
    pub paused: bool,
    /// Whether the help lies over everything.
    pub help: bool,
    /// Whether the selected subject fills the middle.
    pub detail: bool,
    /// Set while the agent does not answer.
    pub silence: Option<Silence>,
    /// Whether this is printed rather than looked at: as long as it takes, without keys and selection.
    pub printed: bool,
    /// How meaning looks.
    pub theme: Theme,
    /// First line shown of a panel, the detail or the help.
    pub scroll: usize,
    /// First row shown of the table.
    pub offset: usize,
    /// The selected row. Follows the selected subject; without one it is the first, so that new trouble is seen.
    pub row: usize,
    /// Lines that a page has.
    pub page: usize,
    selected: Option<SubjectKey>,
}

impl View {
    /// The view as it starts.
    pub const fn new(theme: Theme) -> Self {
        Self {
            panel: Panel::Subjects,
            preset: Preset::Overview,
            sort: Sort { by: SortBy::Trouble, reversed: false },
            filter: String::new(),
            editing: false,
            paused: false,
            help: false,
            detail: false,
            silence: None,
            printed: false,
            theme,
            scroll: 0,
            offset: 0,
            row: 0,
            page: 1,
            selected: None,
        }
    }

    /// The subjects that the filter leaves, in their order.
    pub fn rows<'a>(&self, status: &'a Status) -> Vec<&'a SubjectStatus> {
        let mut rows: Vec<_> = status.subjects.iter().filter(|s| matches(s, &self.filter)).collect();
        self.sort.apply(&mut rows);
        rows
    }

    /// The subject that the user chose, if any.
    pub const fn selected(&self) -> Option<&SubjectKey> {
        self.selected.as_ref()
    }

    /// Whether the table of subjects is what keys act upon.
    pub fn on_table(&self) -> bool {
        self.panel == Panel::Subjects && !self.detail && !self.help
    }

    /// Chooses the subject in a row.
    pub fn select(&mut self, rows: &[&SubjectStatus], row: usize) {
        self.row = row.min(rows.len().saturating_sub(1));
        self.selected = rows.get(self.row).map(|s| SubjectKey::of(s));
    }

    /// Goes back to following the first row.
    pub fn follow(&mut self) {
        self.selected = None;
        self.row = 0;
    }

    /// Brings rows and lines shown in step with a new status or size. To be called before drawing.
    pub fn settle(&mut self, snapshot: Option<&Snapshot>, area: Rect) {
        let (rows, page, lines) = match snapshot {
            Some(snapshot) => {
                let rows = self.rows(snapshot);
                self.row = match &self.selected {
                    Some(key) => rows.iter().position(|s| key.is(s)).unwrap_or(self.row),
                    None => 0,
                };
                let (page, lines) = layout::extent(snapshot, self, area.width.into(), area.height.into());
                (rows.len(), page, lines)
            }
            None => (0, 1, 0),
        };
        self.page = page.max(1);
        self.row = self.row.min(rows.saturating_sub(1));
        self.scroll = self.scroll.min(lines.saturating_sub(self.page));
        if self.on_table() {
            self.offset = self.offset.min(rows.saturating_sub(self.page)).min(self.row);
            self.offset = self.offset.max((self.row + 1).saturating_sub(self.page));
        }
    }
}
