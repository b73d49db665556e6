//! Relays that put out clearly less than they usually do, and more than nothing: some of their threads stand still, or they
//! drop what they read.
//!
//! The share of the usual output is followed in blocks, and a CUSUM over its logarithm tells a lasting fall from noise
//! (Page 1954). How deep a fall has to be is learned from the process itself: from how much the share scatters, and from the
//! falls that ended by themselves. What comes in has to stay as it was, in packets and in sources: rooms that empty and
//! callers that leave are no collapse.

use std::time::Duration;

use super::relay::{LEAST_PACKETS, LEAST_TIME, QUEUED, Sample};
use crate::model::fade;

/// A block has at least so many packets taken in …
const BLOCK: u64 = 50;
/// … and what is slower than that is not judged.
const LONGEST_BLOCK: Duration = Duration::from_secs(1);
/// A fall to less than e^-0.25, 78 %, of what is usual is the least that is looked for.
const LEAST_FALL: f64 = 0.25;
/// Less than this share missing is none, however surely.
const LEAST_MISSING: f64 = 0.2;
/// While a fall is younger than this, it is not learned from.
const YOUNG: Duration = Duration::from_secs(5);
/// A process that by nature falls so far that twice as much is more than this is not judged by its output alone.
const MOST_FALL: f64 = 0.8;
/// The fall that is looked for is at least this many times the deepest that ended by itself …
const FALLS: f64 = 2.0;
/// … and this many times the scatter from block to block,
const SCATTERS: f64 = 4.0;
/// which is taken to be at least this: what is read in one look is sent in the next.
const LEAST_SCATTER: f64 = 0.1;
/// Scatter is that of the last so many seconds, fading.
const SCATTER_HALF_LIFE: Duration = Duration::from_secs(30);
/// How deep it fell by itself fades by half in this time.
const FALL_HALF_LIFE: Duration = Duration::from_secs(3600);
/// The share is smoothed over this long before its depth is learned.
const SMOOTH: Duration = Duration::from_millis(700);
/// Log-likelihood ratio: e^20, some 5·10^8 blocks to a false alarm, were they as independent as the test takes them to be.
const THRESHOLD: f64 = 20.0;
/// No block brings more than this: at least four of them have to agree.
const MOST_GAIN: f64 = THRESHOLD / 4.0;
/// What is missing must be more than so many sources could account for, were they no longer relayed with good reason: a
/// call of which one end has left.
const SOURCES: f64 = 2.5;
/// Where the share had fallen by this part of the fall that is looked for before that began, it fell bit by bit.
const AT_ONCE: f64 = 0.25;
/// Of what is missing, at least this share waits or was dropped, if the process is not to have read it.
const HELD: f64 = 0.5;
/// Sources and packets taken in may change by this share.
const SAME_SOURCES: f64 = 0.1;
const SAME_INPUT: f64 = 0.25;
/// A relay that is watched for so many times [`super::Settings::relay_learning`] is known well enough.
pub const LEARNING: u32 = 5;
/// After this long, what it puts out is its usual output.
const ACCEPTED: Duration = Duration::from_secs(600);

/// What is usual for the process.
#[derive(Clone, Copy, Debug)]
pub struct Usual {
    /// Packets put out for each one taken in.
    pub fan_out: f64,
    /// Packets taken in a second, lately.
    pub rate: f64,
    /// Sources, lately.
    pub sources: f64,
    /// Memory of what waited at the last look, bytes.
    pub queued: u64,
    /// It has been watched for long enough to be judged by its output alone.
    pub known: bool,
}

/// What is wrong with a part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// What is missing waits in its receive queues, or was dropped there.
    NotReading,
    /// What is missing was read.
    NotSending,
}

/// Packets over a time.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sum {
    /// How long.
    pub age: Duration,
    /// Packets taken in.
    pub received: u64,
    /// Packets put out.
    pub sent: u64,
    /// Datagrams that found no room.
    pub dropped: u64,
}

impl Sum {
    fn add(&mut self, other: Self) {
        self.age += other.age;
        self.received += other.received;
        self.sent += other.sent;
        self.dropped += other.dropped;
    }
}

/// A fall under way.
#[derive(Clone, Copy, Debug)]
struct Fall {
    sum: Sum,
    before: Usual,
    /// The smoothed share when it began.
    from: f64,
    deepest: f64,
}

/// The detector for one process.
#[derive(Clone, Copy, Debug, Default)]
pub struct Collapse {
    block: Sum,
    smooth: f64,
    variance: f64,
    natural: f64,
    score: f64,
    fall: Option<Fall>,
    low: bool,
    lasted: Duration,
}

