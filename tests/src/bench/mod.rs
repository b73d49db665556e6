//! The benchmark: what the kernel programs and the agent cost, and how soon a fault is told.
//!
//! It compares, and never fails because a machine is slow: times inside the kernel, ratios of pairs measured one right
//! after the other, shares of a core. Whether a goal is met is said, with the figure.

mod blast;
mod callers;
mod detection;
mod document;
mod empty;
mod facts;
mod feed;
mod flows;
mod footprint;
mod load;
mod options;
mod packets;
mod paths;
mod programs;
mod readers;
mod relays;
mod rotor;
mod sample;
mod section;
mod server;
mod stamp;
mod stream;
mod table;
mod throughput;
mod usage;

use anyhow::{Context, Result};

pub use document::replace;
pub use options::Options;
pub use sample::Spread;
pub use table::Table;

use crate::servers::{children, signal};
use facts::{Facts, Weather};
use section::Section;

/// One part of the benchmark.
struct Part {
    name: &'static str,
    about: &'static str,
    run: fn(&Options) -> Section,
}

const PARTS: [Part; 8] = [
    Part {
        name: "programs",
        about: "run time of each kernel program, and of all of them per TCP connection",
        run: programs::run,
    },
    Part {
        name: "packets",
        about: "what the flow programs take of a packet, of a segment, and of memory",
        run: packets::run,
    },
    Part {
        name: "throughput",
        about: "connections, requests and bytes a second with the agent and without",
        run: throughput::run,
    },
    Part {
        name: "blast",
        about: "processor time of a datagram, sent and received, by what is attached",
        run: blast::run,
    },
    Part {
        name: "footprint",
        about: "the agent's share of a core, its memory, the time of a look",
        run: footprint::run,
    },
    Part { name: "detection", about: "from a fault to /v1/watch", run: detection::run },
    Part {
        name: "paths",
        about: "a path that is dead one way, and one that only loses, beside BFD",
        run: paths::run,
    },
    Part { name: "stamp", about: "what a thousand STAMP sessions take of a core", run: stamp::run },
];

/// Names of the parts, and of their markers.
pub fn parts() -> impl Iterator<Item = &'static str> {
    PARTS.iter().map(|part| part.name)
}

/// Runs what the arguments ask for.
pub fn main(arguments: impl Iterator<Item = String>) -> Result<()> {
    let names = PARTS.map(|part| part.name);
    let Some(options) = Options::parse(arguments, &names)? else {
        println!("{}", options::USAGE);
        for part in &PARTS {
            println!("  {:11} {}", part.name, part.about);
        }
        return Ok(());
    };
    raise_descriptor_limit()?;
    if let Some(serve) = options.serve {
        return server::run(serve);
    }
    crate::require_root();
    end_children_on_panic();
    let facts = Facts::gather(&options);
    for part in PARTS.iter().filter(|part| options.wants(part.name)) {
        eprintln!("bench: {}: {}", part.name, part.about);
        let before = Weather::now();
        let section = (part.run)(&options);
        let text = section.markdown(&facts, &before, &Weather::now());
        println!("## {}\n\n{text}", part.name);
        if let Some(path) = &options.markdown {
            let old =
                std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
            let new = replace(&old, part.name, &text).with_context(|| path.display().to_string())?;
            std::fs::write(path, new).with_context(|| format!("cannot write {}", path.display()))?;
        }
    }
    Ok(())
}

/// The release profile aborts on a panic, without running the guards that end the agents: one that is left running would
/// be in all later figures. Namespaces that are left are removed by the next run.
fn end_children_on_panic() {
    let tell = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        tell(panic);
        for child in children(std::process::id()) {
            signal(child, rustix::process::Signal::TERM);
        }
    }));
}

/// Ten thousand connections are as many descriptors. Where the limit is lower, there will be fewer connections.
fn raise_descriptor_limit() -> Result<()> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).context("the limit of open files")
}
