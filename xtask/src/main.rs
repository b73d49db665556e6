//! Everything around the build: `cargo xtask <command>`.

mod build;
mod setup;
mod shell;

use clap::{Parser, Subcommand};

/// Set-up, build, run, test and bench graylag. Each command does the set-up it needs.
#[derive(Parser)]
#[command(name = "cargo xtask", max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Installs what building and testing need, and says what; quick when nothing is missing
    Setup,
    /// Builds the kernel object (target/bpf)
    BuildEbpf,
    /// Builds the agent with the kernel object inside (target/release/graylag)
    Build,
    /// Builds and runs the agent with its terminal view on this host
    Run {
        /// Arguments for `graylag run`, after `--`
        #[arg(last = true)]
        arguments: Vec<String>,
    },
}

fn main() -> anyhow::Result<()> {
    std::env::set_current_dir(shell::root())?;
    match Arguments::parse().command {
        Command::Setup => {
            setup::build()?;
            setup::test()
        }
        Command::BuildEbpf => setup::build().and_then(|()| build::ebpf(build::Kind::Release).map(drop)),
        Command::Build => build::agent().map(drop),
        Command::Run { arguments } => build::run_agent(&arguments),
    }
}
