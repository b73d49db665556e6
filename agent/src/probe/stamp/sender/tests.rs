use super::*;
use crate::probe::stamp::heard::blank;
use proptest::prelude::*;

const START: Duration = Duration::from_secs(1000);
const INTERVAL: Duration = Duration::from_millis(100);

fn wall(now: Duration, offset: i64) -> Timestamp {
    Timestamp::ntp(Duration::from_nanos((1_700_000_000_000_000_000 + offset + now.as_nanos() as i64) as u64))
}

fn session() -> Session {
    let schedule = Schedule { interval: INTERVAL, patience: Duration::from_secs(1), count: None };
    Session::new(7, schedule, 42, START)
}

/// A path of 20 ms there and 30 ms back, plus `more` on the way there; the reflector holds packets for 1 ms, and its
/// clock is an hour off.
fn answer(request: Request, number: u32, sent: Duration, more: Duration) -> (Reply, Duration) {
    const HOUR: i64 = 3_600_000_000_000;
    let came = sent + Duration::from_millis(20) + more;
    let left = came + Duration::from_millis(1);
    let reply = Reply {
        sequence: number,
        timestamp: wall(left, HOUR),
        error: ErrorEstimate::UNKNOWN.bits(),
        ssid: request.ssid,
        receive_timestamp: wall(came, HOUR),
        sender: request,
        sender_ttl: 64,
    };
    (reply, left + Duration::from_millis(30))
}

fn look(session: &Session, now: Duration) -> StampPath {
    let mut path = blank("peer".into(), "192.0.2.1:862".parse().unwrap(), INTERVAL);
    session.look(now, &mut path);
    path
}

#[test]
fn delays_need_no_common_clock() {
    let mut session = session();
    let mut now = START;
    for number in 0..100_u32 {
        now = session.due().unwrap();
        let request = session.send(now, wall(now, 0));
        let more = Duration::from_millis(if number % 2 == 0 { 0 } else { 4 });
        let (reply, arrival) = answer(request, number, now, more);
        assert_eq!(session.reply(&reply, wall(arrival, 0), arrival), Answer::First);
        now = arrival;
    }
    let path = look(&session, now);
    assert_eq!((path.sent, path.answered, path.outstanding), (100, 100, 0));
    let delays = session.delays();
    assert_eq!(delays.round_trip.least, Some(Duration::from_millis(50)));
    assert_eq!(delays.round_trip.most, Some(Duration::from_millis(54)));
    let close = |delay: Option<Duration>, ms: u64| {
        delay.unwrap().abs_diff(Duration::from_millis(ms)) < Duration::from_micros(1)
    };
    assert!(close(delays.variation_transmit.least, 4) && close(delays.variation_transmit.most, 4));
    assert!(close(delays.variation_receive.most, 0));
    assert_eq!(path.last_receive, Some(Duration::ZERO));
    assert_eq!(path.last_delivery, Some(Duration::from_millis(55)));
}

#[test]
fn silence_is_counted_at_once_and_settled_later() {
    let mut session = session();
    let mut now = START;
    for number in 0..20_u32 {
        now = session.due().unwrap();
        let request = session.send(now, wall(now, 0));
        if number < 10 {
            let (reply, arrival) = answer(request, number, now, Duration::ZERO);
            session.reply(&reply, wall(arrival, 0), arrival);
        }
    }
    let path = look(&session, now + Duration::from_millis(90));
    assert_eq!((path.unanswered, path.answered, path.outstanding), (10, 10, 10));
    session.advance(now + Duration::from_secs(2));
    let path = look(&session, now + Duration::from_secs(2));
    assert_eq!((path.unanswered, path.outstanding, path.transmit.lost), (10, 10, 0), "nobody can say where");
}

#[test]
fn a_loss_is_told_when_a_later_packet_has_been_answered_for_a_moment() {
    let mut session = session();
    session.is_stateful();
    let (mut number, mut lost_at) = (0, START);
    for i in 0..40_u32 {
        let now = session.due().unwrap();
        session.advance(now);
        let request = session.send(now, wall(now, 0));
        if i == 30 {
            lost_at = now;
            continue;
        }
        let (reply, arrival) = answer(request, number, now, Duration::ZERO);
        session.reply(&reply, wall(arrival, 0), arrival);
        number += 1;
        let lost = look(&session, arrival).transmit.lost;
        // Its answer would take 51 ms, and another packet follows in 90 to 110.
        let ago = now.saturating_sub(lost_at);
        assert!(lost == 0 || ago >= Duration::from_millis(100), "packet {i}");
        assert!(lost == 1 || lost_at == START || ago < Duration::from_millis(350), "packet {i}");
    }
    // What is late now is told as that, and takes nothing back; a copy of what was answered is one.
    let (late, at) = answer(
        Request { sequence: 30, timestamp: wall(lost_at, 0), error: ErrorEstimate::UNKNOWN.bits(), ssid: 7 },
        number,
        lost_at,
        Duration::ZERO,
    );
    assert_eq!(session.reply(&late, wall(at, 0), session.due().unwrap()), Answer::Late);
    let path = look(&session, session.due().unwrap());
    assert_eq!((path.late, path.transmit.lost), (1, 1));
}

#[test]
fn what_does_not_validate_is_neither_lost_nor_answered() {
    let mut session = session();
    let mut now = START;
    for number in 0..10_u32 {
        now = session.due().unwrap();
        let request = session.send(now, wall(now, 0));
        // In the other mode the number is anywhere.
        session.mismatch(if number < 5 { request.sequence } else { 0 });
    }
    session.advance(now + Duration::from_secs(1));
    let path = look(&session, now + Duration::from_secs(1));
    assert_eq!((path.mismatched, path.answered, path.outstanding), (10, 0, 0));
    assert_eq!((path.transmit.lost, path.receive.lost, path.unattributed), (0, 0, 0));
    assert!(path.last_receive.is_none() && path.last_delivery.is_none());
}

