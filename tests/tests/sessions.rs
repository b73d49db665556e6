//! ICE sessions in the flow programs: shown the messages of a call one by one (`BPF_PROG_TEST_RUN`).
#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests are tests

use std::net::SocketAddr;

use graylag::kernel::trial::{FlowProgram, Trial};
use graylag_ebpf::{
    counter::Direction::{Receive, Transmit},
    media::MediaCounter,
    session::{Milestone, Session},
};
use graylag_tests::{
    frames::{self, channel, check, datagram, encrypted, handshake},
    trial::{show, socket, trial},
};

/// A candidate pair; this host is the second.
struct Pair(SocketAddr, SocketAddr);

impl Pair {
    fn new(port: u16) -> Self {
        Self(socket([203, 0, 113, 7], port), socket([198, 51, 100, 1], 5006))
    }

    fn comes(&self, trial: &Trial, payload: &[u8]) {
        assert!(show(trial, FlowProgram::Ingress, &datagram(self.0, self.1, payload), 0));
    }

    fn goes(&self, trial: &Trial, payload: &[u8]) {
        assert!(show(trial, FlowProgram::Egress, &datagram(self.1, self.0, payload), 0));
    }

    /// The other side asks for a session and is answered.
    fn is_checked(&self, trial: &Trial) {
        self.comes(trial, &check("here:there", false));
        self.goes(trial, &check("here:there", true));
    }
}

fn only(trial: &Trial) -> (u64, Session) {
    let sessions = trial.sessions().unwrap();
    assert_eq!(sessions.len(), 1, "{sessions:?}");
    sessions[0]
}

fn seen(session: &Session) -> Vec<(Milestone, bool, bool)> {
    use Milestone::{Answer, Check, ClientHello, Finished, Rtcp, Rtp, ServerHello};
    [Check, Answer, ClientHello, ServerHello, Finished, Rtp, Rtcp]
        .into_iter()
        .map(|m| (m, session.first(m, Receive).is_some(), session.first(m, Transmit).is_some()))
        .filter(|(_, receive, transmit)| *receive || *transmit)
        .collect()
}

#[test]
fn a_session_comes_as_far_as_any_of_its_candidate_pairs() {
    let trial = trial();
    let (one, other) = (Pair::new(4001), Pair::new(4002));
    one.comes(&trial, &check("here:there", false));
    assert_eq!(seen(&only(&trial).1), [(Milestone::Check, true, false)]);
    // Through a TURN channel, and asked from the other end.
    other.goes(&trial, &channel(0x4001, &check("there:here", false)));
    other.comes(&trial, &channel(0x4001, &check("there:here", true)));
    other.comes(&trial, &channel(0x4001, &handshake(1)));
    other.goes(&trial, &channel(0x4001, &handshake(2)));
    other.comes(&trial, &channel(0x4001, &encrypted(22)));
    other.goes(&trial, &channel(0x4001, &encrypted(22)));
    other.comes(&trial, &channel(0x4001, &frames::rtp(1, 7, 0, None)));
    let through = [
        (Milestone::Check, true, true),
        (Milestone::Answer, true, false),
        (Milestone::ClientHello, true, false),
        (Milestone::ServerHello, false, true),
        (Milestone::Finished, true, true),
        (Milestone::Rtp, true, false),
    ];
    assert_eq!(seen(&only(&trial).1), through);
    assert_eq!(trial.counters().unwrap()[MediaCounter::SessionFull as usize], 0);
}

/// Media that was there before the agent's first look at a check.
#[test]
fn a_check_that_comes_after_media_finds_it() {
    let (trial, pair) = (trial(), Pair::new(4001));
    pair.comes(&trial, &frames::rtp(1, 7, 0, None));
    pair.goes(&trial, &frames::rtp(1, 8, 0, None));
    assert_eq!(trial.sessions().unwrap(), []);
    pair.is_checked(&trial);
    let (_, session) = only(&trial);
    assert!(
        session.first(Milestone::Rtp, Receive).is_some() && session.first(Milestone::Rtp, Transmit).is_some()
    );
}

/// What is over is forgotten after a while; what its flows do afterwards, such as saying good-bye, is no new session.
#[test]
fn a_session_that_is_forgotten_does_not_begin_again_with_its_end() {
    let (mut trial, pair) = (trial(), Pair::new(4001));
    pair.is_checked(&trial);
    pair.comes(&trial, &frames::rtp(1, 7, 0, None));
    trial.forget_session(only(&trial).0).unwrap();
    pair.comes(&trial, &encrypted(21));
    pair.goes(&trial, &frames::rtp(1, 8, 0, None));
    pair.comes(&trial, &check("here:there", false));
    assert_eq!(trial.sessions().unwrap(), []);
    // A candidate pair that was never seen before is another matter.
    Pair::new(4002).is_checked(&trial);
    assert_eq!(trial.sessions().unwrap().len(), 1);
}

#[test]
fn what_is_no_user_name_of_ice_is_no_session() {
    let (trial, pair) = (trial(), Pair::new(4001));
    for name in ["", "user@example.org", "nobody"] {
        pair.comes(&trial, &check(name, false));
    }
    pair.comes(&trial, &frames::stun());
    assert_eq!(trial.sessions().unwrap(), []);
}
