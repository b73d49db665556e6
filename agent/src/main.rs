//! temporary
use graylag::kernel::{Kernel, settings::*};
fn main() -> anyhow::Result<()> {
    let settings = Settings { netns: None, prefixes: Prefixes { client_v4: 32, client_v6: 128, server_v4: 24, server_v6: 48 }, limits: Limits { paths: 4096, connections: 65536, half_open: 16384 }, peers: vec![], disabled: vec![], program_stats: true };
    let t = std::time::Instant::now();
    let mut k = Kernel::start(&settings, &["QUEUE_PURGE"])?;
    println!("start {:?}", t.elapsed());
    for (p, s) in k.programs() { println!("{:24} {s:?}", p.name); }
    println!("{:?}", k.not_adopted());
    for _ in 0..std::env::args().nth(1).map_or(1, |s| s.parse().unwrap()) {
        std::thread::sleep(std::time::Duration::from_secs(1));
        let t = std::time::Instant::now();
        k.paths(0, |key, s| println!("{key:?} out {:?} synrt {} ovf {}/{} rq {} ck {}/{} rst {} in/out {}/{} rt {:?} hs {} hf {} fb {} ff {} rs {} rtt {}", s.outcomes, s.syn_retransmitted, s.overflow_at_syn, s.overflow_at_ack, s.request_queue_full, s.cookies_sent, s.cookies_established, s.resets, s.segments_in, s.segments_out, s.retransmitted, s.handshake.buckets.iter().sum::<u32>(), s.handshake_failed.buckets.iter().sum::<u32>(), s.first_byte.buckets.iter().sum::<u32>(), s.first_byte_failed.buckets.iter().sum::<u32>(), s.response.buckets.iter().sum::<u32>(), s.rtt.buckets.iter().sum::<u32>()))?;
        k.waiting(7, |w| println!("{w:?}"))?;
        k.half_open(|t, h| println!("{t:?} {h:?}"))?;
        println!("read {:?}", t.elapsed());
    }
    println!("{:?}\n{:?}\n{:?}", k.drops()?, k.udp_drops()?, k.counters()?);
    for t in k.program_times() { if t.runs>0 { println!("{t:?} {} ns", t.nanoseconds/t.runs); } }
    Ok(())
}
