//! Capabilities: which are needed, and giving up what is no longer needed.

use caps::{CapSet, Capability};

use super::KernelError;

/// Needed to load and attach: maps and programs, tracing, cgroup and TC hooks.
const NEEDED: [Capability; 3] = [Capability::CAP_BPF, Capability::CAP_PERFMON, Capability::CAP_NET_ADMIN];

/// Whether this process holds a capability right now.
pub fn holds(capability: Capability) -> bool {
    caps::has_cap(None, CapSet::Effective, capability).unwrap_or(false)
}

/// `(name, held)` of every capability that graylag needs.
pub fn needed() -> Vec<(&'static str, bool)> {
    NEEDED.iter().map(|c| (name(*c), holds(*c))).collect()
}

/// Fails with the list of those that are missing. `CAP_SYS_ADMIN` implies the first two (`bpf_capable`).
pub fn require() -> Result<(), KernelError> {
    let admin = holds(Capability::CAP_SYS_ADMIN);
    let missing: Vec<_> = NEEDED
        .iter()
        .filter(|c| !(holds(**c) || admin && **c != Capability::CAP_NET_ADMIN))
        .map(|c| name(*c))
        .collect();
    if missing.is_empty() { Ok(()) } else { Err(KernelError::Capabilities(missing)) }
}

/// Gives up every capability but those that are needed on: `CAP_BPF` and `CAP_NET_ADMIN` where programs are attached to
/// interfaces as they come, and for reading and writing maps none since Linux 5.19, `CAP_BPF` before (`__sys_bpf`:
/// `unprivileged_bpf_disabled` then blocked every command).
///
/// Returns the names of what was kept.
pub fn drop_after_attach(kernel: (u32, u32), interfaces: bool) -> anyhow::Result<Vec<&'static str>> {
    let kept: Vec<Capability> = match (interfaces, kernel >= (5, 19)) {
        (true, _) => vec![Capability::CAP_BPF, Capability::CAP_NET_ADMIN],
        (false, true) => Vec::new(),
        (false, false) => vec![Capability::CAP_BPF],
    };
    let kept_set: caps::CapsHashSet = kept.iter().copied().collect();
    // The bounding set needs CAP_SETPCAP; without it there is nothing left to regain by exec anyway.
    if holds(Capability::CAP_SETPCAP) {
        for capability in caps::all() {
            if !kept_set.contains(&capability) {
                let _ = caps::drop(None, CapSet::Bounding, capability);
            }
        }
    }
    caps::clear(None, CapSet::Ambient).ok();
    caps::set(None, CapSet::Effective, &kept_set)?;
    caps::set(None, CapSet::Permitted, &kept_set)?;
    caps::set(None, CapSet::Inheritable, &caps::CapsHashSet::new())?;
    Ok(kept.into_iter().map(name).collect())
}

const fn name(capability: Capability) -> &'static str {
    match capability {
        Capability::CAP_BPF => "CAP_BPF",
        Capability::CAP_PERFMON => "CAP_PERFMON",
        Capability::CAP_NET_ADMIN => "CAP_NET_ADMIN",
        _ => "another capability",
    }
}
