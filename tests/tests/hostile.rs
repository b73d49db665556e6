//! The flow programs against packets that nobody should send.
#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests are tests

use std::net::{IpAddr, SocketAddr};

use graylag::kernel::trial::{FlowProgram, Trial};
use graylag_ebpf::{
    demux::Kind,
    media::{GROUPS, MediaCounter, group},
};
use graylag_tests::{
    frames::{self, ETHERNET, FRAGMENT, UDP_LENGTH, behind, datagram, tagged, with, with_byte},
    random::Random,
    repetitions,
    rtp::{Stream, expected, order},
    trial::{FLOWS, path_of, paths, show, socket, socket6, trial},
};

/// What becomes of one packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// A datagram of that kind, with so many bytes of payload.
    Counted(Kind, u64),
    /// Not covered, and said so.
    Told(u32),
    /// Nothing to do with it.
    Ignored,
}

const MALFORMED: Fate = Fate::Told(MediaCounter::Malformed as u32);

/// Shows one packet and says what became of it.
fn fate(trial: &Trial, program: FlowProgram, frame: &[u8]) -> Option<Fate> {
    let sum = || {
        let mut groups = [0; GROUPS];
        let mut bytes = 0;
        for counts in paths(trial).iter().flat_map(|(_, both)| both) {
            bytes += counts.bytes;
            groups.iter_mut().zip(counts.groups).for_each(|(sum, n)| *sum += n);
        }
        (groups, bytes, trial.counters().unwrap())
    };
    let before = sum();
    if !show(trial, program, frame, 0) {
        return None;
    }
    let after = sum();
    let told: Vec<MediaCounter> = MediaCounter::NOT_COVERED
        .into_iter()
        .filter(|counter| after.2[*counter as usize] != before.2[*counter as usize])
        .collect();
    let kinds: Vec<usize> = (0..GROUPS).filter(|i| after.0[*i] != before.0[*i]).collect();
    Some(match (&told[..], &kinds[..]) {
        ([counter], []) => Fate::Told(*counter as u32),
        ([], [kind]) => {
            Fate::Counted(Kind::ALL.into_iter().find(|k| group(*k) == *kind).unwrap(), after.1 - before.1)
        }
        ([], []) => Fate::Ignored,
        other => panic!("{other:?}"),
    })
}

/// In the group of those that are not told apart.
const fn other(bytes: u64) -> Fate {
    Fate::Counted(Kind::Quic, bytes)
}

fn extension(kind: u8, words: usize) -> (u8, Vec<u8>) {
    let mut rest = vec![(words - 1) as u8];
    rest.resize(8 * words - 1, 0);
    (kind, rest)
}

