//! From a fault to `/v1/watch`.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::atomic::Ordering,
    thread,
    time::{Duration, Instant},
};

use graylag::model::status::ConditionStatus;

use super::{Options, Section, Spread, Table, callers::Callers, feed::Feed, sample::Figure, server::Server};
use crate::{
    agent::{Agent, Setup},
    net::Pair,
    nft::Nft,
};

const PORT: u16 = 443;
/// Requests a second to each address.
const RATE: u32 = 20;
/// The defaults, `[thresholds]`.
const HANDSHAKE_BOUND: Duration = Duration::from_secs(1);
const FIRST_BYTE_BOUND: Duration = Duration::from_secs(3);
const CONFIG: &str = "[[peer]]\nname = \"balancers\"\ncidrs = [\"10.77.1.0/24\"]\nper_address = true\n\
                      [collect]\ninterval = \"500ms\"";

/// A host with several addresses, each with its own server, and an agent at its clients'.
struct Site {
    pair: Pair,
    addresses: Vec<Ipv4Addr>,
    servers: Vec<Server>,
    agent: Agent,
}

impl Site {
    fn new(count: usize) -> Self {
        let pair = Pair::new();
        let addresses: Vec<Ipv4Addr> = (1..=count as u8).map(|i| Ipv4Addr::new(10, 77, 1, i)).collect();
        pair.add_server_addresses(&addresses);
        let start = |a: &Ipv4Addr| Server::start(&pair.server, IpAddr::V4(*a), PORT);
        let servers = addresses.iter().map(start).collect();
        let agent = Setup::watching(&[&pair.client]).config(CONFIG).start();
        Self { pair, addresses, servers, agent }
    }

    /// When a condition was raised at each address; waits until all are, or the time is over.
    fn raised(&self, feed: &Feed, name: &str, limit: Duration) -> Vec<Option<Instant>> {
        let start = Instant::now();
        loop {
            let about = |c: &ConditionStatus, a: &Ipv4Addr| {
                c.name == name && c.target.address.as_deref() == Some(&a.to_string())
            };
            let raised: Vec<_> = self.addresses.iter().map(|a| feed.raised(|c| about(c, a))).collect();
            if raised.iter().all(Option::is_some) || start.elapsed() > limit {
                return raised;
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Runs this part.
pub fn run(options: &Options) -> Section {
    let mut section = Section::default();
    let mut attempts = Table::new([
        "SYNs to an address dropped",
        "runs",
        "attempts, median",
        "least",
        "most",
        "seconds, median",
        "most",
    ]);
    for (name, matching) in [
        ("every 12th or 13th (8 %)", "numgen inc mod 25 < 2"),
        ("8 %, by chance", "numgen random mod 100 < 8"),
    ] {
        let count = options.number(20, 3);
        let found = dropped_syns(count, matching);
        let (Some(n), Some(seconds)) = (
            Spread::of(&found.iter().map(|f| f.0).collect::<Vec<_>>()),
            Spread::of(&found.iter().map(|f| f.1).collect::<Vec<_>>()),
        ) else {
            section.remark(format!("{name}: nothing was reported."));
            continue;
        };
        attempts.row([
            name.to_owned(),
            format!("{} of {count}", n.n),
            Figure(n.median).to_string(),
            Figure(n.least).to_string(),
            Figure(n.most).to_string(),
            Figure(seconds.median).to_string(),
            Figure(seconds.most).to_string(),
        ]);
        section.goal(
            format!("handshake stall within 1 s and 120 attempts, {name}"),
            format!("median {}, at most {}", Figure(n.median), Figure(n.most)),
            n.n == count && n.most <= 120.0,
        );
    }
    section.table(
        format!("A1: {RATE} requests a second to each address; attempts begun from the fault to 1 s before the report:"),
        attempts,
    );

    let count = options.number(20, 3);
    let late = silent_servers(count);
    if let Some(spread) = Spread::of(&late) {
        let mut table = Table::new(["runs", "seconds, median", "least", "most"]);
        table.row(spread.cells(count));
        section.table(
            format!(
                "A2: {RATE} requests a second, the server accepts and says nothing; from the moment the first request has \
                 waited for {} s:",
                FIRST_BYTE_BOUND.as_secs()
            ),
            table,
        );
        section.goal(
            "first-byte stall within 1 s of its bound",
            spread.seconds(),
            spread.n == count && spread.most <= 1.0,
        );
    } else {
        section.remark("A2: nothing was reported.");
    }
    super::relays::add(options, &mut section);
    section.remark(
        "Every run is an address of its own with its own judgement; the agent looks every 500 ms, the default, and at sockets every 100 ms. By chance, \
         detection in about 109 attempts is the mean (`docs/verdicts.md`), not a bound.",
    );
    section
}

/// A1: attempts and seconds at each address that was reported.
fn dropped_syns(count: usize, matching: &str) -> Vec<(f64, f64)> {
    let site = Site::new(count);
    let nft = Nft::new(&site.pair.server);
    let feed = Feed::open(&site.agent);
    let callers = Callers::start(&site.pair.client, &site.addresses, PORT, RATE, HANDSHAKE_BOUND);
    thread::sleep(Duration::from_secs(4));
    let mut faults = Vec::new();
    for (i, address) in site.addresses.iter().enumerate() {
        nft.rule(&format!("syn{i}"), &format!("ip daddr {address} tcp flags syn {matching}"), "drop");
        faults.push(Instant::now());
    }
    let raised = site.raised(&feed, "handshake_stall", Duration::from_secs(60));
    let found = |(i, at): (usize, Option<Instant>)| {
        let at = at?;
        // What began within the last second is not known to hang.
        let begun =
            callers.line(i).begun.iter().filter(|b| **b >= faults[i] && **b + HANDSHAKE_BOUND <= at).count();
        Some((begun as f64, (at - faults[i]).as_secs_f64()))
    };
    raised.into_iter().enumerate().filter_map(found).collect()
}

/// A2: seconds from the stall bound to the report, at each address that was reported.
fn silent_servers(count: usize) -> Vec<f64> {
    let site = Site::new(count);
    let feed = Feed::open(&site.agent);
    let callers = Callers::start(&site.pair.client, &site.addresses, PORT, RATE, HANDSHAKE_BOUND);
    thread::sleep(Duration::from_secs(4));
    let mut faults = Vec::new();
    for server in &site.servers {
        server.silent.store(true, Ordering::Relaxed);
        faults.push(Instant::now());
        // Not all at the same distance from a look.
        thread::sleep(Duration::from_millis(137));
    }
    let raised = site.raised(&feed, "first_byte_stall", Duration::from_secs(30));
    let late = |(i, at): (usize, Option<Instant>)| {
        let line = callers.line(i);
        let first = line.asked.iter().find(|asked| **asked >= faults[i])?;
        Some((at?.saturating_duration_since(*first).as_secs_f64()) - FIRST_BYTE_BOUND.as_secs_f64())
    };
    raised.into_iter().enumerate().filter_map(late).collect()
}
