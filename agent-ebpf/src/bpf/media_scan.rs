//! Passes over the flow table, for user space.
//!
//! A pass walks the index, not the pool: an eighth of the elements, and none that was never used. A pass either sums up by
//! path or emits records, never both, for where the reader's buffer is full the kernel runs the program again for the same
//! element.

#![allow(unsafe_code)] // iterator contexts are read here; aya has no type for them

use core::{ffi::c_void, ptr};

use graylag_ebpf::{
    counter::Direction,
    flow::{Flow, moment},
    media::{FlowScan, Freshness, MediaCounter, PathFlows, wanted},
    table::{Bucket, WAYS, number},
};

use super::{media_maps as maps, scan, table::FLOW_TABLE};

/// Flows: all counters are emitted as they stand, a [`Flow`] each.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/bpf_map_elem")]
pub extern "C" fn scan_flows(ctx: *mut c_void) -> i32 {
    let Some((seq, _, bucket)) = scan::element::<u32, Bucket>(ctx) else { return 0 };
    let request = maps::flow_scan();
    let mut way = 0;
    while way < WAYS {
        if let Some(flow) = number(slot(bucket, way)).and_then(|number| FLOW_TABLE.entry(number)) {
            if request.wanted == 0 {
                sum_up(&request, flow);
            } else if is_wanted(&request, flow) {
                scan::write(seq, &raw const *flow);
            }
        }
        way += 1;
    }
    0
}

#[inline(always)]
fn slot(bucket: *const Bucket, way: usize) -> u64 {
    // SAFETY: not null, of the map's value size; the loops stay in bounds.
    unsafe { ptr::read_volatile(bucket.cast::<u64>().add(way)) }
}

#[inline(always)]
fn is_touched(request: &FlowScan, flow: &Flow) -> bool {
    flow.idle_ns(moment(request.now_ns)) <= request.now_ns.saturating_sub(request.touched_since_ns)
}

#[inline(always)]
fn is_wanted(request: &FlowScan, flow: &Flow) -> bool {
    if request.wanted & wanted::SILENT != 0
        && (request.freshness(flow, Direction::Receive) > Freshness::Fresh
            || request.freshness(flow, Direction::Transmit) > Freshness::Fresh)
    {
        return true;
    }
    let not_active = flow.receive.media_first == 0 || flow.transmit.media_first == 0;
    (request.wanted & wanted::TOUCHED != 0 || (request.wanted & wanted::NOT_ACTIVE != 0 && not_active))
        && is_touched(request, flow)
}

#[inline(always)]
fn one_way(path: &mut PathFlows, i: usize, freshness: Freshness) {
    path.one_way[i] += u32::from(matches!(freshness, Freshness::Fell | Freshness::Silent));
    path.fell[i] += u32::from(freshness == Freshness::Fell);
}

#[inline(always)]
fn sum_up(request: &FlowScan, flow: &Flow) {
    maps::count(MediaCounter::ScannedFlow, 1);
    let Some(path) = maps::path_flows(flow.path) else { return };
    if path.pass != request.pass {
        maps::clear(path);
        path.pass = request.pass;
    }
    if is_touched(request, flow) {
        path.flows += 1;
    }
    let receive = request.freshness(flow, Direction::Receive);
    let transmit = request.freshness(flow, Direction::Transmit);
    path.fresh[0] += u32::from(receive == Freshness::Fresh);
    path.fresh[1] += u32::from(transmit == Freshness::Fresh);
    if transmit == Freshness::Fresh {
        one_way(path, 0, receive);
    }
    if receive == Freshness::Fresh {
        one_way(path, 1, transmit);
    }
}
