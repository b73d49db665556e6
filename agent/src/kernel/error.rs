//! Why the kernel half cannot run at all. What merely costs a signal is a [`super::ProgramState`].

use std::path::PathBuf;

/// Fatal errors of the kernel half, each with its remedy.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// The kernel publishes no types.
    #[error(
        "this kernel has no BTF at {}: graylag reads structure offsets from it and never guesses them; \
         use a kernel built with CONFIG_DEBUG_INFO_BTF=y (Debian 11, Ubuntu 20.10, RHEL 8.2 and later have it)",
        path.display()
    )]
    NoBtf {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// The kernel's types cannot be read.
    #[error("the kernel's BTF at {} cannot be read: {error}", path.display())]
    BadBtf {
        /// Where it is.
        path: PathBuf,
        /// The reader's words.
        error: String,
    },
    /// Capabilities are missing.
    #[error(
        "missing {}: run as root, or grant them with `setcap cap_bpf,cap_perfmon,cap_net_admin+ep graylag` \
         (systemd: AmbientCapabilities=, Kubernetes: securityContext.capabilities.add)",
        .0.join(", ")
    )]
    Capabilities(Vec<&'static str>),
    /// The object could not be loaded: maps could not be made, or it is damaged.
    #[error("the kernel object could not be loaded: {0}")]
    Object(String),
    /// Not one program could be attached.
    #[error("no program could be attached; `graylag check` says why for each. First reason: {0}")]
    NothingAttached(String),
    /// A program could not be run on a packet that was made up for it.
    #[error("a kernel program could not be tried: {0}")]
    Trial(String),
    /// A map could not be read or written after start.
    #[error("kernel map {map}: {error}")]
    Map {
        /// The map.
        map: &'static str,
        /// The system's words.
        error: String,
    },
}

/// An error with all its causes on one line, verifier logs cut to their end.
pub(super) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    const KEPT: usize = 4;
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let next_text = next.to_string();
        if !text.contains(&next_text) {
            text.push_str(": ");
            text.push_str(&next_text);
        }
        cause = next.source();
    }
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    if lines.len() <= KEPT + 1 {
        return lines.join(" | ");
    }
    format!("{} | … | {}", lines[0], lines[lines.len() - KEPT..].join(" | "))
}
