//! The maps of UDP flows, streams and their paths, and with [`super::table`] the only place where their memory is touched.
//!
//! A direction of a flow is written by the CPU that handles its packets. Where packets of one direction are spread over
//! CPUs, two of them may cost each other a count; nothing but that.
#![allow(unsafe_code)]

use core::{arch::asm, ffi::c_void};

use aya_ebpf::{
    Global,
    bindings::{BPF_F_MMAPABLE, BPF_NOEXIST},
    helpers::generated::{bpf_jiffies64, bpf_loop},
    macros::map,
    maps::{Array, HashMap, PerCpuArray, Queue},
};
use graylag_ebpf::{
    counter::Direction,
    flow::{Flow, Stream},
    media::{
        FlowScan, MediaCounter, MediaKey, OTHER_PATH, PathFlows, PathQuality, PathTraffic, Quality, Traffic,
    },
    session::Session,
    table::{Bucket, Seed, hash},
};

use super::{
    kptr,
    packet::{self, Packet},
};

// Sizes are defaults for a budget of 16 flows; the agent sets them from the configuration before it loads the object.
// Mappable arrays begin on a page, so that entries lie on cache lines as they were laid out.
#[map]
pub static FLOW_INDEX: Array<Bucket> = Array::with_max_entries(4, BPF_F_MMAPABLE);
#[map]
pub static FLOWS: Array<Flow> = Array::with_max_entries(16, BPF_F_MMAPABLE);
#[map]
pub static STREAM_INDEX: Array<Bucket> = Array::with_max_entries(4, BPF_F_MMAPABLE);
#[map]
pub static STREAMS: Array<Stream> = Array::with_max_entries(16, BPF_F_MMAPABLE);
/// Places of each table that were never given out begin here.
#[map]
static NEXT_PLACE: Array<u64> = Array::with_max_entries(2, 0);
/// Index of each path that is known.
#[map]
static MEDIA_PATHS: HashMap<MediaKey, u32> = HashMap::with_max_entries(4096, 0);
/// Indices that no path has; the agent fills it.
#[map]
static FREE_PATHS: Queue<u32> = Queue::with_max_entries(4096, 0);
#[map]
static PATH_TRAFFIC: PerCpuArray<PathTraffic> = PerCpuArray::with_max_entries(4096, 0);
#[map]
static PATH_QUALITY: Array<PathQuality> = Array::with_max_entries(4096, 0);
/// Written by passes over the flow table.
#[map]
static PATH_FLOWS: Array<PathFlows> = Array::with_max_entries(4096, 0);
#[map]
static FLOW_SCAN: Array<FlowScan> = Array::with_max_entries(1, 0);
/// ICE sessions by name. The agent removes what is over.
#[map]
static SESSIONS: HashMap<u64, Session> = HashMap::with_max_entries(4096, 0);
/// Raised by the agent whenever the peers have changed.
#[map]
static PEER_GENERATION: Array<u32> = Array::with_max_entries(1, 0);
/// Set by the agent: how many others a stream takes turns with at the exact clock ([`graylag_ebpf::rtp::Turns`]).
#[map]
static TURNS: Array<u32> = Array::with_max_entries(1, 0);
#[map]
static MEDIA_COUNTERS: PerCpuArray<[u64; MediaCounter::COUNT]> = PerCpuArray::with_max_entries(1, 0);
/// Tick and time of the last look at the clock.
#[map]
static CLOCK: PerCpuArray<[u64; 2]> = PerCpuArray::with_max_entries(1, 0);
/// Where offloaded datagrams are copied to, several segments at a time.
#[map]
static SCRATCH: PerCpuArray<[u8; SCRATCH_BYTES]> = PerCpuArray::with_max_entries(1, 0);

/// Bytes that are copied at a time.
pub const SCRATCH_BYTES: usize = 4096;