/// What lies, how, and what has to become of it.
fn lies() -> Vec<(&'static str, Vec<u8>, Fate)> {
    let told = |counter: MediaCounter| Fate::Told(counter as u32);
    let (from, to) = (socket([10, 1, 0, 1], 4000), socket([10, 2, 0, 1], 4001));
    let (from6, to6) = (socket6(1, 4000), socket6(2, 4001));
    let rtp = frames::rtp(1, 0x1111, 0, None);
    let of = |payload: &[u8]| datagram(from, to, payload);
    let plain = || of(&rtp);
    let over6 = |extensions: &[(u8, Vec<u8>)]| behind(from6, to6, extensions, &rtp);
    let fragment = |place: u16| {
        let [a, b] = place.to_be_bytes();
        (44, vec![0, a, b, 0, 0, 0, 1])
    };
    let whole = Fate::Counted(Kind::Rtp, 52);
    let mut all = vec![
        ("nothing", plain(), whole),
        ("nothing, IPv6", over6(&[]), whole),
        ("one tag", tagged(&plain(), &[0x8100]), whole),
        ("two tags", tagged(&plain(), &[0x88a8, 0x8100]), whole),
        ("three tags", tagged(&plain(), &[0x88a8, 0x8100, 0x8100]), told(MediaCounter::Vlan)),
        ("a tag and nothing", tagged(&plain(), &[0x8100])[..16].to_vec(), MALFORMED),
        ("IP says it is empty", with(plain(), ETHERNET + 2, 0), whole),
        ("IP says it is larger", with(plain(), ETHERNET + 2, 0xffff), whole),
        ("IPv6 says it is empty", with(over6(&[]), ETHERNET + 4, 0), whole),
        ("IPv4 with the version of IPv6", with_byte(plain(), ETHERNET, 0x65), MALFORMED),
        ("IPv6 with the version of IPv4", with_byte(over6(&[]), ETHERNET, 0x45), MALFORMED),
        ("a header longer than the packet", with_byte(plain()[..60].to_vec(), ETHERNET, 0x4f), MALFORMED),
        ("TCP", with_byte(plain(), ETHERNET + 9, 6), Fate::Ignored),
        (
            "TCP with a header that is too short",
            with_byte(with_byte(plain(), ETHERNET + 9, 6), ETHERNET, 0x41),
            Fate::Ignored,
        ),
        ("ARP", with(plain(), 12, 0x0806), Fate::Ignored),
        ("UDP of all that there is but 4", with(plain(), UDP_LENGTH, 56), Fate::Counted(Kind::Rtp, 48)),
        ("UDP of nothing", with(plain(), UDP_LENGTH, 8), other(0)),
        ("UDP of one more than there is", with(plain(), UDP_LENGTH, 61), MALFORMED),
        ("UDP of everything", with(plain(), UDP_LENGTH, 0xffff), MALFORMED),
        ("the first fragment", with(with(plain(), FRAGMENT, 0x2000), UDP_LENGTH, 3000), whole),
        ("the second fragment", with(plain(), FRAGMENT, 0x2001), told(MediaCounter::Fragment)),
        ("the last fragment", with(plain(), FRAGMENT, 0x1fff), told(MediaCounter::Fragment)),
        ("six extensions", over6(&vec![extension(0, 1); 6]), whole),
        ("seven extensions", over6(&vec![extension(60, 1); 7]), told(MediaCounter::Extension)),
        ("extensions of all kinds", over6(&[extension(0, 2), extension(43, 3), extension(60, 1)]), whole),
        ("an extension longer than the packet", over6(&[(0, vec![255; 7])]), MALFORMED),
        (
            "authentication",
            over6(&[(51, {
                let mut h = vec![4];
                h.resize(23, 0);
                h
            })]),
            whole,
        ),
        ("encryption", over6(&[extension(50, 1)]), told(MediaCounter::Extension)),
        ("IPv6, the first fragment", over6(&[fragment(1)]), whole),
        ("IPv6, the second fragment", over6(&[fragment(0x11)]), told(MediaCounter::Fragment)),
        ("no next header", over6(&[extension(59, 1)]), Fate::Ignored),
        ("STUN", of(&frames::stun()), Fate::Counted(Kind::Stun, 28)),
        ("STUN of another length", of(&with(frames::stun(), 2, 12)), other(28)),
        ("STUN with another cookie", of(&with(frames::stun(), 4, 0x2113)), other(28)),
        ("DTLS", of(&frames::dtls()), Fate::Counted(Kind::Dtls, 43)),
        (
            "DTLS with records that overrun",
            of(&with(frames::dtls(), 11, 0xffff)),
            Fate::Counted(Kind::Dtls, 43),
        ),
        ("CSRCs", of(&frames::rtp(1, 0x2222, 15, None)), Fate::Counted(Kind::Rtp, 112)),
        ("CSRCs beyond the end", of(&with_byte(rtp.clone(), 0, 0x8f)), other(52)),
        ("an extension", of(&frames::rtp(1, 0x3333, 1, Some(2))), Fate::Counted(Kind::Rtp, 68)),
        ("an extension beyond the end", of(&with(frames::rtp(1, 0x3333, 1, Some(2)), 18, 0xffff)), other(68)),
        (
            "an extension up to the end",
            of(&with(frames::rtp(1, 0x4444, 0, Some(0)), 14, 10)),
            Fate::Counted(Kind::Rtp, 56),
        ),
        ("an extension one beyond the end", of(&with(frames::rtp(1, 0x4444, 0, Some(0)), 14, 11)), other(56)),
        ("an extension without its length", of(&[&[0x90, 0, 0, 1], &[1; 10][..]].concat()), other(14)),
        ("a channel", of(&frames::channel(0x4001, &rtp)), Fate::Counted(Kind::Rtp, 56)),
        ("a channel of less", of(&with(frames::channel(0x4001, &rtp), 2, 40)), other(56)),
        ("a channel of more", of(&with(frames::channel(0x4001, &rtp), 2, 53)), other(56)),
        ("a channel in a channel", of(&frames::channel(0x4001, &frames::channel(0x4002, &rtp))), other(60)),
        ("a channel of nothing", of(&frames::channel(0x4001, &[])), other(4)),
        ("RTP too short", of(&rtp[..11]), other(11)),
        ("RTCP too short", of(&[0x80, 200, 0, 1, 0, 0, 0]), other(7)),
    ];
    for length in 0..8 {
        all.push(("UDP shorter than its header", with(plain(), UDP_LENGTH, length), MALFORMED));
    }
    for words in 0..5 {
        all.push(("IPv4 shorter than its header", with_byte(plain(), ETHERNET, 0x40 | words), MALFORMED));
    }
    all
}

