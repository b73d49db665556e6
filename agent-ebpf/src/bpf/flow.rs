//! UDP flows at the interfaces: what each direction carries, how its RTP streams fare, how far its session has come.
//!
//! Hook: traffic control, ingress and egress (TCX, or a `clsact` filter below Linux 6.6). The answer is always "next": what
//! others decide about a packet stands. Nothing is written to the packet.
//!
//! A packet counts at the interface where it is seen first with its addresses in this order: what a router or a bridge
//! passes on to a second watched interface is seen there the other way round, and is left out ([`make`]). Interfaces that lie
//! on one another (bond and slave, VLAN and carrier) see it the same way round: of those the agent watches the lowest.
#![allow(unsafe_code)] // `no_mangle` for the frozen globals

use core::mem::MaybeUninit;

use aya_ebpf::{bindings::__sk_buff, macros::classifier, programs::TcContext};
use graylag_ebpf::{
    counter::Direction,
    demux::Kind,
    flow::{Flow, IN_CHANNEL, moment},
    key::Address,
    media::{MediaCounter, MediaKey, group},
    session, stun,
};

use super::{
    datagram::{Datagram, MEDIA_NETNS},
    media_maps as maps,
    packet::{Copied, ETHERNET, Packet, Quick, quick, slowly},
    path, stream,
    table::FLOW_TABLE,
};

/// `TCX_NEXT`, and `TC_ACT_UNSPEC` to a filter.
const NEXT: i32 = -1;

macro_rules! programs {
    ($($name:ident, $direction:ident, $link:expr, $says:literal;)*) => {
        $(
            #[doc = $says]
            #[classifier]
            pub fn $name(ctx: TcContext) -> i32 {
                observe(Packet::new(ctx.skb.skb), Direction::$direction, $link);
                NEXT
            }
        )*
    };
}
programs! {
    flow_ingress, Receive, ETHERNET, "What an Ethernet interface receives.";
    flow_egress, Transmit, ETHERNET, "What it sends.";
    flow_ingress_ip, Receive, 0, "What an interface without link headers receives: tunnels, point-to-point.";
    flow_egress_ip, Transmit, 0, "What it sends.";
}

#[inline(always)]
fn observe(packet: Packet, direction: Direction, link: u32) {
    let mut datagram = MaybeUninit::uninit();
    let datagram = Datagram::begin(&mut datagram, direction);
    match quick(packet, link, direction, datagram) {
        Quick::Datagram => {}
        Quick::Other => return,
        Quick::Unclear => {
            if !slowly(packet, link, datagram) {
                return;
            }
        }
    }
    account(packet, direction, datagram);
}

#[inline(always)]
fn account(packet: Packet, direction: Direction, datagram: &mut Datagram) {
    let hash = maps::hash_of(&datagram.words);
    let Some(flow) = find(datagram, hash).or_else(|| FLOW_TABLE.entry(media_make(datagram))) else {
        return;
    };
    let generation = maps::generation();
    if flow.generation != generation {
        flow.path = path_of(&flow.tuple.remote);
        flow.generation = generation;
    }
    datagram.path = flow.path;
    datagram.created = flow.created_ns as u32;
    let kind = datagram.open(packet);
    let Some(traffic) = maps::traffic(datagram.path, direction) else { return };
    traffic.last_ns = datagram.coarse_ns;
    traffic.bytes += u64::from(datagram.bytes);
    maps::bump(&mut traffic.packets, group(kind), u64::from(datagram.segments));
    let half = flow.half_mut(direction);
    let first = half.count(moment(datagram.coarse_ns), datagram.segments, u64::from(datagram.bytes), kind);
    if datagram.channel != 0 {
        half.kinds |= IN_CHANNEL;
    }
    match kind {
        Kind::Rtp => {
            traffic.last_media_ns = datagram.coarse_ns;
            stream::packets(packet, datagram, half, traffic);
        }
        Kind::Stun | Kind::Dtls => _ = media_session(packet.raw(), datagram, flow),
        _ => {}
    }
    if first && flow.session != 0 {
        media_progress(datagram, flow);
    }
}

/// Notes how far a flow has come for its session. One that is forgotten does not begin again with what is left of its flows.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn media_progress(datagram: *const Datagram, flow: *const Flow) -> u32 {
    // SAFETY: what the verifier lets through is null or what it says.
    if let Some((datagram, flow)) = unsafe { datagram.as_ref().zip(flow.as_ref()) }
        && let Some(session) = maps::session(flow.session)
    {
        session.follow(flow, moment(datagram.coarse_ns));
    }
    0
}

