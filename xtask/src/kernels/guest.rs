//! Running a guest to its end, and reading its console.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use super::{
    Kernel,
    fetch::directory,
    image::{DONE, ENDED, Image},
};
use crate::{release::Architecture, shell::say, tally::Tally};

/// A guest that takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(900);
/// Lines that are shown of a test program that failed, and of a console that broke off: a test that fails tells what its agent counted.
const SHOWN: usize = 400;

/// Boots it, waits, counts.
pub(super) fn run(kernel: &Kernel, image: &Image) -> Result<Tally> {
    let log = directory(kernel)?.join("console.log");
    say(format!("{}: booting; its console goes to {}", kernel.version, log.display()));
    let started = Instant::now();
    let in_time = boot(kernel, image, &log)?;
    let console = String::from_utf8_lossy(&fs::read(&log)?).into_owned();
    let tally = count(kernel.version, &console, in_time);
    let outcome = if in_time { "" } else { ", ended because it took too long" };
    say(format!("{}: {tally} in {} s{outcome}", kernel.version, started.elapsed().as_secs()));
    for failed in failed(&console) {
        println!("──── {}\n{}\n────", kernel.version, failed.join("\n"));
    }
    Ok(tally)
}

/// Whether it ended by itself in time.
fn boot(kernel: &Kernel, image: &Image, log: &Path) -> Result<bool> {
    let (machine, console) = match kernel.architecture {
        // Without cmpxchg16b: emulated with several threads (QEMU 7.2) it leaves wrong flags behind, and kernels whose
        // allocator uses it end in a double fault.
        Architecture::X86 => (["-machine", "pc", "-cpu", "max,-cx16"], "ttyS0"),
        // Not `max`: its pointer authentication takes most of the time.
        Architecture::Arm => (["-machine", "virt", "-cpu", "cortex-a72"], "ttyAMA0"),
    };
    let program = kernel.architecture.qemu();
    let mut guest = Command::new(program)
        .args(machine)
        .args(["-accel", "tcg,thread=multi", "-smp", "2", "-m", "1536"])
        .args(["-display", "none", "-vga", "none", "-nic", "none", "-monitor", "none", "-no-reboot"])
        .arg("-serial")
        .arg(format!("file:{}", log.display()))
        .arg("-kernel")
        .arg(&image.vmlinuz)
        .arg("-initrd")
        .arg(&image.initramfs)
        .args(["-append", &format!("console={console} quiet panic=-1 mitigations=off")])
        .stdin(Stdio::null())
        .spawn()
        .with_context(|| format!("{program} is missing: cargo xtask setup"))?;
    let started = Instant::now();
    while guest.try_wait()?.is_none() {
        if started.elapsed() > PATIENCE {
            let _ = guest.kill();
            let _ = guest.wait();
            return Ok(false);
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    Ok(true)
}

/// What one test program said, and how it ended.
struct Said<'a> {
    program: &'a str,
    text: &'a str,
    success: bool,
}

/// What each program said, and what the guest said after the last one.
fn said(console: &str) -> (Vec<Said<'_>>, &str) {
    let (mut all, mut rest) = (Vec::new(), console);
    while let Some((text, after)) = rest.split_once(ENDED) {
        let (ended, after) = after.split_once('\n').unwrap_or((after, ""));
        let mut words = ended.split_whitespace();
        let program = words.next().unwrap_or_default();
        all.push(Said { program, text, success: words.next() == Some("0") });
        rest = after;
    }
    (all, rest)
}

/// Sums what the test programs said. A guest that did not come to its end is one failed test.
fn count(version: &str, console: &str, in_time: bool) -> Tally {
    let mut tally = Tally::default();
    let (programs, rest) = said(console);
    for Said { program, text, success } in programs {
        tally.add(Tally::of(&format!("{program} on {version}"), text, success));
    }
    if !in_time || !rest.contains(DONE) {
        tally.add(Tally::of(&format!("the guest {version}"), "", false));
    }
    tally
}

/// The last lines of each program that failed, and of a guest that broke off.
fn failed(console: &str) -> Vec<Vec<&str>> {
    let (programs, rest) = said(console);
    let failed = programs.iter().filter(|said| !said.success).map(|said| said.text);
    let broken = (!rest.contains(DONE)).then_some(rest);
    let end = |text| -> Vec<&str> {
        let mut lines: Vec<&str> = str::lines(text).collect();
        lines.drain(..lines.len().saturating_sub(SHOWN));
        lines
    };
    failed.chain(broken).map(end).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const RESULT: &str = "test result: ok. 2 passed; 0 failed; 0 ignored";

    #[test]
    fn a_guest_counts_what_its_programs_said() {
        let console = format!("boot\n{RESULT}\n{ENDED} one 0\r\n{RESULT}\n{ENDED} two 0\n{DONE}\n");
        assert_eq!(count("6.1", &console, true).to_string(), "4 passed, 0 failed");
    }

    #[test]
    fn a_guest_that_crashes_has_failed_whatever_passed_before() {
        let console = format!("{RESULT}\n{ENDED} one 0\nKernel panic\n");
        assert_eq!(count("6.1", &console, true).to_string(), "2 passed, 1 failed");
        assert_eq!(count("6.1", "", false).to_string(), "0 passed, 1 failed");
    }

    #[test]
    fn of_what_failed_the_end_is_shown_and_of_nothing_else() {
        let long = "line\n".repeat(SHOWN);
        let console = format!("{ENDED} one 0\n{long}last\n{ENDED} two 101\nmore\n{ENDED} three 0\n{DONE}\n");
        let [two] = &failed(&console)[..] else { panic!("one failed") };
        assert_eq!((two.len(), two.last()), (SHOWN, Some(&"last")));
        assert_eq!(failed(&format!("{ENDED} one 0\nKernel panic\n")), [["Kernel panic"]]);
    }
}
