//! Media: what each path carries in each direction, how much of it is lost, how fresh it is.

use ratatui::{style::Style, text::Line};

use super::{
    activation,
    format::{NOTHING, age, count, latency, rate, share},
    page::Page,
    paths,
    pen::Pen,
    relays,
    snapshot::Snapshot,
    spark, subject,
    text::width,
    theme::{DIM, Theme},
};
use crate::model::status::MediaStatus;

/// An arrow and two blanks beside a path.
const WAY: usize = 2;
const RATE: usize = 5;
const SHARE: usize = 5;
const COUNT: usize = 5;
const LATENCY: usize = 5;
const AGE: usize = 6;
/// Left of a row: the mark of a condition.
const MARK: usize = 2;
/// A sparkline narrower than this says nothing.
const LEAST_TREND: usize = 6;
/// Widest path.
const MOST_PATH: usize = 40;

/// All paths that carry UDP, those in trouble first.
pub fn page(status: &Snapshot, theme: Theme, room: usize) -> Page {
    let mut legs: Vec<&MediaStatus> =
        status.media.iter().filter(|leg| leg.datagrams > 0.0 || leg.packets > 0.0).collect();
    let silent = status.media.len() - legs.len();
    let mut page = Page::titled(format!("media, by path and direction: {}", legs.len()));
    let states = paths::lines(status, theme, room);
    if legs.is_empty() {
        page.lines.extend(states);
        let watched = status.signals.iter().any(|signal| signal.name == "media");
        page.say(
            if watched {
                "no UDP seen lately on the interfaces that are watched"
            } else {
                "not watched: name interfaces in the configuration, [media] interfaces = [\"*\"]"
            },
            room,
        );
        return page;
    }
    legs.sort_by(|a, b| {
        let rank = |leg: &MediaStatus| (trouble(status, leg).is_some(), leg.packets);
        let (a_rank, b_rank) = (rank(a), rank(b));
        b_rank.0.cmp(&a_rank.0).then(b_rank.1.total_cmp(&a_rank.1)).then(a.peer.cmp(&b.peer))
    });
    let columns = Columns::new(&legs, room);
    page.head.push(columns.header());
    page.lines = legs.iter().map(|leg| columns.row(status, theme, leg)).collect();
    page.lines.push(Line::default());
    for part in [states, relays::lines(status, theme, room), activation::lines(status, theme)] {
        if !part.is_empty() {
            page.lines.extend(part);
            page.lines.push(Line::default());
        }
    }
    if silent > 0 {
        page.say(&format!("{silent} more have been silent for ten seconds"), room);
    }
    page.say("↓ this host receives, ↑ it sends; loss, bursts and reordering of RTP in the last five to ten seconds", room);
    page.say("rtp age: since the last RTP packet; media that was muted or has ended ages too", room);
    page
}

/// The condition that stands about a leg.
fn trouble<'a>(status: &'a Snapshot, leg: &MediaStatus) -> Option<&'a str> {
    let about = |target: &crate::model::status::TargetStatus| {
        target.peer.as_deref() == Some(&leg.peer)
            && target.address == leg.address
            && target.service.is_none()
            && target.direction.as_deref() == Some(&leg.direction)
    };
    status.conditions.iter().find(|c| about(&c.target)).map(|c| c.name.as_str())
}

struct Columns {
    path: usize,
    trend: usize,
    full: bool,
}

impl Columns {
    fn new(legs: &[&MediaStatus], room: usize) -> Self {
        let natural = legs.iter().map(|leg| width(&name(leg, MOST_PATH))).fold(4, usize::max);
        let narrow = MARK + WAY + RATE + SHARE + LATENCY + AGE + 5;
        let wide = narrow + RATE + 2 * COUNT + LATENCY + 4;
        let full = room >= wide + natural;
        let path = natural.min(room.saturating_sub(if full { wide } else { narrow }));
        let trend = room.saturating_sub(path + 2 + if full { wide } else { narrow }).min(60);
        Self { path, trend: if trend >= LEAST_TREND { trend } else { 0 }, full }
    }

    fn header(&self) -> Line<'static> {
        let mut pen = Pen::new().gap(MARK).left("path", self.path, DIM).gap(1 + WAY);
        pen = pen.right("rtp/s", RATE, DIM).gap(1).right("loss", SHARE, DIM).gap(1);
        if self.full {
            pen = pen.right("burst", COUNT, DIM).gap(1).right("reord", COUNT, DIM).gap(1);
            pen = pen.right("jit50", LATENCY, DIM).gap(1);
        }
        pen = pen.right("jit99", LATENCY, DIM).gap(1).right("rtp age", AGE + 1, DIM);
        if self.full {
            pen = pen.gap(1).right("udp/s", RATE, DIM);
        }
        if self.trend > 0 {
            pen = pen.gap(2).right("rtp/s", self.trend, DIM);
        }
        pen.end()
    }

    fn row(&self, status: &Snapshot, theme: Theme, leg: &MediaStatus) -> Line<'static> {
        let trouble = trouble(status, leg).is_some();
        let style = if trouble { theme.alarm() } else { Style::new() };
        let lost = leg.loss.is_some_and(|loss| loss > 0.0);
        let loss = leg.loss.map_or(NOTHING.to_owned(), share);
        let mut pen = Pen::new().left(if trouble { "!" } else { "" }, MARK, style);
        pen =
            pen.left(&name(leg, self.path), self.path, style).gap(1).left(arrow(&leg.direction), WAY, style);
        pen = pen.right(&rate(leg.packets), RATE, style).gap(1);
        pen = pen.right(&loss, SHARE, if lost && !trouble { theme.attention() } else { style }).gap(1);
        if self.full {
            pen = pen
                .right(&count(leg.bursts), COUNT, style)
                .gap(1)
                .right(&count(leg.reordered), COUNT, style)
                .gap(1);
            pen = pen.right(&latency(leg.jitter.p50), LATENCY, style).gap(1);
        }
        let media_age = leg.media_age.map_or(NOTHING.to_owned(), fine_age);
        pen = pen.right(&latency(leg.jitter.p99), LATENCY, style).gap(1).right(&media_age, AGE + 1, style);
        if self.full {
            pen = pen.gap(1).right(&rate(leg.datagrams), RATE, style);
        }
        if self.trend > 0 {
            pen = pen.gap(2).put(spark::line(&leg.trend, self.trend), style);
        }
        pen.end()
    }
}

/// Below ten seconds fractions matter: a stream of voice is silent for 20 ms between its packets.
fn fine_age(seconds: f64) -> String {
    if seconds < 10.0 { latency(Some(seconds)) } else { age(seconds) }
}

fn name(leg: &MediaStatus, limit: usize) -> String {
    subject::path(&leg.peer, leg.address.as_deref(), limit)
}

/// Which way packets go.
pub(super) fn arrow(direction: &str) -> &'static str {
    if direction == "transmit" { "↑" } else { "↓" }
}
