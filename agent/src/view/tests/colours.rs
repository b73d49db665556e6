//! Which words and colours carry the verdict.

use std::collections::HashSet;

use ratatui::{Terminal, backend::TestBackend, style::Color};

use super::fixture;
use crate::{
    model::status::Status,
    view::{
        draw::draw,
        render_once,
        snapshot::Snapshot,
        state::{Silence, View},
        theme::Theme,
    },
};

fn colours(theme: Theme, silence: Option<Silence>) -> HashSet<Color> {
    let mut status = fixture::a1();
    status.conditions.extend(fixture::others());
    let (snapshot, mut view) = (Snapshot::new(status), View::new(theme));
    view.silence = silence;
    let mut terminal = Terminal::new(TestBackend::new(160, 40)).unwrap();
    let frame = terminal.draw(|frame| draw(frame, Some(&snapshot), &view)).unwrap();
    frame.buffer.content().iter().flat_map(|cell| [cell.fg, cell.bg]).collect()
}

#[test]
fn only_colours_that_any_background_bears() {
    use Color::{Magenta, Red, Reset, White};
    assert_eq!(colours(Theme::COLOUR, None), HashSet::from([Reset, Red, Magenta, White]));
    assert_eq!(colours(Theme::PLAIN, None), HashSet::from([Reset]));
}

#[test]
fn old_alarms_do_not_shout() {
    let silence = Some(Silence { error: "gone".into(), seconds: Some(1.0) });
    let colours = colours(Theme::COLOUR, silence);
    assert!(!colours.contains(&Color::Red) && colours.contains(&Color::Yellow));
}

#[test]
fn verdicts() {
    let verdict =
        |status: &Status| render_once(status, 80, 24).trim().split("  ").next().map(str::to_owned).unwrap();
    assert_eq!(verdict(&fixture::quiet()), "ALL CLEAR");
    assert_eq!(verdict(&fixture::a1()), "2 CONDITIONS");
    assert_eq!(verdict(&fixture::empty()), "NO TRAFFIC");
    let mut status = fixture::a1();
    status.conditions.truncate(1);
    assert_eq!(verdict(&status), "1 CONDITION");
    status.conditions[0].phase = "recovering".into();
    assert_eq!(verdict(&status), "RECOVERING");
    status.conditions.clear();
    status.signals.iter_mut().for_each(|signal| signal.available = false);
    assert_eq!(verdict(&status), "BLIND");
}
