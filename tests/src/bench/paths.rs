//! Paths: how soon one that is dead in one direction is told, and how often one that only loses is taken for dead; beside BFD (BIRD) on
//! the same link at the same time.

use std::{
    fmt::Write as _,
    thread,
    time::{Duration, Instant},
};

use graylag::model::status::Message;

use super::{Options, Section, Spread, Table, feed::Feed, sample::Figure};
use crate::{
    agent::{Agent, Setup},
    eventually,
    net::{Host, Pair},
    nft::Nft,
    proc::{Directory, Process},
};

/// Paths, each with a STAMP session and a BFD session.
const PATHS: u8 = 20;
/// A usual setting of BFD.
const BFD: &str = "min rx interval 300 ms; min tx interval 300 ms; multiplier 3;";
const SOON: Duration = Duration::from_secs(60);

/// BIRD, which runs nothing but BFD.
struct Bird {
    process: Process,
    _directory: Directory,
}

impl Bird {
    fn start(host: &Host, own: u8, other: u8) -> Self {
        let mut config = format!(
            "log stderr all;\nrouter id 10.78.0.{own};\nprotocol device {{}}\nprotocol bfd {{\n  debug {{ events }};\n  \
             interface \"eth0\" {{ {BFD} }};\n"
        );
        for path in 0..PATHS {
            let _ = writeln!(
                config,
                "  neighbor {} dev \"eth0\" local {};",
                address(path, other),
                address(path, own)
            );
        }
        config.push_str("}\n");
        let directory = Directory::new();
        let path = directory.write("bird.conf", &config);
        let control = directory.path().join("bird.ctl");
        let mut command = host.command("bird");
        Self {
            process: Process::start(command.arg("-f").arg("-c").arg(path).arg("-s").arg(control)),
            _directory: directory,
        }
    }

    /// Sessions that came up, less those that went down.
    fn up(&self) -> usize {
        self.process.said(|line| line.ends_with(" to Up")).len() - self.downs()
    }

    /// How often a session went down.
    fn downs(&self) -> usize {
        self.process.said(|line| line.ends_with("from Up to Down")).len()
    }

    /// When the session to a neighbour first went down after a moment.
    fn went_down(&self, neighbour: &str, since: Instant) -> Option<Instant> {
        let session = format!("Session to {neighbour} ");
        let told = self.process.said(|line| line.contains(&session) && line.ends_with("from Up to Down"));
        told.into_iter().find(|at| *at >= since)
    }
}

fn address(path: u8, end: u8) -> String {
    format!("10.78.{}.{end}", path + 1)
}

fn peer(path: u8) -> String {
    format!("peer-{path}")
}

/// Two hosts with many paths between them.
struct Ends {
    pair: Pair,
    agents: [Agent; 2],
    feeds: [Feed; 2],
    birds: [Bird; 2],
}

impl Ends {
    fn start() -> Self {
        let pair = Pair::new();
        for path in 0..PATHS {
            for (host, end) in [(&pair.server, 1), (&pair.client, 2)] {
                host.ip(&["addr", "add", &format!("{}/24", address(path, end)), "dev", "eth0"]);
            }
        }
        let agent = |host: &Host, other: u8| {
            let mut config = "[stamp]\nlisten = \"0.0.0.0:862\"\n".to_owned();
            for path in 0..PATHS {
                let (name, address) = (peer(path), address(path, other));
                let _ = write!(
                    config,
                    "[[peer]]\nname = \"{name}\"\ncidrs = [\"{address}\"]\n\
                     [[probe]]\nkind = \"stamp\"\ntarget = \"{address}:862\"\ninterval = \"100ms\"\n"
                );
            }
            Setup::watching(&[host]).inside(host).config(&config).start()
        };
        let agents = [agent(&pair.server, 2), agent(&pair.client, 1)];
        let feeds = [Feed::open(&agents[0]), Feed::open(&agents[1])];
        let birds = [Bird::start(&pair.server, 1, 2), Bird::start(&pair.client, 2, 1)];
        let ends = Self { pair, agents, feeds, birds };
        ends.until_well();
        ends
    }

    /// Waits until every path is healthy, and every session of BFD up.
    fn until_well(&self) {
        let is_well = |end: usize| {
            let states = self.feeds[end].states();
            states.len() == usize::from(PATHS) * 2
                && states.iter().all(|state| state == "healthy")
                && self.birds[end].up() == usize::from(PATHS)
        };
        eventually("all is well", SOON, || (is_well(0) && is_well(1)).then_some(()));
    }
}

