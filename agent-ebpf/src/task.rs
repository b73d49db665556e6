//! Processes, and where they live: what tells whose a network namespace is.

use bytemuck::{Pod, Zeroable};

/// Emitted by the iterator over tasks: one process.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct TaskRecord {
    /// Its cgroup in the hierarchy of version 2: the inode of its directory (`cgroup_id`). No other ever has the same.
    pub cgroup: u64,
    /// Inode number of its network namespace.
    pub netns: u32,
    /// The thread group's identifier in the initial namespace.
    pub process: u32,
    /// `task_struct.comm`, zero-filled.
    pub command: [u8; 16],
}

const _: () = assert!(size_of::<TaskRecord>() == 32);
