//! Whatever it is told and asked, at whatever size: no panic, nothing outside the screen.

use jiff::SignedDuration;
use proptest::prelude::*;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use ratatui::crossterm::event::KeyCode;

use super::{User, fixture};
use crate::{
    model::status::{ConditionStatus, Quantiles, Status, SubjectStatus},
    view::{layout::Screen, print_once, render_once, state::Silence, text::width},
};

const KEYS: &[KeyCode] = &[
    KeyCode::Up,
    KeyCode::Down,
    KeyCode::PageUp,
    KeyCode::PageDown,
    KeyCode::Home,
    KeyCode::End,
    KeyCode::Enter,
    KeyCode::Esc,
    KeyCode::Tab,
    KeyCode::BackTab,
    KeyCode::Backspace,
    KeyCode::Left,
    KeyCode::Char('s'),
    KeyCode::Char('S'),
    KeyCode::Char('c'),
    KeyCode::Char('p'),
    KeyCode::Char('/'),
    KeyCode::Char('?'),
    KeyCode::Char('語'),
];

const TEXTS: &[&str] = &[
    "",
    "10.0.0.1",
    "us-east-lb",
    "~other",
    "2001:db8:1234:5678:9abc:def0:1234:5678",
    "日本語の名前がとても長い時",
    "\u{1b}[2J\u{7}bad\r\n\t\u{202e}name",
    "👨‍👩‍👧‍👦🇩🇪e\u{301}",
    "troubled",
    "insufficient",
    "raised",
    "recovering",
    "client",
    "server",
    "a name of many words that does not end where one would expect it to end, but goes on and on and on",
];

fn text(rng: &mut StdRng) -> String {
    TEXTS[rng.random_range(0..TEXTS.len())].to_owned()
}

fn number(rng: &mut StdRng) -> f64 {
    match rng.random_range(0..8) {
        0 => f64::NAN,
        1 => f64::INFINITY,
        2 => -1.0,
        3 => 0.0,
        4 => f64::MAX,
        _ => 10_f64.powf(rng.random_range(-9.0..9.0)),
    }
}

fn amount(rng: &mut StdRng) -> u64 {
    match rng.random_range(0..4) {
        0 => 0,
        1 => u64::MAX,
        _ => 1 << rng.random_range(0..40),
    }
}

fn quantiles(rng: &mut StdRng) -> Quantiles {
    Quantiles {
        p50: rng.random_bool(0.7).then(|| number(rng)),
        p99: rng.random_bool(0.7).then(|| number(rng)),
    }
}

fn subject(rng: &mut StdRng) -> SubjectStatus {
    let mut s = fixture::subject(&text(rng), None, &text(rng), &text(rng), 1.0, 1.0, 1.0);
    s.address = rng.random_bool(0.5).then(|| text(rng));
    s.standing = text(rng);
    let h = &mut s.handshake;
    (h.rate, h.latency) = (number(rng), quantiles(rng));
    for n in [
        &mut h.refused,
        &mut h.timed_out,
        &mut h.abandoned,
        &mut h.pending,
        &mut h.stalled,
        &mut h.established,
    ] {
        *n = amount(rng);
    }
    for wait in [&mut s.first_byte, &mut s.response] {
        (wait.rate, wait.latency) = (number(rng), quantiles(rng));
        (wait.pending, wait.stalled, wait.longest) = (amount(rng), amount(rng), Some(number(rng)));
    }
    (s.rtt, s.resets) = (quantiles(rng), amount(rng));
    (s.segments_in, s.segments_out) = (number(rng), number(rng));
    (s.retransmitted.fast, s.retransmitted.spurious) = (amount(rng), amount(rng));
    s.trend = (0..rng.random_range(0..90)).map(|_| number(rng) as f32).collect();
    s
}

fn condition(rng: &mut StdRng) -> ConditionStatus {
    let mut c = fixture::stall(&text(rng), (amount(rng), amount(rng)), 1.0);
    (c.name, c.phase, c.blame, c.confidence) = (text(rng), text(rng), text(rng), text(rng));
    (c.age, c.evidence.text, c.evidence.low) = (number(rng), text(rng), number(rng));
    c.valid_until = fixture::NOW + SignedDuration::from_secs(rng.random_range(-100_000..100_000));
    let t = &mut c.target;
    for part in [&mut t.peer, &mut t.address, &mut t.service, &mut t.role, &mut t.reason, &mut t.direction] {
        *part = rng.random_bool(0.5).then(|| text(rng));
    }
    c
}

fn status(rng: &mut StdRng) -> Status {
    let mut status = fixture::empty();
    status.subjects = (0..rng.random_range(0..40)).map(|_| subject(rng)).collect();
    status.conditions = (0..rng.random_range(0..12)).map(|_| condition(rng)).collect();
    let drops = |rng: &mut StdRng| {
        fixture::drops(&text(rng), &text(rng), &text(rng), &text(rng), amount(rng), number(rng))
    };
    status.drops = (0..rng.random_range(0..12)).map(|_| drops(rng)).collect();
    status.signals.extend((0..3).map(|_| fixture::signal(&text(rng), Some(&text(rng)))));
    for map in &mut status.maps {
        (map.used, map.limit, map.evicted, map.name) = (amount(rng), amount(rng), amount(rng), text(rng));
    }
    (status.node, status.version, status.kernel, status.uptime) =
        (text(rng), text(rng), text(rng), number(rng));
    (status.agent.late, status.agent.export_error) = (number(rng), Some(text(rng)));
    status
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn nothing_makes_it_panic(seed: u64) {
        let rng = &mut StdRng::seed_from_u64(seed);
        let mut user = User::before(status(rng));
        for _ in 0..20 {
            user.resizes(rng.random_range(1..=300), rng.random_range(1..=100));
            user.presses(KEYS[rng.random_range(0..KEYS.len())]);
            if rng.random_bool(0.2) {
                user.sees(status(rng));
            }
            let error = rng.random_bool(0.1).then(|| text(rng));
            user.view.silence = error.map(|error| Silence { error, seconds: Some(number(rng)) });
            let (room, height) = user.size;
            user.settles();
            let screen = Screen::new(Some(&user.snapshot), &user.view, room.into(), height.into());
            prop_assert!(screen.top.len() + screen.middle.len() + screen.bottom.len() <= height.into());
            for line in user.look().lines() {
                prop_assert!(width(line) <= room.into(), "{line:?}");
                prop_assert!(!line.contains(char::is_control), "{line:?}");
            }
            if user.view.on_table() && user.view.page < usize::from(height) {
                prop_assert!(user.view.row < user.view.offset + user.view.page);
            }
        }
    }

    #[test]
    fn printing_is_never_too_short(seed: u64, room in 1_u16..200) {
        let status = status(&mut StdRng::seed_from_u64(seed));
        let text = print_once(&status, room);
        prop_assert!(!text.contains("Tab shows all"));
        prop_assert!(text.contains("\nsignals") || room < 9);
    }
}

#[test]
fn every_size() {
    let mut status = fixture::a1();
    status.conditions.extend(fixture::others());
    for width in (0..=300).step_by(3) {
        render_once(&status, width, 24);
    }
    for height in (0..=100).step_by(3) {
        for width in [0, 1, 2, 3, 10, 40, 80, 300] {
            assert_eq!(render_once(&status, width, height).lines().count(), usize::from(height));
        }
    }
}
