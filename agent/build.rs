//! Puts the kernel object, built by `cargo xtask build-ebpf`, where `include_bytes!` finds it. Installs nothing,
//! builds nothing else, reaches no network.

#![allow(clippy::expect_used)] // cargo sets both; a build script has nobody to return an error to

use std::{env, fs, path::PathBuf};

fn main() {
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR")).join("graylag.bpf.o");
    let manifest = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR"));
    let object = env::var_os("GRAYLAG_BPF_OBJECT")
        .map_or_else(|| manifest.join("../target/bpf/bpfel-unknown-none/bpf/graylag-ebpf"), PathBuf::from);
    println!("cargo::rerun-if-env-changed=GRAYLAG_BPF_OBJECT");
    println!("cargo::rerun-if-changed={}", object.display());
    if let Err(error) = fs::copy(&object, &out) {
        println!(
            "cargo::error=the kernel object {} cannot be read ({error}); build it with: cargo xtask build-ebpf",
            object.display()
        );
    }
}