/// Sizes of the maps above.
#[unsafe(no_mangle)]
pub static FLOW_BUCKETS: Global<u32> = Global::new(4);
#[unsafe(no_mangle)]
pub static FLOW_ENTRIES: Global<u32> = Global::new(16);
#[unsafe(no_mangle)]
pub static STREAM_BUCKETS: Global<u32> = Global::new(4);
#[unsafe(no_mangle)]
pub static STREAM_ENTRIES: Global<u32> = Global::new(16);
/// Random, drawn by the agent at every start.
#[unsafe(no_mangle)]
static TABLE_SEED: Global<Seed> = Global::new([1; 12]);

/// Gives out a place that was never used, while there is one.
#[inline(always)]
pub fn next_place(table: u32, entries: u32) -> Option<u32> {
    let next = NEXT_PLACE.get_ptr_mut(table)?;
    // SAFETY: map memory, aligned. The place is given out even where it is too far: the counter stops mattering then.
    unsafe {
        if *next >= u64::from(entries) {
            return None;
        }
        let mut place: u64 = 1;
        asm!("{place} = atomic_fetch_add((u64 *)({next} + 0), {place})", place = inout(reg) place, next = in(reg) next);
        (place < u64::from(entries)).then_some(place as u32)
    }
}

/// Hides from the compiler what it thinks it knows of a value that the loader changes, or the verifier does not see.
#[inline(always)]
fn opaque<T>(mut at: *const T) -> *const T {
    // SAFETY: a register is copied to itself.
    unsafe { asm!("{at} = {at}", at = inout(reg) at) }
    at
}

/// Hides from the compiler where a value comes from.
#[inline(always)]
pub fn hide(mut value: u64) -> u64 {
    // SAFETY: a register is copied to itself.
    unsafe { asm!("{value} = {value}", value = inout(reg) value) }
    value
}

/// Hash of a key.
#[inline(always)]
pub fn hash_of<const N: usize>(words: &[u32; N]) -> u64 {
    // SAFETY: a static of that type.
    hash(words, unsafe { &*opaque((&raw const TABLE_SEED).cast::<Seed>()) })
}

/// The words of a flow's key.
#[inline(always)]
pub fn words(flow: &Flow) -> [u32; 10] {
    // SAFETY: the tuple is ten words long and plain data.
    unsafe { (&raw const flow.tuple).cast::<[u32; 10]>().read() }
}

/// The clock of a payload type.
#[inline(always)]
pub fn clock_of(clocks: &'static Global<[u8; 128]>) -> impl FnOnce(u8) -> u8 {
    // SAFETY: a static of that type; a payload type has seven bits.
    move |payload_type| unsafe {
        *opaque((&raw const *clocks).cast::<u8>()).add(usize::from(payload_type & 0x7f))
    }
}

/// Whether a flow has this key.
#[inline(always)]
pub fn is_same(flow: &Flow, key: &[u32; 10]) -> bool {
    let found: *const u64 = (&raw const flow.tuple).cast();
    let mut off = 0;
    let mut i = 0;
    while i < 5 {
        let word = u64::from(key[2 * i]) | u64::from(key[2 * i + 1]) << 32;
        // SAFETY: the tuple is 40 bytes long and begins the entry, which is aligned to eight.
        off |= unsafe { *found.add(i) } ^ word;
        i += 1;
    }
    off == 0
}

/// Counts what was not told apart or not stored.
#[inline(always)]
pub fn count(counter: MediaCounter, n: u64) {
    if let Some(values) = MEDIA_COUNTERS.get_ptr_mut(0) {
        // SAFETY: per-CPU; a program interrupted by another may cost one count.
        bump(unsafe { &mut *values }, counter as usize, n);
    }
}

/// Monotonic time, at most a tick of the kernel late: the clock is read once a tick.
#[inline(always)]
pub fn coarse_now() -> u64 {
    let Some(clock) = CLOCK.get_ptr_mut(0) else { return 0 };
    // SAFETY: per-CPU; the helper has no preconditions and is compiled in line.
    unsafe {
        let tick = bpf_jiffies64();
        if (*clock)[0] != tick {
            (*clock)[0] = tick;
            (*clock)[1] = kptr::now();
        }
        (*clock)[1]
    }
}

