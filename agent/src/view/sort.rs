//! In which order subjects stand.

use std::{cmp::Ordering, net::IpAddr};

use super::{
    columns::Column,
    subject::{failed, stalled},
};
use crate::model::status::SubjectStatus;

/// What subjects are sorted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SortBy {
    /// Troubled first, then what hangs, then what failed, then what is busiest.
    Trouble,
    /// By peer and address.
    Path,
    /// By service.
    Service,
    /// By a number, the largest first.
    Number(Column),
}

impl SortBy {
    /// The orders that `s` goes through.
    pub const ALL: [Self; 12] = [
        Self::Trouble,
        Self::Path,
        Self::Service,
        Self::Number(Column::Rate),
        Self::Number(Column::Failed),
        Self::Number(Column::Pending),
        Self::Number(Column::HandshakeP99),
        Self::Number(Column::FirstByteP99),
        Self::Number(Column::ResponseP99),
        Self::Number(Column::RoundTripP50),
        Self::Number(Column::Retransmitted),
        Self::Number(Column::SegmentsOut),
    ];

    /// The next one.
    pub fn next(self) -> Self {
        let at = Self::ALL.iter().position(|by| *by == self).map_or(0, |at| at + 1);
        Self::ALL.get(at).copied().unwrap_or(Self::Trouble)
    }

    /// The column that must be seen for the order to be understood.
    pub const fn column(self) -> Option<Column> {
        match self {
            Self::Number(column) => Some(column),
            _ => None,
        }
    }
}

/// An order and its direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sort {
    /// By what.
    pub by: SortBy,
    /// Whether against its usual direction.
    pub reversed: bool,
}

