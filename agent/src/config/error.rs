//! Configuration errors: the file, the line, the field, the remedy.

use std::{fmt, ops::Range, path::PathBuf};

/// One thing that is wrong with the configuration.
#[derive(Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The file; none where the value came from elsewhere.
    pub path: Option<PathBuf>,
    /// Line, from 1; 0 where it has none.
    pub line: usize,
    /// The field, e.g. `peer.cidrs`; empty where it is the file itself.
    pub field: String,
    /// What is wrong.
    pub problem: String,
    /// What to do.
    pub remedy: String,
}

impl std::error::Error for ConfigError {}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(path) = &self.path {
            write!(f, "{}", path.display())?;
            if self.line > 0 {
                write!(f, ":{}", self.line)?;
            }
            f.write_str(": ")?;
        }
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        f.write_str(&self.problem)?;
        if !self.remedy.is_empty() {
            write!(f, "; {}", self.remedy)?;
        }
        Ok(())
    }
}

/// The text a configuration came from, to find lines in.
pub struct Source<'a> {
    /// Where it is.
    pub path: Option<PathBuf>,
    /// What it says.
    pub text: &'a str,
}

impl Source<'_> {
    /// An error at a place in the text.
    pub fn error(&self, span: Range<usize>, field: &str, problem: String, remedy: &str) -> ConfigError {
        let line = if span.is_empty() { 0 } else { self.line(span.start) };
        ConfigError { path: self.path.clone(), line, field: field.into(), problem, remedy: remedy.into() }
    }

    fn line(&self, offset: usize) -> usize {
        self.text.get(..offset).map_or(0, |before| before.matches('\n').count() + 1)
    }

    /// A syntax or type error of the TOML reader, with a suggestion where a key is unknown.
    pub fn toml_error(&self, error: &toml::de::Error) -> ConfigError {
        let message = error.message();
        let (field, problem, remedy) = match unknown_field(message) {
            Some((unknown, expected)) => {
                let near = expected
                    .iter()
                    .map(|candidate| (strsim::damerau_levenshtein(unknown, candidate), candidate))
                    .min()
                    .filter(|(distance, _)| *distance <= 3);
                let remedy = match near {
                    Some((_, near)) => format!("did you mean `{near}`?"),
                    None => format!("known here: {}", expected.join(", ")),
                };
                (unknown.to_owned(), "unknown key".to_owned(), remedy)
            }
            None => (String::new(), message.trim().replace('\n', " "), String::new()),
        };
        let line = error.span().map_or(0, |span| self.line(span.start));
        ConfigError { path: self.path.clone(), line, field, problem, remedy }
    }
}

/// Takes serde's "unknown field `x`, expected one of `a`, `b`" apart.
fn unknown_field(message: &str) -> Option<(&str, Vec<&str>)> {
    let rest = message.strip_prefix("unknown field `")?;
    let (unknown, rest) = rest.split_once('`')?;
    let expected = rest.split('`').skip(1).step_by(2).collect();
    Some((unknown, expected))
}
