//! What the flow programs count by path.

use std::{io::Read, time::Duration};

use aya::{
    Ebpf,
    maps::{Array, HashMap, PerCpuArray, Queue},
};
use graylag_ebpf::{
    media::{FlowScan, MediaCounter, MediaKey, OTHER_PATH, PathFlows, PathQuality, PathTraffic},
    session::Session,
    table::Seed,
};

use super::{
    KernelError,
    maps::{Raw, absent_is_fine, failed, open, open_mut},
};

/// Number of the pass after `pass`; 0 is none's.
pub const fn next_pass(pass: u32) -> u32 {
    match pass.wrapping_add(1) {
        0 => 1,
        next => next,
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
