//! The conditions that stand: what, where, whose fault, since when, on what evidence.

use ratatui::{style::Style, text::Line};

use super::{
    format::{NOTHING, age, share},
    page::Page,
    pen::{Pen, indented, plain},
    snapshot::Snapshot,
    subject::target,
    text::{truncate, width},
    theme::{DIM, TITLE, Theme},
};
use crate::model::status::{ConditionStatus, Status};

/// Mark and blank before the name of a condition.
const INDENT: usize = 2;
/// Where the block has less room for what a condition is about, blame and times move to lines of their own.
const LEAST_WHERE: usize = 20;

/// The block above the table, in at most `limit` lines. Every condition gets its headline before the first one gets its
/// evidence; what is left out is counted.
pub fn block(status: &Snapshot, theme: Theme, room: usize, limit: usize) -> Vec<Line<'static>> {
    let conditions = ordered(status);
    if conditions.is_empty() || limit == 0 {
        return Vec::new();
    }
    let columns = Columns::new(&conditions, LEAST_WHERE, room);
    let mut lines = columns.header();
    let mut spare = limit.saturating_sub(lines.len());
    let headlines = if conditions.len() <= spare { conditions.len() } else { spare.saturating_sub(1) };
    spare = spare.saturating_sub(headlines);
    for condition in &conditions[..headlines] {
        lines.push(columns.headline(condition, status, theme));
        for mut text in columns.below(condition, status, room) {
            // Once something did not fit, nothing later is shown: it would look like the only one with evidence.
            match spare.checked_sub(text.len()) {
                Some(rest) => {
                    spare = rest;
                    lines.append(&mut text);
                }
                None => spare = 0,
            }
        }
    }
    if headlines < conditions.len() {
        let text = format!("  and {} more: Tab shows all", conditions.len() - headlines);
        lines.push(plain(truncate(&text, room), theme.alarm()));
    }
    lines.truncate(limit);
    lines
}

/// All conditions with all there is to say.
pub fn page(status: &Snapshot, theme: Theme, room: usize) -> Page {
    let conditions = ordered(status);
    // Here nothing is cut off that could have a line of its own.
    let columns = Columns::new(&conditions, usize::MAX, room);
    let mut page = Page::titled(format!("conditions {}", conditions.len()));
    if conditions.is_empty() {
        page.say("no condition stands", room);
        return page;
    }
    page.head.extend(columns.header());
    for condition in conditions {
        page.lines.push(columns.headline(condition, status, theme));
        page.lines.extend(columns.below(condition, status, room).into_iter().flatten());
        page.lines.extend(indented(&statistics(condition), room, DIM));
    }
    page
}

/// One condition where its subject is known: for the detail of that subject.
pub fn on_subject(
    condition: &ConditionStatus,
    status: &Status,
    theme: Theme,
    room: usize,
) -> Vec<Line<'static>> {
    let (mark, style) = mark(condition, theme);
    let text = format!("{mark} {}  {}", condition.name, circumstances(condition, status));
    let mut lines = vec![plain(truncate(&text, room), style)];
    lines.extend(indented(&evidence(condition), room, Style::new()));
    lines.extend(indented(&statistics(condition), room, DIM));
    lines
}

/// Raised ones first; then the oldest, so that new ones do not move what is being read.
fn ordered(status: &Snapshot) -> Vec<&ConditionStatus> {
    let mut conditions: Vec<_> = status.conditions.iter().collect();
    conditions.sort_by_key(|condition| (condition.phase != "raised", condition.since));
    conditions
}

/// Widths of the columns of the headlines.
struct Columns {
    name: usize,
    place: usize,
    blame: usize,
    since: usize,
    phase: usize,
    /// Whether blame, phase and times have columns at all.
    full: bool,
}

/// `lease`.
const LEASE: usize = 5;

