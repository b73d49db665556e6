//! Never attached: loaded by `graylag check` to learn whether this kernel allows a kind of program that graylag does
//! without.

use aya_ebpf::{macros::fentry, programs::FEntryContext};

/// Whether `fentry` programs may be loaded.
#[fentry(function = "tcp_connect")]
pub fn probe_fentry(_ctx: FEntryContext) -> i32 {
    0
}
