//! Loading and attaching, each program on its own: what one kernel lacks costs its signal and nothing else.

use std::{
    collections::BTreeMap,
    os::fd::{AsFd, AsRawFd, RawFd},
};

use aya::{
    Btf, Ebpf, EbpfLoader, include_bytes_aligned,
    programs::{
        BtfTracePoint, CgroupAttachMode, CgroupSkb, CgroupSkbAttachType, FEntry, Iter, ProgramError,
        ProgramFd, SchedClassifier, links::FdLink,
    },
};
use graylag_ebpf::{
    offsets::{MISSING, OFFSETS},
    table,
};

use super::{
    KernelError,
    btf::KernelTypes,
    calibrate,
    cgroup::CgroupRoot,
    digest,
    error::chain,
    files,
    iterator::KernelIterator,
    media,
    pin::Pins,
    programs::{Hook, PROGRAMS, Program},
    settings::Settings,
};

/// The kernel object, built by `cargo xtask build-ebpf`.
pub static OBJECT: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/graylag.bpf.o"));

/// Loaded to learn whether fentry is allowed, and for nothing else.
pub const FENTRY_PROBE: &str = "probe_fentry";

/// What became of one program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProgramState {
    /// It runs.
    Attached,
    /// Another program does its work.
    NotNeeded {
        /// Which.
        by: &'static str,
    },
    /// The configuration says so.
    Disabled,
    /// This kernel, or these privileges, do not allow it.
    Unavailable {
        /// Why, in the kernel's words.
        reason: String,
    },
}

/// Loads an object with this kernel's offsets and the configured sizes. Where maps are pinned it takes those that are there.
pub fn object(
    object: &[u8],
    settings: &Settings,
    types: &KernelTypes,
    offsets: &Offsets,
    mut pins: Option<&mut Pins>,
) -> Result<Ebpf, KernelError> {
    files::raise_locked_memory();
    let retransmit_has_error = u32::from(
        types.tracepoint("tcp_retransmit_skb").and_then(|a| a.get(2).cloned()).as_deref() == Some("int"),
    );
    let scoped = u32::from(settings.netns.is_some());
    let full_at_backlog = u32::from(calibrate::request_queue_full_at_backlog().unwrap_or(false));
    let prefixes = settings.prefixes;
    let v4 = |bits: u8| u32::from(bits) + 96;
    let flows = settings.limits.flow_entries();
    let buckets = table::buckets(flows);
    let globals = [
        ("SCOPED", scoped),
        ("DROPS_SCOPED", scoped),
        ("RETRANSMIT_HAS_ERROR", retransmit_has_error),
        ("REQUEST_QUEUE_FULL_AT_BACKLOG", full_at_backlog),
        ("PREFIX_CLIENT_V4", v4(prefixes.client_v4)),
        ("PREFIX_CLIENT_V6", u32::from(prefixes.client_v6)),
        ("PREFIX_SERVER_V4", v4(prefixes.server_v4)),
        ("PREFIX_SERVER_V6", u32::from(prefixes.server_v6)),
        ("PREFIX_MEDIA_V4", v4(prefixes.media_v4)),
        ("PREFIX_MEDIA_V6", u32::from(prefixes.media_v6)),
        ("MEDIA_NETNS", super::netns::own().unwrap_or(0)),
        ("FLOW_BUCKETS", buckets),
        ("FLOW_ENTRIES", flows),
        ("STREAM_BUCKETS", buckets),
        ("STREAM_ENTRIES", flows),
    ];
    let mut loader = EbpfLoader::new();
    for (name, value) in globals.iter().chain(&offsets.0) {
        loader.override_global(name, value, true);
    }
    loader.override_global("AYA_LOG_LEVEL", &settings.log_level, true);
    let seed = pins.as_ref().map_or_else(media::seed, |pins| pins.seed());
    if let Some(pins) = &mut pins {
        let constants = globals.iter().chain(&offsets.0);
        let constants: Vec<u8> = constants
            .flat_map(|(name, value)| name.bytes().chain(value.to_ne_bytes()))
            .chain(seed.iter().flat_map(|word| word.to_ne_bytes()))
            .chain([settings.log_level])
            .collect();
        pins.settle(digest::of([object, &constants]))?;
    }
    let pinned: Vec<_> =
        pins.iter().flat_map(|pins| pins.maps()).map(|(map, path)| (map.to_owned(), path)).collect();
    for (map, path) in &pinned {
        loader.map_pin_path(map, path.as_path());
    }
    loader.override_global("TABLE_SEED", &seed, true);
    for (map, entries) in settings.limits.tables() {
        loader.map_max_entries(map, entries);
    }
    loader.load(object).map_err(|error| KernelError::Object(chain(&error)))
}

