//! The cgroup hierarchy: which directory has which number.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    os::unix::fs::DirEntryExt,
    path::{Path, PathBuf},
};

/// Directories gone through at most in one search: some ten for each container.
const MOST_DIRECTORIES: usize = 50_000;
/// How deep.
const DEEPEST: usize = 24;

/// Paths of these cgroups from the root on. What is gone, or beyond the bounds, is not found.
pub fn find(root: &Path, wanted: &BTreeSet<u64>) -> io::Result<BTreeMap<u64, String>> {
    let mut found = BTreeMap::new();
    // The root's kernfs node has inode 1 (`cgroup_setup_root`).
    if wanted.contains(&1) {
        found.insert(1, "/".to_owned());
    }
    let mut left: Vec<(PathBuf, usize)> = vec![(root.to_owned(), 0)];
    let mut entries = fs::read_dir(root)?;
    let mut directories = 0;
    while let Some((directory, depth)) = left.pop() {
        if found.len() == wanted.len() || directories >= MOST_DIRECTORIES {
            break;
        }
        directories += 1;
        if depth > 0 {
            // It may have gone since its parent was read.
            let Ok(read) = fs::read_dir(&directory) else { continue };
            entries = read;
        }
        for entry in entries.by_ref().flatten() {
            if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                continue;
            }
            let path = entry.path();
            // `kernfs_fop_readdir` tells the node's number, and `cgroup_id` is the same.
            if wanted.contains(&entry.ino()) {
                let below = path.strip_prefix(root).unwrap_or(&path);
                found.insert(entry.ino(), format!("/{}", below.display()));
            }
            if depth < DEEPEST {
                left.push((path, depth + 1));
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn directories_are_found_by_their_numbers() {
        let root = std::env::temp_dir().join(format!("graylag-tree-{}", std::process::id()));
        let deep = root.join("kubepods/burstable/pod1/c");
        fs::create_dir_all(&deep).unwrap();
        fs::write(root.join("kubepods/cgroup.procs"), "").unwrap();
        let inode = |path: &Path| fs::metadata(path).unwrap().ino();
        let wanted = BTreeSet::from([inode(&deep), inode(&root.join("kubepods")), u64::MAX]);
        let found = find(&root, &wanted);
        fs::remove_dir_all(&root).unwrap();
        let paths: Vec<String> = found.unwrap().into_values().collect();
        assert_eq!(
            BTreeSet::from_iter(paths),
            BTreeSet::from(["/kubepods".into(), "/kubepods/burstable/pod1/c".into()])
        );
        assert!(find(&root, &wanted).is_err(), "the hierarchy itself is gone");
    }
}
