//! Where the cgroup2 hierarchy is mounted.

use std::{fs, os::unix::fs::MetadataExt, path::PathBuf};

/// The mounted cgroup2 hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CgroupRoot {
    /// Its mount point: `/sys/fs/cgroup`, or `/sys/fs/cgroup/unified` beside version 1.
    pub path: PathBuf,
    /// Whether it is the root of the hierarchy. In a cgroup namespace it is not, and programs attached there see only
    /// the sockets below.
    pub is_root: bool,
}

/// Finds the first cgroup2 mount of this mount namespace.
pub fn find() -> Option<CgroupRoot> {
    let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
    let path = mount_point(&mounts)?;
    // `cgroup_setup_root`: the root's kernfs node has inode 1.
    let is_root = fs::metadata(&path).is_ok_and(|m| m.ino() == 1);
    Some(CgroupRoot { path, is_root })
}

/// Second field of the first line of type `cgroup2` (`proc_pid_mounts(5)`).
fn mount_point(mounts: &str) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        let mut fields = line.split(' ');
        let (_, path, kind) = (fields.next()?, fields.next()?, fields.next()?);
        (kind == "cgroup2").then(|| PathBuf::from(unescaped(path)))
    })
}

/// Spaces, tabs, newlines and backslashes are written in octal.
fn unescaped(field: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .iter()
        .fold(field.to_owned(), |field, (code, plain)| field.replace(code, plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_it_wherever_it_is() {
        let hybrid = "proc /proc proc rw 0 0\ncgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\ncgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        assert_eq!(mount_point(hybrid), Some("/sys/fs/cgroup/unified".into()));
        assert_eq!(mount_point("cgroup2 /mnt/c\\0402 cgroup2 rw 0 0"), Some("/mnt/c 2".into()));
        assert_eq!(mount_point("proc /proc proc rw 0 0"), None);
    }
}
