//! The command line.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use anyhow::{Context, Result, bail};

/// How to use it.
pub const USAGE: &str = "usage: bench [--quick] [--markdown FILE] [PART...]

  --quick          short runs, to see that it works; the figures mean little
  --markdown FILE  put the figures between the markers of their parts in FILE

parts (all of them unless named):";

/// What was asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Short runs.
    pub quick: bool,
    /// Where the figures go.
    pub markdown: Option<PathBuf>,
    /// Parts, all where empty.
    pub parts: Vec<String>,
    /// Not the benchmark but one of its servers.
    pub serve: Option<Serve>,
}

/// What a server is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Serve {
    /// Where it listens.
    pub address: SocketAddr,
    /// Whether it answers.
    pub answers: bool,
}

impl Options {
    /// Nothing where help was asked for.
    pub fn parse(mut arguments: impl Iterator<Item = String>, known: &[&str]) -> Result<Option<Self>> {
        let mut options = Self::default();
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "-h" | "--help" => return Ok(None),
                "--quick" => options.quick = true,
                "--markdown" => {
                    options.markdown = Some(arguments.next().context("--markdown needs a file")?.into());
                }
                "--serve" | "--serve-silence" => {
                    let address = arguments.next().and_then(|a| a.parse().ok()).context("an address")?;
                    options.serve = Some(Serve { address, answers: argument == "--serve" });
                }
                part if known.contains(&part) => options.parts.push(argument),
                other => bail!("`{other}` is neither an option nor a part; parts are {}", known.join(", ")),
            }
        }
        if options.quick && options.markdown.is_some() {
            bail!("figures of a quick run do not belong into a document: leave out --quick or --markdown");
        }
        Ok(Some(options))
    }

    /// Whether a part is to be run.
    pub fn wants(&self, part: &str) -> bool {
        self.parts.is_empty() || self.parts.iter().any(|p| p == part)
    }

    /// A duration in seconds: one of a real run, one of a quick one.
    pub const fn seconds(&self, real: u64, quick: u64) -> Duration {
        Duration::from_secs(if self.quick { quick } else { real })
    }

    /// A number: of a real run, of a quick one.
    pub const fn number(&self, real: usize, quick: usize) -> usize {
        if self.quick { quick } else { real }
    }

    /// As it was typed.
    pub fn command(&self) -> String {
        let mut words = vec!["cargo xtask bench --".to_owned()];
        words.extend(self.quick.then(|| "--quick".to_owned()));
        words.extend(self.markdown.iter().map(|path| format!("--markdown {}", path.display())));
        words.extend(self.parts.iter().cloned());
        words.join(" ").trim_end_matches(" --").to_owned()
    }
}
