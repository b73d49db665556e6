//! What the flow programs take of a packet: at the interfaces, where every packet passes.
//!
//! Two ways, for there are two questions. *In a row* turns through the flows inside the kernel ([`Rotor`]): the program's
//! code and the branch predictor are warm, the memory of the flows is as cold as their number makes it. That is a host
//! under load, and what the goal is about. *One at a time* is a system call for each packet, with all that the kernel does
//! for it in between: code is cold too, as it is on a host that does other things.

use std::io;

use anyhow::{Context, Result};
use graylag::{
    config::Config,
    kernel::trial::{FlowProgram, Trial},
    run::kernel_settings,
};
use graylag_ebpf::{media::MediaCounter, rtp::Turns};

use super::{
    Options, Section, Spread, Table, empty,
    rotor::{RTP, Rotor, Turn, WARM},
    sample::Figure,
    usage::Memory,
};
use crate::{
    agent::Setup,
    frames::{datagram, with_byte},
    random::Random,
    syscall::{Kind, Shown, load, test_run},
};
use std::{net::Ipv4Addr, os::fd::AsFd, thread, time::Duration};

const GOAL_NS: f64 = 60.0;
const GOAL_SEGMENT_NS: f64 = 15.0;
const GOAL_MIB: f64 = 64.0;
/// The number of flows that the goal is about.
const GOAL_LOG_FLOWS: u32 = 14;
const LOG_FLOWS: [u32; 4] = [0, 10, GOAL_LOG_FLOWS, 17];
const MIB: f64 = 1_048_576.0;

/// What is sent.
#[derive(Clone, Copy)]
struct Traffic {
    name: &'static str,
    /// Payload of a packet.
    size: usize,
    rtp: bool,
    ticks: i32,
    /// Streams that each takes turns with at the clock.
    others: u32,
}

const AUDIO: Traffic =
    Traffic { name: "RTP, a timestamp each (audio)", size: 92, rtp: true, ticks: 160, others: 0 };
const MANY: Traffic =
    Traffic { name: "RTP audio, streams take turns at the clock", others: Turns::MOST_OTHERS, ..AUDIO };
const VIDEO: Traffic = Traffic { name: "RTP, the timestamp before (video)", size: 1100, ticks: 0, ..AUDIO };
const OTHER: Traffic = Traffic { name: "other UDP", rtp: false, ticks: 0, ..AUDIO };

/// Runs this part.
pub fn run(options: &Options) -> Section {
    if let Err(error) = rustix::process::nice(-20) {
        eprintln!("bench: the priority cannot be raised: {error}");
    }
    let mut section = Section::default();
    for outcome in
        [in_a_row(options, &mut section), joined(options, &mut section), memory(options, &mut section)]
    {
        outcome.unwrap_or_else(|error| section.remark(format!("Not measured: {error:#}.")));
    }
    let _ = rustix::process::nice(20);
    section
}

/// The programs with room for so many flows, and no more where the configuration allows that.
fn trial(flows: u32) -> Result<Trial> {
    let flows = flows.max(256);
    let text = format!("[media]\ninterfaces = [\"*\"]\n[limits]\nflows = {flows}\n");
    Ok(Trial::new(&kernel_settings(&Config::parse(&text, None)?)?)?)
}

/// A datagram of `count` packets as the first flow sends it; the first of them has this number.
fn frame(traffic: Traffic, flow: u32, number: usize, count: usize) -> Vec<u8> {
    let mut payload = Vec::new();
    for number in number..number + count {
        let begin = payload.len();
        payload.extend([if traffic.rtp { 0x80 } else { 0x08 }, 0]);
        payload.extend((number as u16).to_be_bytes());
        payload.extend((number as u32).wrapping_mul(traffic.ticks.cast_unsigned()).to_be_bytes());
        payload.extend(0x1234_u32.to_be_bytes());
        payload.resize(begin + traffic.size, 0x5a);
    }
    let source = Ipv4Addr::from(10 << 24 | flow);
    datagram((source, 5004).into(), (Ipv4Addr::new(198, 51, 100, 1), 5006).into(), &payload)
}

/// Brings every stream to where it is for the rest of its life.
fn warm(trial: &Trial, traffic: Traffic, flows: u32) -> Result<()> {
    let small = Traffic { size: 16, ..traffic };
    for flow in 0..flows {
        trial.run(FlowProgram::Ingress, &frame(small, flow, 0, WARM), small.size as u32)?;
    }
    Ok(())
}

/// What was counted, to be sure that what was measured is what is said.
struct Counted {
    received: u64,
    trouble: u64,
}

fn counted(trial: &Trial) -> Result<Counted> {
    let mut counted = Counted { received: 0, trouble: 0 };
    trial.paths(|_, traffic, quality| {
        counted.received += traffic.iter().flatten().map(|half| half.received).sum::<u64>();
        counted.trouble += quality.iter().flat_map(|half| half.trouble).sum::<u64>();
    })?;
    let counters = trial.counters()?;
    counted.trouble += MediaCounter::NOT_COVERED.iter().map(|c| counters[*c as usize]).sum::<u64>();
    Ok(counted)
}