/// What every packet of a path counts on this CPU.
#[inline(always)]
pub fn traffic(path: u32, direction: Direction) -> Option<&'static mut Traffic> {
    let half = bounded(direction as usize, 2)?;
    // SAFETY: per-CPU map memory, in bounds.
    PATH_TRAFFIC.get_ptr_mut(path).map(|halves| unsafe { &mut *halves.cast::<Traffic>().add(half) })
}

/// What few packets of a path count; by atomic additions.
#[inline(always)]
pub fn quality(path: u32, direction: Direction) -> Option<&'static mut Quality> {
    let half = bounded(direction as usize, 2)?;
    // SAFETY: map memory, in bounds.
    PATH_QUALITY.get_ptr_mut(path).map(|halves| unsafe { &mut *halves.cast::<Quality>().add(half) })
}

/// What the pass under way has found of a path.
#[inline(always)]
pub fn path_flows(path: u32) -> Option<&'static mut PathFlows> {
    // SAFETY: map memory; user space runs one pass at a time.
    PATH_FLOWS.get_ptr_mut(path).map(|flows| unsafe { &mut *flows })
}

/// What the pass shall do.
#[inline(always)]
pub fn flow_scan() -> FlowScan {
    // SAFETY: map memory.
    FLOW_SCAN.get_ptr(0).map_or_else(FlowScan::default, |scan| unsafe { *scan })
}

/// Generation of the peers.
#[inline(always)]
pub fn generation() -> u32 {
    // SAFETY: map memory.
    PEER_GENERATION.get_ptr(0).map_or(0, |generation| unsafe { *generation })
}

/// How many others a stream takes turns with at the exact clock.
#[inline(always)]
pub fn timed_with_others() -> u32 {
    // SAFETY: map memory.
    TURNS.get_ptr(0).map_or(0, |others| unsafe { *others })
}

/// Index of a path, taken for it where it is new; [`OTHER_PATH`] where there is no room.
#[inline(always)]
pub fn path_index(key: &MediaKey) -> u32 {
    // SAFETY: map memory; so too below.
    if let Some(index) = MEDIA_PATHS.get_ptr(key) {
        return unsafe { *index };
    }
    let Ok(Some(fresh)) = FREE_PATHS.pop() else {
        count(MediaCounter::PathFull, 1);
        return OTHER_PATH;
    };
    if MEDIA_PATHS.insert(key, fresh, u64::from(BPF_NOEXIST)).is_ok() {
        return fresh;
    }
    // Another CPU was faster, or there is no room.
    let _ = FREE_PATHS.push(fresh, 0);
    if let Some(index) = MEDIA_PATHS.get_ptr(key) {
        unsafe { *index }
    } else {
        count(MediaCounter::PathFull, 1);
        OTHER_PATH
    }
}

/// An ICE session that has begun and is not forgotten.
#[inline(always)]
pub fn session(key: u64) -> Option<&'static mut Session> {
    // SAFETY: map memory. Two CPUs that note a milestone at once differ by microseconds.
    SESSIONS.get_ptr_mut(key).map(|session| unsafe { &mut *session })
}

/// Begins an ICE session, where another candidate pair has not.
#[inline(always)]
pub fn begin_session(key: u64, now_ns: u64) {
    let fresh = Session { began_ns: now_ns, ..Session::default() };
    if SESSIONS.insert(key, fresh, u64::from(BPF_NOEXIST)).is_err() && SESSIONS.get_ptr(key).is_none() {
        count(MediaCounter::SessionFull, 1);
    }
}

/// Where segments are copied to.
#[inline(always)]
pub fn scratch() -> Option<&'static mut [u8; SCRATCH_BYTES]> {
    // SAFETY: per-CPU map memory, used within one run of a program.
    SCRATCH.get_ptr_mut(0).map(|scratch| unsafe { &mut *scratch })
}