#[test]
fn every_lie_has_the_fate_it_deserves() {
    let trial = trial();
    for program in [FlowProgram::Ingress, FlowProgram::Egress] {
        for (i, (what, frame, expected)) in lies().into_iter().enumerate() {
            // Another sender each time, so that no two packets make a stream; the other way round would be "crossed".
            let found = fate(&trial, program, &spoof(frame, program, i));
            // The kernel itself may refuse to make a packet of what is shorter than its headers.
            assert!(found.is_none_or(|found| found == expected), "{what}: {found:?}, not {expected:?}");
        }
    }
    assert!(paths(&trial).iter().flat_map(|(_, both)| both).all(|counts| !counts.says_anything()));
}

/// Another host's, wherever the frame has an IP header that is long enough.
fn spoof(mut frame: Vec<u8>, program: FlowProgram, i: usize) -> Vec<u8> {
    let mut at = 12;
    while matches!(frame.get(at..at + 2), Some([0x81 | 0x88, 0 | 0xa8])) {
        at += 4;
    }
    let place = match frame.get(at..at + 2) {
        Some([8, 0]) => at + 2 + 14,
        Some([0x86, 0xdd]) => at + 2 + 8 + 14,
        _ => return frame,
    };
    if let Some(bytes) = frame.get_mut(place..place + 2) {
        bytes.copy_from_slice(&[program as u8 + 1, i as u8]);
    }
    frame
}

/// Right packets of each sort, each from another host, to be spoiled.
fn right(random: &mut Random) -> Vec<u8> {
    let any = random.word();
    let sequence = random.word() as u16;
    let payload = match random.below(8) {
        0 => frames::stun(),
        1 => frames::dtls(),
        2 => frames::channel(0x4000 | (any as u16 & 0xfff), &frames::rtp(sequence, any, 0, None)),
        3 => frames::rtp(sequence, any, random.below(16) as u8, Some(random.below(20) as u16)),
        4 => {
            let length = random.below(200);
            random.bytes(length)
        }
        _ => frames::rtp(sequence, any, 0, None),
    };
    let host = random.word().to_be_bytes();
    // Its first bytes also say "IPv4" or "IPv6" to the programs without link headers: see `bare`.
    let near = socket([8, 0, host[0], host[1]], 1024 + u16::from(host[2]));
    let far = socket([10, host[3], host[2], host[1]], 5000);
    let kind = random.below(10);
    if kind < 6 {
        let frame = datagram(near, far, &payload);
        return match kind {
            0 => tagged(&frame, &[0x8100]),
            1 => tagged(&frame, &[0x88a8, 0x8100, 0x8100][..2 + random.below(2)]),
            _ => frame,
        };
    }
    let kinds = [0, 43, 44, 51, 60];
    let extensions: Vec<_> = (0..random.below(8))
        .map(|_| match kinds[random.below(5)] {
            44 => (44, vec![0, 0, random.word() as u8 & 1, 0, 0, 0, 1]),
            51 => (51, vec![0; 8 - 1]),
            kind => extension(kind, 1 + random.below(3)),
        })
        .collect();
    let near = SocketAddr::new(IpAddr::from([0x2001, 0xdb8, 0x86dd, u16::from(host[0]), 0, 0, 0, 1]), 7000);
    behind(near, socket6(u16::from(host[1]), 5000), if kind < 8 { &[] } else { &extensions }, &payload)
}

