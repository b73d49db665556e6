//! RTP packets as a socket receives them, each with the moment at which the kernel took it in, and what RFC 3550 makes of
//! these moments.

use std::{collections::BTreeMap, fs, io::IoSliceMut, net::UdpSocket, os::fd::AsRawFd};

use nix::sys::{
    socket::{ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, setsockopt, sockopt},
    time::TimeSpec,
};

/// One packet.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Arrival {
    /// Sequence number, extended.
    pub number: u64,
    /// RTP timestamp.
    pub timestamp: u32,
    /// When the kernel took it in (`SO_TIMESTAMPNS`), seconds.
    pub at: f64,
}

/// A socket that takes RTP packets in.
pub struct Arrivals {
    socket: UdpSocket,
    control: Vec<u8>,
    /// Packets by SSRC, as they came.
    pub streams: BTreeMap<u32, Vec<Arrival>>,
}

impl Arrivals {
    /// Of a socket that does not block.
    pub fn of(socket: UdpSocket) -> Self {
        setsockopt(&socket, sockopt::ReceiveTimestampns, &true).expect("SO_TIMESTAMPNS");
        Self { socket, control: nix::cmsg_space!(TimeSpec), streams: BTreeMap::new() }
    }

    /// Takes what has come; whether there was anything.
    pub fn take(&mut self) -> bool {
        let mut any = false;
        while let Some((packet, at)) = self.next() {
            let word = |i: usize| u32::from_be_bytes(packet[i..i + 4].try_into().expect("four bytes"));
            let (sequence, timestamp, ssrc) = (word(0) as u16, word(4), word(8));
            let stream = self.streams.entry(ssrc).or_default();
            // Numbers begin in the first cycle, and none is half a cycle away from the one before.
            let last = stream.last().map_or(u64::from(sequence), |last| last.number);
            let step = sequence.wrapping_sub(last as u16).cast_signed();
            stream.push(Arrival { number: last.wrapping_add_signed(step.into()), timestamp, at });
            any = true;
        }
        any
    }

    fn next(&mut self) -> Option<([u8; 12], f64)> {
        let mut packet = [0; 12];
        let mut parts = [IoSliceMut::new(&mut packet)];
        let received = recvmsg::<SockaddrStorage>(
            self.socket.as_raw_fd(),
            &mut parts,
            Some(&mut self.control),
            MsgFlags::MSG_DONTWAIT,
        );
        let received = received.ok()?;
        let at = received.cmsgs().expect("control messages").find_map(|message| match message {
            ControlMessageOwned::ScmTimestampns(time) => {
                Some(time.tv_sec() as f64 + time.tv_nsec() as f64 / 1e9)
            }
            _ => None,
        });
        Some((packet, at.expect("the kernel's time")))
    }
}

/// Set, the kernel notes the time of a packet where its sender handed it over, which on a busy machine is before anybody sees it.
const PREQUEUE: &str = "/proc/sys/net/core/netdev_tstamp_prequeue";

/// While this is there, the kernel notes the time of a packet where it takes it up, right before the agent's programs see it. Of the
/// whole machine; how it was comes back.
pub struct TakenUp(String);

impl TakenUp {
    /// From now on.
    pub fn noted() -> Self {
        let before = fs::read_to_string(PREQUEUE).expect(PREQUEUE);
        fs::write(PREQUEUE, "0").expect(PREQUEUE);
        Self(before)
    }
}

impl Drop for TakenUp {
    fn drop(&mut self) {
        let _ = fs::write(PREQUEUE, &self.0);
    }
}

/// The numbers of packets, in the order in which they came.
pub fn numbers(arrivals: &[Arrival]) -> Vec<u64> {
    arrivals.iter().map(|arrival| arrival.number).collect()
}

/// Interarrival jitter by the letter of RFC 3550 A.8, in floating point: its value, in seconds, at each packet whose number is
/// a multiple of `every`. Packets that come after a higher number, or again, are passed over, as aiortc and libwebrtc do;
/// where there are none, this is A.8 and nothing else.
pub fn jitter(arrivals: &[Arrival], rate: f64, every: u64) -> Vec<f64> {
    let (mut jitter, mut samples) = (0.0_f64, Vec::new());
    let mut newest: Option<Arrival> = None;
    for arrival in arrivals {
        if let Some(before) = newest {
            if arrival.number <= before.number {
                continue;
            }
            let sent = f64::from(arrival.timestamp.wrapping_sub(before.timestamp).cast_signed()) / rate;
            let difference = ((arrival.at - before.at) - sent).abs();
            jitter += (difference - jitter) / 16.0;
            if arrival.number.is_multiple_of(every) {
                samples.push(jitter);
            }
        }
        newest = Some(*arrival);
    }
    samples
}
