//! Run time of the kernel programs, and what all of them take of one TCP connection.
//!
//! In-kernel run time over runs, as the agent itself reports them (`graylag.agent.program.time` and `.run`).

use std::{thread, time::Duration};

use graylag::kernel::programs::{Hook, PROGRAMS};

use super::{
    Options, Section, Table, empty,
    load::{Bed, Load},
    sample::Figure,
};
use crate::{agent::Setup, metrics::Scrape};

/// The agent reads run times every five seconds.
const SETTLED: Duration = Duration::from_millis(5_600);
/// All hooks together for one connection of this host.
const GOAL_US: f64 = 1.5;

/// Runs this part.
pub fn run(options: &Options) -> Section {
    let bed = Bed::new();
    // A program that is preempted is measured while it waits for a CPU: let others wait. Threads inherit it.
    if let Err(error) = rustix::process::nice(-20) {
        eprintln!("bench: the priority cannot be raised: {error}");
    }
    let empty = empty::nanoseconds().unwrap_or_else(|error| {
        eprintln!("bench: the cost of measuring is taken to be nothing: {error}");
        0.0
    });
    let pair = &bed.pair;
    let measure = |setup: Setup, ipv6: bool| Costs::measure(&bed, setup, ipv6, options, empty);
    let both = measure(Setup::default(), false);
    let v6 = measure(Setup::default(), true);
    let client = measure(Setup::watching(&[&pair.client]), false);
    let server = measure(Setup::watching(&[&pair.server]), false);

    let _ = rustix::process::nice(20);

    let mut section = Section::default();
    section.table("Each program, IPv4, nothing else configured:", both.by_program());
    let mut table =
        Table::new(["a connection: connect, request, answer, close", "runs", "µs as measured", "µs net"]);
    for (name, costs, of) in [
        ("IPv4, both ends on this kernel", &both, 1.0),
        ("IPv4, one end (half of it)", &both, 2.0),
        ("IPv6, both ends on this kernel", &v6, 1.0),
        ("IPv6, one end (half of it)", &v6, 2.0),
        ("IPv4, only the client's namespace in scope", &client, 1.0),
        ("IPv4, only the server's namespace in scope", &server, 1.0),
    ] {
        let (runs, raw, net) = costs.per_connection();
        table.row([
            name.to_owned(),
            Figure(runs / of).to_string(),
            Figure(raw / of / 1e3).to_string(),
            Figure(net / of / 1e3).to_string(),
        ]);
    }
    section.table("All hooks together:", table);
    for (family, costs) in [("IPv4", &both), ("IPv6", &v6)] {
        let found = costs.per_connection().2 / 2e3;
        let what = format!("all hooks for one end of a TCP connection, {family}, at most {GOAL_US} µs");
        section.goal(what, format!("{} µs", Figure(found)), found <= GOAL_US);
    }
    section.remark(format!(
        "{} connections ran under the measurement (IPv4, both ends); {:.1} % of the connection ends that the programs saw \
         were not the benchmark's, and are divided out.",
        Figure(both.connections),
        both.foreign * 100.0
    ));
    section.remark(format!(
        "*Net* is less {} ns a run: what the kernel's own measurement adds, that is the run time of a program that does \
         nothing, measured the same way. Without `program_stats` nobody pays it. Getting into a program is in neither figure; \
         part `throughput` has it.",
        Figure(empty)
    ));
    section.remark(
        "Client and server are on the same kernel here, so that every connection is seen twice, once from each end; a host \
         has one end of a connection, hence the half. With only one namespace in scope the other end's events still enter \
         the programs and leave again at once.",
    );
    section
}

/// What one program did: nanoseconds a run as measured, runs.
struct Cost {
    name: &'static str,
    nanoseconds: f64,
    runs: f64,
}

/// What the programs did under the load.
struct Costs {
    programs: Vec<Cost>,
    iterators: Vec<Cost>,
    empty: f64,
    /// Connections that the programs' runs are divided by.
    connections: f64,
    /// Share of connection ends that were not the benchmark's.
    foreign: f64,
}

impl Costs {
    fn measure(bed: &Bed, setup: Setup, ipv6: bool, options: &Options, empty: f64) -> Self {
        let scoped = setup.toml().contains("[scope]");
        let agent = setup.config("[kernel]\nprogram_stats = true\n[collect]\ninterval = \"500ms\"").start();
        thread::sleep(SETTLED);
        let before = agent.scrape();
        let load = Load::start(bed, ipv6, None);
        thread::sleep(options.seconds(15, 2));
        let done = load.stop() as f64;
        thread::sleep(SETTLED);
        let after = agent.scrape();

        let costs = |iterators: bool| {
            let names = PROGRAMS.iter().filter(|p| is_iterator(p.hook) == iterators).map(|p| p.name);
            names.filter_map(|name| Cost::between(&before, &after, name)).collect()
        };
        // Unscoped, the programs saw the connections of the whole machine, each from two ends.
        let seen = (established(&after) - established(&before)) / 2.0;
        Self {
            programs: costs(false),
            iterators: costs(true),
            empty,
            connections: if scoped { done } else { seen },
            foreign: if scoped { 0.0 } else { 1.0 - done / seen },
        }
    }

    /// Runs, nanoseconds as measured, nanoseconds net.
    fn per_connection(&self) -> (f64, f64, f64) {
        let sum = |of: &dyn Fn(&Cost) -> f64| self.programs.iter().map(of).sum::<f64>() / self.connections;
        (
            sum(&|cost| cost.runs),
            sum(&|cost| cost.runs * cost.nanoseconds),
            sum(&|cost| cost.runs * self.net(cost)),
        )
    }

    fn net(&self, cost: &Cost) -> f64 {
        (cost.nanoseconds - self.empty).max(0.0)
    }

    fn by_program(&self) -> Table {
        let mut table = Table::new([
            "program",
            "ns a run, as measured",
            "net",
            "runs a connection, both ends",
            "ns a connection, net",
        ]);
        for cost in &self.programs {
            let runs = cost.runs / self.connections;
            table.row([
                cost.name.to_owned(),
                Figure(cost.nanoseconds).to_string(),
                Figure(self.net(cost)).to_string(),
                Figure(runs).to_string(),
                Figure(runs * self.net(cost)).to_string(),
            ]);
        }
        for cost in &self.iterators {
            let (raw, net) = (Figure(cost.nanoseconds).to_string(), Figure(self.net(cost)).to_string());
            table.row([format!("{} (a table entry)", cost.name), raw, net, "-".into(), "-".into()]);
        }
        table
    }
}

impl Cost {
    /// Nothing where it did not run.
    fn between(before: &Scrape, after: &Scrape, name: &'static str) -> Option<Self> {
        let labels = [("graylag.program.name", name)];
        let grown = |metric: &str| after.sum(metric, &labels) - before.sum(metric, &labels);
        let runs = grown("graylag.agent.program.run");
        let nanoseconds = grown("graylag.agent.program.time_seconds") * 1e9 / runs;
        (runs > 0.0).then_some(Self { name, nanoseconds, runs })
    }
}

const fn is_iterator(hook: Hook) -> bool {
    matches!(hook, Hook::MapIterator { .. } | Hook::TcpIterator)
}

/// Handshakes completed, of both roles, everywhere.
fn established(scrape: &Scrape) -> f64 {
    scrape.sum("graylag.tcp.handshake.count", &[("graylag.outcome", "established")])
}
