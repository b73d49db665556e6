//! The flow programs at the interfaces, and what they count by path.

use std::{collections::BTreeMap, io::Read, time::Duration};

use aya::{
    Ebpf,
    maps::{Array, HashMap, PerCpuArray, Queue},
    programs::{
        LinkOrder, ProgramError, SchedClassifier, TcAttachType,
        links::FdLink,
        tc::{self, SchedClassifierLinkId, TcAttachOptions},
    },
};
use graylag_ebpf::{
    media::{FlowScan, MediaCounter, MediaKey, OTHER_PATH, PathFlows, PathQuality, PathTraffic},
    session::Session,
    table::Seed,
};

use super::{
    KernelError,
    error::chain,
    maps::{Raw, absent_is_fine, failed, open, open_mut},
    pin::Pins,
};

/// An interface to watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its index.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Whether its packets have Ethernet headers; else they begin with their IP header.
    pub ethernet: bool,
}

/// What became of an interface.
pub type Watched = (String, Result<(), String>);

/// What is attached where.
pub struct Media {
    attached: BTreeMap<u32, Attached>,
    pass: u32,
}

struct Attached {
    interface: Interface,
    /// Links that are pinned are known by their names.
    links: Vec<(&'static str, Option<SchedClassifierLinkId>)>,
}

/// Programs for interfaces with and without Ethernet headers.
const ETHERNET: [(&str, TcAttachType); 2] =
    [("flow_ingress", TcAttachType::Ingress), ("flow_egress", TcAttachType::Egress)];
const BARE: [(&str, TcAttachType); 2] =
    [("flow_ingress_ip", TcAttachType::Ingress), ("flow_egress_ip", TcAttachType::Egress)];

impl Media {
    /// Nothing yet. `start` is the number of the pass before the first: one that no earlier agent, whose passes may have left
    /// theirs, is likely to have come to.
    pub const fn new(start: u32) -> Self {
        Self { attached: BTreeMap::new(), pass: start }
    }

    /// Attaches to what is new among `wanted` and lets go of what is no longer there. Returns what is new.
    pub fn watch(
        &mut self,
        ebpf: &mut Ebpf,
        wanted: &[Interface],
        mut pins: Option<&mut Pins>,
    ) -> Vec<Watched> {
        let gone: Vec<u32> = self
            .attached
            .iter()
            .filter(|(_, attached)| !wanted.contains(&attached.interface))
            .map(|(index, _)| *index)
            .collect();
        for index in gone {
            for (program, link) in
                self.attached.remove(&index).into_iter().flat_map(|attached| attached.links)
            {
                // Where the interface itself is gone there is nothing to detach any more.
                match (link, &mut pins) {
                    (Some(link), _) => {
                        let _ = kept_or_loaded(ebpf, pins.as_deref_mut(), program)
                            .and_then(|program| program.detach(link).map_err(|e| chain(&e)));
                    }
                    (None, Some(pins)) => pins.leave_interface(program, index),
                    (None, None) => {}
                }
            }
        }
        let mut news = Vec::new();
        for interface in wanted {
            if self.attached.contains_key(&interface.index) {
                continue;
            }
            let mut attached = Attached { interface: interface.clone(), links: Vec::new() };
            let mut outcome = Ok(());
            let programs = if interface.ethernet { ETHERNET } else { BARE };
            for (program, direction) in programs {
                match attach(ebpf, program, interface, direction, pins.as_deref_mut()) {
                    Ok(link) => attached.links.push((program, link)),
                    Err(error) => outcome = Err(error),
                }
            }
            news.push((interface.name.clone(), outcome));
            self.attached.insert(interface.index, attached);
        }
        news
    }

    /// The next pass over the flow table.
    pub fn next_pass(&mut self) -> u32 {
        self.pass = self.pass.wrapping_add(1).max(1);
        self.pass
    }
}

fn classifier<'a>(ebpf: &'a mut Ebpf, program: &str) -> Result<&'a mut SchedClassifier, String> {
    ebpf.program_mut(program)
        .ok_or("not in the kernel object")?
        .try_into()
        .map_err(|e: ProgramError| chain(&e))
}

