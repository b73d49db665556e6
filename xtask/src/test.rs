//! `cargo xtask test`: everything, end to end, in the order in which it fails fastest.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use anyhow::{Context, Result, ensure};

use crate::{
    build::{self, HOST, Kind},
    kernels, lint, setup,
    shell::{as_root, is_root, output, run, say},
};

/// Runs everything.
pub(crate) fn all() -> Result<()> {
    ensure!(
        is_root() || as_root("true")?.status()?.success(),
        "the tests load kernel programs: they need root"
    );
    step("set-up", || setup::build().and_then(|()| setup::test()))?;
    step("kernel object, release and debug", || {
        build::ebpf(Kind::Release)?;
        build::ebpf(Kind::Debug).map(drop)
    })?;
    step("lint", lint::lint)?;
    step("unit tests", || {
        run(Command::new("cargo").args([
            "test",
            "--quiet",
            "--locked",
            "--package",
            "graylag-ebpf",
            "--package",
            "graylag",
        ]))
    })?;
    let agent = build::agent()?;
    step("end-to-end tests", || end_to_end(&[]))?;
    step("kernel matrix", || kernels::all(&agent, &guest_tests()?, None))
}

/// The end-to-end tests on this kernel; `arguments` go to the test programs.
pub(crate) fn end_to_end(arguments: &[String]) -> Result<()> {
    // Built as whoever calls, run as root.
    for program in test_programs(&["test", "--no-run", "--locked", "--package", "graylag-tests"], None)? {
        let started = Instant::now();
        let name = program.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let mut command = as_root(&program)?;
        command.env("RUST_BACKTRACE", "0").current_dir("tests").args(["--test-threads=4"]).args(arguments);
        run(&mut command).with_context(|| format!("tests of {name}"))?;
        say(format!(
            "{} took {} s",
            name.rsplit_once('-').map_or(&*name, |(n, _)| n),
            started.elapsed().as_secs()
        ));
    }
    Ok(())
}

/// The tests that also run in the guests: static, for there is nothing else in there.
pub(crate) fn guest_tests() -> Result<Vec<PathBuf>> {
    let arguments = [
        "test",
        "--no-run",
        "--locked",
        "--package",
        "graylag-tests",
        "--test",
        "tcp_cases",
        "--target",
        HOST,
    ];
    test_programs(&arguments, Some("-Ctarget-feature=+crt-static"))
}

/// Builds tests and finds the programs that cargo made.
fn test_programs(arguments: &[&str], flags: Option<&str>) -> Result<Vec<PathBuf>> {
    let mut command = Command::new("cargo");
    command.args(arguments).args(["--quiet", "--message-format=json"]);
    if let Some(flags) = flags {
        command.env("CARGO_ENCODED_RUSTFLAGS", flags).env_remove("RUSTFLAGS");
    }
    let messages = output(&mut command)?;
    let programs: Vec<PathBuf> = messages
        .lines()
        .filter(|line| line.contains("\"compiler-artifact\"") && line.contains("\"test\":true"))
        .filter_map(|line| {
            let (_, rest) = line.split_once("\"executable\":\"")?;
            Some(Path::new(rest.split('"').next()?).to_owned())
        })
        .collect();
    ensure!(!programs.is_empty(), "cargo built no tests");
    Ok(programs)
}

fn step(name: &str, work: impl FnOnce() -> Result<()>) -> Result<()> {
    say(format!("── {name}"));
    let started = Instant::now();
    work().with_context(|| name.to_owned())?;
    say(format!("── {name}: {} s", started.elapsed().as_secs()));
    Ok(())
}
