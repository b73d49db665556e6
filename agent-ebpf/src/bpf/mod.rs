//! What runs in the kernel.

mod adopt;
mod datagram;
mod drops;
mod flow;
mod handshake;
mod kptr;
mod layouts;
mod listen;
mod loss;
mod maps;
mod media_maps;
mod media_scan;
mod packet;
mod path;
mod payload;
mod probe;
mod relay;
mod response;
mod scan;
mod segment;
mod state;
mod stream;
mod table;
mod tasks;

/// Panics cannot happen (indexing is checked by hand, release builds have no overflow checks); should one be
/// compiled in nevertheless, the verifier refuses the endless loop and the load test fails.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    loop {}
}

/// Tracing helpers are for GPL-compatible programs only (`bpf_prog_load`, `license_is_gpl_compatible`).
#[allow(unsafe_code)]
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
