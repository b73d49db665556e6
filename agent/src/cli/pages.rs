//! What a package ships beside the program, made from the same declaration of the command line: manual pages, completions.

use std::{
    fs,
    io::{self, Write},
    path::Path,
};

use anyhow::Context;
use clap::Command;
use clap_complete::Shell;

/// Prints the completions of a shell.
pub(super) fn completions(mut command: Command, shell: Shell) -> anyhow::Result<()> {
    let mut text = Vec::new();
    // The generator panics where it cannot write, as into a closed pipe; into memory it can.
    clap_complete::generate(shell, &mut command, "graylag", &mut text);
    io::stdout().write_all(&text).context("standard output")
}

/// Writes a manual page for each command to a directory.
pub(super) fn manual(command: Command, directory: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(directory)
        .and_then(|()| clap_mangen::generate_to(command, directory))
        .with_context(|| directory.display().to_string())
}