/// Copies up to `left` bytes of a packet from `at` on; how many.
#[inline(always)]
pub fn fill_scratch(scratch: &mut [u8; SCRATCH_BYTES], packet: Packet, at: u32, left: u32) -> Option<u32> {
    // One less than is copied, bounded, plus one: Linux 6.1's verifier learns from neither "not 0" nor a difference.
    let mut less = u64::from(left).wrapping_sub(1);
    if less >= SCRATCH_BYTES as u64 && left != 0 {
        less = SCRATCH_BYTES as u64 - 1;
    }
    // SAFETY: a register is copied to itself.
    unsafe { asm!("{less} = {less}", less = inout(reg) less) }
    if less >= SCRATCH_BYTES as u64 {
        return None;
    }
    let length = less as u32 + 1;
    packet.copy(at, scratch.as_mut_ptr(), length).then_some(length)
}

/// Reads what was copied.
#[inline(always)]
pub fn read_scratch<const N: usize>(scratch: &[u8; SCRATCH_BYTES], at: u32) -> Option<[u8; N]> {
    let at = bounded(at as usize, SCRATCH_BYTES - N + 1)?;
    // SAFETY: in bounds.
    Some(unsafe { packet::load(scratch.as_ptr() as usize + at) })
}

/// An index below `bound`, in a way that convinces the verifier, where the compiler knows it already.
#[inline(always)]
pub fn bounded(mut i: usize, bound: usize) -> Option<usize> {
    // SAFETY: a register is copied to itself.
    unsafe { asm!("{i} = {i}", i = inout(reg) i) }
    (i < bound).then_some(i)
}

/// Adds to one of this CPU's counters.
#[inline(always)]
pub fn bump<const N: usize>(counters: &mut [u64; N], i: usize, n: u64) {
    if let Some(i) = bounded(i, N) {
        // SAFETY: in bounds.
        unsafe { *counters.as_mut_ptr().add(i) += n }
    }
}

/// Adds to one of several shared counters.
#[inline(always)]
pub fn add_at<const N: usize>(counters: &mut [u64; N], i: usize, n: u64) {
    if let Some(i) = bounded(i, N) {
        // SAFETY: in bounds.
        super::maps::add(unsafe { &mut *counters.as_mut_ptr().add(i) }, n);
    }
}

/// Runs `step` up to `times` times and up to three times more, until it says that it is done.
#[inline(always)]
pub fn repeat<T, F: Fn(&mut T) -> bool>(times: u32, _step: F, state: &mut T) {
    /// A call by pointer costs as much as a step: several steps a call.
    const STEPS: u32 = 4;
    unsafe extern "C" fn trampoline<T, F: Fn(&mut T) -> bool>(_: u32, state: *mut c_void) -> i64 {
        const { assert!(size_of::<F>() == 0, "a plain function") };
        let mut i = 0;
        while i < STEPS {
            // SAFETY: a value without size; `bpf_loop` hands over what it was given.
            unsafe {
                let step = core::mem::zeroed::<F>();
                if step(&mut *state.cast::<T>()) {
                    return 1;
                }
            }
            i += 1;
        }
        0
    }
    // SAFETY: a callback of that signature.
    unsafe {
        bpf_loop(times.div_ceil(STEPS), trampoline::<T, F> as *mut c_void, (&raw mut *state).cast(), 0);
    }
}

/// Fills an entry with zeros, word by word: the compiler would build it on the stack, or call a loop over bytes.
#[inline(always)]
pub fn clear<T>(entry: *mut T) {
    const { assert!(size_of::<T>().is_multiple_of(8) && align_of::<T>() <= 8) };
    let words = entry.cast::<u64>();
    let mut i = 0;
    while i < size_of::<T>() / 8 {
        // SAFETY: in bounds; entries are aligned to eight.
        unsafe { words.add(i).write_volatile(0) };
        i += 1;
    }
}
