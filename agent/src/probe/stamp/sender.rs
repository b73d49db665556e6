//! One session of the Session-Sender, pure: when to send what, and what the replies come to. Times are arguments: monotonic
//! ones decide, those in packets are only subtracted from each other.

use std::{collections::VecDeque, time::Duration};

use super::{
    HOLD,
    delays::Measured,
    fate::{Fates, Mark},
    packet::{ErrorEstimate, Reply, Request, Timestamp},
};
use crate::model::{StampDelays, StampPath};

/// Packets that may be without an answer at once. At the limit the oldest is given up before its time.
const OUTSTANDING: usize = 1024;
/// Where one is missing, so many follow more closely, so that it is known the sooner whether that was chance …
pub const CLOSE: u32 = 20;
/// … at this part of the interval …
const CLOSE_BY: u32 = 5;
/// … but no more closely than this, and not soon again: what is lost for long needs no more of them.
const CLOSEST: Duration = Duration::from_millis(10);
const CLOSE_EVERY: Duration = Duration::from_secs(10);
/// More than these in a row are an outage, of which nobody asks whether it was chance.
const CHANCE: u64 = 5;
/// Bounds of the time in which an answer is expected; later it is overdue, and lost only after the session's patience.
const OVERDUE_LEAST: Duration = Duration::from_millis(10);

/// When a session sends, and how long it waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// Time between two packets, on average.
    pub interval: Duration,
    /// A packet without an answer for this long is lost.
    pub patience: Duration,
    /// Packets to send in all; without end where `None`.
    pub count: Option<u64>,
}

/// What a valid reply was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The first to its packet.
    First,
    /// A further one.
    Again,
    /// To a packet that was given up.
    Late,
    /// To nothing that this session sent.
    Stray,
}

#[derive(Clone, Debug)]
struct Outstanding {
    sent_at: Duration,
    timestamp: Timestamp,
    mark: Option<Mark>,
    mismatched: bool,
    refused: bool,
}

/// One-way delays of the last answered packet, of two clocks that need not agree: there and back, nanoseconds.
type OneWay = (i64, i64);

/// A session.
#[derive(Clone, Debug)]
pub struct Session {
    ssid: u16,
    schedule: Schedule,
    due: Duration,
    /// Packets that are still to follow closely, and when the first of them was due.
    close: u32,
    close_at: Option<Duration>,
    /// One before an answered one is missing.
    misses: bool,
    /// State of the jitter.
    random: u64,
    /// Number of the next packet, which is how many were sent.
    next: u64,
    /// Packets `next - outstanding.len()` to `next`.
    outstanding: VecDeque<Outstanding>,
    /// So many of these, from the oldest on, have had their fate; they are kept for copies and late answers.
    settled: usize,
    fates: Fates,
    late: u64,
    unsent: u64,
    delays: Measured,
    /// Smoothed round trip and its deviation (RFC 6298, 2).
    smoothed: Option<(Duration, Duration)>,
    one_way: Option<(u64, OneWay)>,
    /// When the newest valid reply came.
    replied_at: Option<Duration>,
    /// When the newest answered packet was sent, and its number.
    delivered: Option<(Duration, u64)>,
    /// When the newest packet was sent that something answered which does not validate.
    echoed: Option<Duration>,
}

impl Session {
    /// A session that begins within its first interval. `seed` is any number, another for each session.
    pub fn new(ssid: u16, schedule: Schedule, seed: u64, now: Duration) -> Self {
        let mut session = Self {
            ssid,
            schedule,
            due: now,
            close: 0,
            close_at: None,
            misses: false,
            random: seed ^ u64::from(ssid),
            next: 0,
            outstanding: VecDeque::new(),
            settled: 0,
            fates: Fates::default(),
            late: 0,
            unsent: 0,
            delays: Measured::default(),
            smoothed: None,
            one_way: None,
            replied_at: None,
            delivered: None,
            echoed: None,
        };
        if schedule.count.is_none() {
            let phase = session.fraction();
            session.due += schedule.interval.mul_f64(phase);
        }
        session
    }

