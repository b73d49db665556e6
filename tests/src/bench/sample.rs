//! A few numbers, summed up.

use std::fmt;

/// Median and range of some runs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// How many.
    pub n: usize,
    /// Median; of an even number the mean of the two in the middle.
    pub median: f64,
    /// Smallest.
    pub least: f64,
    /// Greatest.
    pub most: f64,
}

impl Spread {
    /// Nothing where there are no values.
    pub fn of(values: &[f64]) -> Option<Self> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (least, most) = (*sorted.first()?, *sorted.last()?);
        let middle = sorted.len() / 2;
        let median = if sorted.len() % 2 == 1 {
            sorted[middle]
        } else {
            f64::midpoint(sorted[middle - 1], sorted[middle])
        };
        Some(Self { n: sorted.len(), median, least, most })
    }
}

impl Spread {
    /// How many there are of how many, median, least and most, for a table.
    pub fn cells(&self, of: usize) -> [String; 4] {
        let [median, least, most] =
            [self.median, self.least, self.most].map(|value| Figure(value).to_string());
        [format!("{} of {of}", self.n), median, least, most]
    }

    /// Median and most, in seconds, for a goal.
    pub fn seconds(&self) -> String {
        format!("median {} s, at most {} s", Figure(self.median), Figure(self.most))
    }
}

/// A number with as many places as say something: three digits, thousands separated.
pub struct Figure(pub f64);

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.0;
        let text = match value.abs() {
            size if size >= 99.95 => thousands(value.round() as i64),
            size if size >= 9.995 => format!("{value:.1}"),
            size if size >= 0.9995 => format!("{value:.2}"),
            0.0 => "0".to_owned(),
            _ => format!("{value:.3}"),
        };
        f.pad(&text)
    }
}

fn thousands(value: i64) -> String {
    let digits = value.unsigned_abs().to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    if value < 0 { format!("-{text}") } else { text }
}