/// A right packet spoiled in one of many ways, or bytes without any meaning.
fn wrong(random: &mut Random) -> Vec<u8> {
    let mut frame = right(random);
    match random.below(8) {
        0 => frame.truncate(ETHERNET + random.below(frame.len() - ETHERNET + 1)),
        1 | 2 => {
            for _ in 0..=random.below(8) {
                let at = random.below(frame.len() * 8);
                frame[at / 8] ^= 1 << (at % 8);
            }
        }
        3 => {
            // Somewhere in the headers, anything.
            let (at, value) = (12 + random.below(60.min(frame.len() - 14)), random.word() as u16);
            frame = with(frame, at, value);
        }
        4 if frame.len() > UDP_LENGTH + 2 => frame = with(frame, UDP_LENGTH, random.word() as u16 & 0x7ff),
        5 => frame[ETHERNET] = random.word() as u8,
        6 => {
            let length = ETHERNET + random.below(1486);
            frame = random.bytes(length);
            if random.percent(80) {
                frame = with(frame, 12, [0x0800, 0x86dd, 0x8100, 0x88a8][random.below(4)]);
            }
        }
        _ => {
            let more = random.below(600);
            frame.extend(random.bytes(more));
        }
    }
    frame
}

/// Without its Ethernet header. The kernel's test takes the `EtherType` from bytes 12 and 13 of what it is handed, which here are
/// the source address's.
fn bare(frame: &[u8]) -> Option<Vec<u8>> {
    let frame = frame.get(ETHERNET..)?;
    let known = |bytes: &[u8]| matches!(bytes, [8, 0] | [0x86, 0xdd]);
    (frame.len() > ETHERNET && known(&frame[12..14])).then(|| frame.to_vec())
}

/// A stream that goes both ways amid the noise.
struct Call {
    remote: SocketAddr,
    local: SocketAddr,
    orders: [Vec<u64>; 2],
    sent: [usize; 2],
}

impl Call {
    fn new(seed: u64, packets: u64) -> Self {
        Self {
            remote: socket([203, 0, 113, 7], 5004),
            local: socket([198, 51, 100, 1], 5006),
            orders: [order(seed, 65_000, packets, 30), order(seed + 1, 3, packets, 60)],
            sent: [0; 2],
        }
    }

    /// The next packet of each direction.
    fn go_on(&mut self, trial: &Trial) {
        let programs = [FlowProgram::Ingress, FlowProgram::Egress];
        for (half, program) in programs.into_iter().enumerate() {
            let Some(number) = self.orders[half].get(self.sent[half]) else { continue };
            let stream = Stream::audio(0xabcd);
            show(trial, program, &self.frame(half, &stream.packet(*number)), 0);
            self.sent[half] += 1;
        }
    }

    fn frame(&self, half: usize, payload: &[u8]) -> Vec<u8> {
        let (from, to) = if half == 0 { (self.remote, self.local) } else { (self.local, self.remote) };
        datagram(from, to, payload)
    }
}

