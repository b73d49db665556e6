//! Which columns fit into a width, and how wide each gets.

use super::{columns::Column, state::Preset, subject::path_of, text::width, theme::Theme};
use crate::model::status::SubjectStatus;

/// Mark and blank before the path, blanks and arrow between path and service.
const FRAME: usize = 5;

/// The columns of a table and their widths.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Of the path.
    pub path: usize,
    /// Of the service.
    pub service: usize,
    /// Of the numbers, in their order.
    pub columns: Vec<(Column, usize)>,
}

impl Plan {
    /// Fits columns into `room`: those that matter most for what the user looks at, the sorted one always. Names and room
    /// decide, numbers as little as can be: columns must not jump about while they are read. Only a first byte that does
    /// not come earns its column a place, and only numbers under way, which must not be cut off, widen theirs.
    pub fn new(subjects: &[&SubjectStatus], preset: Preset, sorted: Option<Column>, room: usize) -> Self {
        let natural_path = longest(subjects.iter().map(|s| width(&path_of(s, usize::MAX))), 16);
        let natural_service = longest(subjects.iter().map(|s| width(&s.service)), 7);
        let (path_limit, service_limit) = match room {
            0..60 => (15, 8),
            60..100 => (20, 10),
            100..140 => (28, 16),
            _ => (44, 24),
        };
        let mut plan = Self {
            path: natural_path.min(path_limit),
            service: natural_service.min(service_limit),
            columns: Vec::new(),
        };
        let mut left = room.saturating_sub(FRAME + plan.path + plan.service);
        let waiting = subjects.iter().any(|s| s.first_byte.stalled > 0);
        for column in sorted.into_iter().chain(preset.order(waiting)) {
            let needs = needs(column, subjects, room);
            if !plan.columns.iter().any(|(c, _)| *c == column) && needs < left {
                plan.columns.push((column, needs));
                left -= needs + 1;
            }
        }
        plan.columns.sort_by_key(|(column, _)| *column as usize);
        plan.widen(left, natural_path, natural_service);
        plan
    }

    /// Columns from the left edge to the first number.
    pub fn names(&self) -> usize {
        FRAME + self.path + self.service
    }

    fn widen(&mut self, mut left: usize, natural_path: usize, natural_service: usize) {
        grow(&mut self.path, natural_path, &mut left);
        grow(&mut self.service, natural_service, &mut left);
        for (column, limit) in [(Column::Failed, 18), (Column::Trend, 60)] {
            if let Some((_, width)) = self.columns.iter_mut().find(|(c, _)| *c == column) {
                grow(width, limit, &mut left);
            }
        }
    }
}

fn needs(column: Column, subjects: &[&SubjectStatus], room: usize) -> usize {
    match column {
        // A number cut off would be another number.
        Column::Pending | Column::FirstByteWaiting | Column::ResponseWaiting => longest(
            subjects.iter().map(|s| width(&column.cell(s, usize::MAX, Theme::PLAIN).0)),
            column.least(room),
        ),
        _ => column.least(room),
    }
}

fn longest(widths: impl Iterator<Item = usize>, least: usize) -> usize {
    widths.fold(least, usize::max)
}

fn grow(width: &mut usize, limit: usize, left: &mut usize) {
    let more = limit.saturating_sub(*width).min(*left);
    *width += more;
    *left -= more;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::status::WaitStatus;

    fn subject() -> SubjectStatus {
        SubjectStatus {
            peer: "us-east-lb".into(),
            address: Some("10.77.1.3".into()),
            service: "rooms-api".into(),
            ..SubjectStatus::default()
        }
    }

    fn columns(room: usize, preset: Preset, sorted: Option<Column>) -> Vec<Column> {
        let subject = subject();
        let plan = Plan::new(&[&subject], preset, sorted, room);
        let used = plan.names() + plan.columns.iter().map(|(_, width)| width + 1).sum::<usize>();
        assert!(used <= room.max(FRAME + plan.path + plan.service), "{used} of {room}");
        plan.columns.into_iter().map(|(column, _)| column).collect()
    }

    #[test]
    fn what_matters_most_at_eighty() {
        use Column::{
            Failed, FirstByteP50, FirstByteP99, HandshakeP50, HandshakeP99, Pending, Rate, ResponseP50,
            ResponseP99, RoundTripP50, SegmentsIn, Trend,
        };
        assert_eq!(
            columns(80, Preset::Overview, None),
            [Rate, Failed, Pending, HandshakeP99, FirstByteP99, ResponseP99, Trend]
        );
        assert_eq!(
            columns(80, Preset::Times, None),
            [HandshakeP50, HandshakeP99, FirstByteP50, FirstByteP99, ResponseP50, ResponseP99, RoundTripP50]
        );
        assert!(columns(80, Preset::Overview, Some(SegmentsIn)).contains(&SegmentsIn));
    }

    #[test]
    fn everything_when_wide() {
        assert_eq!(columns(180, Preset::Overview, None).len(), Column::ALL.len());
        for room in 0..300 {
            columns(room, Preset::Loss, Some(Column::Failed));
        }
    }

    #[test]
    fn a_missing_first_byte_is_seen_at_eighty() {
        let subject =
            SubjectStatus { first_byte: WaitStatus { stalled: 3, ..WaitStatus::default() }, ..subject() };
        let plan = Plan::new(&[&subject], Preset::Overview, None, 80);
        assert!(plan.columns.iter().any(|(column, _)| *column == Column::FirstByteWaiting));
    }
}
