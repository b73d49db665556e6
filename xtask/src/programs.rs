//! Test programs: building them with cargo, running them, counting what they say.

use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};

use crate::{
    build::HOST,
    shell::{output, say},
    tally::Tally,
};

/// A built test program.
#[derive(Clone, Debug)]
pub(crate) struct Program {
    /// Name of the test target, e.g. `tcp_cases`.
    pub(crate) name: String,
    /// The executable.
    pub(crate) path: PathBuf,
    /// Directory of its package, where cargo would run it.
    pub(crate) directory: PathBuf,
}

/// Builds test programs, static and for the named host: one build serves this machine and the guests, which have no libraries.
/// `chosen` says which, in cargo's words.
pub(crate) fn build(chosen: &[&str]) -> Result<Vec<Program>> {
    build_with(crate::build::static_cargo(), HOST, chosen)
}

/// The same with a cargo of the caller's, for another target.
pub(crate) fn build_with(mut cargo: Command, target: &str, chosen: &[&str]) -> Result<Vec<Program>> {
    cargo
        .args(["test", "--no-run", "--quiet", "--locked", "--message-format=json", "--target", target])
        .args(chosen);
    let messages = output(&mut cargo)?;
    let programs: Vec<Program> = messages.lines().filter_map(program).collect();
    ensure!(!programs.is_empty(), "cargo built no tests");
    Ok(programs)
}

/// The test program that a message of cargo's is about (`compiler-artifact` with an executable, "The Cargo Book",
/// external tools).
fn program(message: &str) -> Option<Program> {
    let field = |name: &str| {
        let (_, rest) = message.split_once(&format!("\"{name}\":\""))?;
        Some(rest.split('"').next()?.to_owned())
    };
    // Of the profile: a target that can be tested, such as the agent itself, is also built as what it is.
    let (_, profile) = message.split_once("\"profile\":{")?;
    let is_test = profile.split('}').next()?.contains("\"test\":true");
    if !message.contains("\"compiler-artifact\"") || !is_test {
        return None;
    }
    let path = PathBuf::from(field("executable")?);
    let directory = Path::new(&field("manifest_path")?).parent()?.to_owned();
    // The executable is called after the target, with a hash behind.
    let stem = path.file_stem()?.to_string_lossy().into_owned();
    let name = stem.rsplit_once('-').map_or(stem.as_str(), |(name, _)| name).to_owned();
    Some(Program { name, path, directory })
}

impl Program {
    /// Runs it, as root where asked, and counts. Its output is passed on as it comes.
    pub(crate) fn run(&self, as_root: bool, arguments: &[String]) -> Result<Tally> {
        let mut command = if as_root { crate::shell::as_root(&self.path)? } else { Command::new(&self.path) };
        // A backtrace of a test leads to the test harness.
        command.env("RUST_BACKTRACE", "0").current_dir(&self.directory).args(arguments);
        watched(&self.name, &mut command)
    }
}

/// Runs a command that prints as libtest does, passes its output on, and counts.
pub(crate) fn watched(name: &str, command: &mut Command) -> Result<Tally> {
    say(name);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {name}"))?;
    let mut text = String::new();
    if let Some(stdout) = child.stdout.take() {
        for line in BufReader::new(stdout).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line);
            println!("{line}");
            text.push_str(&line);
            text.push('\n');
        }
    }
    let status = child.wait().with_context(|| format!("waiting for {name}"))?;
    Ok(Tally::of(name, &text, status.success()))
}

#[cfg(test)]
mod tests {
    use super::program;

    fn message(test_profile: bool) -> String {
        let target = r#""target":{"kind":["bin"],"name":"graylag","test":true}"#;
        format!(
            r#"{{"reason":"compiler-artifact","manifest_path":"/r/agent/Cargo.toml",{target},"profile":{{"opt_level":"1","test":{test_profile}}},"executable":"/t/deps/graylag-0123"}}"#
        )
    }

    #[test]
    fn only_what_was_built_as_a_test_is_one() {
        assert!(program(&message(false)).is_none());
        let found = program(&message(true)).unwrap();
        assert_eq!((found.name.as_str(), found.directory.to_str()), ("graylag", Some("/r/agent")));
    }
}