/// `(global, offset)` of every member, [`MISSING`] where this kernel has none.
pub struct Offsets(Vec<(&'static str, u32)>);

impl Offsets {
    /// Looks all of them up.
    pub fn of(types: &KernelTypes) -> Self {
        let place = |path: &str| match types.member(path) {
            // `icsk_ca_state` is read with a mask of five bits from bit 0 on; anything else is another kernel.
            Some(member) => match member.bits {
                None | Some((0, 5)) => member.offset,
                Some(_) => MISSING,
            },
            None => MISSING,
        };
        Self(OFFSETS.iter().map(|(name, path)| (*name, place(path))).collect())
    }

    /// The first member that a program reads and this kernel has not.
    pub fn missing<'a>(&self, program: &'a Program) -> Option<&'a str> {
        program.members.iter().copied().find(|m| self.0.iter().any(|(name, at)| name == m && *at == MISSING))
    }
}

/// Attaches all programs. The links live in `ebpf`; what the iterators need is returned.
pub fn attach(
    ebpf: &mut Ebpf,
    settings: &Settings,
    types: &KernelTypes,
    offsets: &Offsets,
    cgroup: Option<&CgroupRoot>,
    mut pins: Option<&mut Pins>,
) -> Result<(BTreeMap<&'static str, ProgramState>, Iterators), KernelError> {
    let btf = Btf::from_sys_fs()
        .map_err(|error| KernelError::BadBtf { path: super::btf::VMLINUX.into(), error: chain(&error) })?;
    let mut states: BTreeMap<&'static str, ProgramState> = BTreeMap::new();
    let mut iterators = Iterators::default();
    let wanted = |program: &&Program| {
        (settings.limits.media() || !program.is_of_media())
            && (settings.attribution || program.hook != Hook::TaskIterator)
    };
    for program in PROGRAMS.iter().filter(wanted) {
        let attached = |name: &&&str| states.get(**name) == Some(&ProgramState::Attached);
        let state = if settings.disabled.iter().any(|name| name == program.name) {
            ProgramState::Disabled
        } else if let Some(by) = program.instead_of.iter().find(attached) {
            ProgramState::NotNeeded { by }
        } else if let Some(reason) = missing_helper(types, program) {
            ProgramState::Unavailable { reason }
        } else if let Some(member) = offsets.missing(program) {
            let path = OFFSETS.iter().find(|(name, _)| *name == member).map_or(member, |(_, path)| path);
            ProgramState::Unavailable { reason: format!("this kernel's BTF has no {path}") }
        } else {
            match attach_one(ebpf, program, types, &btf, cgroup, &mut iterators, pins.as_deref_mut()) {
                Ok(()) => ProgramState::Attached,
                Err(reason) => ProgramState::Unavailable { reason },
            }
        };
        states.insert(program.name, state);
    }
    Ok((states, iterators))
}

/// The attached iterators, by map, or by their program's name where they go over none.
#[derive(Default)]
pub struct Iterators {
    pub(super) maps: BTreeMap<&'static str, KernelIterator>,
}

fn attach_one(
    ebpf: &mut Ebpf,
    program: &Program,
    types: &KernelTypes,
    btf: &Btf,
    cgroup: Option<&CgroupRoot>,
    iterators: &mut Iterators,
    mut pins: Option<&mut Pins>,
) -> Result<(), String> {
    let unknown = || format!("the kernel object has no program {}", program.name);
    if let Some(pins) = &mut pins
        && match program.hook {
            Hook::Tracepoint { .. } | Hook::CgroupIngress | Hook::CgroupEgress => pins.keep(program.name),
            Hook::Interface => pins.keep_classifier(program.name),
            _ => false,
        }
    {
        return Ok(());
    }
    match program.hook {
        Hook::Tracepoint { name, arguments } => {
            check_prototype(types, name, arguments)?;
            let loaded: &mut BtfTracePoint =
                ebpf.program_mut(program.name).ok_or_else(unknown)?.try_into().map_err(|e| chain(&e))?;
            loaded.load(name, btf).map_err(|e| chain(&e))?;
            let link = loaded.attach().map_err(|e| chain(&e))?;
            succeed(pins.as_deref_mut(), program.name)?;
            if let Some(pins) = pins {
                let link = loaded.take_link(link).map_err(|e| chain(&e))?;
                pins.pin(program.name, descriptor(loaded.fd())?, link.into())?;
            }
        }
        Hook::CgroupIngress | Hook::CgroupEgress => {
            let root = cgroup
                .ok_or("no cgroup2 hierarchy is mounted; mount one: mount -t cgroup2 none /sys/fs/cgroup")?;
            let directory =
                std::fs::File::open(&root.path).map_err(|e| format!("{}: {e}", root.path.display()))?;
            let loaded: &mut CgroupSkb =
                ebpf.program_mut(program.name).ok_or_else(unknown)?.try_into().map_err(|e| chain(&e))?;
            loaded.load().map_err(|e| chain(&e))?;
            let direction = match program.hook {
                Hook::CgroupIngress => CgroupSkbAttachType::Ingress,
                _ => CgroupSkbAttachType::Egress,
            };
            // A link without flags is attached beside those of others (`cgroup_bpf_link_attach` implies
            // BPF_F_ALLOW_MULTI); aya calls that mode "single".
            let link =
                loaded.attach(directory, direction, CgroupAttachMode::Single).map_err(|e| chain(&e))?;
            succeed(pins.as_deref_mut(), program.name)?;
            if let Some(pins) = pins {
                let link = loaded.take_link(link).map_err(|e| chain(&e))?;
                let link = FdLink::try_from(link).map_err(|e| chain(&e))?;
                pins.pin(program.name, descriptor(loaded.fd())?, link)?;
            }
        }
        Hook::MapIterator { .. } | Hook::SocketIterator { .. } | Hook::TaskIterator => {
            let loaded: &mut Iter =
                ebpf.program_mut(program.name).ok_or_else(unknown)?.try_into().map_err(|e| chain(&e))?;
            loaded.load(program.hook.iterates_over().unwrap_or_default(), btf).map_err(|e| chain(&e))?;
            let program_fd = loaded.fd().map_err(|e| chain(&e))?.try_clone().map_err(|e| chain(&e))?;
            let map = match program.hook {
                Hook::MapIterator { map } | Hook::SocketIterator { map } => Some(map),
                _ => None,
            };
            let map_fd = map.map(|map| super::maps::fd(ebpf, map).map_err(|e| chain(&e))).transpose()?;
            let iterator = KernelIterator::attach(program_fd.as_fd(), map_fd)
                .map_err(|e| format!("bpf(BPF_LINK_CREATE): {e}"))?;
            iterators.maps.insert(map.unwrap_or(program.name), iterator);
        }
        Hook::Interface => {
            let loaded: &mut SchedClassifier =
                ebpf.program_mut(program.name).ok_or_else(unknown)?.try_into().map_err(|e| chain(&e))?;
            loaded.load().map_err(|e| chain(&e))?;
            if let Some(pins) = pins {
                pins.pin_program(program.name, descriptor(loaded.fd())?)?;
            }
        }
        Hook::TcpIterator | Hook::FileIterator => {
            let loaded: &mut Iter =
                ebpf.program_mut(program.name).ok_or_else(unknown)?.try_into().map_err(|e| chain(&e))?;
            loaded.load(program.hook.iterates_over().unwrap_or_default(), btf).map_err(|e| chain(&e))?;
        }
    }
    Ok(())
}

