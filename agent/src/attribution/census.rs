//! Processes, put together by where they live.

use std::collections::{BTreeMap, BTreeSet};

use graylag_ebpf::task::TaskRecord;

/// Namespaces told apart at most; what is in others is the host's.
const MOST_NAMESPACES: usize = 4096;
/// What the process is called that holds a pod's namespaces and does nothing else.
const PAUSE: &[u8] = b"pause\0";

/// Who lives where.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// Cgroups of the processes in each network namespace that is not the host's: whether all that one has there only holds
    /// the namespace.
    pub namespaces: BTreeMap<u32, BTreeMap<u64, bool>>,
    /// Namespaces that are the host's.
    pub host: BTreeSet<u32>,
    /// Cgroups of the processes that were asked for.
    pub processes: BTreeMap<u32, u64>,
}

impl Census {
    /// From all processes. `own` is the agent's own namespace; of `wanted` processes the cgroup is kept.
    pub fn of(tasks: &[TaskRecord], own: u32, wanted: &BTreeSet<u32>) -> Self {
        let mut census = Self::default();
        census.host.insert(own);
        // `init` lives in the host's, wherever the agent does.
        census.host.extend(tasks.iter().filter(|task| task.process == 1).map(|task| task.netns));
        for task in tasks {
            if wanted.contains(&task.process) {
                census.processes.insert(task.process, task.cgroup);
            }
            let room = census.namespaces.len() < MOST_NAMESPACES;
            if census.host.contains(&task.netns) || !(room || census.namespaces.contains_key(&task.netns)) {
                continue;
            }
            let holds = census.namespaces.entry(task.netns).or_default().entry(task.cgroup).or_insert(true);
            *holds &= task.command.starts_with(PAUSE);
        }
        census
    }

    /// All cgroups in it.
    pub fn cgroups(&self) -> BTreeSet<u64> {
        let all = self.namespaces.values().flat_map(BTreeMap::keys).chain(self.processes.values());
        all.copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(process: u32, netns: u32, cgroup: u64, command: &str) -> TaskRecord {
        let mut record = TaskRecord { cgroup, netns, process, command: [0; 16] };
        record.command[..command.len()].copy_from_slice(command.as_bytes());
        record
    }

    #[test]
    fn processes_are_put_together_by_namespace_and_cgroup() {
        let tasks = [
            task(1, 10, 1, "init"),
            task(50, 11, 2, "graylag"),
            task(70, 12, 30, "pause"),
            task(71, 12, 31, "web"),
            task(72, 12, 31, "pause"),
            task(90, 10, 40, "relay"),
        ];
        let census = Census::of(&tasks, 11, &BTreeSet::from([90, 91]));
        assert_eq!(census.host, BTreeSet::from([10, 11]));
        assert_eq!(census.namespaces, BTreeMap::from([(12, BTreeMap::from([(30, true), (31, false)]))]));
        assert_eq!(census.processes, BTreeMap::from([(90, 40)]));
        assert_eq!(census.cgroups(), BTreeSet::from([30, 31, 40]));
    }
}
