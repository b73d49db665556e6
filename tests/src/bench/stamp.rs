//! STAMP: what a thousand sessions take of a core, at the end that sends and at the end that answers.

use std::{collections::BTreeMap, fmt::Write as _, fs, os::unix::fs::PermissionsExt, thread, time::Duration};

use graylag::model::status::Message;

use super::{
    Options, Section, Table,
    feed::Feed,
    sample::Figure,
    usage::{Spent, Usage},
};
use crate::{
    agent::{Agent, Setup},
    eventually,
    net::{Host, Pair, address},
    proc::Directory,
};

const SESSIONS: usize = 1000;
const GOAL: f64 = 0.05;
const SOON: Duration = Duration::from_secs(60);
const KEY: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

/// Runs this part.
pub fn run(options: &Options) -> Section {
    let mut table =
        Table::new(["1,000 sessions", "agent", "% of a core", "prober", "collector", "states told"]);
    let mut section = Section::default();
    for (name, keys) in [("unauthenticated", false), ("authenticated", true)] {
        let [sender, reflector] = measure(options, keys);
        let share = |spent: &Spent, thread: &str| {
            Figure(spent.threads.get(thread).copied().unwrap_or(0.0) / spent.seconds * 100.0).to_string()
        };
        for (end, (spent, told)) in [("sends", &sender), ("answers", &reflector)] {
            table.row([
                name.to_owned(),
                end.to_owned(),
                Figure(spent.share * 100.0).to_string(),
                share(spent, "prober"),
                share(spent, "collector"),
                told.to_string(),
            ]);
        }
        let found = format!("{} %", Figure(sender.0.share * 100.0));
        section.goal(
            format!("1,000 sessions at 10 packets a second take at most 5 % of a core, {name}"),
            found,
            sender.0.share <= GOAL,
        );
    }
    let time = options.seconds(TIME.0, TIME.1).as_secs();
    section.table(
        format!("One agent with a session to each of a thousand addresses, ten test packets a second each, and the agent that answers them; {time} s, nothing else to do:"),
        table,
    );
    section.remark(
        "Between two namespaces the kernel takes a packet in at the other end within the call that sends it, and counts that as the sender's; a network \
         card's interrupt would do it elsewhere. Nothing is wrong with any path, so nothing ought to be told of them. The answering end has one \
         address for each session here.",
    );
    section
}

const TIME: (u64, u64) = (30, 4);

/// Both ends: what they took, and how many changes of path states they told.
fn measure(options: &Options, keys: bool) -> [(Spent, usize); 2] {
    let pair = Pair::new();
    pair.server.ip(&["route", "add", "local", "10.79.0.0/16", "dev", "lo"]);
    pair.client.ip(&["route", "add", "10.79.0.0/16", "via", &address::SERVER_V4.to_string()]);
    let directory = Directory::new();
    let key_file = keys.then(|| {
        let path = directory.write("keys", KEY);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("permissions");
        path
    });
    let key_file = key_file.map_or(String::new(), |path| format!("key_file = \"{}\"\n", path.display()));
    let stamp = format!("[stamp]\nlisten = \"0.0.0.0:862\"\n{key_file}");
    let answers = format!("{stamp}[[peer]]\nname = \"client\"\ncidrs = [\"{}/32\"]\n", address::CLIENT_V4);
    let mut sends = stamp;
    for i in 0..SESSIONS {
        let target = format!("10.79.{}.{}", i / 250, i % 250 + 1);
        let _ =
            write!(sends, "[[probe]]\nkind = \"stamp\"\ntarget = \"{target}:862\"\ninterval = \"100ms\"\n");
    }
    let start = |host: &Host, config: &str| Setup::watching(&[host]).inside(host).config(config).start();
    let agents = [start(&pair.client, &sends), start(&pair.server, &answers)];
    let feeds = [&agents[0], &agents[1]].map(Feed::open);
    eventually("all paths are healthy", SOON, || (feeds[0].healthy() == SESSIONS * 2).then_some(()));
    thread::sleep(Duration::from_secs(3));
    let usage = || [&agents[0], &agents[1]].map(|agent: &Agent| Usage::of(agent.process.id()));
    let told = || [&feeds[0], &feeds[1]].map(Feed::changes);
    let before = (usage(), told());
    thread::sleep(options.seconds(TIME.0, TIME.1));
    let after = (usage(), told());
    [0, 1].map(|end| (after.0[end].since(&before.0[end]), after.1[end] - before.1[end]))
}

impl Feed {
    /// Directions of paths that were last told to be healthy.
    fn healthy(&self) -> usize {
        let mut states = BTreeMap::new();
        self.each(|_, message| match message {
            Message::State { paths, .. } => {
                states.extend(
                    paths.iter().map(|p| ((p.peer.clone(), p.direction.clone()), p.state == "healthy")),
                );
            }
            Message::Path { path, to, .. } => {
                states.insert((path.peer.clone(), path.direction.clone()), to == "healthy");
            }
            _ => {}
        });
        states.into_values().filter(|healthy| *healthy).count()
    }

    /// How often a path's state has changed.
    fn changes(&self) -> usize {
        let mut n = 0;
        self.each(|_, message| n += usize::from(matches!(message, Message::Path { .. })));
        n
    }
}
