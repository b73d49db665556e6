//! The contract between the halves: what the agent takes a key, a value or a record to be is what the kernel object has
//! in its BTF, member by member, and what its maps are declared with. And the contract between one agent and the next, which is the
//! same: no change of it goes without another `ABI_VERSION`.
#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests are tests

use std::{collections::BTreeSet, env, fs, mem::offset_of, path::Path};

use graylag_ebpf::{
    ABI_VERSION,
    bucket::Histogram,
    counter::Counter,
    exchange::Exchange,
    flow::{Flow, Stream},
    key::{Address, PathKey, Peer, Tuple, UdpPort},
    media::{FlowScan, MediaCounter, MediaKey, PathFlows, PathQuality, PathTraffic, Quality, Traffic},
    record::{Conn, HalfOpen, HalfOpenRecord, PathRecord, PathStats, Scan, Waiting},
    relay::{SocketMedia, SocketRecord},
    rtp::{Cursor, Tally},
    session::{Session, SessionRecord},
    table::Bucket,
    task::TaskRecord,
};
use graylag_tests::{
    contract,
    object::{Layout, Object, PROFILES},
};

macro_rules! layout {
    ($name:ident { $($member:ident),* $(,)? }) => {{
        // Fails to compile where a member is missing.
        let _ = |value: $name| { let $name { $($member: _),* } = value; };
        let members = vec![$((stringify!($member).to_owned(), offset_of!($name, $member))),*];
        (stringify!($name), Layout { size: size_of::<$name>(), members })
    }};
}

fn layouts() -> Vec<(&'static str, Layout)> {
    vec![
        layout!(PathKey { address, netns, port, peer, prefix, role, reserved }),
        layout!(Tuple { local, remote, netns, local_port, remote_port }),
        layout!(UdpPort { netns, port, reserved }),
        layout!(Peer { id, per_address }),
        layout!(Histogram { sum_ns, buckets }),
        layout!(Exchange { asked_ns, last_ns, asked_seq, last_seq, received, acked }),
        layout!(PathStats {
            touched_ns,
            outcomes,
            syn_retransmitted,
            overflow_at_syn,
            overflow_at_ack,
            request_queue_full,
            cookies_sent,
            cookies_established,
            resets,
            segments_in,
            segments_out,
            retransmitted,
            handshake,
            handshake_failed,
            first_byte,
            first_byte_failed,
            response,
            rtt,
        }),
        layout!(Conn {
            path,
            flags,
            began_ns,
            sampled_ns,
            exchange,
            rhythm,
            segments_in,
            segments_out,
            dsack,
            syn_retransmitted,
            soft_error,
            remote_port,
            reserved,
        }),
        layout!(HalfOpen { path, flags, began_ns, last_ns, syn_retransmitted, syns }),
        layout!(Waiting {
            path,
            kind,
            id,
            since_ns,
            heard_ns,
            syn_retransmitted,
            usual,
            segments_in,
            reserved,
        }),
        layout!(HalfOpenRecord { tuple, state }),
        layout!(PathRecord { key, reserved, stats }),
        layout!(Scan { touched_since_ns, kinds, pass }),
        layout!(MediaKey { address, netns, peer, prefix, reserved }),
        layout!(Cursor {
            ssrc,
            channel,
            payload_type,
            clock,
            window,
            highest,
            timestamp,
            arrival,
            jitter,
            received,
            run,
            span,
            state,
        }),
        layout!(Tally { missed, late, duplicated, stale, bursts, restarts, candidate }),
        layout!(Flow { tuple, created_ns, path, generation, session, receive, transmit }),
        layout!(Stream { flow, created, direction, last, cursor, tally }),
        layout!(Traffic { last_ns, last_media_ns, bytes, received, packets }),
        layout!(Quality { trouble, bursts, jitter }),
        layout!(PathFlows { pass, fresh, one_way, fell, reserved }),
        layout!(SocketMedia { began_ns, received, sent, dropped, sources, process, pass, command }),
        layout!(SocketRecord { id, queued, reserved, media }),
        layout!(Session { began_ns, at }),
        layout!(SessionRecord { key, session }),
        layout!(TaskRecord { cgroup, netns, process, command }),
        layout!(FlowScan { now_ns, fresh_ns, fell_ns, recent_ns, pass, reserved }),
    ]
}

#[test]
fn structures_are_laid_out_as_the_objects_btf_says() {
    for profile in PROFILES {
        let object = Object::read(profile);
        for (name, expected) in layouts() {
            assert_eq!(object.layout(name), expected, "{name} in {profile}");
        }
    }
}