/// The one that was taken over, where one was: two would be two.
fn kept_or_loaded<'a>(
    ebpf: &'a mut Ebpf,
    pins: Option<&'a mut Pins>,
    program: &str,
) -> Result<&'a mut SchedClassifier, String> {
    match pins.and_then(|pins| pins.classifier(program)) {
        Some(kept) => Ok(kept),
        None => classifier(ebpf, program),
    }
}

/// Behind what others have attached, whose verdicts stand: what they drop never was there, what they let pass is seen.
fn attach(
    ebpf: &mut Ebpf,
    program: &'static str,
    interface: &Interface,
    direction: TcAttachType,
    mut pins: Option<&mut Pins>,
) -> Result<Option<SchedClassifierLinkId>, String> {
    if let Some(pins) = &mut pins {
        let exchange = |link| {
            let loaded = classifier(ebpf, program)?;
            let link = loaded.attach_to_link(link).map_err(|e| chain(&e))?;
            // The pin holds it from now on.
            loaded.take_link(link).map(drop).map_err(|e| chain(&e))
        };
        if let Some(outcome) = pins.at_interface(program, interface.index, exchange) {
            return outcome.map(|()| None);
        }
    }
    let (index, interface) = (interface.index, interface.name.as_str());
    let loaded = kept_or_loaded(ebpf, pins.as_deref_mut(), program)?;
    let tcx = loaded.attach_with_options(interface, direction, TcAttachOptions::TcxOrder(LinkOrder::last()));
    match tcx {
        Ok(link) => {
            let Some(pins) = pins else { return Ok(Some(link)) };
            let loaded = kept_or_loaded(ebpf, Some(&mut *pins), program)?;
            let link = loaded.take_link(link).map_err(|e| chain(&e))?;
            let link = FdLink::try_from(link).map_err(|e| chain(&e))?;
            pins.pin_at_interface(program, index, link).map(|()| None)
        }
        // Before Linux 6.6 there is no TCX: a filter at a `clsact` qdisc does the same.
        Err(refused) => {
            // It may be there already, ours or another's; whether it is, the filter tells.
            let qdisc = tc::qdisc_add_clsact(interface);
            // A filter outlives an agent that was killed.
            let _ = tc::qdisc_detach_program(interface, direction, program);
            loaded
                .attach_with_options(interface, direction, TcAttachOptions::Netlink(tc::NlOptions::default()))
                .map(Some)
                .map_err(|error| {
                    let qdisc = qdisc.err().map_or(String::new(), |e| format!("; clsact: {}", chain(&e)));
                    format!("{}{qdisc}; TCX: {}", chain(&error), chain(&refused))
                })
        }
    }
}

/// Random words that the tables' keys are hashed with: who sends the packets must not know where they end up.
pub fn seed() -> Seed {
    let mut seed = [0; 12];
    let bytes = bytemuck::cast_slice_mut(&mut seed);
    if std::fs::File::open("/dev/urandom").and_then(|mut file| file.read_exact(bytes)).is_err() {
        // Fixed is worse than random and better than none.
        seed = std::array::from_fn(|i| 0x9e37_79b9_u32.wrapping_mul(i as u32 + 1));
    }
    seed
}

/// Gives every index but [`OTHER_PATH`] away.
pub fn fill_free_paths(ebpf: &mut Ebpf, paths: u32) -> Result<(), KernelError> {
    let mut free = open_mut!(ebpf, "FREE_PATHS", Queue<_, u32>);
    for index in (0..paths).filter(|index| *index != OTHER_PATH) {
        free.push(index, 0).map_err(failed("FREE_PATHS"))?;
    }
    Ok(())
}

/// Forgets an ICE session; it may be gone already.
pub fn remove_session(ebpf: &mut Ebpf, key: u64) -> Result<(), KernelError> {
    let mut sessions = open_mut!(ebpf, "SESSIONS", HashMap<_, u64, Raw<Session>>);
    absent_is_fine("SESSIONS", sessions.remove(&key))
}

