//! Processes: in which network namespace and which cgroup each lives.
//!
//! Hook: `iter/task` (Linux 5.8). `/proc/PID/ns` tells the same only to who may trace the process, and only of those that
//! the reader's PID namespace has; this takes no more than the other programs do.
#![allow(unsafe_code)] // the iterator's context is read here

use core::ffi::c_void;

use graylag_ebpf::task::TaskRecord;

use super::{kptr::Task, scan};

/// `struct bpf_iter__task`.
#[repr(C)]
struct Element {
    meta: *const scan::Meta,
    task: *mut c_void,
}

/// All processes.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task")]
pub extern "C" fn scan_tasks(ctx: *mut c_void) -> i32 {
    // SAFETY: the context of this program type; the verifier checks the access.
    let (meta, task) = unsafe { ((*ctx.cast::<Element>()).meta, (*ctx.cast::<Element>()).task) };
    if task.is_null() {
        return 0;
    }
    let task = Task::new(task);
    if !task.leads() {
        return 0;
    }
    let record = TaskRecord {
        cgroup: task.cgroup(),
        netns: task.netns(),
        process: task.process(),
        command: task.command(),
    };
    if record.netns != 0 {
        // SAFETY: `meta` is never null.
        let _ = scan::write(unsafe { (*meta).seq }, &raw const record);
    }
    0
}
