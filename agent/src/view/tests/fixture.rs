//! Statuses as a host would tell them.

use jiff::{SignedDuration, Timestamp};

use crate::model::status::{
    ActivationStatus, AgentStatus, ConditionStatus, DropStatus, EvidenceStatus, HandshakeStatus, MapStatus,
    MediaStatus, NodeStatus, PathStatus, ProbeStatus, Quantiles, RelayStatus, RetransmitStatus, SignalStatus,
    Stamp, Status, SubjectStatus, TargetStatus, WaitStatus,
};

/// 03:00.
pub const NOW: Timestamp = Timestamp::constant(1_794_884_400, 0);

/// A host that has just started.
pub fn empty() -> Status {
    let signals = [
        "handshake_client",
        "handshake_server",
        "syn_retransmit",
        "response",
        "loss",
        "segments",
        "drops",
        "udp_receive_buffer",
        "adoption",
        "scan",
    ];
    Status {
        stamp: Stamp {
            schema: 1,
            epoch: 7,
            sequence: 41,
            time: NOW,
            valid_until: NOW + SignedDuration::from_secs(10),
        },
        node: "media-3".into(),
        version: "0.1.0".into(),
        kernel: "6.1.0-31-amd64".into(),
        uptime: 11_520.0,
        health: NodeStatus { state: "unknown".into(), weight: 100, ..NodeStatus::default() },
        conditions: vec![],
        subjects: vec![],
        media: vec![],
        relays: vec![],
        paths: Vec::new(),
        targets: Vec::new(),
        reflector: None,
        activation: vec![],
        drops: vec![],
        pods: Vec::new(),
        signals: signals.map(|name| signal(name, None)).into(),
        maps: vec![
            map("paths", 7, 4096, 0),
            map("connections", 412, 65_536, 0),
            map("half_open", 3, 16_384, 0),
        ],
        agent: AgentStatus {
            late: 0.002,
            export_to: Some("http://127.0.0.1:4317".into()),
            ..AgentStatus::default()
        },
    }
}

/// A media server on a good night.
pub fn quiet() -> Status {
    let mut subjects: Vec<SubjectStatus> = (1..=6).map(|i| balancer(i, 4.0 + f64::from(i) * 0.1)).collect();
    subjects.push(SubjectStatus {
        response: wait(210.0, 4, 0.000_9, 0.004_1),
        ..subject("10.40.0.0/24", None, "rooms-db", "client", 12.4, 0.000_31, 0.001_2)
    });
    subjects.push(subject("203.0.113.0/24", None, "tcp/443", "server", 38.0, 0.018, 0.19));
    subjects.push(subject("198.51.100.0/24", None, "tcp/443", "server", 21.0, 0.027, 0.31));
    subjects.push(SubjectStatus {
        standing: "insufficient".into(),
        first_byte: WaitStatus::default(),
        response: WaitStatus::default(),
        ..subject("2001:db8:42::/48", None, "tcp/443", "server", 0.1, 0.081, 0.081)
    });
    Status { subjects, drops: vec![drops("NO_SOCKET", "host", "receive", "tcp", 340, 0.2)], ..empty() }
}

/// INCIDENTS.md, A1: two of six addresses of a balancer let attempts hang.
pub fn a1() -> Status {
    let mut status = quiet();
    for (at, bad) in [(2, (14, 163)), (4, (11, 158))] {
        let subject = &mut status.subjects[at];
        subject.standing = "troubled".into();
        subject.handshake.abandoned = 3;
        subject.handshake.established -= 3;
        subject.handshake.pending = 3;
        subject.handshake.stalled = 2;
        subject.handshake.syn_retransmitted = 5;
        let address = subject.address.clone().unwrap();
        status.conditions.push(stall(&address, bad, 42.0 - at as f64));
    }
    status.subjects[3].handshake.refused = 1;
    status.signals[7] = signal("udp_receive_buffer", Some("no hook for it on this kernel (needs 5.19)"));
    status.signals[3].coverage = Some(0.93);
    status.signals[3].reason = Some("412 connections are older than the agent".into());
    status.drops.insert(0, drops("SOCKET_RCVBUFF", "host", "receive", "udp", 1234, 3.2));
    status.drops.push(drops("TCP_CSUM", "path", "receive", "tcp", 2, 0.0));
    status
}

