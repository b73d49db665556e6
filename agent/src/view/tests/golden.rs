//! Pictures, reviewed by eye.

use insta::assert_snapshot;
use ratatui::crossterm::event::KeyCode;

use super::{User, fixture};
use crate::{
    model::status::Status,
    view::{picture, print_once, render_once, state::Silence},
};

#[test]
fn quiet() {
    assert_snapshot!(render_once(&fixture::quiet(), 80, 24));
}

#[test]
fn empty() {
    assert_snapshot!(render_once(&fixture::empty(), 80, 24));
}

#[test]
fn a1_at_80() {
    assert_snapshot!(render_once(&fixture::a1(), 80, 24));
}

#[test]
fn a1_at_140() {
    assert_snapshot!(render_once(&fixture::a1(), 140, 40));
}

#[test]
fn a1_at_40() {
    assert_snapshot!(render_once(&fixture::a1(), 40, 10));
}

#[test]
fn all_kinds_of_conditions() {
    let mut status = fixture::a1();
    status.conditions.extend(fixture::others());
    assert_snapshot!(render_once(&status, 80, 24));
}

#[test]
fn more_conditions_than_lines() {
    let mut status = fixture::a1();
    status.conditions.extend((7..=20).map(|i| fixture::stall(&format!("10.77.1.{i}"), (9, 90), 3.0)));
    assert_snapshot!(render_once(&status, 80, 24));
}

#[test]
fn media_panel() {
    let mut user = User::before(fixture::media());
    user.presses(KeyCode::Tab);
    assert_snapshot!(user.look());
    user.presses(KeyCode::End);
    assert_snapshot!("media_panel_end", user.look());
}

#[test]
fn a_host_that_carries_nothing_but_media_has_traffic() {
    let media = fixture::media().media;
    let status = Status { media, ..fixture::empty() };
    assert!(render_once(&status, 80, 24).contains("ALL CLEAR"));
    assert!(render_once(&fixture::empty(), 80, 24).contains("NO TRAFFIC"));
}

#[test]
fn conditions_panel() {
    let mut status = fixture::a1();
    status.conditions.extend(fixture::others());
    let mut user = User::before(status);
    user.presses(KeyCode::Tab);
    user.presses(KeyCode::Tab);
    assert_snapshot!(user.look());
}

#[test]
fn drops_panel() {
    let mut user = User::before(fixture::a1());
    user.presses(KeyCode::Tab);
    user.presses(KeyCode::Tab);
    user.presses(KeyCode::Tab);
    assert_snapshot!(user.look());
}

#[test]
fn signals_panel() {
    let mut status = fixture::a1();
    status.maps[1].evicted = 12;
    status.agent.export_error = Some("connection refused".into());
    let mut user = User::before(status);
    user.presses(KeyCode::BackTab);
    assert_snapshot!(user.look());
}

#[test]
fn detail() {
    let mut user = User::before(fixture::a1());
    user.presses(KeyCode::Enter);
    assert_snapshot!(user.look());
}

#[test]
fn help() {
    let mut user = User::before(fixture::quiet());
    user.presses(KeyCode::Char('?'));
    assert_snapshot!(user.look());
}

#[test]
fn times() {
    let mut user = User::before(fixture::a1());
    user.presses(KeyCode::Char('c'));
    assert_snapshot!(user.look());
}

#[test]
fn filtered() {
    let mut user = User::before(fixture::a1());
    user.types("/1.3");
    assert_snapshot!(user.look());
}

#[test]
fn filtered_away() {
    let mut user = User::before(fixture::quiet());
    user.types("/sip");
    user.presses(KeyCode::Enter);
    assert_snapshot!(user.look());
}

#[test]
fn disconnected() {
    let mut user = User::before(fixture::a1());
    let error = "connection refused (/run/graylag/agent.sock); is `graylag run` running?".to_owned();
    user.view.silence = Some(Silence { error, seconds: Some(12.4) });
    assert_snapshot!(user.look());
}

#[test]
fn never_connected() {
    let mut user = User::before(fixture::empty());
    let error = "no such file (/run/graylag/agent.sock); is `graylag run` running?".to_owned();
    user.view.silence = Some(Silence { error, seconds: None });
    assert_snapshot!(picture(None, user.view, 80, 6));
}

#[test]
fn printed() {
    let mut status = fixture::a1();
    status.conditions.extend(fixture::others());
    status.conditions.extend((7..=12).map(|i| fixture::stall(&format!("10.77.1.{i}"), (9, 90), 3.0)));
    assert_snapshot!(print_once(&status, 100));
}

#[test]
fn recovering() {
    let mut status = fixture::a1();
    for condition in &mut status.conditions {
        condition.phase = "recovering".into();
        condition.valid_until = fixture::NOW;
    }
    assert_snapshot!(render_once(&status, 100, 24));
}
