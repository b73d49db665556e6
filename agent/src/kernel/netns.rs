//! Network namespaces: which there are, and running something inside each.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    os::{fd::AsFd, unix::fs::MetadataExt},
    path::{Path, PathBuf},
    thread,
};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// A namespace that could not be entered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreachable {
    /// Its inode.
    pub inode: u32,
    /// Why: usually that `setns(2)` needs `CAP_SYS_ADMIN`.
    pub reason: String,
}

/// Inode of the namespace behind a path such as `/proc/1/ns/net` or `/run/netns/blue`.
pub fn inode(path: &Path) -> std::io::Result<u32> {
    fs::metadata(path).map(|m| m.ino() as u32)
}

/// Inode of this process's own namespace.
pub fn own() -> std::io::Result<u32> {
    inode(Path::new("/proc/self/ns/net"))
}

/// Runs `inside` once in each namespace that a process lives in or that has a name, of those in `scope`.
pub fn for_each(
    scope: Option<&BTreeSet<u32>>,
    mut inside: impl FnMut() -> Option<u64> + Send,
) -> Vec<Unreachable> {
    let own = own().ok();
    let mut unreachable = Vec::new();
    for (inode, path) in all() {
        if scope.is_some_and(|scope| !scope.contains(&inode)) {
            continue;
        }
        let result = if Some(inode) == own {
            inside().ok_or_else(|| "the iterator failed".to_owned())
        } else {
            // A thread of its own: `setns` moves the calling thread, and there is no way back without privileges.
            thread::scope(|scope| {
                let entered = scope.spawn(|| {
                    let file = File::open(&path).map_err(|e| e.to_string())?;
                    move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).map_err(
                        |e| format!("setns: {e} (entering another namespace needs CAP_SYS_ADMIN)"),
                    )?;
                    inside().ok_or_else(|| "the iterator failed".to_owned())
                });
                entered.join().unwrap_or_else(|_| Err("the thread ended early".into()))
            })
        };
        if let Err(reason) = result {
            unreachable.push(Unreachable { inode, reason });
        }
    }
    unreachable
}

/// Every namespace that can be found, by inode, with one path to it.
fn all() -> BTreeMap<u32, PathBuf> {
    let mut found = BTreeMap::new();
    let named = fs::read_dir("/run/netns").into_iter().flatten().flatten().map(|e| e.path());
    let of_processes = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter(|e| e.file_name().to_string_lossy().bytes().all(|b| b.is_ascii_digit()))
        .map(|e| e.path().join("ns/net"));
    for path in named.chain(of_processes) {
        if let Ok(inode) = inode(&path) {
            found.entry(inode).or_insert(path);
        }
    }
    found
}
