//! The flow programs on packets that never were on a wire (`BPF_PROG_TEST_RUN`), for tests and the benchmark.
//!
//! Loaded and configured as [`super::Kernel::start`] does it, attached to nothing: what they are shown is exactly what the
//! caller makes up, however wrong, and what they count is read as the agent reads it.

use std::os::fd::{AsFd, BorrowedFd};

use aya::{
    Ebpf, TestRun, TestRunOptions,
    maps::{Array, HashMap},
    programs::{ProgramError, SchedClassifier},
};
use graylag_ebpf::{
    flow::Flow,
    media::{MediaCounter, MediaKey, PathQuality, PathTraffic},
    session::Session,
};

use super::{
    KernelError,
    btf::KernelTypes,
    error::chain,
    load::{self, Offsets},
    maps::{self, Raw, failed, open},
    media,
    settings::Settings,
};

/// One of the programs at the interfaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlowProgram {
    /// What an Ethernet interface receives.
    Ingress,
    /// What it sends.
    Egress,
    /// What an interface without link headers receives.
    IngressIp,
    /// What it sends.
    EgressIp,
}

impl FlowProgram {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Ingress, Self::Egress, Self::IngressIp, Self::EgressIp];

    /// Its name in the object.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ingress => "flow_ingress",
            Self::Egress => "flow_egress",
            Self::IngressIp => "flow_ingress_ip",
            Self::EgressIp => "flow_egress_ip",
        }
    }
}

/// `struct __sk_buff` up to `gso_size`, as words.
const CONTEXT_WORDS: usize = 45;
const GSO_SIZE: usize = 44;

/// The flow programs, loaded and not attached.
pub struct Trial {
    ebpf: Ebpf,
    flows: u32,
}

impl Trial {
    /// Loads them from the agent's own object.
    pub fn new(settings: &Settings) -> Result<Self, KernelError> {
        let types = KernelTypes::of_running_kernel()?;
        let mut ebpf = load::object(load::OBJECT, settings, &types, &Offsets::of(&types), None)?;
        maps::insert_peers(&mut ebpf, &settings.peers)?;
        media::fill_free_paths(&mut ebpf, settings.limits.media_paths())?;
        for program in FlowProgram::ALL {
            let refused = |error: ProgramError| KernelError::Object(chain(&error));
            let loaded = ebpf.program_mut(program.name()).ok_or_else(|| unknown(program))?;
            let loaded: &mut SchedClassifier = loaded.try_into().map_err(refused)?;
            loaded.load().map_err(refused)?;
        }
        Ok(Self { ebpf, flows: settings.limits.flow_entries() })
    }

    /// Shows a program one packet, with its Ethernet header, and says what the program returned. The packet stands for
    /// several where `segment_size` is not 0. A program for interfaces without link headers takes its first byte for the
    /// IP header's, and the `EtherType` at byte 12 for what the interface says the protocol is.
    ///
    /// An error is the kernel's, which makes no packet of everything.
    pub fn run(&self, program: FlowProgram, packet: &[u8], segment_size: u32) -> Result<i32, KernelError> {
        let mut context = [0u32; CONTEXT_WORDS];
        context[GSO_SIZE] = segment_size;
        let options = TestRunOptions {
            data_in: Some(packet),
            ctx_in: (segment_size != 0).then(|| bytemuck::bytes_of(&context)),
            ..TestRunOptions::new()
        };
        let outcome = self.program(program)?.test_run(options);
        outcome.map(|run| run.return_value.cast_signed()).map_err(|error| KernelError::Trial(chain(&error)))
    }

    /// Descriptor of a program, to be run in another way.
    pub fn descriptor(&self, program: FlowProgram) -> Result<BorrowedFd<'_>, KernelError> {
        let descriptor = self.program(program)?.fd().map_err(|error| KernelError::Trial(chain(&error)))?;
        Ok(descriptor.as_fd())
    }

    /// Lets each stream take turns with so many others, as the agent does where there are very many packets.
    pub fn take_turns(&mut self, others: u32) -> Result<(), KernelError> {
        media::take_turns(&mut self.ebpf, others)
    }

    /// Every path, as [`super::Kernel::media_paths`] hands it out, without a pass over the flows.
    pub fn paths(
        &self,
        mut visit: impl FnMut(&MediaKey, &[PathTraffic], &PathQuality),
    ) -> Result<(), KernelError> {
        media::walk_media_paths(&self.ebpf, 0, |key, traffic, quality, _| visit(key, traffic, quality))
    }

    /// The programs' own counters.
    pub fn counters(&self) -> Result<[u64; MediaCounter::COUNT], KernelError> {
        media::media_counters(&self.ebpf)
    }

    /// Every entry of the flow table that has carried anything, those that were never found again among them.
    pub fn flows(&self) -> Result<Vec<Flow>, KernelError> {
        let map = open!(&self.ebpf, "FLOWS", Array<_, Raw<Flow>>);
        let mut flows = Vec::new();
        for number in 0..self.flows {
            let flow = map.get(&number, 0).map_err(failed("FLOWS"))?.0;
            if flow.receive.packets != 0 || flow.transmit.packets != 0 {
                flows.push(flow);
            }
        }
        Ok(flows)
    }

    /// Every ICE session, by its name.
    pub fn sessions(&self) -> Result<Vec<(u64, Session)>, KernelError> {
        let map = open!(&self.ebpf, "SESSIONS", HashMap<_, u64, Raw<Session>>);
        map.iter()
            .map(|entry| entry.map(|(key, session)| (key, session.0)).map_err(failed("SESSIONS")))
            .collect()
    }

    /// Forgets an ICE session, as the agent does with what is over.
    pub fn forget_session(&mut self, key: u64) -> Result<(), KernelError> {
        media::remove_session(&mut self.ebpf, key)
    }

    /// See [`super::Kernel::map_memory`].
    pub fn map_memory(&self) -> u64 {
        maps::all_memory(&self.ebpf)
    }

    fn program(&self, program: FlowProgram) -> Result<&SchedClassifier, KernelError> {
        let found = self.ebpf.program(program.name()).ok_or_else(|| unknown(program))?;
        found.try_into().map_err(|error: ProgramError| KernelError::Trial(chain(&error)))
    }
}

fn unknown(program: FlowProgram) -> KernelError {
    KernelError::Object(format!("it has no program {}", program.name()))
}
