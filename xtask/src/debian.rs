//! Debian packages: installed where they are missing, without leaving their services behind.

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result, bail};

use crate::{
    apt::MIRROR,
    shell::{as_root, find, run, say, succeeds},
};

/// Servers that the tests start by hand. Their packages would start them now and with every boot.
const SERVICES: &[(&str, &str)] = &[
    ("nginx-light", "nginx"),
    ("haproxy", "haproxy"),
    ("postgresql", "postgresql"),
    ("coturn", "coturn"),
    ("bird2", "bird"),
];
/// The Debian that the package is installed in, and what it needs that is not in the smallest one: `systemd` itself would be
/// three times as much.
const ROOT: (&str, &str) = ("bookworm", "systemd-standalone-sysusers");
/// Lines of apt-get that are shown where it fails.
const SHOWN: usize = 15;

/// Installs what is missing of these.
pub(crate) fn install(packages: &[&str]) -> Result<()> {
    let missing: Vec<&str> = packages.iter().copied().filter(|package| !is_installed(package)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    if find("apt-get").is_none() {
        bail!("please install {} (or what your distribution calls them)", missing.join(", "));
    }
    say(format!("installing with apt-get: {}", missing.join(" ")));
    // The lists may be old, or missing: fetched only where they do not serve.
    if apt_get(&missing)?.is_some() {
        run(as_root("apt-get")?.args(["update", "-qq"]))?;
        if let Some(said) = apt_get(&missing)? {
            bail!("apt-get could not install {}: {said}", missing.join(" "));
        }
    }
    for (package, service) in SERVICES {
        if missing.contains(package) && Path::new("/run/systemd/system").is_dir() {
            say(format!("{package}: keeping its service off, the tests start their own"));
            succeeds(as_root("systemctl")?.args(["disable", "--now", "--quiet", service]));
        }
    }
    Ok(())
}

/// A small Debian as an archive, target/debian-root.tar, for the tests of the package.
pub(crate) fn root() -> Result<()> {
    let archive = Path::new("target/debian-root.tar");
    if archive.exists() {
        return Ok(());
    }
    let (suite, more) = ROOT;
    say(format!(
        "{suite}: making a small Debian with debootstrap, for the tests of the package (about a minute)"
    ));
    fs::create_dir_all("target")?;
    let (root, log) = (Path::new("target/debian-root"), Path::new("target/debian-root.log"));
    run(as_root("rm")?.arg("-rf").arg(root))?;
    let mut debootstrap = as_root("debootstrap")?;
    debootstrap.args(["--variant=minbase", &format!("--include={more}"), suite]).arg(root).arg(MIRROR);
    debootstrap.stdout(fs::File::create(log)?);
    run(&mut debootstrap).with_context(|| format!("{} says why", log.display()))?;
    // Packed beside and moved: an interrupted run leaves nothing that looks whole.
    let fresh = archive.with_extension("new");
    let left_out = ["./var/cache/apt/*", "./var/lib/apt/lists/*"].map(|path| format!("--exclude={path}"));
    run(as_root("tar")?.args(left_out).arg("-cf").arg(&fresh).arg("-C").arg(root).arg("."))?;
    run(as_root("rm")?.arg("-rf").arg(root))?;
    fs::rename(fresh, archive).context("target/debian-root.tar")
}

fn is_installed(package: &str) -> bool {
    let status = Command::new("dpkg-query").args(["-W", "-f=${db:Status-Status}", package]).output();
    status.is_ok_and(|output| output.stdout == b"installed")
}

/// One attempt; what it said last where it failed.
fn apt_get(packages: &[&str]) -> Result<Option<String>> {
    let output = as_root("env")?
        // In runlevel 1 `invoke-rc.d` starts nothing, where there is no systemd.
        .args(["DEBIAN_FRONTEND=noninteractive", "RUNLEVEL=1", "apt-get", "install", "-y", "-q"])
        .args(["--no-install-recommends", "-o", "DPkg::Lock::Timeout=300"])
        .args(packages)
        .output()?;
    if output.status.success() {
        return Ok(None);
    }
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    let lines: Vec<&str> = said.lines().collect();
    Ok(Some(lines[lines.len().saturating_sub(SHOWN)..].join("\n")))
}
