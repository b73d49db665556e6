//! Request and response on one connection, told apart by direction alone: no payload is read.
//!
//! A *turn* begins when the asking side sends and nothing is outstanding, and ends with the first byte that comes
//! back. What the asking side sends while it waits belongs to the same turn (a request written in pieces), with one
//! exception that TCP itself proves: data that arrives can only answer what its sender had received, so a later
//! send that the peer has not acknowledged by then is a request of its own and goes on waiting. This is what makes
//! pipelined requests and uploads with an early answer come out right without parsing anything.

use bytemuck::{Pod, Zeroable};

/// State of the turns of one connection, inside its kernel record.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Exchange {
    /// When the outstanding request began (monotonic nanoseconds); 0 while nothing is outstanding.
    pub asked_ns: u64,
    /// When the last piece of it was sent; client only.
    pub last_ns: u64,
    /// First sequence number of the outstanding request (client); of what follows it (server).
    pub asked_seq: u32,
    /// First sequence number of its last piece; client only.
    pub last_seq: u32,
    /// Low half of `tcp_sock.bytes_received` when data last arrived.
    pub received: u32,
    /// `snd_una` when data last arrived; 0 before.
    pub acked: u32,
}

/// Whether sequence number `a` is after `b` (RFC 9293 §3.4, modulo 2³²).
#[inline(always)]
fn after(a: u32, b: u32) -> bool {
    (a.wrapping_sub(b) as i32) > 0
}

impl Exchange {
    /// Whether what arrives is data, and no FIN; `received` is the low half of `bytes_received`.
    #[inline(always)]
    pub const fn is_data(&self, received: u32) -> bool {
        received != self.received
    }

    /// The client hands data to TCP, before it is sent; `seq` is the sequence number of its first byte.
    #[inline(always)]
    pub fn client_sends(&mut self, now: u64, seq: u32) {
        if self.asked_ns == 0 {
            self.asked_ns = now;
            self.asked_seq = seq;
        }
        self.last_ns = now;
        self.last_seq = seq;
    }

    /// The same where the kernel tells only after the send returned. Returns whether an answer has overtaken the
    /// news: data arrived during the call whose sender had this request. How long that took is then not known.
    #[inline(always)]
    pub fn client_sent(&mut self, now: u64, seq: u32) -> bool {
        // No data yet, no answer; `acked` then is no sequence number, and as one it would be after half of them.
        let overtaken = self.asked_ns == 0 && self.acked != 0 && after(self.acked, seq);
        if !overtaken {
            self.client_sends(now, seq);
        }
        overtaken
    }

    /// In-order data arrived at the client. `acked` is `snd_una`, `received` the low half of `bytes_received`.
    /// Returns how long the answered request waited, in nanoseconds.
    #[inline(always)]
    pub fn client_received(&mut self, now: u64, acked: u32, received: u32) -> Option<u64> {
        if !self.is_data(received) {
            return None;
        }
        self.received = received;
        self.acked = acked;
        if self.asked_ns == 0 || !after(acked, self.asked_seq) {
            return None; // nothing asked, or sent before the peer had the request
        }
        let waited = now.saturating_sub(self.asked_ns);
        if after(acked, self.last_seq) {
            self.asked_ns = 0;
        } else {
            self.asked_ns = self.last_ns;
            self.asked_seq = self.last_seq;
        }
        Some(waited)
    }

    /// In-order data arrived at the server: a request, or more of one. `seq` is the sequence number of the next byte that
    /// the server hands to TCP. Returns how long the request before waited, in nanoseconds, where the kernel has not told of
    /// its answer yet ([`Self::server_sent`]): the peer has it, and asks again.
    #[inline(always)]
    pub fn server_received(&mut self, now: u64, received: u32, seq: u32) -> Option<u64> {
        if !self.is_data(received) {
            return None;
        }
        self.received = received;
        let asked = self.asked_ns;
        if asked != 0 && seq == self.asked_seq {
            return None;
        }
        self.asked_ns = now;
        self.asked_seq = seq;
        if asked == 0 { None } else { Some(now.saturating_sub(asked)) }
    }

    /// The server has handed data to TCP; `seq` is the sequence number of the next byte. As [`Self::server_sends`] where the
    /// kernel tells only after the send returned: the next request may have arrived by then, and waits for another answer.
    #[inline(always)]
    pub fn server_sent(&mut self, now: u64, seq: u32) -> Option<u64> {
        if seq == self.asked_seq { None } else { self.server_sends(now) }
    }

