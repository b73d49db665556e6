//! Network namespaces: which there are, and running something inside each.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io,
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
pub fn inode(path: &Path) -> io::Result<u32> {
    // `NSFS_MAGIC`: what is no namespace has an inode too, and nothing would ever be seen in it.
    const NSFS: i64 = 0x6e73_6673;
    let inode = fs::metadata(path)?.ino() as u32;
    if rustix::fs::statfs(path)?.f_type as i64 != NSFS {
        return Err(io::Error::other("not a network namespace"));
    }
    Ok(inode)
}

/// Inode of this process's own namespace.
pub fn own() -> io::Result<u32> {
    inode(Path::new("/proc/self/ns/net"))
}

/// Runs `inside` once in each namespace that a process lives in or that has a name, of those in `scope`.
pub fn for_each(
    scope: Option<&BTreeSet<u32>>,
    mut inside: impl FnMut() -> Option<()> + Send,
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
            let file = match open(inode, &path) {
                Ok(Some(file)) => file,
                Ok(None) => continue,
                Err(error) => {
                    unreachable.push(Unreachable { inode, reason: error.to_string() });
                    continue;
                }
            };
            // A thread of its own: `setns` moves the calling thread, and there is no way back without privileges.
            thread::scope(|scope| {
                let entered = scope.spawn(|| {
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

/// The namespace behind a path; nothing where it is gone. Processes end at any time: the namespace may have gone with this one
/// or live on in another.
fn open(inode: u32, path: &Path) -> io::Result<Option<File>> {
    const ATTEMPTS: u32 = 3;
    let mut path = path.to_owned();
    let mut attempt = 1;
    loop {
        let failed = match File::open(&path) {
            Ok(file) if file.metadata()?.ino() as u32 == inode => return Ok(Some(file)),
            Ok(_) => io::ErrorKind::NotFound.into(), // the name is another's by now
            Err(error) => error,
        };
        path = match all().remove(&inode) {
            Some(other) if attempt < ATTEMPTS => other,
            Some(_) => return Err(failed),
            None => return Ok(None),
        };
        attempt += 1;
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_namespace_is_told_apart() {
        assert!(inode(Path::new("/etc/passwd")).is_err_and(|e| e.to_string() == "not a network namespace"));
        assert!(inode(Path::new("/no/such")).is_err_and(|e| e.kind() == io::ErrorKind::NotFound));
        assert!(own().is_ok());
    }

    #[test]
    fn a_namespace_whose_process_has_ended_is_found_in_another_or_is_gone() {
        let own = own().unwrap();
        let ended = Path::new("/proc/0/ns/net");
        assert!(open(own, ended).unwrap().is_some(), "this process lives in it");
        assert!(open(1, ended).unwrap().is_none());
    }
}
