//! How far a session has come towards media, and when that takes too long.

use std::time::Duration;

use graylag_ebpf::{
    flow::{MOMENT_NS, Moment, age_ns, moment},
    session::{Milestone, Session},
};

use crate::model::{Blame, Direction, MediaOutcome, MediaStage};

/// A check has an answer by this, or no candidate pair works: ICE itself gives up later.
const ANSWERED: Duration = Duration::from_secs(10);
/// DTLS begins this soon after the first answer.
const BEGUN: Duration = Duration::from_secs(1);
/// It is finished this soon after it began: the client repeats its hello after a second.
const FINISHED: Duration = Duration::from_secs(2);
/// Media, or a report about it, comes back this soon after media went one way: the first report of a stream of voice may take 3.75 s (RFC 3550 §6.2).
const RETURNED: Duration = Duration::from_secs(6);
/// Where nobody has sent anything by now, nobody wants to: muted, or alone.
const IDLE: Duration = Duration::from_secs(10);

/// Where a session stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It is on its way through this stage.
    Pending(MediaStage),
    /// It is decided.
    Decided {
        /// What became of it.
        outcome: MediaOutcome,
        /// At which stage it stopped; the last one where it did not.
        stage: MediaStage,
        /// Who stopped, where it did.
        blame: Blame,
    },
}

/// How a session stands at `now_ns`, with `late` more for every deadline.
pub fn standing(session: &Session, now_ns: u64, late: Duration) -> Standing {
    use Milestone::{Answer, Check, ClientHello, Finished, Rtcp, Rtp, ServerHello};
    let now = moment(now_ns);
    let first = |milestone| both(session, milestone).into_iter().flatten().min();
    let over = |since: Moment, limit: Duration| {
        age_ns(now, since).is_some_and(|age| Duration::from_nanos(age) >= limit + late)
    };
    let seen = |milestone, direction| session.first(milestone, direction).is_some();
    let decided = |outcome, stage, blame| Standing::Decided { outcome, stage, blame };
    let failed = |stage, blame| decided(MediaOutcome::Failed, stage, blame);

    if let Some(since) = first(Rtp) {
        let flows = |direction| seen(Rtp, direction) || seen(Rtcp, direction);
        return match (flows(Direction::Receive), flows(Direction::Transmit)) {
            (true, true) => decided(MediaOutcome::Active, MediaStage::Rtp, Blame::Unknown),
            _ if !over(since, RETURNED) => Standing::Pending(MediaStage::Rtp),
            (true, false) => decided(MediaOutcome::OneWay, MediaStage::Rtp, Blame::LocalProcess),
            (false, _) => decided(MediaOutcome::OneWay, MediaStage::Rtp, Blame::PathReceive),
        };
    }
    if let [Some(one), Some(other)] = both(session, Finished) {
        return if over(one.max(other), IDLE) {
            decided(MediaOutcome::Idle, MediaStage::Rtp, Blame::Unknown)
        } else {
            Standing::Pending(MediaStage::Rtp)
        };
    }
    if let Some(since) = first(ClientHello) {
        if !over(since, FINISHED) {
            return Standing::Pending(MediaStage::Dtls);
        }
        // The server's flight is the one that is large, and the one that goes astray.
        let blame = if seen(ClientHello, Direction::Receive) {
            match (seen(ServerHello, Direction::Transmit), seen(Finished, Direction::Receive)) {
                (false, _) | (true, true) => Blame::LocalProcess,
                (true, false) => Blame::PathTransmit,
            }
        } else {
            match (seen(ServerHello, Direction::Receive), seen(Finished, Direction::Transmit)) {
                (true, false) => Blame::LocalProcess,
                _ => Blame::Unknown,
            }
        };
        return failed(MediaStage::Dtls, blame);
    }
    if let Some(since) = first(Answer) {
        return if over(since, BEGUN) {
            failed(MediaStage::Dtls, Blame::Unknown)
        } else {
            Standing::Pending(MediaStage::Dtls)
        };
    }
    match first(Check) {
        Some(since) if over(since, ANSWERED) => {
            let here = seen(Check, Direction::Receive);
            failed(MediaStage::Stun, if here { Blame::LocalProcess } else { Blame::Unknown })
        }
        _ => Standing::Pending(MediaStage::Stun),
    }
}

/// How long a session took for a stage, where it is through it.
pub fn took(session: &Session, stage: MediaStage) -> Option<Duration> {
    let first = |milestone| both(session, milestone).into_iter().flatten().min();
    let last = |milestone| match both(session, milestone) {
        [Some(one), Some(other)] => Some(one.max(other)),
        _ => None,
    };
    let (from, to) = match stage {
        MediaStage::Stun => (first(Milestone::Check)?, first(Milestone::Answer)?),
        MediaStage::Dtls => (first(Milestone::ClientHello)?, last(Milestone::Finished)?),
        MediaStage::Rtp => (last(Milestone::Finished)?, first(Milestone::Rtp)?),
    };
    Some(Duration::from_nanos(u64::from(to.saturating_sub(from)) * MOMENT_NS))
}

