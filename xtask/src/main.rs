//! Everything around the build: `cargo xtask <command>`.

mod build;
mod kernels;
mod lint;
mod setup;
mod shell;
mod test;

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
    /// Formatting, clippy, documentation
    Lint,
    /// Everything: unit tests, end-to-end tests on this kernel, the kernel matrix
    Test {
        /// Only the end-to-end tests on this kernel, with these arguments to the test programs
        #[arg(long, num_args = 0.., value_name = "ARGUMENT")]
        end_to_end: Option<Vec<String>>,
    },
    /// The handshake tests on stock Debian kernels in QEMU
    Kernels {
        /// Only this one, by version or suite
        only: Option<String>,
    },
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
        Command::Lint => setup::build().and_then(|()| lint::lint()),
        Command::Test { end_to_end: None } => test::all(),
        Command::Test { end_to_end: Some(arguments) } => {
            setup::test()?;
            build::agent()?;
            test::end_to_end(&arguments)
        }
        Command::Kernels { only } => {
            setup::test()?;
            kernels::all(&build::agent()?, &test::guest_tests()?, only.as_deref())
        }
        Command::Run { arguments } => build::run_agent(&arguments),
    }
}
