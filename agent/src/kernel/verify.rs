//! The verifier's word on every program of an object, each loaded on its own and attached to nothing.

use aya::{Btf, Ebpf, programs::Program as Loaded};

use super::{
    KernelError,
    btf::KernelTypes,
    error::chain,
    load::{self, Offsets},
    programs::{Hook, PROGRAMS, Program},
    settings::Settings,
};

/// What the kernel says to one program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It may run.
    Accepted,
    /// It may not: the verifier's words.
    Refused(String),
    /// It is not for this kernel, whose types have no such tracepoint or member.
    NotForThisKernel(String),
}

/// Loads every program that an object has, but for the one that only probes whether fentry is allowed.
pub fn verify(object: &[u8], settings: &Settings) -> Result<Vec<(String, Verdict)>, KernelError> {
    let types = KernelTypes::of_running_kernel()?;
    let offsets = Offsets::of(&types);
    let btf = Btf::from_sys_fs()
        .map_err(|error| KernelError::BadBtf { path: super::btf::VMLINUX.into(), error: chain(&error) })?;
    let mut ebpf = load::object(object, settings, &types, &offsets, None)?;
    let names: Vec<String> = ebpf.programs().map(|(name, _)| name.to_owned()).collect();
    let probes = |name: &String| name == load::FENTRY_PROBE;
    let verdict = |name: String| {
        let verdict = match PROGRAMS.iter().find(|program| program.name == name) {
            Some(program) => one(&mut ebpf, program, &types, &btf, &offsets),
            None => Verdict::Refused("the agent does not know this program".into()),
        };
        (name, verdict)
    };
    Ok(names.into_iter().filter(|name| !probes(name)).map(verdict).collect())
}

fn one(ebpf: &mut Ebpf, program: &Program, types: &KernelTypes, btf: &Btf, offsets: &Offsets) -> Verdict {
    if let Some(reason) = load::missing_helper(types, program) {
        return Verdict::NotForThisKernel(reason);
    }
    if let Some(member) = offsets.missing(program) {
        return Verdict::NotForThisKernel(member.into());
    }
    if let Hook::Tracepoint { name, arguments } = program.hook
        && let Err(reason) = load::check_prototype(types, name, arguments)
    {
        return Verdict::NotForThisKernel(reason);
    }
    let loaded = match (ebpf.program_mut(program.name), program.hook) {
        (Some(Loaded::BtfTracePoint(loaded)), Hook::Tracepoint { name, .. }) => loaded.load(name, btf),
        (Some(Loaded::CgroupSkb(loaded)), Hook::CgroupIngress | Hook::CgroupEgress) => loaded.load(),
        (Some(Loaded::SchedClassifier(loaded)), Hook::Interface) => loaded.load(),
        (Some(Loaded::Iter(loaded)), hook) if hook.iterates_over().is_some() => {
            loaded.load(hook.iterates_over().unwrap_or_default(), btf)
        }
        _ => return Verdict::Refused("it is of another kind than the agent expects".into()),
    };
    loaded.map_or_else(|error| Verdict::Refused(chain(&error)), |()| Verdict::Accepted)
}