/// `handshake_stall` at one address of the balancer.
pub fn stall(address: &str, (bad, n): (u64, u64), age: f64) -> ConditionStatus {
    let text = format!("{bad} of {n} handshakes not complete within 1.0s, 2 hanging now");
    ConditionStatus {
        name: "handshake_stall".into(),
        target: TargetStatus {
            peer: Some("us-east-lb".into()),
            address: Some(address.into()),
            service: Some("rooms-api".into()),
            role: Some("client".into()),
            ..TargetStatus::default()
        },
        phase: "raised".into(),
        blame: "peer_host".into(),
        confidence: "high".into(),
        evidence: EvidenceStatus { n, bad, low: 0.034, high: 0.202, text },
        since: NOW - SignedDuration::from_secs_f64(age),
        age,
        valid_until: NOW + SignedDuration::from_millis(8_600),
        pod: None,
    }
}

/// The application behind everything slows down, this host drops: the other kinds of conditions.
pub fn others() -> Vec<ConditionStatus> {
    let mut slow = stall("", (88, 412), 730.0);
    slow.name = "response_slow".into();
    slow.target = TargetStatus {
        peer: Some("10.40.0.0/24".into()),
        service: Some("rooms-db".into()),
        role: Some("client".into()),
        ..TargetStatus::default()
    };
    slow.blame = "peer_application".into();
    slow.evidence.text = "median answer 2s, usually 900µs; round trip and loss as before".into();
    let mut dropping = stall("", (31, 60), 95.0);
    dropping.name = "host_drops".into();
    dropping.target = TargetStatus {
        reason: Some("SOCKET_RCVBUFF".into()),
        direction: Some("receive".into()),
        ..TargetStatus::default()
    };
    dropping.blame = "local_process".into();
    dropping.phase = "recovering".into();
    dropping.confidence = "low".into();
    dropping.valid_until = NOW - SignedDuration::from_secs(3);
    dropping.evidence.text =
        "192 packets dropped in 31 of 60 looks: SOCKET_RCVBUFF; most at udp/3478 (12 in this look)".into();
    vec![slow, dropping]
}

/// One address of the balancer, in good health.
fn balancer(i: u8, rate: f64) -> SubjectStatus {
    subject("us-east-lb", Some(&format!("10.77.1.{i}")), "rooms-api", "client", rate, 0.000_412, 0.001_9)
}

/// A healthy subject.
pub fn subject(
    peer: &str,
    address: Option<&str>,
    service: &str,
    role: &str,
    rate: f64,
    p50: f64,
    p99: f64,
) -> SubjectStatus {
    // Uneven, but the same in every picture.
    let seed = peer
        .bytes()
        .chain(address.unwrap_or_default().bytes())
        .fold(rate as u32, |h, b| h * 31 % 65_521 + u32::from(b));
    let noise = |second: u32| f64::from((seed + second).wrapping_mul(2_654_435_761) >> 16) / 65_536.0;
    let ripple = |second: u32| (rate * (0.6 + 0.8 * noise(second))) as f32;
    SubjectStatus {
        peer: peer.into(),
        address: address.map(Into::into),
        service: service.into(),
        role: role.into(),
        standing: "healthy".into(),
        window: 8.0,
        handshake: HandshakeStatus {
            rate,
            established: (rate * 8.0).round() as u64,
            pending: (rate / 12.0) as u64,
            latency: Quantiles { p50: Some(p50), p99: Some(p99) },
            ..HandshakeStatus::default()
        },
        first_byte: wait(rate, 1, p50 * 3.0, p99 * 2.0),
        response: wait(rate * 5.0, 2, p50 * 2.0, p99 * 4.0),
        rtt: Quantiles { p50: Some(p50 * 0.9), p99: Some(p99 * 1.4) },
        segments_in: rate * 22.0,
        segments_out: rate * 19.0,
        retransmitted: RetransmitStatus {
            fast: (rate / 10.0) as u64,
            timeout: 1,
            tail_loss_probe: 1,
            spurious: 1,
        },
        resets: 0,
        trend: (0..60).map(ripple).collect(),
    }
}

fn wait(rate: f64, pending: u64, p50: f64, p99: f64) -> WaitStatus {
    let latency = Quantiles { p50: Some(p50), p99: Some(p99) };
    WaitStatus { rate, pending, stalled: 0, longest: Some(p99), latency }
}

/// Drops for one reason.
pub fn drops(
    reason: &str,
    side: &str,
    direction: &str,
    transport: &str,
    packets: u64,
    rate: f64,
) -> DropStatus {
    let (reason, side) = (reason.into(), side.into());
    DropStatus { reason, side, direction: direction.into(), transport: transport.into(), packets, rate }
}

