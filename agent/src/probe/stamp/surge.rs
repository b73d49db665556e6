//! Media that begins to lose: a reason to probe more closely before anything is judged. Media comes more often than test packets
//! do, so its losses are there sooner; which link they are of, the probes have to tell.

use std::time::Duration;

use crate::model::fade;

/// So many missed packets above what looks may have ([`CHANCE`], [`USUAL`]), summed up from look to look, are a surge.
const SURGE: f64 = 2.0;
/// Missed packets that each look may have, whatever is usual: one in three or four looks.
const CHANCE: f64 = 0.3;
/// And so many times what is usual.
const USUAL: f64 = 2.0;
/// Half-life of what is usual.
const MEMORY: Duration = Duration::from_secs(30);

/// Follows how many packets of media have been missed, of all that this host receives.
#[derive(Debug, Default)]
pub struct Surge {
    last: Option<(Duration, u64)>,
    /// Missed packets a second, lately.
    usual: f64,
    above: f64,
}

impl Surge {
    /// Takes a look at `at`, by which so many have been missed. Whether they have become more.
    pub fn look(&mut self, at: Duration, missed: u64) -> bool {
        let Some((then, before)) = self.last.replace((at, missed)).filter(|(then, _)| *then < at) else {
            return false;
        };
        let (elapsed, more) = (at.saturating_sub(then), missed.saturating_sub(before) as f64);
        self.above = (self.above + more - USUAL * self.usual * elapsed.as_secs_f64() - CHANCE).max(0.0);
        let keep = fade(elapsed, MEMORY);
        self.usual = self.usual * keep + more / elapsed.as_secs_f64() * (1.0 - keep);
        let surges = self.above >= SURGE;
        if surges {
            self.above = 0.0;
        }
        surges
    }
}

#[cfg(test)]
mod tests {
    use std::iter::repeat_n;

    use super::*;

    const LOOK: Duration = Duration::from_millis(100);

    /// Numbers of the looks that told a surge.
    fn surges(missed: impl IntoIterator<Item = u64>) -> Vec<usize> {
        let (mut surge, mut sum) = (Surge::default(), 0);
        let told = missed.into_iter().enumerate().filter(|(i, more)| {
            sum += more;
            surge.look(LOOK * (*i as u32 + 1), sum)
        });
        told.map(|(i, _)| i).collect()
    }

    #[test]
    fn one_call_that_loses_a_fifth_is_told_within_three_looks() {
        let told = surges(repeat_n(0, 100).chain(repeat_n(1, 20)));
        assert_eq!(told[0], 102, "{told:?}");
    }

    #[test]
    fn a_single_loss_now_and_then_is_none() {
        assert_eq!(surges((0..6000).map(|i| u64::from(i % 7 == 0))), Vec::<usize>::new());
    }

    #[test]
    fn what_is_usual_is_none_and_more_than_that_is() {
        // A busy host: five a look.
        let told = surges(repeat_n(5, 3000).chain(repeat_n(30, 10)));
        let (learning, later): (Vec<usize>, Vec<usize>) = told.iter().partition(|i| **i < 600);
        assert!(!learning.is_empty() && later[0] >= 3000 && later[0] <= 3001, "{told:?}");
    }

    #[test]
    fn a_count_that_begins_anew_is_none() {
        let mut surge = Surge::default();
        assert!(!surge.look(LOOK, 1000) && !surge.look(LOOK * 2, 0) && !surge.look(LOOK * 2, 500));
    }
}
