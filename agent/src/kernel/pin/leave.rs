//! Detaching what is pinned, at a known time.
//!
//! A link whose pin is removed is not detached at once: the kernel gives up the pin's reference after a grace period of RCU, and
//! detaches from a work queue (`bpf_free_inode`, `bpf_link_put`). Until then two programs count the same events, and what is changed
//! at a tracepoint later still may cost its other programs one. The last descriptor of a link that is closed detaches it before
//! `close(2)` returns (`bpf_link_release`).

use std::{collections::BTreeMap, fs, os::fd::OwnedFd, path::Path};

use rustix::thread::{MembarrierCommand, membarrier};

use crate::kernel::iterator;

/// Links without pins: what is let go of is detached.
#[derive(Default)]
pub(super) struct Leaving(BTreeMap<String, OwnedFd>);

impl Leaving {
    /// Removes the pins of those links in a directory whose names are chosen; they stay attached. What cannot be opened is detached when
    /// the kernel gets to it.
    pub(super) fn take(directory: &Path, chosen: impl Fn(&str) -> bool) -> Self {
        let mut links = BTreeMap::new();
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if !chosen(&name) {
                continue;
            }
            let path = entry.path();
            let link = iterator::object_at(&path);
            if fs::remove_file(&path).is_ok() {
                links.extend(link.ok().map(|link| (name, link)));
            }
        }
        if !links.is_empty() {
            pass_a_grace_period();
        }
        Self(links)
    }

    /// Detaches one, where it is there.
    pub(super) fn let_go(&mut self, name: &str) {
        self.0.remove(name);
    }
}

/// After this the kernel has given up what was only held by pins. `MEMBARRIER_CMD_GLOBAL` waits for a grace period
/// (`synchronize_rcu`); the second is for what another processor began just before the first. Where it is refused
/// (`nohz_full`), links are detached a little later, as they would be without.
fn pass_a_grace_period() {
    for _ in 0..2 {
        let _ = membarrier(MembarrierCommand::Global);
    }
}
