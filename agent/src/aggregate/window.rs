//! The recent past of a subject, for the view and the status: rates and quantiles of the last seconds.

use std::{collections::VecDeque, time::Duration};

use super::Tally;
use crate::model::Counts;

/// Half of the window: two of them are kept, so that it covers five to ten seconds.
const HALF: Duration = Duration::from_secs(5);
/// Points of the sparkline, one a second.
const POINTS: usize = 60;

/// Counts of the last five to ten seconds, and a point a second of the last minute.
#[derive(Clone, Debug, Default)]
pub struct Window<T = Counts> {
    previous: T,
    previous_length: Duration,
    current: T,
    current_length: Duration,
    points: VecDeque<f32>,
    point: f64,
    point_length: Duration,
}

impl<T: Tally> Window<T> {
    /// Takes what happened in `elapsed`.
    pub fn add(&mut self, counts: Option<&T>, elapsed: Duration) {
        if self.current_length >= HALF {
            self.previous = std::mem::take(&mut self.current);
            self.previous_length = std::mem::take(&mut self.current_length);
        }
        self.current_length += elapsed;
        if let Some(counts) = counts {
            self.current.add(counts);
            self.point += counts.shown();
        }
        self.point_length += elapsed;
        if self.point_length >= Duration::from_secs(1) {
            self.points.push_back((self.point / self.point_length.as_secs_f64()) as f32);
            if self.points.len() > POINTS {
                self.points.pop_front();
            }
            (self.point, self.point_length) = (0.0, Duration::ZERO);
        }
    }

    /// Everything in the window.
    pub fn counts(&self) -> T {
        let mut counts = self.previous.clone();
        counts.add(&self.current);
        counts
    }

    /// How long the window is, at least a moment.
    pub fn length(&self) -> Duration {
        (self.previous_length + self.current_length).max(Duration::from_millis(1))
    }

    /// [`Tally::shown`] a second, a point a second, oldest first.
    pub fn points(&self) -> impl Iterator<Item = f32> + '_ {
        self.points.iter().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_forgets_after_ten_seconds() {
        let mut window: Window = Window::default();
        let mut counts = Counts::default();
        counts.outcomes[0] = 10;
        window.add(Some(&counts), Duration::from_millis(500));
        assert_eq!(window.counts().handshakes(), 10);
        for _ in 0..21 {
            window.add(None, Duration::from_millis(500));
        }
        assert_eq!(window.counts().handshakes(), 0);
        assert!(window.length() <= Duration::from_millis(10_500));
        assert_eq!(window.points().next(), Some(10.0));
        assert_eq!(window.points().count(), 11);
    }
}