/// Adds this part's figures.
pub fn run(options: &Options) -> Section {
    let mut section = Section::default();
    let ends = Ends::start();
    let dead = dead_one_way(&ends);
    let mut table = Table::new(["", "paths", "seconds, median", "least", "most"]);
    for (name, times) in [("graylag, STAMP every 100 ms", &dead.0), ("BFD (BIRD), 3 × 300 ms", &dead.1)] {
        let Some(spread) = Spread::of(times) else {
            section.remark(format!("{name}: nothing was reported."));
            continue;
        };
        table.row([name.to_owned()].into_iter().chain(spread.cells(PATHS.into())));
        if name.starts_with("graylag") {
            section.goal(
                "a direction that is dead is told within 1 s",
                spread.seconds(),
                spread.n == usize::from(PATHS) && spread.most <= 1.0,
            );
        }
    }
    section.table(
        "D1: from the moment a path is dead in one direction until the first of its ends says so; each way \
         at half of the paths. graylag names the direction, BFD does not:",
        table,
    );
    super::readers::add(&mut section, &ends.agents[1], || drop(dead_one_way(&ends)));
    let time = Duration::from_secs(options.number(300, 10) as u64);
    let mut table =
        Table::new(["lost, each way", "path-minutes", "BFD down", "graylag down", "graylag degraded"]);
    for percent in [2, 5] {
        let (bfd, down, degraded) = lossy(&ends, percent, time);
        let minutes = time.as_secs_f64() / 60.0 * f64::from(PATHS);
        table.row([
            format!("{percent} %"),
            Figure(minutes).to_string(),
            bfd.to_string(),
            down.to_string(),
            degraded.to_string(),
        ]);
        section.goal(
            format!("{percent} % of random loss is never taken for a dead path"),
            format!("{down} times in {} path-minutes", Figure(minutes)),
            down == 0,
        );
    }
    section.table("False moves: how often one of the ends took a path that only loses for dead:", table);
    section.remark(
        "Both run over the same paths at the same time. That a path which loses 5 % is *degraded* is true, and no false move; BFD cannot say it.",
    );
    section
}

/// Seconds until graylag, and BFD, said so, path by path.
fn dead_one_way(ends: &Ends) -> (Vec<f64>, Vec<f64>) {
    let nfts = [Nft::new(&ends.pair.server), Nft::new(&ends.pair.client)];
    let mut begun = Vec::new();
    for path in 0..PATHS {
        let at = usize::from(path % 2);
        let from = address(path, if at == 0 { 2 } else { 1 });
        nfts[at].rule(&format!("dead{path}"), &format!("ip saddr {from}"), "drop");
        begun.push(Instant::now());
        // Not all at the same distance from a probe.
        thread::sleep(Duration::from_millis(137));
    }
    thread::sleep(Duration::from_secs(5));
    let of_bfd = (0..PATHS).filter_map(|path| {
        let since = begun[usize::from(path)];
        let told = |end: usize, other: u8| ends.birds[end].went_down(&address(path, other), since);
        let first = [told(0, 2), told(1, 1)].into_iter().flatten().min()?;
        Some(first.duration_since(since).as_secs_f64())
    });
    let of_bfd = of_bfd.collect();
    let of_graylag = (0..PATHS).filter_map(|path| {
        let i = usize::from(path);
        let told =
            ends.feeds.iter().filter_map(|feed| feed.path_became(&peer(path), "down", begun[i])).min()?;
        Some(told.duration_since(begun[i]).as_secs_f64())
    });
    let of_graylag = of_graylag.collect();
    nfts.iter().for_each(Nft::heal);
    ends.until_well();
    (of_graylag, of_bfd)
}

/// How often paths went down by BFD, down by graylag, and degraded, at either end.
fn lossy(ends: &Ends, percent: u32, time: Duration) -> (usize, usize, usize) {
    let bfd = || ends.birds[1].downs();
    let of = |state: &str| ends.feeds.iter().map(|feed| feed.paths_became(state)).sum::<usize>();
    let before = (bfd(), of("down"), of("degraded"));
    let nfts = [Nft::new(&ends.pair.server), Nft::new(&ends.pair.client)];
    for nft in &nfts {
        nft.apply(&format!("add rule inet t in meta l4proto udp numgen random mod 100 < {percent} drop"));
    }
    thread::sleep(time);
    let after = (bfd(), of("down"), of("degraded"));
    nfts.iter().for_each(Nft::heal);
    thread::sleep(Duration::from_secs(15));
    ends.until_well();
    (after.0 - before.0, after.1 - before.1, after.2 - before.2)
}

impl Feed {
    /// States of all paths as they were last told.
    fn states(&self) -> Vec<String> {
        let mut states = std::collections::BTreeMap::new();
        self.each(|_, message| match message {
            Message::State { paths, .. } => {
                states.extend(paths.iter().map(|p| ((p.peer.clone(), p.direction.clone()), p.state.clone())));
            }
            Message::Path { path, to, .. } => {
                states.insert((path.peer.clone(), path.direction.clone()), to.clone());
            }
            _ => {}
        });
        states.into_values().collect()
    }

    /// When a path first changed to a state, in either direction, since a moment.
    fn path_became(&self, peer: &str, state: &str, since: Instant) -> Option<Instant> {
        let mut first = None;
        self.each(|at, message| {
            if let Message::Path { path, to, .. } = message
                && path.peer == peer
                && to == state
                && at >= since
            {
                first = first.or(Some(at));
            }
        });
        first
    }

    /// How often paths changed to a state.
    fn paths_became(&self, state: &str) -> usize {
        let mut n = 0;
        self.each(|_, message| n += usize::from(matches!(message, Message::Path { to, .. } if to == state)));
        n
    }
}