#[test]
fn noise_is_no_news_and_hides_none() {
    let count = repetitions(300_000, 15_000);
    let in_call = count as u64 * 3 / 100;
    let trial = trial();
    let mut random = Random::new(1);
    let mut call = Call::new(7, in_call);
    call.go_on(&trial);
    let (mut shown, mut refused) = (0u64, 0);
    let mut packets = 0u64;
    for i in 0..count {
        if i % 25 == 0 {
            call.go_on(&trial);
        }
        let mut frame = if random.percent(25) { right(&mut random) } else { wrong(&mut random) };
        let mut program = FlowProgram::ALL[random.below(4)];
        let mut segment_size = 0;
        match random.below(40) {
            // In the very flow of the call: another stream, or no stream at all.
            0 => {
                let (half, any) = (random.below(2), random.word());
                program = FlowProgram::ALL[half];
                frame = call.frame(half, &frames::rtp(any as u16, any, 0, None));
            }
            1 => {
                let half = random.below(2);
                program = FlowProgram::ALL[half];
                let length = 1 + random.below(100);
                frame = call.frame(half, &random.bytes(length));
            }
            // Standing for several packets, of any size.
            2 => segment_size = 1 + random.word() % 60,
            3 => segment_size = 1 + random.word() % 1600,
            4 => segment_size = random.word() | 1,
            _ => {}
        }
        if matches!(program, FlowProgram::IngressIp | FlowProgram::EgressIp) {
            match bare(&frame) {
                Some(without) => frame = without,
                None => program = FlowProgram::Ingress,
            }
        }
        if show(&trial, program, &frame, segment_size) {
            shown += 1;
            packets += if segment_size == 0 { 1 } else { 1 + frame.len() as u64 / u64::from(segment_size) };
        } else {
            refused += 1;
        }
    }
    while call.sent[0] < call.orders[0].len() || call.sent[1] < call.orders[1].len() {
        call.go_on(&trial);
    }
    let counters = trial.counters().unwrap();
    let of = |counter: MediaCounter| counters[counter as usize];
    let paths = paths(&trial);
    println!("{shown} shown, {refused} refused by the kernel; {counters:?}; {} paths", paths.len());
    assert!(shown as usize > count * 9 / 10);

    // The budget holds, and it was needed.
    let live = of(MediaCounter::FlowCreated) - of(MediaCounter::FlowReplaced);
    assert!(live <= u64::from(FLOWS), "{live}");
    assert!(of(MediaCounter::FlowRefused) + of(MediaCounter::FlowReplaced) > 1000, "{counters:?}");
    assert!(trial.flows().unwrap().len() as u32 <= FLOWS);
    // Every sort of what is not covered was told. Whether a flow was refused or took another's place is a matter of how
    // young the others were.
    for counter in MediaCounter::NOT_COVERED.into_iter().filter(|c| *c != MediaCounter::FlowRefused) {
        assert!(of(counter) > count as u64 / 3000, "{counter:?}: {counters:?}");
    }
    // Nothing is counted twice.
    let counted: u64 = paths.iter().flat_map(|(_, both)| both).flat_map(|counts| counts.groups).sum();
    assert!(counted <= packets + 2 * in_call + 2000, "{counted} of {packets}");

    // The call is told to the packet, and nothing else is told of anybody.
    let mut found = path_of(&paths, call.remote.ip());
    for (half, counts) in found.iter_mut().enumerate() {
        assert_eq!(counts.stream, expected(&call.orders[half]), "{half}");
        assert_eq!((counts.stale, counts.restarts), (0, 0));
    }
    for (address, both) in &paths {
        for counts in both {
            let ours = found.contains(counts);
            assert!(ours || !counts.says_anything(), "{address:x?}: {counts:?}");
        }
    }
}

/// Cut at every length, a packet is malformed and nothing else, but for what needs no more than is there.
#[test]
fn packets_that_end_too_soon_are_malformed_at_every_length() {
    let trial = trial();
    let (from, to) = (socket([10, 1, 0, 1], 4000), socket([10, 2, 0, 1], 4001));
    let inside: [Vec<u8>; 5] = [
        frames::rtp(1, 0x1111, 3, Some(4)),
        frames::stun(),
        frames::dtls(),
        frames::channel(0x4001, &frames::rtp(1, 0x2222, 0, None)),
        vec![1; 300],
    ];
    let mut shown = 0;
    for payload in inside {
        let over4 = datagram(from, to, &payload);
        let extensions = [extension(0, 2), extension(60, 1)];
        for frame in [
            tagged(&over4, &[0x8100]),
            tagged(&over4, &[0x88a8, 0x8100]),
            behind(socket6(1, 4000), socket6(2, 4001), &[], &payload),
            behind(socket6(1, 4000), socket6(2, 4001), &extensions, &payload),
            over4,
        ] {
            for length in ETHERNET..frame.len() {
                let before = trial.counters().unwrap()[MediaCounter::Malformed as usize];
                if show(&trial, FlowProgram::Ingress, &frame[..length], 0) {
                    let after = trial.counters().unwrap()[MediaCounter::Malformed as usize];
                    assert_eq!(after, before + 1, "{length} of {frame:02x?}");
                    shown += 1;
                }
            }
        }
    }
    assert!(shown > 2000, "{shown}");
    assert!(trial.flows().unwrap().is_empty());
}
