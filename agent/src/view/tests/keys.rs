//! What keys do, and what stays as statuses come and go.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::{User, fixture};
use crate::{
    model::status::Status,
    view::{
        columns::Column,
        keys::{Reaction, on_key},
        sort::SortBy,
        state::{Panel, Preset},
    },
};

/// As many subjects as asked for, each busier than the one before.
fn many(n: u16) -> Status {
    let subject = |i: u16| {
        let peer = format!("10.0.{}.{}", i / 250, i % 250);
        fixture::subject(&peer, None, "tcp/443", "client", f64::from(i + 1), 0.001, 0.002)
    };
    Status { subjects: (0..n).map(subject).collect(), ..fixture::empty() }
}

fn name_at(user: &User) -> String {
    user.view.rows(&user.snapshot)[user.view.row].peer.clone()
}

#[test]
fn quitting() {
    let mut user = User::before(fixture::quiet());
    assert_eq!(user.presses(KeyCode::Char('x')), Reaction::Stay);
    assert_eq!(user.presses(KeyCode::Char('q')), Reaction::Quit);
    // In the filter, q is a letter; Ctrl-C is not.
    user.types("/q");
    assert_eq!(user.view.filter, "q");
    let interrupt = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
    assert_eq!(on_key(&mut user.view, interrupt, None), Reaction::Quit);
    let released = KeyEvent::new_with_kind(KeyCode::Char('c'), KeyModifiers::CONTROL, KeyEventKind::Release);
    assert_eq!(on_key(&mut user.view, released, None), Reaction::Stay);
}

#[test]
fn the_selection_sticks_to_its_subject() {
    let mut user = User::before(many(50));
    user.presses(KeyCode::Down);
    user.presses(KeyCode::Char('j'));
    let chosen = name_at(&user);
    let mut status = many(50);
    for subject in &mut status.subjects {
        subject.handshake.rate = 1000.0 / subject.handshake.rate;
    }
    user.sees(status);
    assert_eq!(name_at(&user), chosen);
    assert!(user.view.row > 2, "it moved down with its subject");
    assert!(
        (user.view.offset..user.view.offset + user.view.page).contains(&user.view.row),
        "and is still to be seen"
    );
    // Gone and back again.
    user.sees(many(1));
    assert_eq!(user.view.row, 0);
    user.sees(many(50));
    assert_eq!(name_at(&user), chosen);
}

#[test]
fn without_a_selection_new_trouble_is_seen() {
    let mut user = User::before(many(50));
    let mut status = many(50);
    status.subjects[3].standing = "troubled".into();
    user.sees(status.clone());
    assert_eq!((name_at(&user).as_str(), user.view.offset), ("10.0.0.3", 0));
    user.presses(KeyCode::End);
    assert_eq!(user.view.row, 49);
    user.presses(KeyCode::Home);
    assert!(user.view.selected().is_none(), "Home follows the first row again");
    status.subjects[3].standing = "healthy".into();
    status.subjects[4].standing = "troubled".into();
    user.sees(status);
    assert_eq!(name_at(&user), "10.0.0.4");
}

#[test]
fn moving() {
    let mut user = User::before(many(50));
    let page = user.view.page;
    user.presses(KeyCode::Up);
    assert_eq!(user.view.row, 0);
    user.presses(KeyCode::PageDown);
    assert_eq!((user.view.row, user.view.offset), (page, 1));
    user.presses(KeyCode::PageDown);
    user.presses(KeyCode::PageUp);
    user.presses(KeyCode::Char('k'));
    assert_eq!(user.view.row, page - 1);
    user.presses(KeyCode::End);
    user.presses(KeyCode::Down);
    assert_eq!((user.view.row, user.view.offset), (49, 50 - page));
    user.resizes(80, 40);
    assert_eq!((user.view.row, user.view.offset), (49, 50 - user.view.page));
    user.resizes(80, 200);
    assert_eq!(user.view.offset, 0);
}

