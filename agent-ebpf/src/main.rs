//! The kernel half of graylag: one module per concern, each program loadable on its own.
//!
//! Built for `bpfel-unknown-none` by `cargo xtask build-ebpf`; on the host it is an empty program, so that plain
//! `cargo build` and `cargo test` of the workspace work.
#![cfg_attr(target_arch = "bpf", no_std, no_main, feature(asm_experimental_arch))]
#![allow(clippy::inline_always, clippy::trivially_copy_pass_by_ref)] // the verifier wants one function
#![allow(clippy::needless_pass_by_value)] // contexts are handed over by aya's macros

#[cfg(target_arch = "bpf")]
mod bpf;

#[cfg(not(target_arch = "bpf"))]
fn main() {
    eprintln!("graylag-ebpf is the kernel half; build it with: cargo xtask build-ebpf");
}
