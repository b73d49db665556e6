//! Probes, where passive traffic proves nothing. What they see is evidence like any other: plain values, copied out.

pub mod address;
pub mod stamp;
