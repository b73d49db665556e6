//! Open files, of which every interface that is watched takes two; and locked memory.

use std::fs;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Kept back for readers of the feed, probes and passes over tables, where there are enough.
const RESERVE: u64 = 768;

/// As many as this process may have. systemd begins services with 1,024 of 524,288 (`DefaultLimitNOFILE=`), for the sake of programs
/// that use `select(2)`.
pub(super) fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    // Where it is refused the room is smaller, and whoever finds none says so.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}

/// Before Linux 5.11 maps count against `RLIMIT_MEMLOCK`. Failure shows when the maps are made.
pub(super) fn raise_locked_memory() {
    let _ = setrlimit(Resource::Memlock, Rlimit { current: None, maximum: None });
}

/// Files that may still be opened without touching what is kept back.
pub(super) struct Room {
    limit: u64,
    open: u64,
    full: bool,
}

impl Room {
    /// As it is.
    pub(super) fn now() -> Self {
        Self { limit: getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX), open: open(), full: false }
    }

    /// Takes some of it; says why where there are not enough.
    pub(super) fn take(&mut self, files: usize) -> Result<(), String> {
        if !self.full && !self.has(files as u64) {
            // What was taken may not have been needed: pinned links and filters have no descriptors.
            self.open = open();
            self.full = !self.has(files as u64);
        }
        if self.full {
            return Err(format!(
                "no room: this process may have {} files open, and {} are kept back; raise its hard limit \
                 (LimitNOFILE= of the unit, or of the container's runtime)",
                self.limit,
                self.reserve()
            ));
        }
        self.open += files as u64;
        Ok(())
    }

    fn reserve(&self) -> u64 {
        RESERVE.min(self.limit / 4)
    }

    fn has(&self, files: u64) -> bool {
        self.open + files <= self.limit - self.reserve()
    }
}

/// How many this process has open.
fn open() -> u64 {
    fs::read_dir("/proc/self/fd").map_or(0, |files| files.count() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_kept_back() {
        let mut room = Room { limit: u64::MAX, open: 0, full: false };
        assert_eq!(room.take(2), Ok(()));
        // As many are open as could be by far: what is taken is looked up where it seems to be too much.
        let mut room = Room { limit: 1 << 20, open: 1 << 20, full: false };
        assert_eq!(room.take(2), Ok(()));
        let mut room = Room { limit: 4, open: 0, full: false };
        let error = room.take(4).unwrap_err();
        assert!(error.contains("may have 4 files open, and 1 are kept back"), "{error}");
    }
}
