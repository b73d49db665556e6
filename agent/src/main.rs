//! The `graylag` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    graylag::cli::main()
}