/// A signal; with a reason, a missing one.
pub fn signal(name: &str, reason: Option<&str>) -> SignalStatus {
    SignalStatus {
        name: name.into(),
        available: reason.is_none(),
        coverage: None,
        reason: reason.map(Into::into),
    }
}

fn map(name: &str, used: u64, limit: u64, evicted: u64) -> MapStatus {
    MapStatus { name: name.into(), used, limit, evicted }
}

/// A relay's paths: one loses, one is heard and does not answer.
pub fn media() -> Status {
    let leg = |peer: &str, direction: &str, packets: f64, loss: Option<f64>, bursts, age| MediaStatus {
        peer: peer.into(),
        direction: direction.into(),
        datagrams: packets * 1.02,
        bytes: packets * 170.0,
        packets,
        loss,
        bursts,
        reordered: bursts / 3,
        jitter: Quantiles { p50: Some(0.001_4), p99: Some(0.009_6) },
        age: Some(age),
        media_age: Some(age),
        trend: (0..40u8).map(|second| packets as f32 * (0.8 + 0.01 * f32::from(second))).collect(),
        ..MediaStatus::default()
    };
    let mut status = quiet();
    status.media = vec![
        leg("fra-relay", "receive", 4810.0, Some(0.000_2), 3, 0.004),
        leg("fra-relay", "transmit", 4795.0, Some(0.0), 0, 0.004),
        leg("sin-relay", "receive", 2100.0, Some(0.064), 512, 0.011),
        leg("sin-relay", "transmit", 2098.0, Some(0.0), 0, 0.011),
        leg("203.0.113.0/24", "receive", 0.0, None, 0, 4.2),
        leg("203.0.113.0/24", "transmit", 50.0, Some(0.0), 0, 0.02),
    ];
    status.media[4].datagrams = 1.0;
    let path = |direction: &str, state: &str, age, proven, loss| PathStatus {
        peer: "sin-relay".into(),
        direction: direction.into(),
        state: state.into(),
        age,
        proven: Some(proven),
        probes: Some(ProbeStatus {
            sent: 9000,
            lost: 120,
            loss: Some(loss),
            round_trip: Quantiles { p50: Some(0.161), p99: Some(0.174) },
        }),
        ..PathStatus::default()
    };
    status.paths =
        vec![path("receive", "degraded", 12.0, 0.08, 0.064), path("transmit", "healthy", 8040.0, 0.17, 0.0)];
    let relay = |process: &str, sockets, sent: f64, queued, dropped| RelayStatus {
        process: process.into(),
        processes: 1,
        sockets,
        received: 3450.0,
        sent,
        dropped,
        queued,
        trend: (0..40u8).map(|second| if second > 34 { sent as f32 } else { 3400.0 }).collect(),
    };
    status.relays =
        vec![relay("mediasoup-work", 4, 27_800.0, 1536, 0), relay("turnserver", 212, 0.0, 9_400_000, 340)];
    let stage = |stage: &str, pending, through, failed, active, p50| ActivationStatus {
        stage: stage.into(),
        pending,
        through,
        failed,
        active,
        took: Quantiles { p50: Some(p50), p99: Some(4.0 * p50) },
        ..ActivationStatus::default()
    };
    status.activation = vec![
        stage("stun", 2, 41, 1, 0, 0.031),
        stage("dtls", 6, 33, 8, 0, 0.084),
        stage("rtp", 1, 33, 0, 33, 0.022),
    ];
    let mut stuck = stall("", (3450, 3450), 1.2);
    stuck.name = "relay_stall".into();
    stuck.target =
        TargetStatus { process: Some("turnserver".into()), pid: Some(812), ..TargetStatus::default() };
    stuck.blame = "local_process".into();
    stuck.evidence.text = "took in 3450 RTP packets in 1.0 s and put out 0, usually 0.99 for each; they wait in its receive queues: it does not read".into();
    status.conditions.push(stuck);
    let mut loss = stall("", (512, 17_012), 12.0);
    loss.name = "path_loss".into();
    loss.target = TargetStatus {
        peer: Some("sin-relay".into()),
        direction: Some("receive".into()),
        ..TargetStatus::default()
    };
    loss.blame = "path_receive".into();
    loss.evidence.text = "6.4% of packets lost, in 512 bursts".into();
    status.conditions.push(loss);
    status
}
