//! Processor time of a datagram on its way from a socket to a socket: by what is attached on the way.
//!
//! One thread sends a few and takes them out again, so that nobody waits for anybody and nothing is dropped: all of the way,
//! from the system call through the driver and back, is charged to it, and what others do on the machine is not. What is
//! attached changes every few milliseconds, each thing beside nothing, so that both see the same machine.

use std::{
    fs::File,
    net::{SocketAddr, UdpSocket},
    os::fd::{AsFd, OwnedFd},
    thread,
    time::Duration,
};

use anyhow::{Context, Result};
use graylag::{
    config::Config,
    kernel::trial::{FlowProgram, Trial},
    run::kernel_settings,
};
use rustix::{
    net::netdevice::name_to_index,
    time::{ClockId, clock_gettime},
};

use super::{Options, Section, Spread, Table, empty, sample::Figure};
use crate::{
    agent::Setup,
    net::{Pair, address},
    pods::cgroup_root,
    rtp::Stream,
    syscall::{Kind, Place, attach, load},
    udp,
};

/// Datagrams that are sent before they are received.
const BURST: usize = 64;
/// Bursts between two changes.
const BURSTS: usize = 64;
const GOAL: f64 = 0.04;

/// A sender and a receiver.
struct Way {
    sender: UdpSocket,
    receiver: UdpSocket,
    stream: Stream,
    number: usize,
}

impl Way {
    fn new(pair: &Pair) -> Self {
        let receiver = udp::bind(&pair.server, address::SERVER_V4, 5004, 1 << 22);
        let sender = udp::sender(&pair.client, SocketAddr::new(address::SERVER_V4, 5004));
        Self { sender, receiver, stream: Stream::audio(1), number: 0 }
    }

    /// Nanoseconds of this thread a datagram.
    fn measure(&mut self) -> f64 {
        let mut buffer = [0; 2048];
        let packets: Vec<_> =
            (0..BURST * BURSTS).map(|i| self.stream.packet((self.number + i) as u64)).collect();
        self.number += packets.len();
        let before = processor_time();
        for burst in packets.chunks(BURST) {
            for packet in burst {
                let _ = self.sender.send(packet);
            }
            // What another CPU has not yet brought is there soon: it costs a call that finds nothing.
            let mut received = 0;
            for _ in 0..1 << 20 {
                received += usize::from(self.receiver.recv(&mut buffer).is_ok());
                if received == burst.len() {
                    break;
                }
            }
        }
        (processor_time() - before) / packets.len() as f64
    }
}

/// Of this thread, nanoseconds.
fn processor_time() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 * 1e9 + time.tv_nsec as f64
}

/// Nanoseconds with and without something.
fn beside(
    way: &mut Way,
    rounds: usize,
    mut put: impl FnMut() -> Result<Vec<OwnedFd>>,
) -> Result<(Spread, Spread)> {
    let (mut without, mut more) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let nothing = way.measure();
        let attached = put()?;
        let something = way.measure();
        drop(attached);
        without.push(nothing);
        more.push(something - nothing);
    }
    Ok((Spread::of(&without).context("none")?, Spread::of(&more).context("none")?))
}

/// Runs this part.
pub fn run(options: &Options) -> Section {
    let mut section = Section::default();
    measure(options, &mut section)
        .unwrap_or_else(|error| section.remark(format!("Not measured: {error:#}.")));
    section
}

fn measure(options: &Options, section: &mut Section) -> Result<()> {
    let pair = Pair::new();
    let mut way = Way::new(&pair);
    let rounds = options.number(201, 11);
    let config = Config::parse("[media]\ninterfaces = [\"*\"]\n", None)?;
    let trial = Trial::new(&kernel_settings(&config)?)?;
    let cgroup = File::open(cgroup_root())?;
    let tc = load(Kind::Classifier, &empty::NOTHING)?;
    let pass = load(Kind::CgroupSkb, &empty::PASS)?;
    let index = pair.server.run(|| -> Result<u32> {
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        Ok(name_to_index(&socket, "eth0")?)
    })?;
    let at_interface = |program| pair.server.run(|| attach(program, Place::Interface(index)));
    let mut table = Table::new(["attached", "ns a datagram without", "ns more, median", "least", "most"]);
    let mut row = |name: &str, (without, more): (Spread, Spread)| {
        table.row([
            name.to_owned(),
            Figure(without.median).to_string(),
            Figure(more.median).to_string(),
            Figure(more.least).to_string(),
            Figure(more.most).to_string(),
        ]);
        more.median / without.median
    };
    let found = beside(&mut way, rounds, || Ok(vec![]))?;
    row("nothing", found);
    let found = beside(&mut way, rounds, || Ok(vec![at_interface(tc.as_fd())?]))?;
    row("an empty program at the interface", found);
    let flow = trial.descriptor(FlowProgram::Ingress)?;
    let found = beside(&mut way, rounds, || Ok(vec![at_interface(flow)?]))?;
    row("the flow program at the interface", found);
    let found =
        beside(&mut way, rounds, || Ok(vec![attach(pass.as_fd(), Place::CgroupIn(cgroup.as_fd()))?]))?;
    row("an empty program at the cgroup, in", found);
    let found =
        beside(&mut way, rounds, || Ok(vec![attach(pass.as_fd(), Place::CgroupOut(cgroup.as_fd()))?]))?;
    row("an empty program at the cgroup, out", found);
    // It starts too slowly for that many changes.
    let mut agents = Vec::new();
    let mut bare = Vec::new();
    for _ in 0..options.number(9, 2) {
        let times = |way: &mut Way| -> Option<Spread> {
            Spread::of(&(0..15).map(|_| way.measure()).collect::<Vec<_>>())
        };
        let without = times(&mut way).context("none")?.median;
        let agent = Setup::default().inside(&pair.server).config("[media]\ninterfaces = [\"eth0\"]").start();
        thread::sleep(Duration::from_millis(1500));
        agents.push(times(&mut way).context("none")?.median - without);
        bare.push(without);
        drop(agent);
        thread::sleep(Duration::from_millis(300));
    }
    let share = row(
        "the agent, media watched",
        (Spread::of(&bare).context("none")?, Spread::of(&agents).context("none")?),
    );
    section.table("By what is attached, each beside nothing, one right after the other:", table);
    section.goal(
        format!("processor time of a datagram within {} %", GOAL * 100.0),
        format!("{:.1} %", share * 100.0),
        share <= GOAL,
    );
    Ok(())
}
