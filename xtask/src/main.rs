//! Everything around the build: `cargo xtask <command>`.

mod apt;
mod bench;
mod build;
mod containerd;
mod debian;
mod docs;
mod kernels;
mod lint;
mod programs;
mod promtool;
mod release;
mod setup;
mod shell;
mod tally;
mod test;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use release::Architecture;

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
    /// Formatting, clippy for both halves, generated documents
    Lint,
    /// Everything: lint, unit tests, end-to-end tests on this kernel, image and package, the kernel matrix
    Test {
        /// Only the end-to-end tests on this kernel, with these arguments to the test programs
        #[arg(long, num_args = 0.., value_name = "ARGUMENT", allow_hyphen_values = true)]
        end_to_end: Option<Vec<String>>,
        /// What is shipped instead, which takes long: both architectures, and everything built again
        #[arg(long, conflicts_with = "end_to_end")]
        shipped: bool,
    },
    /// The tests of the kernel matrix on stock Debian kernels in QEMU
    Kernels {
        /// Only this one, by version or suite
        only: Option<String>,
        /// Only these test programs of those that run there, in this order, as often as they are named
        #[arg(value_name = "TEST")]
        tests: Vec<String>,
    },
    /// The image: static programs on an empty base, as an OCI layout (target/image)
    Image {
        /// Only for this architecture [default: both]
        #[arg(long, value_name = "ARCHITECTURE")]
        only: Option<Architecture>,
    },
    /// Builds deploy/Containerfile with buildah and compares what comes out with the image
    Containerfile {
        /// For this architecture [default: this machine's]
        #[arg(long, value_name = "ARCHITECTURE")]
        only: Option<Architecture>,
    },
    /// The Debian package (target/debian)
    Deb {
        /// Only for this architecture [default: both]
        #[arg(long, value_name = "ARCHITECTURE")]
        only: Option<Architecture>,
    },
    /// Measures the agent on this host
    Bench {
        /// Arguments for the benchmark, after `--`
        #[arg(last = true)]
        arguments: Vec<String>,
    },
    /// Writes the documents that are made from the code
    Docs {
        /// Only says whether they are up to date, and fails where they are not
        #[arg(long)]
        check: bool,
    },
}

fn main() -> ExitCode {
    match dispatch(Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            shell::say(format!("failed: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn dispatch(command: Command) -> Result<()> {
    std::env::set_current_dir(shell::root())?;
    match command {
        Command::Setup => {
            setup::build()?;
            setup::test()?;
            setup::packed()?;
            shell::say("everything is installed");
            Ok(())
        }
        Command::BuildEbpf => setup::build().and_then(|()| build::ebpf(build::Kind::Release).map(drop)),
        Command::Build => build::agent().map(drop),
        Command::Run { arguments } => build::run_agent(&arguments),
        Command::Lint => setup::build().and_then(|()| lint::lint()).and_then(|()| docs::check()),
        Command::Test { shipped: true, .. } => test::shipped(),
        Command::Test { end_to_end: None, .. } => test::all(),
        Command::Test { end_to_end: Some(arguments), .. } => test::end_to_end_only(&arguments),
        Command::Kernels { only, tests } => test::kernels_only(only.as_deref(), &tests),
        Command::Image { only } => release::image(&release::programs(only)?).map(drop),
        Command::Containerfile { only } => release::containerfile(only.unwrap_or_else(Architecture::host)),
        Command::Deb { only } => release::package(&release::programs(only)?).map(drop),
        Command::Bench { arguments } => bench::bench(&arguments),
        Command::Docs { check: true } => setup::build().and_then(|()| docs::check()),
        Command::Docs { check: false } => setup::build().and_then(|()| docs::write()),
    }
}