/// Runs of one kind of packet over so many flows.
fn over(trial: &Trial, traffic: Traffic, log_flows: u32, count: usize, options: &Options) -> Result<Spread> {
    let segments = if traffic.rtp { count } else { 0 };
    let turn = Turn { log_flows, segments, size: traffic.size, ticks: traffic.ticks };
    let mut rotor = Rotor::before(trial.descriptor(FlowProgram::Ingress)?, turn).context("the rotor")?;
    let packet = frame(traffic, 0, 0, count);
    let segment_size = if count > 1 { traffic.size } else { 0 };
    // Each flow several times, so that the first round, which follows something else, does not tell.
    let packets = (rotor.flows() * 4).max(options.number(200_000, 20_000) as u32);
    rotor.run(&packet, segment_size, packets)?;
    let before = counted(trial)?;
    let rounds = options.number(15, 3);
    let runs: io::Result<Vec<f64>> = (0..rounds).map(|_| rotor.run(&packet, segment_size, packets)).collect();
    let runs = runs?;
    let after = counted(trial)?;
    let expected = rounds as u64 * u64::from(packets) * segments as u64;
    anyhow::ensure!(
        after.received - before.received == expected && after.trouble == before.trouble,
        "{}: {} of {expected} packets were the next of their stream",
        traffic.name,
        after.received - before.received
    );
    Spread::of(&runs).context("no runs")
}

/// The same, a system call for each packet, in an order that nothing foresees.
fn one_at_a_time(trial: &Trial, traffic: Traffic, log_flows: u32, options: &Options) -> Result<Spread> {
    let flows = 1usize << log_flows;
    let nothing = load(Kind::Classifier, &empty::NOTHING)?;
    let program = trial.descriptor(FlowProgram::Ingress)?;
    let mut order: Vec<usize> = (0..flows).collect();
    let mut random = Random::new(3);
    (1..flows).rev().for_each(|i| order.swap(i, random.below(i + 1)));
    let rounds = (options.number(100_000, 10_000) / flows).max(1);
    let (mut with, mut without) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        for flow in &order {
            let packet = frame(traffic, *flow as u32, WARM + round, 1);
            without.push(f64::from(test_run(nothing.as_fd(), &packet, Shown::default(), 1)?.nanoseconds));
            with.push(f64::from(test_run(program, &packet, Shown::default(), 1)?.nanoseconds));
        }
    }
    let (with, without) = (Spread::of(&with).context("none")?, Spread::of(&without).context("none")?);
    let less = without.median;
    Ok(Spread { median: with.median - less, least: with.least - less, most: with.most - less, n: with.n })
}

/// Median and least: on a machine that others use, the one says what it is, the other what it would be.
fn both(spread: Spread) -> String {
    format!("{}, {}", Figure(spread.median), Figure(spread.least))
}

fn in_a_row(options: &Options, section: &mut Section) -> Result<()> {
    let mut head = vec!["ns a packet over an empty program: median, least".to_owned()];
    head.extend(LOG_FLOWS.map(|log| {
        if log == 0 { "1 flow".into() } else { format!("{} flows", Figure(f64::from(1 << log))) }
    }));
    let mut table = Table::new(head);
    let mut goals = Vec::new();
    for traffic in [AUDIO, MANY, VIDEO, OTHER] {
        let mut cells = vec![traffic.name.to_owned()];
        for log_flows in LOG_FLOWS {
            let mut trial = trial(1 << log_flows)?;
            trial.take_turns(traffic.others)?;
            warm(&trial, traffic, 1 << log_flows)?;
            let spread = over(&trial, traffic, log_flows, 1, options)?;
            cells.push(both(spread));
            if log_flows == GOAL_LOG_FLOWS && traffic.rtp {
                goals.push((traffic.name, spread.median));
            }
        }
        table.row(cells);
    }
    let mut cells = vec!["RTP audio, one at a time".to_owned()];
    for log_flows in LOG_FLOWS {
        if log_flows > GOAL_LOG_FLOWS {
            cells.push("-".into());
            continue;
        }
        let trial = trial(1 << log_flows)?;
        warm(&trial, AUDIO, 1 << log_flows)?;
        cells.push(Figure(one_at_a_time(&trial, AUDIO, log_flows, options)?.median).to_string());
    }
    table.row(cells);
    let mut cells = vec!["TCP".to_owned()];
    let trial = trial(16)?;
    let segment = with_byte(frame(OTHER, 0, 0, 1), RTP - 8 - 20 + 9, 6);
    let nothing = load(Kind::Classifier, &empty::NOTHING)?;
    let program = trial.descriptor(FlowProgram::Ingress)?;
    let mut runs = Vec::new();
    for _ in 0..options.number(15, 3) {
        let least = test_run(nothing.as_fd(), &segment, Shown::default(), 1_000_000)?.nanoseconds;
        runs.push(
            f64::from(test_run(program, &segment, Shown::default(), 1_000_000)?.nanoseconds)
                - f64::from(least),
        );
    }
    cells.push(both(Spread::of(&runs).context("no runs")?));
    cells.extend(vec!["-".to_owned(); 3]);
    table.row(cells);
    section.table("What arrives at an Ethernet interface, IPv4:", table);
    for (name, found) in goals {
        let what = format!("a packet among 16,384 flows, {name}, at most {GOAL_NS} ns");
        section.goal(what, format!("{} ns", Figure(found)), found <= GOAL_NS);
    }
    section.remark(
        "A program that writes the next flow into the packet and goes on to the flow program, and the same before an empty one \
         (`BPF_PROG_TEST_RUN`); the difference of the pair, the median of 15 pairs. Code and branches are warm, flows as \
         cold as their number makes them, the table is full, and 256 flows are a path. Every packet was checked to have been \
         counted as the next of its stream. *One at a time* is a system call for each packet, the median of single runs: the \
         kernel makes and frees a packet in between, and the clock is read for each run. *Streams take turns* is what the agent asks \
         for from 1.6 million RTP packets a second on, a fraction of what is sent here: each stream's jitter is measured a sixteenth of the \
         time, and the clock read as seldom; below 100,000 packets a second every stream is measured always.",
    );
    Ok(())
}