#[test]
fn maps_are_declared_with_the_sizes_of_the_contract() {
    const WORD: usize = size_of::<u32>();
    // An LPM key begins with the length of the prefix.
    let mut expected = vec![
        ("CLOCK", WORD, size_of::<[u64; 2]>()),
        ("FLOWS", WORD, size_of::<Flow>()),
        ("FLOW_INDEX", WORD, size_of::<Bucket>()),
        ("FLOW_SCAN", WORD, size_of::<FlowScan>()),
        ("FREE_PATHS", 0, WORD),
        ("MEDIA_COUNTERS", WORD, size_of::<[u64; MediaCounter::COUNT]>()),
        ("MEDIA_PATHS", size_of::<MediaKey>(), WORD),
        ("NEXT_PLACE", WORD, size_of::<u64>()),
        ("PATH_FLOWS", WORD, size_of::<PathFlows>()),
        ("PATH_QUALITY", WORD, size_of::<PathQuality>()),
        ("PATH_TRAFFIC", WORD, size_of::<PathTraffic>()),
        ("PEER_GENERATION", WORD, WORD),
        ("SCRATCH", WORD, 4096),
        ("SESSIONS", size_of::<u64>(), size_of::<Session>()),
        ("STREAMS", WORD, size_of::<Stream>()),
        ("TURNS", WORD, WORD),
        ("STREAM_INDEX", WORD, size_of::<Bucket>()),
        ("CONNS", size_of::<u64>(), size_of::<Conn>()),
        ("COOKIES", size_of::<Tuple>(), size_of::<u64>()),
        ("COUNTERS", WORD, size_of::<[u64; Counter::COUNT]>()),
        ("DROPS", WORD, size_of::<u64>()),
        ("DROP_IGNORED", WORD, WORD),
        ("HALF_OPEN", size_of::<Tuple>(), size_of::<HalfOpen>()),
        ("LISTENING", size_of::<UdpPort>(), WORD),
        ("NETNS", WORD, WORD),
        ("NEW_PATH", WORD, size_of::<PathStats>()),
        ("PATHS", size_of::<PathKey>(), size_of::<PathStats>()),
        ("PEERS", WORD + size_of::<Address>(), size_of::<Peer>()),
        ("SCAN", WORD, size_of::<Scan>()),
        ("UDP_DROPS", size_of::<UdpPort>(), size_of::<u64>()),
    ];
    expected.sort_unstable();
    let expected: Vec<_> =
        expected.into_iter().map(|(name, key, value)| (name.into(), (key, value))).collect();
    for profile in PROFILES {
        let mut found = Object::read(profile).maps();
        found.remove("AYA_LOGS"); // the logging library's own
        assert_eq!(found.into_iter().collect::<Vec<(String, _)>>(), expected, "{profile}");
    }
}

#[test]
fn the_object_says_which_version_of_the_contract_it_has() {
    for profile in PROFILES {
        assert_eq!(Object::read(profile).constant("LAYOUTS"), Some(ABI_VERSION), "{profile}");
    }
}

/// The contract as it was written down.
const WRITTEN: &str = include_str!("../../agent-ebpf/abi.txt");
/// Set, it is written down anew.
const WRITE: &str = "GRAYLAG_WRITE_ABI";
const HOW: &str =
    "cargo xtask build-ebpf && GRAYLAG_WRITE_ABI=1 cargo test -p graylag-tests --test abi handed_on";

/// What an agent of the same version has pinned is taken over: the kernel says then how large things are, not what is in them.
#[test]
fn what_is_handed_on_is_what_its_version_says() {
    let now = contract::of(&Object::read("bpf"));
    let (version, then) = WRITTEN.split_once("\n\n").unwrap_or_default();
    let head = format!("ABI_VERSION {ABI_VERSION}");
    let changed = [only("-", then, &now), only("+", &now, then)].concat();
    assert!(
        then == now || version != head,
        "what one agent hands on to the next has changed, and would be taken for what it was: raise ABI_VERSION in \
         agent-ebpf/src/lib.rs, which is still {ABI_VERSION}, and write it down anew: {HOW}\n{changed}"
    );
    if env::var_os(WRITE).is_some() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../agent-ebpf/abi.txt");
        fs::write(path, format!("{head}\n\n{now}")).unwrap();
        return;
    }
    assert_eq!(version, head, "this version is not written down: {HOW}\n{changed}");
}

/// Lines of one text that the other does not have.
fn only(sign: &str, of: &str, other: &str) -> String {
    let other: BTreeSet<&str> = other.lines().collect();
    let lines = of.lines().filter(|line| !other.contains(line));
    lines.flat_map(|line| [sign, " ", line, "\n"]).collect()
}
