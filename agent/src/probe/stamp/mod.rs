//! STAMP (RFC 8762, RFC 8972): loss and delay by direction between nodes.
//!
//! A Session-Sender to each target and a stateful Session-Reflector. Everything that decides is pure, with times as
//! arguments: [`packet`] and [`tlv`] are the wire, [`keys`] the digests, [`replay`] what was there before, [`sender`],
//! [`fate`] and `delays` one session, [`reflector`], [`peers`], [`arrivals`] and [`heard`] the other end, [`sessions`] all of them together. [`batch`], [`socket`]
//! and [`prober`] are the system calls, the sockets and the thread; [`Surge`] finds, in media, a reason to probe more closely.
//!
//! Test packets carry what their sender has received of the other end (Private Use TLV 252), and whether it loses too much of it
//! (253), so that *transmit* rests on the peer's own evidence even where no reply comes back. A reflector that does not know them
//! returns them, with U.

pub mod arrivals;
pub mod batch;
mod delays;
pub mod fate;
pub mod heard;
pub mod key_file;
pub mod keys;
pub mod packet;
pub mod peers;
pub mod prober;
pub mod reflector;
pub mod replay;
pub mod sender;
pub mod sessions;
pub mod socket;
mod surge;
pub mod tlv;

pub use key_file::KeyFileError;
pub use keys::Keys;
pub use prober::{Bound, Prober, ProberError, bind};
pub use sessions::{Settings, Target};
pub use surge::Surge;

pub use crate::model::STAMP_PORT as PORT;
/// A test packet without a reply for this long is lost.
pub const PATIENCE: std::time::Duration = std::time::Duration::from_secs(1);
/// What came later is here for this long, and this is not: then it is lost, though it may still come. Reordering is a matter of
/// milliseconds.
const HOLD: std::time::Duration = std::time::Duration::from_millis(50);
