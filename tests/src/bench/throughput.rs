//! What the agent takes of the host's throughput: pairs of runs, one without and one with it, right after each other.

use std::{thread, time::Duration};

use super::{
    Options, Section, Spread, Table,
    load::{Bed, Load},
    sample::Figure,
    stream,
};
use crate::agent::Setup;

/// Until the agent has started, and the load is under way.
const WARM_UP: Duration = Duration::from_millis(1_500);

struct Trial {
    name: &'static str,
    unit: &'static str,
    scale: f64,
    /// Segments of one packet each instead of super-packets.
    single: bool,
    /// The agent watches media at the server's interface.
    media: bool,
    measure: fn(&Bed, Duration) -> f64,
}

const TRIALS: [Trial; 5] = [
    Trial {
        name: "connect, request, answer, close; four callers at full speed",
        unit: "connections/s",
        scale: 1.0,
        single: false,
        media: false,
        measure: |bed, time| {
            let load = Load::start(bed, false, None);
            thread::sleep(WARM_UP);
            load.rate_over(time)
        },
    },
    Trial {
        name: "requests of 64 bytes on one connection, one after the other",
        unit: "requests/s",
        scale: 1.0,
        single: false,
        media: false,
        measure: stream::requests_per_second,
    },
    Trial {
        name: "one bulk stream, super-packets of up to 64 KiB",
        unit: "Gbit/s",
        scale: 8e-9,
        single: false,
        media: false,
        measure: |bed, time| stream::bytes_per_second(&bed.pair, time),
    },
    Trial {
        name: "one bulk stream, every segment a packet of 1500 bytes",
        unit: "Gbit/s",
        scale: 8e-9,
        single: true,
        media: false,
        measure: |bed, time| stream::bytes_per_second(&bed.pair, time),
    },
    Trial {
        name: "RTP in datagrams of 92 bytes, one stream, media watched where it is received",
        unit: "datagrams/s",
        scale: 1.0,
        single: false,
        media: true,
        measure: |bed, time| stream::datagrams_per_second(&bed.pair, time),
    },
];

/// Runs this part.
pub fn run(options: &Options) -> Section {
    let bed = Bed::new();
    let (pairs, time) = (options.number(9, 2), options.seconds(4, 1));
    let mut table = Table::new(["load", "unit", "without", "with", "ratio, median", "least", "most"]);
    for trial in &TRIALS {
        let segments = if trial.single { "1" } else { "65535" };
        for host in [&bed.pair.client, &bed.pair.server] {
            host.ip(&["link", "set", "eth0", "gso_max_segs", segments]);
        }
        let (mut without, mut with, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
        for pair in 0..pairs {
            let on = || {
                let setup = Setup::default();
                let _agent = if trial.media {
                    setup.inside(&bed.pair.server).config("[media]\ninterfaces = [\"eth0\"]").start()
                } else {
                    setup.config("[collect]\ninterval = \"500ms\"").start()
                };
                thread::sleep(WARM_UP);
                (trial.measure)(&bed, time) * trial.scale
            };
            let off = || (trial.measure)(&bed, time) * trial.scale;
            // In turn, so that a machine that becomes slower or faster favours neither.
            let (a, b) = if pair % 2 == 0 {
                let a = off();
                (a, on())
            } else {
                let b = on();
                (off(), b)
            };
            eprintln!("bench: {}: {} without, {} with", trial.unit, Figure(a), Figure(b));
            without.push(a);
            with.push(b);
            ratios.push(b / a);
        }
        let (Some(without), Some(with), Some(ratio)) =
            (Spread::of(&without), Spread::of(&with), Spread::of(&ratios))
        else {
            continue;
        };
        table.row([
            trial.name.to_owned(),
            trial.unit.to_owned(),
            Figure(without.median).to_string(),
            Figure(with.median).to_string(),
            Figure(ratio.median).to_string(),
            Figure(ratio.least).to_string(),
            Figure(ratio.most).to_string(),
        ]);
    }
    let mut section = Section::default();
    section.table(format!("{pairs} pairs of {} s each:", time.as_secs()), table);
    section.remark(
        "Client and server share the machine and keep all its CPUs busy, so what the programs take shows in full, and \
         from both ends of every connection at once: on a host that has one end and other work, a connection costs \
         half as much.",
    );
    section
}
