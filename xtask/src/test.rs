//! `cargo xtask test`: everything, end to end, in the order in which it fails fastest.

use std::{thread, time::Instant};

use anyhow::{Context, Result, ensure};

use crate::{
    build, docs, kernels, lint,
    programs::{self, Program},
    release, setup,
    shell::{as_root, is_root, say},
    tally::Tally,
};

/// Threads of a test program: its tests mostly wait.
const THREADS: &str = "--test-threads=4";
/// Programs that mostly wait, and compare no counts with the truth: these run beside each other, after the rest. Where an agent is
/// started or ended, others on the machine may miss an event, so that whoever counts has it to himself.
const TOGETHER: &[&str] = &["balancer", "silence"];
/// Programs that try the image and the package of this machine's architecture: they run where these are made, in [`all`] and in
/// [`shipped`].
const PACKED: &[&str] = &["daemonset", "image", "package"];
/// And what tries both architectures and the second build: in [`shipped`] alone.
const SHIPPED: &[&str] = &["shipped"];
/// The end-to-end test programs, in cargo's words.
const END_TO_END: &[&str] = &["--package", "graylag-tests", "--tests"];

/// Runs everything. The last line is the count of all tests; a step that fails ends the run.
pub(crate) fn all() -> Result<()> {
    let started = Instant::now();
    let mut tally = Tally::default();
    let outcome = steps(&mut tally);
    say(format!("{} s in all", started.elapsed().as_secs()));
    if let Err(error) = &outcome {
        say(format!("{error:#}"));
    }
    if tally.all() > 0 {
        println!("{tally}");
    }
    outcome.map_err(|_| anyhow::anyhow!("not everything passed"))
}

fn steps(tally: &mut Tally) -> Result<()> {
    ensure!(
        is_root() || as_root("true")?.status()?.success(),
        "the tests load kernel programs: they need root"
    );
    step("set-up", || setup::build().and_then(|()| setup::test()).and_then(|()| setup::packed()))?;
    step("kernel object, release and debug", build::both_ebpf)?;
    step("lint", lint::lint)?;
    let agent = step("agent", build::shipped)?;
    step("image and package", || release::packed(&agent))?;
    step("generated documents", || docs::compare(&agent))?;
    let programs = step("test programs", || programs::build(&["--workspace"]))?;
    let (end_to_end, unit): (Vec<_>, Vec<_>) =
        programs.into_iter().partition(|program| program.directory.ends_with("tests"));
    step("unit tests", || counted(tally, run(&unit, false, &[])?))?;
    step("end-to-end tests", || {
        counted(tally, run(&for_this_machine(&end_to_end, true), true, &[THREADS.into()])?)
    })?;
    step("kernel matrix", || counted(tally, kernels::all(&agent, &end_to_end, None, &[])?))
}

/// What is shipped: both architectures, the image of this one a second time, their tests, and a guest of the other architecture. Apart
/// from the rest, for it builds the agent twice more, and what the other architecture takes besides.
pub(crate) fn shipped() -> Result<()> {
    setup::test()?;
    setup::shipped()?;
    build::both_ebpf()?;
    let agent = build::shipped()?;
    release::packed(&agent)?;
    let programs = release::programs(None)?;
    release::image(&programs)?;
    release::package(&programs)?;
    release::image_again()?;
    let tests: Vec<&str> = PACKED.iter().chain(SHIPPED).flat_map(|name| ["--test", name]).collect();
    let tests = programs::build(&[&["--package", "graylag-tests"][..], &tests].concat())?;
    let mut tally = run(&tests, true, &[THREADS.into()])?;
    tally.add(kernels::all(&agent, &[], Some(kernels::FOREIGN), &[])?);
    finish(&tally)
}

/// Only the end-to-end tests, with these arguments to the test programs.
pub(crate) fn end_to_end_only(arguments: &[String]) -> Result<()> {
    setup::test()?;
    build::agent()?;
    build::both_ebpf()?;
    let mut all = vec![THREADS.to_owned()];
    all.extend_from_slice(arguments);
    finish(&run(&for_this_machine(&programs::build(END_TO_END)?, false), true, &all)?)
}

/// Only the kernel matrix, or one kernel of it, or these test programs in it.
pub(crate) fn kernels_only(only: Option<&str>, tests: &[String]) -> Result<()> {
    setup::test()?;
    if only == Some(kernels::FOREIGN) {
        setup::shipped()?;
    }
    let agent = build::agent()?;
    build::both_ebpf()?;
    finish(&kernels::all(&agent, &programs::build(&kernels::programs())?, only, tests)?)
}

fn finish(tally: &Tally) -> Result<()> {
    println!("{tally}");
    tally.verdict()
}

fn counted(sum: &mut Tally, tally: Tally) -> Result<()> {
    let verdict = tally.verdict();
    sum.add(tally);
    verdict
}

/// The programs that run on this machine's own kernel. Of those that do not, it is said where they run. `packed`: the image and the
/// package were made.
fn for_this_machine(programs: &[Program], packed: bool) -> Vec<Program> {
    let elsewhere = |program: &Program| {
        let name = program.name.as_str();
        if kernels::is_for_guests_only(program) {
            Some("in the guests of the kernel matrix")
        } else if SHIPPED.contains(&name) {
            Some("with `cargo xtask test --shipped`")
        } else if PACKED.contains(&name) && !packed {
            Some("with `cargo xtask test`, which makes what it tries")
        } else {
            None
        }
    };
    let mut ours = Vec::new();
    for program in programs {
        match elsewhere(program) {
            Some(place) => say(format!("{} runs {place}", program.name)),
            None => ours.push(program.clone()),
        }
    }
    ours
}

/// Runs one program after the other, and those that may beside each other, all of them whatever fails. They were built as whoever
/// calls; tests that load kernel programs run as root.
fn run(programs: &[Program], as_root: bool, arguments: &[String]) -> Result<Tally> {
    let run = |program: &Program| -> Result<Tally> {
        let started = Instant::now();
        let tally = program.run(as_root, arguments)?;
        say(format!("{} took {} s", program.name, started.elapsed().as_secs()));
        Ok(tally)
    };
    let (together, alone): (Vec<_>, Vec<_>) =
        programs.iter().partition(|program| TOGETHER.contains(&program.name.as_str()));
    let mut tally = Tally::default();
    for program in alone {
        tally.add(run(program)?);
    }
    let outcomes = thread::scope(|scope| {
        let running: Vec<_> = together.into_iter().map(|program| scope.spawn(|| run(program))).collect();
        running.into_iter().map(thread::ScopedJoinHandle::join).collect::<Vec<_>>()
    });
    for outcome in outcomes {
        tally.add(outcome.map_err(|_| anyhow::anyhow!("a program's thread panicked"))??);
    }
    Ok(tally)
}

fn step<T>(name: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    say(format!("── {name}"));
    let started = Instant::now();
    let outcome = work();
    let word = if outcome.is_ok() { "done" } else { "failed" };
    say(format!("── {name}: {word} in {} s", started.elapsed().as_secs()));
    outcome.with_context(|| name.to_owned())
}
