//! TCP and TLS probes to every address of a target: which addresses of a load balancer do not let one in, and whether that
//! hangs on the 4-tuple.
//!
//! An attempt is one connection from one port, once. Ports are swept ([`ports`]), because what spreads connections over links and
//! servers hashes the 4-tuple (RFC 2992): one port would meet one of them. An attempt that fails is made once more from the same port,
//! and does not count as an attempt: fails it again, the fault is bound to the 4-tuple; succeeds it, it was chance. [`outcome`] and
//! [`ports`] are pure; [`attempt`], [`resolve`], [`roots`] and [`round`] do the rest,
//! [`prober`] does it without end.

pub mod attempt;
pub mod outcome;
pub mod ports;
pub mod prober;
pub mod resolve;
pub mod roots;
pub mod round;

pub use prober::{Probe, Prober};
pub use resolve::ResolveError;
pub use roots::RootsError;
pub use round::{Found, RoundError, Settings, round};
