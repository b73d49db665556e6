//! The benchmark: a program of the test crate, optimised, run as root beside the agent.

use std::path::Path;

use anyhow::Result;

use crate::{
    build::{self, HOST},
    setup,
    shell::{as_root, run, say},
};

/// Builds the agent and the benchmark, and runs it; `arguments` are the benchmark's.
pub(crate) fn bench(arguments: &[String]) -> Result<()> {
    setup::test()?;
    setup::bench()?;
    build::agent()?;
    say("building the benchmark");
    // For glibc, as the test programs are, and with the agent's library inside: the first time it takes as long as the agent.
    run(build::static_cargo().args(["build", "--quiet", "--locked", "--release", "--target", HOST]).args([
        "--package",
        "graylag-tests",
        "--bin",
        "bench",
    ]))?;
    run(as_root(Path::new("target").join(HOST).join("release/bench"))?.args(arguments))
}