fn both(session: &Session, milestone: Milestone) -> [Option<Moment>; 2] {
    [session.first(milestone, Direction::Receive), session.first(milestone, Direction::Transmit)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use Direction::{Receive, Transmit};
    use Milestone::{Answer, Check, ClientHello, Finished, Rtcp, Rtp, ServerHello};

    fn session(milestones: &[(Milestone, Direction, u64)]) -> Session {
        let mut session = Session { began_ns: 1, ..Session::default() };
        for (milestone, direction, ms) in milestones {
            session.note(*milestone, *direction, moment(1_000_000_000 + ms * 1_000_000));
        }
        session
    }

    fn at(session: &Session, ms: u64) -> Standing {
        standing(session, 1_000_000_000 + ms * 1_000_000, Duration::ZERO)
    }

    const CHECKED: [(Milestone, Direction, u64); 2] = [(Check, Receive, 0), (Answer, Transmit, 20)];
    const SECURED: [(Milestone, Direction, u64); 4] = [
        (ClientHello, Receive, 60),
        (ServerHello, Transmit, 70),
        (Finished, Receive, 100),
        (Finished, Transmit, 110),
    ];

    fn failed(stage: MediaStage, blame: Blame) -> Standing {
        Standing::Decided { outcome: MediaOutcome::Failed, stage, blame }
    }

    #[test]
    fn a_session_that_comes_through_is_active_and_says_how_long_each_stage_took() {
        let mut all = [&CHECKED[..], &SECURED].concat();
        assert_eq!(at(&session(&CHECKED), 500), Standing::Pending(MediaStage::Dtls));
        assert_eq!(at(&session(&all), 500), Standing::Pending(MediaStage::Rtp));
        all.push((Rtp, Receive, 150));
        assert_eq!(at(&session(&all), 4000), Standing::Pending(MediaStage::Rtp));
        all.push((Rtcp, Transmit, 2150));
        let done = session(&all);
        assert!(matches!(at(&done, 4000), Standing::Decided { outcome: MediaOutcome::Active, .. }));
        let ms = |stage| took(&done, stage).unwrap().as_millis();
        assert!((18..=22).contains(&ms(MediaStage::Stun)), "{}", ms(MediaStage::Stun));
        assert!((47..=53).contains(&ms(MediaStage::Dtls)), "{}", ms(MediaStage::Dtls));
        assert!((37..=43).contains(&ms(MediaStage::Rtp)), "{}", ms(MediaStage::Rtp));
    }

    #[test]
    fn who_stops_is_named_by_what_was_seen() {
        let hello = session(&[&CHECKED[..], &SECURED[..1]].concat());
        assert_eq!(at(&hello, 1900), Standing::Pending(MediaStage::Dtls));
        assert_eq!(at(&hello, 2100), failed(MediaStage::Dtls, Blame::LocalProcess), "no answer to the hello");
        let flight = session(&[&CHECKED[..], &SECURED[..2]].concat());
        assert_eq!(
            at(&flight, 2100),
            failed(MediaStage::Dtls, Blame::PathTransmit),
            "the flight does not arrive"
        );
        let ours = session(&[&CHECKED[..], &[(ClientHello, Transmit, 60)]].concat());
        assert_eq!(at(&ours, 2100), failed(MediaStage::Dtls, Blame::Unknown));
        assert_eq!(at(&session(&CHECKED), 1100), failed(MediaStage::Dtls, Blame::Unknown), "nobody begins");
        assert_eq!(at(&session(&CHECKED[..1]), 9_000), Standing::Pending(MediaStage::Stun));
        assert_eq!(at(&session(&CHECKED[..1]), 11_000), failed(MediaStage::Stun, Blame::LocalProcess));
    }

    #[test]
    fn media_one_way_is_told_from_nobody_sending() {
        let secured = [&CHECKED[..], &SECURED].concat();
        let idle =
            Standing::Decided { outcome: MediaOutcome::Idle, stage: MediaStage::Rtp, blame: Blame::Unknown };
        assert_eq!(at(&session(&secured), 10_200), idle);
        let one_way = session(&[&secured[..], &[(Rtp, Receive, 150), (Rtcp, Receive, 900)]].concat());
        assert_eq!(at(&one_way, 6000), Standing::Pending(MediaStage::Rtp));
        let silent_here = Standing::Decided {
            outcome: MediaOutcome::OneWay,
            stage: MediaStage::Rtp,
            blame: Blame::LocalProcess,
        };
        assert_eq!(at(&one_way, 6300), silent_here);
        // Keys may have been agreed before the agent began, or by other means.
        let plain = session(&[&CHECKED[..], &[(Rtp, Receive, 150), (Rtp, Transmit, 160)]].concat());
        assert!(matches!(at(&plain, 200), Standing::Decided { outcome: MediaOutcome::Active, .. }));
    }

    #[test]
    fn a_host_that_was_late_waits_longer() {
        let hello = session(&[&CHECKED[..], &SECURED[..1]].concat());
        let now = 1_000_000_000 + 2_500_000_000;
        assert_eq!(standing(&hello, now, Duration::from_secs(1)), Standing::Pending(MediaStage::Dtls));
    }
}