/// Where an earlier agent's program is attached too, it goes now. For some microseconds both were there, and an event may have been
/// counted twice. The other way round some ten milliseconds of events would be missed: a tracepoint that has become empty
/// takes nobody before a grace period has passed (`tracepoint_add_func`).
fn succeed(pins: Option<&mut Pins>, name: &str) -> Result<(), String> {
    pins.filter(|pins| pins.continues()).map_or(Ok(()), |pins| pins.make_room(name))
}

fn descriptor(program: Result<&ProgramFd, ProgramError>) -> Result<RawFd, String> {
    program.map(|fd| fd.as_fd().as_raw_fd()).map_err(|e| chain(&e))
}

/// One pass of a loaded iterator that goes over no map and tells nothing.
pub fn run_iterator(ebpf: &mut Ebpf, name: &str) -> Result<(), String> {
    let program: &mut Iter = ebpf
        .program_mut(name)
        .ok_or_else(|| format!("the kernel object has no program {name}"))?
        .try_into()
        .map_err(|e| chain(&e))?;
    let link = program.attach().map_err(|e| chain(&e))?;
    let link = program.take_link(link).map_err(|e| chain(&e))?;
    let mut pass = link.into_file().map_err(|e| chain(&e))?;
    std::io::copy(&mut pass, &mut std::io::sink()).map_err(|e| format!("{name}: {e}"))?;
    Ok(())
}

/// What to say where this kernel lacks a helper that a program calls.
pub fn missing_helper(types: &KernelTypes, program: &Program) -> Option<String> {
    let (helper, since) = program.helper()?;
    let there =
        types.enumeration("bpf_func_id").is_some_and(|all| all.iter().any(|(name, _)| name == helper));
    (!there).then(|| format!("this kernel has no {helper} (Linux {since})"))
}

/// See [`super::Kernel::probe_fentry`].
pub fn probe_fentry(ebpf: &mut Ebpf) -> Result<(), String> {
    let btf = Btf::from_sys_fs().map_err(|e| chain(&e))?;
    let program: &mut FEntry = ebpf
        .program_mut(FENTRY_PROBE)
        .ok_or("not in the kernel object")?
        .try_into()
        .map_err(|e| chain(&e))?;
    program.load("tcp_connect", &btf).map_err(|e| chain(&e))
}

/// Argument positions are not ABI: they are what the running kernel's BTF says, or the program stays out.
pub fn check_prototype(types: &KernelTypes, name: &str, expected: &[&str]) -> Result<(), String> {
    let Some(found) = types.tracepoint(name) else {
        return Err(format!("this kernel has no tracepoint {name}"));
    };
    if found.len() >= expected.len() && found.iter().zip(expected).all(|(f, e)| f == e) {
        return Ok(());
    }
    Err(format!(
        "tracepoint {name} has arguments ({}), expected ({}, …)",
        found.join(", "),
        expected.join(", ")
    ))
}