    /// The server hands data to TCP. Returns how long the request waited for it, in nanoseconds.
    #[inline(always)]
    pub fn server_sends(&mut self, now: u64) -> Option<u64> {
        if self.asked_ns == 0 {
            return None;
        }
        let waited = now.saturating_sub(self.asked_ns);
        self.asked_ns = 0;
        Some(waited)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_request_in_two_writes_is_one_turn() {
        let mut x = Exchange::default();
        x.client_sends(100, 1);
        x.client_sends(110, 51);
        assert_eq!(x.client_received(300, 101, 10), Some(200));
        assert_eq!(x.asked_ns, 0);
    }

    #[test]
    fn keep_alive_counts_every_turn() {
        let mut x = Exchange::default();
        for i in 0..5u32 {
            x.client_sends(u64::from(1000 * i + 1), 1 + 10 * i);
            assert_eq!(x.client_received(u64::from(1000 * i + 201), 11 + 10 * i, 7 * (i + 1)), Some(200));
            // the rest of the same answer
            assert_eq!(x.client_received(u64::from(1000 * i + 300), 11 + 10 * i, 7 * (i + 1) + 3), None);
        }
    }

    #[test]
    fn a_pipelined_request_the_peer_has_not_seen_goes_on_waiting() {
        let mut x = Exchange::default();
        x.client_sends(100, 1);
        x.client_sends(150, 11);
        // The first answer was sent when only the first request had arrived.
        assert_eq!(x.client_received(200, 11, 5), Some(100));
        assert_eq!(x.client_received(250, 21, 10), Some(100));
        assert_eq!(x.asked_ns, 0);
    }

    #[test]
    fn data_that_crossed_the_request_does_not_answer_it() {
        let mut x = Exchange::default();
        x.client_sends(100, 1);
        assert_eq!(x.client_received(101, 1, 5), None, "pushed by the server before it had the request");
        assert_eq!(x.client_received(180, 11, 9), Some(80));
    }

    proptest! {
        #[test]
        fn a_first_request_waits_wherever_sequence_numbers_begin(seq: u32) {
            let mut x = Exchange::default();
            prop_assert!(!x.client_sent(100, seq), "nothing has arrived that could answer it");
            prop_assert_eq!(x.asked_ns, 100);
        }
    }

    #[test]
    fn an_answer_that_overtakes_the_send_call_leaves_nothing_waiting() {
        let mut x = Exchange::default();
        assert_eq!(x.client_received(100, 11, 5), None);
        assert!(x.client_sent(101, 1));
        assert_eq!(x.asked_ns, 0);
        assert!(!x.client_sent(200, 11));
        assert_eq!(x.asked_ns, 200);
    }

    #[test]
    fn a_fin_is_no_answer() {
        let mut x = Exchange::default();
        x.client_sends(100, 1);
        assert_eq!(x.client_received(200, 11, 0), None);
        assert_eq!(x.asked_ns, 100);
    }

    #[test]
    fn server_turns() {
        let mut x = Exchange::default();
        assert_eq!(x.server_sends(50), None, "a banner answers nothing");
        assert_eq!(x.server_received(100, 10, 7), None);
        assert_eq!(x.server_received(120, 20, 7), None);
        assert_eq!(x.server_sends(150), Some(50));
        assert_eq!(x.server_sends(160), None);
    }

    #[test]
    fn a_server_may_hear_of_its_answer_after_the_next_request() {
        let mut x = Exchange::default();
        assert_eq!(x.server_received(100, 10, 7), None);
        assert_eq!(x.server_received(150, 20, 9), Some(50), "the answer has gone out, the peer asks again");
        assert_eq!(x.server_sent(160, 9), None, "the news of that answer");
        assert_eq!(x.server_sent(190, 11), Some(40));
        assert_eq!(x.server_received(200, 30, 11), None);
        assert_eq!(x.server_sent(230, 13), Some(30));
    }

    proptest! {
        /// Whatever the order of events: no wait is longer than the connection, nothing waits that was not asked.
        #[test]
        fn waits_are_bounded(events in proptest::collection::vec((0u8..2, 1u32..2000, 1u64..1000), 1..200)) {
            let (mut x, mut now, mut seq, mut acked, mut received) = (Exchange::default(), 1u64, 0u32, 0u32, 0u32);
            for (kind, bytes, step) in events {
                now += step;
                if kind == 0 {
                    x.client_sends(now, seq);
                    seq = seq.wrapping_add(bytes);
                } else {
                    acked = acked.wrapping_add(bytes.min(seq.wrapping_sub(acked)));
                    received = received.wrapping_add(bytes);
                    if let Some(waited) = x.client_received(now, acked, received) {
                        prop_assert!(waited < now);
                    }
                    if acked == seq {
                        prop_assert_eq!(x.asked_ns, 0, "everything acknowledged, data back: nothing waits");
                    }
                }
                prop_assert!(x.asked_ns <= now);
            }
        }
    }
}