impl Sort {
    /// What its header is marked with: `▼` for descending.
    pub const fn mark(self) -> &'static str {
        let descending = matches!(self.by, SortBy::Trouble | SortBy::Number(_));
        if descending == self.reversed { "▲" } else { "▼" }
    }

    /// Puts subjects in order. Equal ones stand by name, whatever the direction, so that they do not change places.
    pub fn apply(self, subjects: &mut [&SubjectStatus]) {
        let mut named: Vec<(Name<'_>, &SubjectStatus)> = subjects.iter().map(|s| (Name::of(s), *s)).collect();
        named.sort_by(|a, b| self.compare(a, b).then_with(|| a.0.cmp(&b.0)));
        for (place, (_, subject)) in subjects.iter_mut().zip(named) {
            *place = subject;
        }
    }

    fn compare(
        self,
        (a_name, a): &(Name<'_>, &SubjectStatus),
        (b_name, b): &(Name<'_>, &SubjectStatus),
    ) -> Ordering {
        let order = match self.by {
            SortBy::Trouble => trouble(b).cmp(&trouble(a)),
            SortBy::Path => a_name.path.cmp(&b_name.path),
            SortBy::Service => a_name.service.cmp(b_name.service),
            SortBy::Number(column) => match (column.value(a), column.value(b)) {
                (Some(a), Some(b)) => b.total_cmp(&a),
                // Nothing measured is neither small nor large: it stands last in both directions.
                (a, b) => return b.is_some().cmp(&a.is_some()),
            },
        };
        if self.reversed { order.reverse() } else { order }
    }
}

/// A subject's name as it is sorted by.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Name<'a> {
    path: [Part<'a>; 2],
    service: &'a str,
    role: &'a str,
}

/// Addresses and prefixes as numbers (10.0.0.9 before 10.0.0.10), after the names.
type Part<'a> = (Option<IpAddr>, &'a str);

impl<'a> Name<'a> {
    /// Read once for each subject: it takes longer than a comparison.
    fn of(s: &'a SubjectStatus) -> Self {
        let part = |text: &'a str| (text.split('/').next().and_then(|ip| ip.parse().ok()), text);
        let path = [part(&s.peer), part(s.address.as_deref().unwrap_or_default())];
        Self { path, service: &s.service, role: &s.role }
    }
}

/// How much a subject needs to be looked at. Numbers count by their magnitude only: rows that change places with every
/// look cannot be read.
fn trouble(s: &SubjectStatus) -> (bool, u32, u32, u32) {
    let traffic = s.handshake.rate.max(s.first_byte.rate).max(s.response.rate) * 8.0;
    (s.standing == "troubled", magnitude(stalled(s)), magnitude(failed(s)), magnitude(traffic as u64))
}

fn magnitude(n: u64) -> u32 {
    n.checked_ilog2().map_or(0, |log| log + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::status::HandshakeStatus;

    fn subject(
        peer: &str,
        standing: &str,
        rate: f64,
        stalled: u64,
        abandoned: u64,
        p99: Option<f64>,
    ) -> SubjectStatus {
        let mut handshake = HandshakeStatus { rate, abandoned, stalled, ..HandshakeStatus::default() };
        handshake.latency.p99 = p99;
        SubjectStatus { peer: peer.into(), standing: standing.into(), handshake, ..SubjectStatus::default() }
    }

    fn order(subjects: &[SubjectStatus], by: SortBy, reversed: bool) -> String {
        let mut rows: Vec<&SubjectStatus> = subjects.iter().collect();
        Sort { by, reversed }.apply(&mut rows);
        rows.iter().map(|s| s.peer.as_str()).collect()
    }

    #[test]
    fn trouble_comes_first() {
        let subjects = [
            subject("a", "healthy", 900.0, 0, 0, None),
            subject("b", "healthy", 1.0, 0, 3, None),
            subject("c", "insufficient", 0.1, 1, 0, None),
            subject("d", "troubled", 0.1, 0, 0, None),
        ];
        assert_eq!(order(&subjects, SortBy::Trouble, false), "dcba");
        assert_eq!(order(&subjects, SortBy::Trouble, true), "abcd");
    }

    #[test]
    fn rows_of_about_the_same_traffic_keep_their_places() {
        let first = [subject("a", "healthy", 41.0, 0, 0, None), subject("b", "healthy", 44.0, 0, 0, None)];
        let then = [subject("a", "healthy", 44.0, 0, 0, None), subject("b", "healthy", 41.0, 0, 0, None)];
        assert_eq!(order(&first, SortBy::Trouble, false), order(&then, SortBy::Trouble, false));
    }

    #[test]
    fn addresses_are_numbers() {
        let subjects =
            ["10.0.0.10", "10.0.0.9", "office", "10.0.0.0/24"].map(|p| subject(p, "", 0.0, 0, 0, None));
        assert_eq!(order(&subjects, SortBy::Path, false), "office10.0.0.0/2410.0.0.910.0.0.10");
    }

    #[test]
    fn nothing_measured_stands_last() {
        let subjects = [
            subject("a", "", 0.0, 0, 0, None),
            subject("b", "", 0.0, 0, 0, Some(1.0)),
            subject("c", "", 0.0, 0, 0, Some(2.0)),
            subject("d", "", 0.0, 0, 0, Some(f64::NAN)),
        ];
        let by = SortBy::Number(Column::HandshakeP99);
        assert_eq!(order(&subjects, by, false), "cbad");
        assert_eq!(order(&subjects, by, true), "bcad");
    }

    #[test]
    fn every_order_is_reached_and_marked() {
        let mut by = SortBy::Trouble;
        for expected in SortBy::ALL.into_iter().skip(1) {
            by = by.next();
            assert_eq!(by, expected);
        }
        assert_eq!(by.next(), SortBy::Trouble);
        assert_eq!(Sort { by: SortBy::Trouble, reversed: false }.mark(), "▼");
        assert_eq!(Sort { by: SortBy::Path, reversed: false }.mark(), "▲");
        assert_eq!(Sort { by: SortBy::Path, reversed: true }.mark(), "▼");
    }
}
