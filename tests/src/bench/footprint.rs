//! The agent itself: its share of a core, its memory, the time of a look.

use std::{net::TcpStream, thread, time::Duration};

use super::{
    Options, Section, Table,
    flows::{Estate, Requests},
    load::{Bed, Load},
    sample::Figure,
    usage::{Memory, Spent, Usage},
};
use crate::agent::{Agent, Setup};

/// The default, `[collect] interval`.
const INTERVAL: Duration = Duration::from_millis(500);
/// From the start to the measurement: the agent has read BTF, loaded programs and freed what that took.
const SETTLED: Duration = Duration::from_secs(3);
const GOAL_SHARE: f64 = 0.005;
const GOAL_MIB: f64 = 32.0;
const FLOWS: usize = 10_000;

/// Runs this part.
pub fn run(options: &Options) -> Section {
    let mut rows = Vec::new();
    connections(options, &mut rows);
    flows(options, &mut rows);

    let mut table = Table::new([
        "load",
        "reached",
        "% of a core",
        "by utime + stime",
        "µs of CPU a look",
        "RSS, MiB",
        "peak",
    ]);
    for row in &rows {
        table.row([
            row.name.to_owned(),
            row.reached.clone(),
            Figure(row.spent.share * 100.0).to_string(),
            Figure(row.spent.sampled * 100.0).to_string(),
            Figure(row.look() * 1e6).to_string(),
            Figure(row.memory.now).to_string(),
            Figure(row.memory.peak).to_string(),
        ]);
    }
    let mut section = Section::default();
    let time = options.seconds(TIME.0, TIME.1).as_secs();
    section.table(format!("A fresh agent for each row, default configuration, {time} s:"), table);
    for row in rows.iter().filter(|row| row.idle) {
        let found = format!("{} %", Figure(row.spent.share * 100.0));
        section.goal(format!("at most 0.5 % of a core, {}", row.name), found, row.spent.share <= GOAL_SHARE);
    }
    for row in &rows {
        let found = format!("{} MiB, at most {}", Figure(row.memory.now), Figure(row.memory.peak));
        section.goal(format!("at most 32 MiB resident, {}", row.name), found, row.memory.peak <= GOAL_MIB);
    }
    if let Some(row) = rows.first() {
        section.remark(format!(
            "The maps of the kernel half take {} MiB besides, fixed at the start by `[limits]`, used or not.",
            Figure(row.memory.maps)
        ));
    }
    section.remark(
        "The share of a core is the scheduler's own count of the agent's threads (`schedstat`). `utime + stime` is \
         sampled at ticks, and a thread that a tick wakes is seldom there when one comes. What the programs in \
         the kernel take is charged to whoever sends or receives: see `programs`. A look is the collector's \
         thread from waking to sleeping, judgement included.",
    );
    section
}

const TIME: (u64, u64) = (30, 4);

struct Row {
    name: &'static str,
    reached: String,
    /// Whether this is a load at which the agent is to take next to nothing.
    idle: bool,
    spent: Spent,
    memory: Memory,
}

impl Row {
    /// Seconds of CPU of one look.
    fn look(&self) -> f64 {
        let collector = self.spent.threads.get("collector").copied().unwrap_or(0.0);
        collector / (self.spent.seconds / INTERVAL.as_secs_f64())
    }
}

fn start(setup: Setup) -> Agent {
    let agent = setup.config("[collect]\ninterval = \"500ms\"").start();
    thread::sleep(SETTLED);
    agent
}

/// Under a rate of connections.
fn connections(options: &Options, rows: &mut Vec<Row>) {
    let bed = Bed::new();
    let time = options.seconds(TIME.0, TIME.1);
    for (name, rate) in [
        ("nothing", None),
        ("1,000 connections/s", Some(Some(1_000))),
        ("10,000 connections/s", Some(Some(10_000))),
        ("as many connections/s as the machine can", Some(None)),
    ] {
        let agent = start(Setup::default());
        let load = rate.map(|rate| Load::start(&bed, false, rate));
        thread::sleep(Duration::from_secs(1));
        let before = Usage::of(agent.process.id());
        let reached = if let Some(load) = &load {
            format!("{}/s", Figure(load.rate_over(time)))
        } else {
            thread::sleep(time);
            "-".into()
        };
        rows.push(row(&agent, name, reached, rate.is_none(), &before));
    }
}

/// With ten thousand connections open. Their other ends are on this kernel too: only the clients' are in scope.
fn flows(options: &Options, rows: &mut Vec<Row>) {
    let time = options.seconds(TIME.0, TIME.1);
    let count = options.number(FLOWS, 1_000);
    for (name, idle, answers, addresses, rate) in [
        ("10,000 flows, silent", true, true, 1, None),
        ("10,000 flows, 1,000 requests/s", true, true, 1, Some(1_000)),
        ("10,000 flows to 1,000 addresses, 1,000 requests/s", true, true, 1_000, Some(1_000)),
        ("10,000 flows to 4,000 addresses, 1,000 requests/s", true, true, 4_000, Some(1_000)),
        ("10,000 flows that all wait for a first byte", false, false, 1, None),
    ] {
        let estate = Estate::new(answers);
        let agent = start(Setup::watching(&[estate.client()]));
        let open: Vec<TcpStream> = estate.open(count, addresses);
        let seen = Figure(open.len() as f64).to_string();
        thread::sleep(Duration::from_secs(6)); // the opening leaves the agent's window
        let (mut idling, mut requests) = (Vec::new(), None);
        match rate {
            Some(rate) => requests = Some(Requests::start(open, rate)),
            None => idling = open,
        }
        let before = Usage::of(agent.process.id());
        thread::sleep(time);
        let mut row = row(&agent, name, format!("{seen} open"), idle, &before);
        if let Some(requests) = requests {
            row.reached = format!("{seen} open, {}/s", Figure(requests.stop()));
        }
        rows.push(row);
        drop(idling);
    }
}

fn row(agent: &Agent, name: &'static str, reached: String, idle: bool, before: &Usage) -> Row {
    let pid = agent.process.id();
    Row { name, reached, idle, spent: Usage::of(pid).since(before), memory: Memory::of(pid) }
}
