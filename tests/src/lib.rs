//! What the end-to-end tests are made of: namespaces as hosts, nft as fault and as ground truth, the agent as users run
//! it, real servers.
//!
//! Everything has a guard that removes it, names carry the process's id, and leftovers of a crashed run are removed by the
//! next. A test that cannot run fails.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::must_use_candidate)]

pub mod agent;
pub mod arrivals;
pub mod background;
pub mod bench;
pub mod bpf;
pub mod calls;
pub mod container;
pub mod containerd;
pub mod contract;
pub mod deploy;
pub mod elf;
pub mod every;
pub mod flood;
pub mod frames;
pub mod http;
pub mod inside;
pub mod instruction;
pub mod kubelet;
pub mod layout;
pub mod metrics;
pub mod net;
pub mod nft;
pub mod object;
pub mod otlp;
pub mod paced;
pub mod path_map;
pub mod pki;
pub mod pods;
pub mod proc;
pub mod random;
pub mod raw;
pub mod rtp;
pub mod schema;
pub mod servers;
pub mod sites;
pub mod syscall;
pub mod systemd;
pub mod traffic;
pub mod trial;
pub mod turn;
pub mod udp;

use std::{
    thread,
    time::{Duration, Instant},
};

/// Waits until `probe` gives a value; fails with `what` after `limit`. Limits are generous: the machine is shared.
#[track_caller]
pub fn eventually<T>(what: &str, limit: Duration, mut probe: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = probe() {
            return value;
        }
        assert!(start.elapsed() < limit, "not within {limit:?}: {what}");
        thread::sleep(Duration::from_millis(50));
    }
}

/// How often to do what is done often: so many times on a real processor, and `emulated` times in the guests of the kernel
/// matrix (`GRAYLAG_EMULATED`, set by xtask/src/kernels/image.rs), whose processors are some twenty times slower.
pub fn repetitions(real: usize, emulated: usize) -> usize {
    if std::env::var_os("GRAYLAG_EMULATED").is_some() { emulated } else { real }
}

/// Monotonic time, which all processes of this machine share, and the kernel's programs with them.
pub fn monotonic() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Fails, rather than skips, where these tests cannot run.
pub fn require_root() {
    assert!(
        rustix::process::geteuid().is_root(),
        "these tests make namespaces and load programs: run them as root"
    );
}