impl Collapse {
    /// Takes one look; `raised` while a collapse stands. What is found, if anything.
    pub fn look(&mut self, usual: Usual, sample: &Sample, raised: bool) -> Option<Part> {
        let counts = sample.counts;
        self.block.add(Sum {
            age: sample.elapsed,
            received: counts.received,
            sent: counts.sent,
            dropped: counts.dropped,
        });
        self.lasted = if raised { self.lasted + sample.elapsed } else { Duration::ZERO };
        if self.is_accepted() {
            let natural = self.natural.max(-self.smooth);
            *self = Self { natural, variance: self.variance, lasted: self.lasted, ..Self::default() };
            return None;
        }
        if self.block.received < BLOCK {
            if self.block.age >= LONGEST_BLOCK {
                self.block = Sum::default();
                self.end(raised);
            }
            return None;
        }
        let block = std::mem::take(&mut self.block);
        self.follow(usual, block, raised);
        self.found(usual, sample)
    }

    /// Takes one block.
    fn follow(&mut self, usual: Usual, block: Sum, raised: bool) {
        // Half a packet on either side, so that none is no infinity.
        let share = (block.sent as f64 + 0.5) / usual.fan_out.mul_add(block.received as f64, 0.5);
        let x = share.ln().clamp(-3.0, 3.0);
        let fall = self.looked_for();
        self.low = x < -fall / 2.0;
        let (from, keep) = (self.smooth, fade(block.age, SMOOTH));
        self.smooth = self.smooth * keep + (1.0 - keep) * x;
        self.natural *= fade(block.age, FALL_HALF_LIFE);
        let scatter = self.variance.sqrt().max(LEAST_SCATTER);
        let gain = fall / (scatter * scatter) * (-x - fall / 2.0);
        self.score = (self.score + gain.clamp(-MOST_GAIN, MOST_GAIN)).clamp(0.0, 2.0 * THRESHOLD);
        if !raised {
            let keep = fade(block.age, SCATTER_HALF_LIFE);
            self.variance = self.variance * keep + (1.0 - keep) * (x * x).min(1.0);
        }
        if self.score <= 0.0 {
            self.end(raised);
            return;
        }
        let begin = Fall { sum: Sum::default(), before: usual, from, deepest: 0.0 };
        let fall = self.fall.get_or_insert(begin);
        fall.sum.add(block);
        fall.deepest = fall.deepest.max(-self.smooth);
    }

    /// Ends a fall: one that ended by itself is what this process does.
    fn end(&mut self, raised: bool) {
        self.score = 0.0;
        if let Some(fall) = self.fall.take()
            && !raised
        {
            self.natural = self.natural.max(fall.deepest);
        }
    }

    fn looked_for(&self) -> f64 {
        LEAST_FALL.max(FALLS * self.natural).max(SCATTERS * self.variance.sqrt())
    }

    fn found(&self, usual: Usual, sample: &Sample) -> Option<Part> {
        let fall = self.fall.as_ref()?;
        let (sum, before) = (fall.sum, fall.before);
        let expected = usual.fan_out * sum.received as f64;
        let missing = expected - sum.sent as f64;
        let enough = missing >= LEAST_PACKETS as f64 && sum.age >= LEAST_TIME;
        let input = sum.received as f64 / (before.rate * sum.age.as_secs_f64());
        if !enough || missing < LEAST_MISSING * expected || (input - 1.0).abs() > SAME_INPUT {
            return None;
        }
        let unread = HELD * missing / usual.fan_out;
        let waiting = sample.queued.saturating_sub(before.queued);
        if sum.dropped as f64 >= unread || waiting as f64 >= QUEUED as f64 * unread {
            return Some(Part::NotReading);
        }
        let sources = sample.sources as f64;
        let same_sources = (sources - before.sources).abs() <= SAME_SOURCES * before.sources;
        let too_many = missing * sources > SOURCES * expected;
        let at_once = fall.from > -AT_ONCE * self.looked_for();
        let certain = self.score >= THRESHOLD && self.looked_for() <= MOST_FALL;
        (usual.known && certain && same_sources && too_many && at_once).then_some(Part::NotSending)
    }

    /// Whether it stands for so long that it is the process's usual output: whoever wants it so has been told.
    pub fn is_accepted(&self) -> bool {
        self.lasted >= ACCEPTED
    }

    /// Whether the last block was low.
    pub const fn is_low(&self) -> bool {
        self.low
    }

    /// Whether what happens now may be no usual thing.
    pub fn is_falling(&self) -> bool {
        self.fall.is_some_and(|fall| fall.sum.age < YOUNG)
    }

    /// What there was since the fall under way began.
    pub fn fallen(&self) -> Option<Sum> {
        self.fall.map(|fall| fall.sum)
    }

    /// Forgets the fall under way: nothing at all is put out, which is another matter.
    pub fn pass_over(&mut self) {
        *self = Self { natural: self.natural, variance: self.variance, ..Self::default() };
    }
}
