//! `cargo xtask deb`: the Debian package of each architecture. What is in it says `[package.metadata.deb]` in
//! agent/Cargo.toml.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};
use flate2::{Compression, GzBuilder};

use super::{Architecture, Shipped, VERSION, binary, cargo, epoch, sbom::sbom, tool};
use crate::{
    setup,
    shell::{output, run, say},
};

/// What is made for it, where agent/Cargo.toml expects it.
const MADE: &str = "target/package";
/// Where the packages are.
const DIRECTORY: &str = "target/debian";

/// Makes the packages of these programs; returns where they are.
pub(crate) fn package(programs: &[Shipped]) -> Result<Vec<PathBuf>> {
    setup::package()?;
    let _ = fs::remove_dir_all(MADE);
    fs::create_dir_all(MADE)?;
    pages(programs)?;
    // As `gzip -9n` does it, without a name and a time of its own.
    let mut compressed = GzBuilder::new().write(Vec::new(), Compression::best());
    compressed.write_all(changelog()?.as_bytes())?;
    fs::write(Path::new(MADE).join("changelog.gz"), compressed.finish()?)?;
    let mut packages = Vec::new();
    for (architecture, _) in programs {
        fs::write(Path::new(MADE).join("graylag.cdx.json"), sbom(Path::new("."), *architecture)?)?;
        let package = Path::new(DIRECTORY).join(format!("graylag_{VERSION}_{}.deb", architecture.debian()));
        let mut command = cargo(tool("cargo-deb")?, *architecture)?;
        command
            // Files in it are dated so.
            .env("SOURCE_DATE_EPOCH", epoch()?.to_string())
            .args(["deb", "--quiet", "--locked", "--no-build", "--no-strip", "--package", "graylag"])
            .args(["--target", architecture.target(), "--output"])
            .arg(&package);
        run(&mut command)?;
        say(format!("wrote {}", package.display()));
        packages.push(package);
    }
    Ok(packages)
}

/// Manual pages and completions: printed by the program that runs here, and the same for every architecture.
fn pages(programs: &[Shipped]) -> Result<()> {
    let here = programs.iter().find(|(architecture, _)| *architecture == Architecture::host());
    let program = here.map_or_else(|| binary(Architecture::host()), |(_, program)| Ok(program.clone()))?;
    run(Command::new(&program).arg("manual").arg(Path::new(MADE).join("man")))?;
    for shell in ["bash", "zsh", "fish"] {
        let text = output(Command::new(&program).args(["completions", shell]))?;
        let path = Path::new(MADE).join(format!("graylag.{shell}"));
        fs::write(&path, text + "\n").with_context(|| path.display().to_string())?;
    }
    Ok(())
}

/// In Debian's form (deb-changelog(5)); what changed is in CHANGELOG.md.
fn changelog() -> Result<String> {
    let date = output(Command::new("date").args(["-u", "-R", &format!("--date=@{}", epoch()?)]))?;
    let manifest = fs::read_to_string("agent/Cargo.toml")?;
    let maintainer = manifest
        .lines()
        .find_map(|line| line.strip_prefix("maintainer = \"")?.strip_suffix('"'))
        .context("agent/Cargo.toml names no maintainer")?;
    Ok(format!(
        "graylag ({VERSION}) unstable; urgency=medium\n\n  * Version {VERSION}; what changed is in CHANGELOG.md.\n\n -- {maintainer}  {date}\n"
    ))
}
