//! What a process holds in the kernel, and what of it is still there.

use std::{collections::BTreeSet, fs};

/// Identifiers of programs, maps and links. The kernel hands them out in turn: those of what is gone do not soon come
/// back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Programs.
    pub programs: BTreeSet<u32>,
    /// Maps.
    pub maps: BTreeSet<u32>,
    /// Links.
    pub links: BTreeSet<u32>,
}

impl Held {
    /// By a process, through its descriptors (`bpf_prog_show_fdinfo` and its like).
    pub fn by(pid: u32) -> Self {
        let mut held = Self::default();
        for entry in fs::read_dir(format!("/proc/{pid}/fdinfo")).expect("a process").flatten() {
            let text = fs::read_to_string(entry.path()).unwrap_or_default();
            let value = |field: &str| {
                text.lines().find_map(|line| line.strip_prefix(field)?.trim().parse::<u32>().ok())
            };
            // A link names its program too.
            if let Some(link) = value("link_id:") {
                held.links.insert(link);
            }
            held.programs.extend(value("prog_id:"));
            held.maps.extend(value("map_id:"));
        }
        held
    }

    /// What of it the kernel still has.
    pub fn alive(&self) -> Self {
        let programs = aya::programs::loaded_programs().flatten().map(|program| program.id());
        let maps = aya::maps::loaded_maps().flatten().map(|map| map.id());
        let links = aya::programs::loaded_links().flatten().map(|link| link.id());
        Self {
            programs: programs.filter(|id| self.programs.contains(id)).collect(),
            maps: maps.filter(|id| self.maps.contains(id)).collect(),
            links: links.filter(|id| self.links.contains(id)).collect(),
        }
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.programs.is_empty() && self.maps.is_empty() && self.links.is_empty()
    }
}
