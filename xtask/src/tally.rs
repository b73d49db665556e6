//! Counting tests: what libtest says of each program, summed.

use std::fmt;

use anyhow::{Result, bail};

/// Tests of any number of programs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    passed: u32,
    failed: u32,
    /// Programs with a failed test, and programs that ended without a count.
    broken: Vec<String>,
}

impl Tally {
    /// What one program printed, and whether it ended well. A program that crashed is one failed test.
    pub(crate) fn of(program: &str, output: &str, success: bool) -> Self {
        let counts = output.lines().filter_map(result_line);
        let (passed, mut failed) = counts.fold((0, 0), |sum, n| (sum.0 + n.0, sum.1 + n.1));
        if !success && failed == 0 {
            failed = 1;
        }
        let broken = if failed > 0 { vec![program.to_owned()] } else { Vec::new() };
        Self { passed, failed, broken }
    }

    /// Takes another's counts in.
    pub(crate) fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.broken.extend(other.broken);
    }

    /// How many there were.
    pub(crate) fn all(&self) -> u32 {
        self.passed + self.failed
    }

    /// Fails where a test failed, and names the programs.
    pub(crate) fn verdict(&self) -> Result<()> {
        if self.failed > 0 {
            bail!("{} failed in {}", plural(self.failed), self.broken.join(", "));
        }
        Ok(())
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)
    }
}

fn plural(n: u32) -> String {
    if n == 1 { "1 test".into() } else { format!("{n} tests") }
}

/// Passed and failed of libtest's last line: `test result: ok. 12 passed; 0 failed; 1 ignored; …`.
fn result_line(line: &str) -> Option<(u32, u32)> {
    let counts = line.trim().strip_prefix("test result: ")?.split_once(". ")?.1;
    let number =
        |word: &str| counts.split("; ").find_map(|part| part.strip_suffix(word)?.trim().parse::<u32>().ok());
    Some((number("passed")?, number("failed")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OK: &str =
        "test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 3 filtered out; finished in 0.10s";
    const BAD: &str = "test result: FAILED. 3 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out";

    #[test]
    fn counts_are_summed_and_what_failed_is_named() {
        let mut tally = Tally::of("one", &format!("running 12 tests\n{OK}\n"), true);
        assert!(tally.verdict().is_ok());
        tally.add(Tally::of("two", BAD, false));
        assert_eq!((tally.to_string().as_str(), tally.all()), ("15 passed, 2 failed", 17));
        assert_eq!(tally.verdict().unwrap_err().to_string(), "2 tests failed in two");
    }

    #[test]
    fn a_program_that_crashes_is_a_failed_test() {
        let tally = Tally::of("crash", "running 2 tests\n", false);
        assert_eq!(tally.to_string(), "0 passed, 1 failed");
        assert!(tally.verdict().unwrap_err().to_string().contains("crash"));
    }
}
