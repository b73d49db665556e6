//! The contract between graylag's kernel programs and its user half: map keys and values, record layouts,
//! bucket arithmetic and the pure state transitions that both sides run.
//!
//! Everything here is `no_std`, free of I/O and clocks, and compiled twice: for `bpfel` into the kernel object and for
//! the host into the agent, so that the same code is what the tests check and what the kernel runs. Layouts are
//! `repr(C)` without implicit padding (`bytemuck::Pod` refuses to derive otherwise) and are compared with the BTF
//! of the built object in `tests/tests/abi.rs`.
#![no_std]
// The verifier wants one function; a call costs more than most of these bodies.
#![allow(clippy::inline_always)]

#[cfg(test)]
extern crate std;

pub mod bucket;
pub mod bytes;
pub mod counter;
pub mod demux;
pub mod dtls;
pub mod errno;
pub mod exchange;
pub mod flow;
pub mod key;
pub mod media;
pub mod offsets;
pub mod outcome;
pub mod path_state;
pub mod record;
pub mod relay;
pub mod rhythm;
pub mod rtp;
pub mod session;
pub mod stun;
pub mod table;
pub mod task;

/// Version of the map and record layouts, and of the checkpoint that one agent leaves for the next; change it with any change to what these are or
/// mean. What others read has
/// a version of its own ([`path_state::VERSION`]).
pub const ABI_VERSION: u32 = 4;