#[test]
fn sorting() {
    let mut user = User::before(many(5));
    assert!(user.look().contains("trouble first"));
    user.presses(KeyCode::Char('s'));
    assert_eq!(user.view.sort.by, SortBy::Path);
    assert!(user.look().contains("path▲"));
    user.presses(KeyCode::Char('S'));
    assert!(user.look().contains("path▼"));
    assert_eq!(name_at(&user), "10.0.0.4");
    user.presses(KeyCode::Char('s'));
    user.presses(KeyCode::Char('s'));
    assert_eq!(user.view.sort.by, SortBy::Number(Column::Rate));
    assert!(user.look().contains("/s▼"));
    // A column that usually does not fit is there when it is sorted by.
    user.presses(KeyCode::Char('S'));
    while user.view.sort.by != SortBy::Number(Column::Retransmitted) {
        user.presses(KeyCode::Char('s'));
        assert!(!user.view.sort.reversed);
    }
    assert!(user.look().contains("retr▼"));
}

#[test]
fn filtering() {
    let mut user = User::before(fixture::quiet());
    user.types("/LB 10.77");
    assert!(user.view.editing);
    assert_eq!(user.view.rows(&user.snapshot).len(), 6);
    user.presses(KeyCode::Enter);
    user.presses(KeyCode::Down);
    assert_eq!((user.view.editing, user.view.row), (false, 1));
    user.types("/");
    user.presses(KeyCode::Backspace);
    assert_eq!(user.view.filter, "LB 10.7");
    user.presses(KeyCode::Esc);
    assert_eq!((user.view.filter.as_str(), user.view.editing), ("", false));
    user.types("/server");
    user.presses(KeyCode::Enter);
    assert_eq!(user.view.rows(&user.snapshot).len(), 3);
    user.presses(KeyCode::Esc);
    assert_eq!(user.view.filter, "");
    user.types("/x");
    user.presses(KeyCode::Backspace);
    user.presses(KeyCode::Backspace);
    assert!(!user.view.editing, "nothing left to take away");
}

#[test]
fn panels() {
    let mut user = User::before(fixture::a1());
    for panel in [Panel::Media, Panel::Conditions, Panel::Drops, Panel::Signals, Panel::Subjects] {
        user.presses(KeyCode::Tab);
        assert_eq!(user.view.panel, panel);
    }
    user.presses(KeyCode::BackTab);
    assert_eq!(user.view.panel, Panel::Signals);
    user.presses(KeyCode::End);
    assert!(user.view.scroll > 0);
    user.presses(KeyCode::Home);
    assert_eq!(user.view.scroll, 0);
    user.presses(KeyCode::Esc);
    assert_eq!(user.view.panel, Panel::Subjects);
    user.presses(KeyCode::Char('c'));
    assert_eq!(user.view.preset, Preset::Times);
    user.presses(KeyCode::Char('p'));
    assert!(user.view.paused && user.look().contains("PAUSED"));
}

#[test]
fn the_detail_means_a_subject() {
    let mut user = User::before(fixture::a1());
    user.presses(KeyCode::Enter);
    assert!(user.look().contains("us-east-lb 10.77.1.3 → rooms-api"));
    user.presses(KeyCode::Down);
    assert!(user.look().contains("us-east-lb 10.77.1.5 → rooms-api"));
    let mut status = fixture::a1();
    status.subjects.remove(4);
    user.sees(status);
    let picture = user.look();
    assert!(
        picture.contains("us-east-lb 10.77.1.5 → rooms-api") && picture.contains("no traffic there any more")
    );
    user.presses(KeyCode::Char('?'));
    assert!(user.look().contains("how to read it"));
    user.presses(KeyCode::Esc);
    user.presses(KeyCode::Esc);
    assert!(user.view.on_table());
}

#[test]
fn nothing_to_look_into() {
    let mut user = User::before(fixture::empty());
    for code in [KeyCode::Enter, KeyCode::Down, KeyCode::PageUp, KeyCode::End, KeyCode::Home] {
        user.presses(code);
    }
    assert!(user.view.on_table());
}