/// Says that configured peers have changed: flows look their path up again.
pub fn raise_generation(ebpf: &mut Ebpf) -> Result<(), KernelError> {
    let mut generation = open_mut!(ebpf, "PEER_GENERATION", Array<_, u32>);
    let next = generation.get(&0, 0).map_err(failed("PEER_GENERATION"))?.wrapping_add(1);
    generation.set(0, next, 0).map_err(failed("PEER_GENERATION"))
}

/// Lets each stream take turns with so many others at the exact clock.
pub fn take_turns(ebpf: &mut Ebpf, others: u32) -> Result<(), KernelError> {
    let mut turns = open_mut!(ebpf, "TURNS", Array<_, u32>);
    turns.set(0, others, 0).map_err(failed("TURNS"))
}

/// A direction of a flow is fresh where media came within this: two look intervals and the longest packet interval in use.
const FRESH: Duration = Duration::from_millis(1500);
/// It has just fallen silent where its last media is older than that and younger than this: what happens to many flows at once
/// happens within this.
const FELL: Duration = Duration::from_secs(5);
/// After this nobody expects any.
const RECENT: Duration = Duration::from_secs(300);

/// The pass that sums all flows up by path.
pub const fn sum_up(now_ns: u64, pass: u32) -> FlowScan {
    FlowScan {
        now_ns,
        fresh_ns: FRESH.as_nanos() as u64,
        fell_ns: FELL.as_nanos() as u64,
        recent_ns: RECENT.as_nanos() as u64,
        pass,
        reserved: 0,
    }
}

/// What the next pass over the flow table shall do.
pub fn set_flow_scan(ebpf: &mut Ebpf, scan: FlowScan) -> Result<(), KernelError> {
    let mut map = open_mut!(ebpf, "FLOW_SCAN", Array<_, Raw<FlowScan>>);
    map.set(0, Raw(scan), 0).map_err(failed("FLOW_SCAN"))
}

/// Every path: key, traffic of each CPU, quality, flows as `pass` found them.
pub fn walk_media_paths(
    ebpf: &Ebpf,
    pass: u32,
    mut visit: impl FnMut(&MediaKey, &[PathTraffic], &PathQuality, &PathFlows),
) -> Result<(), KernelError> {
    let paths = open!(ebpf, "MEDIA_PATHS", HashMap<_, Raw<MediaKey>, u32>);
    let traffic = open!(ebpf, "PATH_TRAFFIC", PerCpuArray<_, Raw<PathTraffic>>);
    let quality = open!(ebpf, "PATH_QUALITY", Array<_, Raw<PathQuality>>);
    let flows = open!(ebpf, "PATH_FLOWS", Array<_, Raw<PathFlows>>);
    let mut look = |key: &MediaKey, index: u32| -> Result<(), KernelError> {
        let each = traffic.get(&index, 0).map_err(failed("PATH_TRAFFIC"))?;
        let each: Vec<PathTraffic> = each.iter().map(|cpu| cpu.0).collect();
        let quality = quality.get(&index, 0).map_err(failed("PATH_QUALITY"))?;
        let flows = flows.get(&index, 0).map_err(failed("PATH_FLOWS"))?.0;
        let flows = if flows.pass == pass { flows } else { PathFlows::default() };
        visit(key, &each, &quality.0, &flows);
        Ok(())
    };
    let other: MediaKey = bytemuck::Zeroable::zeroed();
    look(&other, OTHER_PATH)?;
    for entry in &paths {
        let (key, index) = entry.map_err(failed("MEDIA_PATHS"))?;
        look(&key.0, index)?;
    }
    Ok(())
}

/// The flow programs' own counters, of all CPUs.
pub fn media_counters(ebpf: &Ebpf) -> Result<[u64; MediaCounter::COUNT], KernelError> {
    let counters = open!(ebpf, "MEDIA_COUNTERS", PerCpuArray<_, Raw<[u64; MediaCounter::COUNT]>>);
    let mut sum = [0; MediaCounter::COUNT];
    for cpu in counters.get(&0, 0).map_err(failed("MEDIA_COUNTERS"))?.iter() {
        sum.iter_mut().zip(cpu.0).for_each(|(sum, n)| *sum += n);
    }
    Ok(sum)
}