/// Takes a message of STUN or DTLS.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn media_session(skb: *mut __sk_buff, datagram: *mut Datagram, flow: *mut Flow) -> u32 {
    // SAFETY: what the verifier lets through is null or what it says.
    if let Some((datagram, flow)) = unsafe { datagram.as_mut().zip(flow.as_mut()) } {
        // STUN begins with 0 to 3.
        if datagram.head[0] < 4 {
            checked(Packet::new(skb), datagram, flow);
        } else {
            secured(Packet::new(skb), datagram, flow);
        }
    }
    0
}

#[inline(always)]
fn checked(packet: Packet, datagram: &Datagram, flow: &mut Flow) {
    let head = &datagram.head;
    let header = stun::Header::parse([head[0], head[1], head[2], head[3]]);
    let half = flow.half_mut(datagram.direction);
    let before = half.stun;
    half.stun(moment(datagram.coarse_ns), &header);
    let mut news = half.stun != before;
    if flow.session == 0 && header.method == stun::BINDING && header.class == stun::Class::Request {
        let packet = Copied(packet);
        if let Some(place) = stun::username(&packet, datagram.at, header.length) {
            flow.session = session::key(&packet, place);
            if flow.session != 0 {
                maps::begin_session(flow.session, datagram.coarse_ns);
                news = true;
            }
        }
    }
    if news && flow.session != 0 {
        media_progress(datagram, flow);
    }
}

#[inline(always)]
fn secured(packet: Packet, datagram: &Datagram, flow: &mut Flow) {
    let half = flow.half_mut(datagram.direction);
    let before = half.dtls;
    half.dtls(moment(datagram.coarse_ns), &Copied(packet), datagram.at, datagram.end);
    if half.dtls != before && flow.session != 0 {
        media_progress(datagram, flow);
    }
}

/// Finds a datagram's flow, and notes its place.
#[inline(always)]
fn find(datagram: &mut Datagram, hash: u64) -> Option<&'static mut Flow> {
    let words = &datagram.words;
    let (number, flow) = FLOW_TABLE.find(hash, |flow| maps::is_same(flow, words))?;
    datagram.flow = number;
    Some(flow)
}

/// No place in the table.
const NONE: u32 = u32::MAX;

/// Makes room for a flow that is new, and notes its place; [`NONE`] where no other may be given up for it.
///
/// A global function: see [`stream`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn media_make(datagram: *mut Datagram) -> u32 {
    // SAFETY: what the verifier lets through is null or what it says.
    match unsafe { datagram.as_mut() } {
        Some(datagram) => make(datagram),
        None => NONE,
    }
}

#[inline(always)]
fn make(datagram: &mut Datagram) -> u32 {
    datagram.mirror();
    let mirrored = maps::hash_of(&datagram.words);
    let crossed = find(datagram, mirrored).is_some();
    datagram.mirror();
    if crossed {
        maps::count(MediaCounter::Crossed, 1);
        return NONE;
    }
    let now_ns = datagram.coarse_ns;
    let Some((number, flow, replaced)) = FLOW_TABLE.take(now_ns) else {
        maps::count(MediaCounter::FlowRefused, 1);
        return NONE;
    };
    flow.created_ns = now_ns;
    let [l0, l1, l2, l3, r0, r1, r2, r3, netns, ports] = datagram.words;
    flow.tuple.remote = [r0, r1, r2, r3];
    flow.path = path_of(&flow.tuple.remote);
    flow.generation = maps::generation();
    flow.tuple.local = [l0, l1, l2, l3];
    flow.tuple.netns = netns;
    (flow.tuple.local_port, flow.tuple.remote_port) = (ports as u16, (ports >> 16) as u16);
    if !FLOW_TABLE.publish(maps::hash_of(&datagram.words), number) {
        maps::count(MediaCounter::FlowRefused, 1);
        return NONE;
    }
    datagram.flow = number;
    maps::count(MediaCounter::FlowCreated, 1);
    if replaced {
        maps::count(MediaCounter::FlowReplaced, 1);
    }
    number
}

/// Index of the path of an address.
#[inline(never)]
fn path_of(remote: &Address) -> u32 {
    let (address, peer, prefix) = path::of_media(*remote);
    maps::path_index(&MediaKey { address, netns: MEDIA_NETNS.load(), peer, prefix, reserved: 0 })
}