    /// A number from 0 to 1 (Steele, Lea, Flood: `SplitMix64`). Spreads packets over time, keeps no secret.
    fn fraction(&mut self) -> f64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let x = (self.random ^ (self.random >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (x >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Its identifier.
    pub const fn ssid(&self) -> u16 {
        self.ssid
    }

    /// When the next packet is due; never where all were sent.
    pub fn due(&self) -> Option<Duration> {
        self.schedule.count.is_none_or(|count| self.next < count).then_some(self.due)
    }

    /// The next packet. The caller sends it, or calls [`Self::withdraw`] where the host refuses.
    pub fn send(&mut self, now: Duration, timestamp: Timestamp) -> Request {
        self.advance(now);
        if self.outstanding.len() >= OUTSTANDING {
            self.forget_oldest();
        }
        let jitter = 0.9 + 0.2 * self.fraction();
        let interval = if self.close > 0 { self.close_interval() } else { self.schedule.interval };
        self.close = self.close.saturating_sub(1);
        self.due += interval.mul_f64(jitter);
        if self.due <= now {
            // Fell behind: packets in a burst would measure the burst.
            self.due = now + interval;
        }
        let sequence = self.next as u32;
        self.next += 1;
        self.outstanding.push_back(Outstanding {
            sent_at: now,
            timestamp,
            mark: None,
            mismatched: false,
            refused: false,
        });
        Request { sequence, timestamp, error: ErrorEstimate::UNKNOWN.bits(), ssid: self.ssid }
    }

    fn close_interval(&self) -> Duration {
        (self.schedule.interval / CLOSE_BY).max(CLOSEST)
    }

    /// Whether packets should follow more closely from `now` on: one is missing, and that was not so lately.
    pub fn asks_for_more(&self, now: Duration) -> bool {
        self.misses && self.may_send_more(now)
    }

    /// Whether they may, for another reason.
    pub fn may_send_more(&self, now: Duration) -> bool {
        let lately = self.close_at.is_some_and(|at| now.saturating_sub(at) < CLOSE_EVERY);
        // A limited number of packets was asked for as it is.
        !lately && self.schedule.count.is_none() && self.close_interval() < self.schedule.interval
    }

    /// Lets them. Returns when the next one is due.
    pub fn send_more(&mut self, now: Duration) -> Duration {
        (self.close, self.close_at) = (CLOSE, Some(now));
        self.due = self.due.min(now + self.close_interval());
        self.due
    }

    /// The packet just made did not leave this host: it never was.
    pub fn withdraw(&mut self) {
        if self.outstanding.pop_back().is_some() {
            self.next -= 1;
            self.unsent += 1;
        }
    }

    /// The reflector is known to number by itself: it understood graylag's TLV.
    pub const fn is_stateful(&mut self) {
        self.fates.is_stateful();
    }

    /// Whether that is known, from whatever.
    pub const fn knows_stateful(&self) -> bool {
        self.fates.knows_stateful()
    }

    /// A reply that validates, which arrived at `now`, by the wall clock at `received`.
    pub fn reply(&mut self, reply: &Reply, received: Timestamp, now: Duration) -> Answer {
        let Some((ours, at)) = self.find(reply.sender.sequence) else {
            // Is it behind us, or was it never sent?
            let behind = (self.next as u32).wrapping_sub(reply.sender.sequence);
            let late = behind > 0 && u64::from(behind) <= self.next;
            self.late += u64::from(late);
            return if late { Answer::Late } else { Answer::Stray };
        };
        let Some(outstanding) = self.outstanding.get_mut(at) else { return Answer::Stray };
        if outstanding.timestamp != reply.sender.timestamp {
            // The number is ours, the packet is not: of a former life of this port, or made up.
            return Answer::Stray;
        }
        self.replied_at = Some(self.replied_at.map_or(now, |at| at.max(now)));
        if let Some(mark) = outstanding.mark {
            self.fates.answered_again(mark, reply.sequence);
            return Answer::Again;
        }
        if at < self.settled {
            self.late += 1;
            return Answer::Late;
        }
        let sent_at = outstanding.sent_at;
        let lives = self.fates.resets;
        outstanding.mark = Some(self.fates.answered(ours, reply.sequence, sent_at, now));
        // What only came in another order is missed for a moment as well, and costs a few packets.
        self.misses =
            self.delivered.is_some_and(|(_, newest)| (1..=CHANCE).contains(&ours.saturating_sub(newest + 1)));
        if self.delivered.is_none_or(|(_, newest)| ours > newest) {
            self.delivered = Some((sent_at, ours));
        }
        if self.fates.resets != lives {
            self.one_way = None;
        }
        self.measure(ours, reply, received, now.saturating_sub(sent_at));
        Answer::First
    }

    fn measure(&mut self, ours: u64, reply: &Reply, received: Timestamp, whole: Duration) {
        let ptp = ErrorEstimate::from_bits(reply.error).ptp;
        let (came, left) = (reply.receive_timestamp.nanos(ptp), reply.timestamp.nanos(ptp));
        let held = Duration::from_nanos(u64::try_from(left - came).unwrap_or(0));
        // A reflector that claims to have held it longer than it was gone knows nothing of time.
        let round_trip = whole.checked_sub(held).unwrap_or(whole);
        self.smoothed = Some(match self.smoothed {
            None => (round_trip, round_trip / 2),
            Some((smoothed, deviation)) => {
                ((smoothed * 7 + round_trip) / 8, (deviation * 3 + smoothed.abs_diff(round_trip)) / 4)
            }
        });
        let one_way = (came - reply.sender.timestamp.nanos(false), received.nanos(false) - left);
        let before = self.one_way.filter(|(before, _)| *before < ours);
        let variation = before.map(|(_, (there, back))| (one_way.0 - there, one_way.1 - back));
        self.delays.add(round_trip, variation);
        if self.one_way.is_none_or(|(before, _)| before < ours) {
            self.one_way = Some((ours, one_way));
        }
    }

    /// A reply that does not validate shows what only our packet had in it, its timestamp. Who made it is not known; that the packet got
    /// to where replies are made, or near it, is.
    pub fn echo(&mut self, reply: &Reply) {
        let Some((_, at)) = self.find(reply.sender.sequence) else { return };
        if let Some(ours) = self.outstanding.get(at).filter(|ours| ours.timestamp == reply.sender.timestamp) {
            self.echoed = self.echoed.max(Some(ours.sent_at));
        }
    }

    /// A reply that does not validate, and says it is to this number: that packet is not lost, and not answered either. Where
    /// the number cannot be (the other end reads packets in the other mode), it excuses the oldest.
    pub fn mismatch(&mut self, sequence: u32) {
        let waits = |o: &Outstanding| o.mark.is_none() && !o.mismatched;
        let said = self.find(sequence).map(|(_, at)| at).filter(|at| *at >= self.settled);
        let said = said.filter(|at| self.outstanding.get(*at).is_some_and(waits));
        if let Some(at) = said.or_else(|| self.oldest(waits))
            && let Some(outstanding) = self.outstanding.get_mut(at)
        {
            outstanding.mismatched = true;
        }
    }

    /// A port unreachable quotes the packet of this number, or, where it quotes too little, some packet of this session: then it
    /// excuses the oldest.
    pub fn refused(&mut self, quoted: Option<Request>) {
        let waits = |o: &Outstanding| o.mark.is_none() && !o.refused;
        let at = match quoted {
            Some(quoted) => self.find(quoted.sequence).map(|(_, at)| at).filter(|at| {
                let found = self.outstanding.get(*at);
                *at >= self.settled && found.is_some_and(|o| waits(o) && o.timestamp == quoted.timestamp)
            }),
            None => self.oldest(waits),
        };
        if let Some(outstanding) = at.and_then(|at| self.outstanding.get_mut(at)) {
            outstanding.refused = true;
        }
    }

    /// The oldest of those without a fate that is so.
    fn oldest(&self, is_so: impl Fn(&Outstanding) -> bool) -> Option<usize> {
        let at = self.outstanding.iter().skip(self.settled).position(is_so)?;
        Some(self.settled + at)
    }

    /// Gives up what is without an answer for too long, or for as long as an answer takes and a little more while a later packet
    /// is answered (as RFC 9002, 6.1, has it): whoever judges the loss need not wait for what only a dead path takes.
    pub fn advance(&mut self, now: Duration) {
        let age = |o: &Outstanding| now.saturating_sub(o.sent_at);
        let soon = self.expected() + HOLD;
        while let Some(next) = self.outstanding.get(self.settled) {
            let number = self.next - (self.outstanding.len() - self.settled) as u64;
            let overtaken = self.delivered.is_some_and(|(_, newest)| newest > number);
            if !(age(next) >= self.schedule.patience
                || age(next) >= soon && (next.mark.is_some() || overtaken))
            {
                break;
            }
            self.settle_next();
        }
        while self.outstanding.front().is_some_and(|oldest| age(oldest) >= self.schedule.patience) {
            self.forget_oldest();
        }
    }

    fn settle_next(&mut self) {
        match self.outstanding.get(self.settled) {
            Some(Outstanding { mark: Some(mark), .. }) => self.fates.settle_answered(*mark),
            Some(Outstanding { refused: true, sent_at, .. }) => self.fates.settle_refused(*sent_at),
            Some(Outstanding { mismatched: true, .. }) => self.fates.settle_mismatched(),
            Some(_) => self.fates.settle_unanswered(),
            None => return,
        }
        self.settled += 1;
    }

    fn forget_oldest(&mut self) {
        if self.settled == 0 {
            self.settle_next();
        }
        if self.outstanding.pop_front().is_some() {
            self.settled = self.settled.saturating_sub(1);
        }
    }

    /// Whether all was sent, and nothing can be answered any more.
    pub fn is_over(&self) -> bool {
        self.due().is_none() && self.outstanding.iter().skip(self.settled).all(|o| o.mark.is_some())
    }

    /// The number of ours with these low 32 bits, and its place among the outstanding.
    fn find(&self, sequence: u32) -> Option<(u64, usize)> {
        let behind = (self.next as u32).wrapping_sub(sequence);
        let at = self.outstanding.len().checked_sub(behind as usize).filter(|_| behind > 0)?;
        Some((self.next - u64::from(behind), at))
    }

    /// Delays so far.
    pub fn delays(&self) -> StampDelays {
        self.delays.all()
    }

    /// Copies into `path` what this session knows, but for delays. What it does not know (the peer's report, mismatches) is the
    /// caller's.
    pub fn look(&self, now: Duration, path: &mut StampPath) {
        let fates = &self.fates;
        let unsettled = self.outstanding.iter().skip(self.settled);
        let waiting = unsettled.filter(|o| o.mark.is_none()).count() as u64;
        path.sent = self.next;
        // Those answered and not settled yet count as answered, but their direction's totals wait for the order.
        path.answered = fates.answered + (self.outstanding.len() - self.settled) as u64 - waiting;
        (path.transmit, path.receive) = (fates.transmit, fates.receive);
        (path.unattributed, path.mismatched) = (fates.unattributed, fates.mismatched);
        path.refused = fates.refused;
        path.outstanding = waiting + fates.open();
        (path.late, path.unsent, path.resets) = (self.late, self.unsent, fates.resets);
        path.last_receive = self.replied_at.map(|at| now.saturating_sub(at));
        path.last_delivery = self.delivered.map(|(at, _)| now.saturating_sub(at));
        path.last_echo = self.echoed.map(|at| now.saturating_sub(at));
        path.unanswered = self.unanswered(now);
    }

    /// How long an answer takes at most, as far as is known.
    fn expected(&self) -> Duration {
        let patience = self.schedule.patience;
        let expected = self.smoothed.map_or(patience, |(smoothed, deviation)| smoothed + deviation * 4);
        expected.clamp(OVERDUE_LEAST.min(patience), patience)
    }

    /// Packets after the newest answered one whose answer is overdue.
    fn unanswered(&self, now: Duration) -> u64 {
        let expected = self.expected();
        let first = self.delivered.map_or(0, |(_, newest)| newest + 1);
        let oldest = self.next - self.outstanding.len() as u64;
        let given_up = oldest.saturating_sub(first);
        let waiting = self.outstanding.iter().zip(oldest..);
        let overdue = waiting
            .filter(|(o, number)| *number >= first && now.saturating_sub(o.sent_at) > expected)
            .count();
        given_up + overdue as u64
    }
}

#[cfg(test)]
mod tests;
