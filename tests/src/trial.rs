//! The flow programs shown packets one by one (`BPF_PROG_TEST_RUN`), and what they counted, to the packet.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use graylag::{
    config::Config,
    kernel::trial::{FlowProgram, Trial},
    run::kernel_settings,
};
use graylag_ebpf::{
    counter::Direction,
    key::Address,
    media::{BURST_BUCKETS, GROUPS, PathQuality, Quality, Traffic},
    rtp::Event,
};

use crate::{frames::ETHERNET, require_root, rtp::Expected};

/// What the kernel says to "next".
const NEXT: i32 = -1;
/// Flows that there is room for.
pub const FLOWS: u32 = 2048;

/// The programs with small tables.
pub fn trial() -> Trial {
    require_root();
    let text = format!(
        "[media]\ninterfaces = [\"*\"]\n[limits]\nconnections = 256\nhalf_open = 256\npaths = 1024\nflows = {FLOWS}\n"
    );
    let settings = kernel_settings(&Config::parse(&text, None).unwrap()).unwrap();
    Trial::new(&settings).expect("the programs")
}

/// Shows it; false where the kernel makes no packet of it: its test wants all of the IP header that the `EtherType` promises.
pub fn show(trial: &Trial, program: FlowProgram, frame: &[u8], segment_size: u32) -> bool {
    match trial.run(program, frame, segment_size) {
        Ok(verdict) => {
            assert_eq!(verdict, NEXT, "{program:?} {segment_size} {frame:02x?}");
            true
        }
        Err(error) => {
            assert!(frame.len() < ETHERNET + 40, "{error}: {frame:02x?}");
            false
        }
    }
}

/// An address and a port.
pub fn socket(address: [u8; 4], port: u16) -> SocketAddr {
    SocketAddr::new(Ipv4Addr::from(address).into(), port)
}

/// The same, of IPv6.
pub fn socket6(last: u16, port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::from([0x2001, 0xdb8, 0, last, 0, 0, 0, 1]), port)
}

/// What one path counted in one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts {
    /// Of its streams together.
    pub stream: Expected,
    /// Too late to be told from a stream of its own.
    pub stale: u64,
    /// Streams that began anew.
    pub restarts: u64,
    /// Bursts of loss, by length.
    pub bursts: [u64; BURST_BUCKETS],
    /// Datagrams, by what they carry.
    pub groups: [u64; GROUPS],
    /// Bytes of payload.
    pub bytes: u64,
}

impl Counts {
    fn of(traffic: impl Iterator<Item = Traffic>, quality: &Quality) -> Self {
        let trouble = |event: Event| quality.trouble[event as usize];
        let (mut received, mut bytes, mut groups) = (0, 0, [0; GROUPS]);
        for cpu in traffic {
            received += cpu.received;
            bytes += cpu.bytes;
            groups.iter_mut().zip(cpu.packets).for_each(|(sum, n)| *sum += n);
        }
        Self {
            stream: Expected {
                received,
                lost: trouble(Event::Missed) - trouble(Event::Late),
                reordered: trouble(Event::Late),
                duplicated: trouble(Event::Duplicated),
            },
            stale: trouble(Event::Stale),
            restarts: trouble(Event::Restart),
            bursts: quality.bursts,
            groups,
            bytes,
        }
    }

    /// Whether it says anything of a stream, good or bad.
    pub fn says_anything(&self) -> bool {
        let Self { stream, stale, restarts, bursts, .. } = self;
        *stream != Expected::default() || *stale + *restarts != 0 || bursts.iter().any(|n| *n != 0)
    }
}

/// Every path with what both directions counted.
pub fn paths(trial: &Trial) -> Vec<(Address, [Counts; 2])> {
    let mut paths = Vec::new();
    let each = |traffic: &[[Traffic; 2]], quality: &PathQuality, direction: Direction| {
        let half = direction as usize;
        Counts::of(traffic.iter().map(|cpu| cpu[half]), &quality[half])
    };
    trial
        .paths(|key, traffic, quality| {
            let both = [Direction::Receive, Direction::Transmit].map(|d| each(traffic, quality, d));
            paths.push((key.address, both));
        })
        .unwrap();
    paths
}

/// The path of a remote address: its /24, or /48.
pub fn path_of(paths: &[(Address, [Counts; 2])], remote: IpAddr) -> [Counts; 2] {
    let (mut bytes, kept) = match remote {
        IpAddr::V4(v4) => (v4.to_ipv6_mapped().octets(), 15),
        IpAddr::V6(v6) => (v6.octets(), 6),
    };
    bytes[kept..].fill(0);
    let words = |chunk: &[u8]| u32::from_ne_bytes(chunk.try_into().unwrap());
    let address: Vec<u32> = bytes.chunks(4).map(words).collect();
    paths.iter().find(|(found, _)| *found == *address).unwrap_or_else(|| panic!("no path of {remote}")).1
}