#[test]
fn a_refusal_is_no_loss_and_no_answer() {
    let mut session = session();
    let mut now = START;
    for number in 0..6_u32 {
        now = session.due().unwrap();
        let request = session.send(now, wall(now, 0));
        match number {
            0 => {
                session.reply(&answer(request, 0, now, Duration::ZERO).0, wall(now, 0), now);
            }
            // Quoted; quoted too short; of another life.
            1 => session.refused(Some(request)),
            2 => session.refused(None),
            3 => session.refused(Some(Request { timestamp: Timestamp(1), ..request })),
            _ => {}
        }
    }
    now += Duration::from_secs(1);
    session.advance(now);
    let path = look(&session, now);
    assert_eq!((path.refused, path.outstanding, path.answered, path.sent), (2, 3, 1, 6));
    assert_eq!((path.transmit.lost, path.receive.lost, path.unattributed), (0, 0, 0));
}

#[test]
fn a_reply_to_another_life_is_nothing() {
    let mut session = session();
    let request = session.send(START, wall(START, 0));
    let (mut reply, arrival) = answer(request, 0, START, Duration::ZERO);
    reply.sender.timestamp = Timestamp(1);
    assert_eq!(session.reply(&reply, wall(arrival, 0), arrival), Answer::Stray);
    reply.sender = Request { sequence: 1, ..request };
    assert_eq!(session.reply(&reply, wall(arrival, 0), arrival), Answer::Stray, "not sent yet");
    let (reply, _) = answer(request, 0, START, Duration::ZERO);
    session.advance(START + Duration::from_secs(1));
    assert_eq!(session.reply(&reply, wall(arrival, 0), arrival), Answer::Late);
    assert!(look(&session, arrival).last_receive.is_none());
}

#[test]
fn what_the_host_refuses_was_never_sent() {
    let mut session = session();
    let first = session.send(START, wall(START, 0));
    session.withdraw();
    let again = session.send(START + INTERVAL, wall(START, 1));
    assert_eq!((first.sequence, again.sequence), (0, 0));
    let path = look(&session, START);
    assert_eq!((path.sent, path.unsent, path.outstanding), (1, 1, 1));
}

proptest! {
    /// Whatever is lost, copied or late, every packet has one fate, and the directions are told apart.
    #[test]
    fn every_packet_has_one_fate(fates in proptest::collection::vec((0u8..10, 0u64..40), 1..200)) {
        let mut session = session();
        let (mut number, mut lost_there, mut lost_back) = (0_u32, 0, 0);
        session.is_stateful();
        let mut arrivals: Vec<(Duration, Reply)> = Vec::new();
        let all = std::iter::once((9, 0)).chain(fates).chain([(9, 0); 2]);
        for (fate, more) in all {
            let now = session.due().unwrap();
            arrivals.sort_by_key(|(at, _)| *at);
            while arrivals.first().is_some_and(|(at, _)| *at <= now) {
                let (at, reply) = arrivals.remove(0);
                session.reply(&reply, wall(at, 0), at);
            }
            let request = session.send(now, wall(now, 0));
            if fate == 0 {
                lost_there += 1;
                continue;
            }
            let (reply, at) = answer(request, number, now, Duration::from_millis(more));
            number += 1;
            match fate {
                1 => lost_back += 1,
                2 => arrivals.extend([(at, reply), (at + Duration::from_millis(300), reply)]),
                _ => arrivals.push((at, reply)),
            }
        }
        for (at, reply) in arrivals {
            session.reply(&reply, wall(at, 0), at);
        }
        let end = session.due().unwrap() + Duration::from_secs(5);
        session.advance(end);
        let path = look(&session, end);
        prop_assert_eq!((path.transmit.lost, path.receive.lost), (lost_there, lost_back));
        let sum = path.answered + path.transmit.lost + path.receive.lost + path.unattributed
            + path.mismatched + path.refused + path.outstanding;
        prop_assert_eq!((sum, path.resets), (path.sent, 0));
    }
}

#[test]
fn where_one_is_missing_some_follow_closely_and_not_again_soon() {
    let mut session = session();
    let (mut sent, mut number) = (Vec::new(), 0);
    for i in 0..400_u32 {
        let now = session.due().unwrap();
        session.advance(now);
        let request = session.send(now, wall(now, 0));
        sent.push(now);
        if i % 10 == 9 {
            continue;
        }
        let (reply, arrival) = answer(request, number, now, Duration::ZERO);
        session.reply(&reply, wall(arrival, 0), arrival);
        number += 1;
        if session.asks_for_more(arrival) {
            assert!(session.send_more(arrival) <= arrival + INTERVAL / CLOSE_BY);
            assert!(!session.asks_for_more(arrival));
        }
    }
    let close = sent.windows(2).filter(|pair| pair[1].saturating_sub(pair[0]) < INTERVAL / 2).count() as u32;
    // An outage is none of chance.
    for _ in 0..20 {
        let now = session.due().unwrap() + Duration::from_secs(1);
        session.send(now, wall(now, 0));
    }
    let now = session.due().unwrap();
    let request = session.send(now, wall(now, 0));
    let (reply, arrival) = answer(request, number, now, Duration::ZERO);
    assert_eq!(session.reply(&reply, wall(arrival, 0), arrival), Answer::First);
    assert!(!session.asks_for_more(arrival));
    // Four rows in what is left of forty seconds; the first of a row may be close by chance.
    assert!((3 * CLOSE..=5 * CLOSE).contains(&close), "{close}");
}