impl Columns {
    fn new(conditions: &[&ConditionStatus], least: usize, room: usize) -> Self {
        let longest = |least: usize, text: &dyn Fn(&ConditionStatus) -> usize| {
            conditions.iter().map(|c| text(c)).fold(least, usize::max)
        };
        let name = longest(9, &|c| width(&c.name));
        let blame = longest(5, &|c| width(&c.blame));
        let since = longest(5, &|c| width(&age(c.age)));
        let phase = longest(5, &|c| width(&c.phase));
        let place = longest(5, &|c| width(&target(&c.target, usize::MAX)));
        let beside = INDENT + name + blame + since + phase + LEASE + 5;
        let full = room >= beside + place.min(least);
        let left = if full { room - beside } else { room.saturating_sub(INDENT + name + 1) };
        Self { name, place: place.min(left), blame, since, phase, full }
    }

    fn header(&self) -> Vec<Line<'static>> {
        if !self.full {
            return Vec::new();
        }
        let pen = Pen::new().gap(INDENT).left("condition", self.name, DIM);
        let pen = pen.gap(1).left("where", self.place, DIM).gap(1).left("blame", self.blame, DIM);
        let pen = pen.gap(1).right("since", self.since, DIM).gap(1).left("phase", self.phase, DIM);
        vec![pen.gap(1).right("lease", LEASE, DIM).end()]
    }

    fn headline(&self, condition: &ConditionStatus, status: &Status, theme: Theme) -> Line<'static> {
        let (mark, style) = mark(condition, theme);
        let place = target(&condition.target, self.place);
        let pen = Pen::new().put(format!("{mark} "), style).left(&condition.name, self.name, style).gap(1);
        let pen = pen.left(&place, self.place, TITLE);
        if !self.full {
            return pen.end();
        }
        let plain = Style::new();
        let pen = pen.gap(1).left(&condition.blame, self.blame, TITLE).gap(1);
        let pen = pen.right(&age(condition.age), self.since, plain).gap(1);
        let pen = pen.left(&condition.phase, self.phase, plain);
        pen.gap(1).right(&lease(condition, status), LEASE, plain).end()
    }

    /// What there was no room for in the headline, and the evidence; each in its lines.
    fn below(&self, condition: &ConditionStatus, status: &Status, room: usize) -> Vec<Vec<Line<'static>>> {
        let circumstances = (!self.full).then(|| circumstances(condition, status));
        let texts = circumstances.into_iter().chain([evidence(condition)]);
        texts.map(|text| indented(&text, room, Style::new())).collect()
    }
}

fn mark(condition: &ConditionStatus, theme: Theme) -> (&'static str, Style) {
    match condition.phase.as_str() {
        "raised" => ("!", theme.alarm()),
        "recovering" => ("↑", theme.attention()),
        _ => (" ", DIM),
    }
}

/// Seconds the condition holds without fresh bad evidence; by the agent's clock, which need not be ours.
fn lease(condition: &ConditionStatus, status: &Status) -> String {
    let left = condition.valid_until.duration_since(status.stamp.time).as_secs_f64();
    if condition.phase == "raised" && left > 0.0 { age(left.ceil()) } else { NOTHING.to_owned() }
}

fn circumstances(condition: &ConditionStatus, status: &Status) -> String {
    let (blame, phase) = (&condition.blame, &condition.phase);
    let mut texts = vec![format!("blame {blame}"), format!("for {}", age(condition.age))];
    if phase != "raised" {
        texts.push(phase.clone());
    }
    let lease = lease(condition, status);
    if lease != NOTHING {
        texts.push(format!("lease {lease}"));
    }
    texts.join(", ")
}

fn evidence(condition: &ConditionStatus) -> String {
    let text = condition.evidence.text.clone();
    if condition.confidence == "low" { text + "; low confidence: this host itself was late" } else { text }
}

fn statistics(condition: &ConditionStatus) -> String {
    let e = &condition.evidence;
    let bad = if e.n == 0 { NOTHING.to_owned() } else { share(e.bad as f64 / e.n as f64) };
    format!("{} bad of {}: {bad} (99.9% interval {} to {})", e.bad, e.n, share(e.low), share(e.high))
}
