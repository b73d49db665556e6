//! Passes over the flow table, for user space.
//!
//! A pass walks the index, not the pool: an eighth of the elements, and none that was never used. It sums up by path, and
//! emits nothing: where a reader's buffer is full the kernel runs the program again for the same element.

#![allow(unsafe_code)] // iterator contexts are read here; aya has no type for them

use core::{ffi::c_void, ptr};

use graylag_ebpf::{
    counter::Direction,
    flow::Flow,
    media::{FlowScan, Freshness, PathFlows},
    table::{Bucket, WAYS, number},
};

use super::{media_maps as maps, scan, table::FLOW_TABLE};

/// How the flows of each path stand.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/bpf_map_elem")]
pub extern "C" fn scan_flows(ctx: *mut c_void) -> i32 {
    let Some((_, _, bucket)) = scan::element::<u32, Bucket>(ctx) else { return 0 };
    let request = maps::flow_scan();
    let mut way = 0;
    while way < WAYS {
        if let Some(flow) = number(slot(bucket, way)).and_then(|number| FLOW_TABLE.entry(number)) {
            sum_up(&request, flow);
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
fn one_way(path: &mut PathFlows, i: usize, freshness: Freshness) {
    path.one_way[i] += u32::from(matches!(freshness, Freshness::Fell | Freshness::Silent));
    path.fell[i] += u32::from(freshness == Freshness::Fell);
}

#[inline(always)]
fn sum_up(request: &FlowScan, flow: &Flow) {
    let Some(path) = maps::path_flows(flow.path) else { return };
    if path.pass != request.pass {
        maps::clear(path);
        path.pass = request.pass;
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