/// Datagrams that stand for several.
fn joined(options: &Options, section: &mut Section) -> Result<()> {
    let mut table = Table::new([
        "one datagram that stands for several, 16 flows",
        "ns",
        "ns a segment",
        "ns a further segment",
    ]);
    let mut of_forty = f64::INFINITY;
    for (name, traffic, count) in [
        ("40 of 80 bytes", Traffic { size: 80, ticks: 0, ..AUDIO }, 40),
        ("10 of 300 bytes", Traffic { size: 300, ticks: 0, ..AUDIO }, 10),
        ("3 of 1,100 bytes", VIDEO, 3),
    ] {
        // Of a machine that others use, the least of each: these are differences of differences.
        let fresh = |count| -> Result<f64> {
            let trial = trial(16)?;
            warm(&trial, traffic, 16)?;
            Ok(over(&trial, traffic, 4, count, options)?.least)
        };
        let (one, all) = (fresh(1)?, fresh(count)?);
        let (each, further) = (all / count as f64, (all - one) / (count - 1) as f64);
        if count == 40 {
            of_forty = further;
        }
        table.row([
            name.to_owned(),
            Figure(all).to_string(),
            Figure(each).to_string(),
            Figure(further).to_string(),
        ]);
    }
    section.table("Segments:", table);
    section.remark(
        "Here all segments lie in the linear part of the packet, for the kernel's test makes no others; those of a sender with \
         `UDP_SEGMENT` or of GRO mostly lie in fragments, from which the kernel copies more slowly. The heads of \
         segments larger than 1,024 bytes are read one by one, smaller segments copied 4,096 bytes at a time. The least of 15 pairs; \
         the goal is about forty, for with few there is what each datagram costs as well.",
    );
    section.goal(
        format!("a segment of forty, at most {GOAL_SEGMENT_NS} ns"),
        format!("{} ns", Figure(of_forty)),
        of_forty <= GOAL_SEGMENT_NS,
    );
    Ok(())
}

/// Memory with a budget of a hundred thousand flows.
fn memory(options: &Options, section: &mut Section) -> Result<()> {
    let (few, many) = (options.number(16_384, 1024) as u32, options.number(100_000, 10_000) as u32);
    let mut table = Table::new(["limits.flows", "maps, MiB", "agent, RSS, MiB", "peak"]);
    let mut peak = 0.0;
    for flows in [few, many] {
        let maps = trial(flows)?.map_memory() as f64 / MIB;
        let config = format!("[media]\ninterfaces = [\"*\"]\n[limits]\nflows = {flows}");
        let agent = Setup::default().config(&config).start();
        thread::sleep(Duration::from_secs(3));
        let memory = Memory::of(agent.process.id());
        table.row([
            Figure(f64::from(flows)).to_string(),
            Figure(maps).to_string(),
            Figure(memory.now).to_string(),
            Figure(memory.peak).to_string(),
        ]);
        peak = memory.peak;
    }
    section.table("Memory, the other limits as they are by default:", table);
    section.goal(
        format!("the agent with room for 100,000 flows, at most {GOAL_MIB} MiB beside its maps"),
        format!("{} MiB", Figure(peak)),
        peak <= GOAL_MIB,
    );
    section.remark("The agent keeps nothing of a single flow: its memory grows with paths, not with flows.");
    Ok(())
}
