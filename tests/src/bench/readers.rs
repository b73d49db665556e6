//! From a look at the kernel to every reader of `/v1/watch`, with a hundred of them.

use std::{
    thread,
    time::{Duration, Instant},
};

use graylag::model::status::Message;

use super::{Section, Spread, Table, feed::Feed, sample::Figure};
use crate::agent::Agent;

/// Readers at once.
const READERS: usize = 100;

/// Adds this part's figures: `fault` makes the agent tell something, and returns when it has.
pub fn add(section: &mut Section, agent: &Agent, fault: impl FnOnce()) {
    let readers: Vec<Feed> = (0..READERS).map(|_| Feed::open(agent)).collect();
    fault();
    thread::sleep(Duration::from_secs(1));
    // Messages tell the wall clock's time, readers note the steady clock's.
    let (now, wall) = (Instant::now(), jiff::Timestamp::now());
    let mut delays = Vec::new();
    for reader in &readers {
        reader.each(|at, message| {
            if let Message::Path { stamp, .. } | Message::Transition { stamp, .. } = message {
                let since = wall.duration_since(stamp.time).as_secs_f64();
                delays.push(1e3 * (since - now.duration_since(at).as_secs_f64()));
            }
        });
    }
    delays.sort_by(f64::total_cmp);
    let Some(spread) = Spread::of(&delays) else {
        section.remark("Nothing was told to the readers.");
        return;
    };
    let p99 = delays[(delays.len() - 1) * 99 / 100];
    let mut table = Table::new(["readers", "messages", "ms, median", "p99", "most"]);
    table.row([
        READERS.to_string(),
        spread.n.to_string(),
        Figure(spread.median).to_string(),
        Figure(p99).to_string(),
        Figure(spread.most).to_string(),
    ]);
    section.table(
        "From the moment of a look to a reader of `/v1/watch` that has what it found, all of them reading:",
        table,
    );
    section.goal(
        "a transition is with local readers within 10 ms (p99)",
        format!("{} ms", Figure(p99)),
        p99 <= 10.0,
    );
}
