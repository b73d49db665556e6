//! Packets at the traffic control hooks: reading them, and finding the datagram inside.
//!
//! The linear part of a packet is read in place. Beyond it lies whatever the sender or the driver left in fragments,
//! often all of the payload: a helper copies from there. Nearly every datagram has its headers in the linear part, one
//! after another without options or tags; [`quick`] finds those, and [`slowly`] all others.
#![allow(unsafe_code)]

use core::{arch::asm, mem::MaybeUninit};

use aya_ebpf::{bindings::__sk_buff, helpers::generated::bpf_skb_load_bytes};
use graylag_ebpf::{
    bytes::{Bytes, be16},
    counter::Direction,
    media::MediaCounter,
};

use super::{datagram::Datagram, kptr::UDP, media_maps};

/// Length of an Ethernet header.
pub const ETHERNET: u32 = 14;

const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
const VLAN: u16 = 0x8100;
const VLAN_OUTER: u16 = 0x88a8;
/// Tags in the packet itself; the outermost is usually in its metadata instead.
const MOST_TAGS: u32 = 2;
const IPV4_HEADER: u32 = 20;
const IPV6_HEADER: u32 = 40;
const UDP_HEADER: u32 = 8;
const MORE_FRAGMENTS: u16 = 0x2000;
const FRAGMENT_OFFSET: u16 = 0x1fff;

/// A packet.
#[derive(Clone, Copy)]
pub struct Packet {
    skb: *mut __sk_buff,
}

impl Packet {
    /// Wraps a program's context.
    #[inline(always)]
    pub fn new(skb: *mut __sk_buff) -> Self {
        Self { skb }
    }

    /// The context.
    #[inline(always)]
    pub fn raw(self) -> *mut __sk_buff {
        self.skb
    }

    /// Bytes from the link header on.
    #[inline(always)]
    pub fn len(self) -> u32 {
        // SAFETY: the context; so too below.
        unsafe { (*self.skb).len }
    }

    /// Payload of a segment, where the packet stands for several; else 0.
    #[inline(always)]
    pub fn segment_size(self) -> u32 {
        unsafe { (*self.skb).gso_size }
    }

    /// The protocol of its network header, where there is no link header to tell.
    #[inline(always)]
    fn protocol(self) -> u16 {
        u16::from_be(unsafe { (*self.skb).protocol } as u16)
    }

    /// Copies `length` bytes; false where they are not there. `to` must have room for them.
    #[inline(always)]
    pub fn copy(self, at: u32, to: *mut u8, length: u32) -> bool {
        // SAFETY: the verifier knows the room behind `to`.
        unsafe { bpf_skb_load_bytes(self.skb.cast(), at, to.cast(), length) == 0 }
    }
}

/// The linear part of a packet, read in place.
#[derive(Clone, Copy)]
pub struct Linear(pub Packet);

/// A packet read by the helper: slower, reaches all of it, and is less for the verifier to think through.
#[derive(Clone, Copy)]
pub struct Copied(pub Packet);

impl Bytes for Copied {
    #[inline(always)]
    fn read<const N: usize>(&self, at: u32) -> Option<[u8; N]> {
        let mut out = MaybeUninit::<[u8; N]>::uninit();
        // SAFETY: the helper wrote all of it.
        self.0.copy(at, out.as_mut_ptr().cast(), N as u32).then(|| unsafe { out.assume_init() })
    }
}

impl Copied {
    /// Four words.
    #[inline(always)]
    fn words(self, at: u32) -> Option<[u32; 4]> {
        let mut out = MaybeUninit::<[u32; 4]>::uninit();
        // SAFETY: the helper wrote all of it.
        self.0.copy(at, out.as_mut_ptr().cast(), 16).then(|| unsafe { out.assume_init() })
    }
}

impl Bytes for Packet {
    #[inline(always)]
    fn read<const N: usize>(&self, at: u32) -> Option<[u8; N]> {
        Linear(*self).read(at).or_else(|| Copied(*self).read(at))
    }
}

impl Packet {
    /// Reads to where the bytes shall stay; false, and zeros, where they are not there.
    #[inline(always)]
    pub fn read_to<const N: usize>(self, at: u32, to: &mut [u8; N]) -> bool {
        if let Some(found) = Linear(self).read(at) {
            *to = found;
            return true;
        }
        // The helper clears what it cannot fill.
        self.copy(at, to.as_mut_ptr(), N as u32)
    }
}

/// Loads from a packet, whose data may have any alignment; the compiler would take them apart into bytes.
macro_rules! load {
    ($name:ident, $type:ty, $instruction:literal) => {
        #[inline(always)]
        unsafe fn $name(at: usize) -> $type {
            let value: u64;
            // SAFETY: the caller's, and the verifier's.
            unsafe { asm!($instruction, out = out(reg) value, at = in(reg) at, options(pure, readonly, nostack)) };
            value as $type
        }
    };
}
load!(load8, u8, "{out} = *(u8 *)({at} + 0)");
load!(load16, u16, "{out} = *(u16 *)({at} + 0)");
load!(load32, u32, "{out} = *(u32 *)({at} + 0)");
load!(load64, u64, "{out} = *(u64 *)({at} + 0)");

impl Bytes for Linear {
    #[inline(always)]
    fn read<const N: usize>(&self, at: u32) -> Option<[u8; N]> {
        /// What the verifier allows to be added to a packet pointer, less any `N` here.
        const FURTHEST: u32 = 0x7fff;
        if at > FURTHEST {
            return None;
        }
        let skb = self.0.skb;
        // SAFETY: the context; the two are compared before anything is read, as the verifier demands.
        let (start, end) = unsafe { ((*skb).data as usize + at as usize, (*skb).data_end as usize) };
        let mut behind = start + N;
        // The compiler would turn the comparison into one that does not convince the verifier.
        // SAFETY: a register is copied to itself.
        unsafe { asm!("{behind} = {behind}", behind = inout(reg) behind) }
        if behind > end {
            return None;
        }
        // SAFETY: `N` bytes are there.
        Some(unsafe { load(start) })
    }
}

/// Loads `N` bytes of any alignment; the compiler would take them one by one.
///
/// # Safety
/// The verifier must know that they are there.
#[inline(always)]
pub unsafe fn load<const N: usize>(at: usize) -> [u8; N] {
    let mut out = MaybeUninit::<[u8; N]>::uninit();
    let to = out.as_mut_ptr().cast::<u8>();
    let mut i = 0;
    // SAFETY: the caller's; and there is room for them.
    unsafe {
        while i + 8 <= N {
            to.add(i).cast::<u64>().write_unaligned(load64(at + i));
            i += 8;
        }
        if i + 4 <= N {
            to.add(i).cast::<u32>().write_unaligned(load32(at + i));
            i += 4;
        }
        if i + 2 <= N {
            to.add(i).cast::<u16>().write_unaligned(load16(at + i));
            i += 2;
        }
        if i < N {
            to.add(i).write(load8(at + i));
        }
        out.assume_init()
    }
}

/// Whether a packet that begins with its network header may be RTP or TURN channel data: a look at two bytes, for what is
/// asked of every packet of every socket.
#[inline(always)]
pub fn may_be_media(packet: Packet) -> bool {
    let linear = Linear(packet);
    let (next, payload) = match packet.protocol() {
        IPV4 => (linear.read(9), IPV4_HEADER + UDP_HEADER),
        IPV6 => (linear.read(6), IPV6_HEADER + UDP_HEADER),
        _ => return false,
    };
    if next != Some([UDP]) {
        return false;
    }
    // RFC 7983: 128 to 191, 64 to 79. Behind options or extension headers this is another byte: those are left out.
    matches!(packet.read(payload), Some([128..=191 | 64..=79]))
}

/// What [`quick`] makes of a packet.
pub enum Quick {
    /// A datagram.
    Datagram,
    /// Something else than UDP.
    Other,
    /// Not as simple as that.
    Unclear,
}

/// Looks at a packet whose network header is at `link` bytes.
#[inline(always)]
pub fn quick(packet: Packet, link: u32, direction: Direction, out: &mut Datagram) -> Quick {
    let linear = Linear(packet);
    let protocol = if link == 0 {
        packet.protocol()
    } else {
        match linear.read(link - 2) {
            Some(protocol) => u16::from_be_bytes(protocol),
            None => return Quick::Unclear,
        }
    };
    let at = match protocol {
        IPV4 => {
            let Some(head) = linear.read::<{ IPV4_HEADER as usize }>(link) else { return Quick::Unclear };
            if head[9] != UDP {
                return Quick::Other;
            }
            if head[0] != 0x45 || be16(head[6], head[7]) & (MORE_FRAGMENTS | FRAGMENT_OFFSET) != 0 {
                return Quick::Unclear;
            }
            out.set_ipv4(direction, word(&head, 12), word(&head, 16));
            link + IPV4_HEADER
        }
        IPV6 => {
            let Some(head) = linear.read::<{ IPV6_HEADER as usize }>(link) else { return Quick::Unclear };
            if head[6] != UDP || head[0] >> 4 != 6 {
                return Quick::Unclear;
            }
            let address =
                |at| [word(&head, at), word(&head, at + 4), word(&head, at + 8), word(&head, at + 12)];
            out.set_addresses(direction, address(8), address(24));
            link + IPV6_HEADER
        }
        VLAN | VLAN_OUTER => return Quick::Unclear,
        _ => return Quick::Other,
    };
    match linear.read(at) {
        Some(head) if udp(packet, &head, at, false, direction, out) => Quick::Datagram,
        _ => Quick::Unclear,
    }
}

/// Looks at a packet with everything that may be in it. False where there is nothing to count, or where it has been
/// counted here as not covered.
#[inline(always)]
pub fn slowly(packet: Packet, link: u32, out: &mut Datagram) -> bool {
    media_parse(packet.skb, link, out) != 0
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn media_parse(skb: *mut __sk_buff, link: u32, out: *mut Datagram) -> u32 {
    // SAFETY: what the verifier lets through is null or what it says.
    let Some(out) = (unsafe { out.as_mut() }) else { return 0 };
    let found = match find(Copied(Packet::new(skb)), link, out) {
        Ok(found) => found,
        Err(counter) => {
            media_maps::count(counter, 1);
            false
        }
    };
    u32::from(found)
}

#[inline(always)]
fn find(packet: Copied, link: u32, out: &mut Datagram) -> Result<bool, MediaCounter> {
    let malformed = MediaCounter::Malformed;
    let (mut protocol, mut at) = (packet.0.protocol(), link);
    if link != 0 {
        let mut tags = 0;
        protocol = packet.read(at - 2).map(u16::from_be_bytes).ok_or(malformed)?;
        while protocol == VLAN || protocol == VLAN_OUTER {
            if tags == MOST_TAGS {
                return Err(MediaCounter::Vlan);
            }
            protocol = packet.read(at + 2).map(u16::from_be_bytes).ok_or(malformed)?;
            at += 4;
            tags += 1;
        }
    }
    let (at, more_fragments) = match protocol {
        IPV4 => {
            let head: [u8; 10] = packet.read(at).ok_or(malformed)?;
            let header = u32::from(head[0] & 0xf) * 4;
            if head[0] >> 4 != 4 || header < IPV4_HEADER {
                return Err(malformed);
            }
            if head[9] != UDP {
                return Ok(false);
            }
            let fragment = be16(head[6], head[7]);
            if fragment & FRAGMENT_OFFSET != 0 {
                return Err(MediaCounter::Fragment);
            }
            let addresses: [u8; 8] = packet.read(at + 12).ok_or(malformed)?;
            out.set_ipv4(out.direction, word(&addresses, 0), word(&addresses, 4));
            (at + header, fragment & MORE_FRAGMENTS != 0)
        }
        IPV6 => {
            let head: [u8; 8] = packet.read(at).ok_or(malformed)?;
            if head[0] >> 4 != 6 {
                return Err(malformed);
            }
            let Some(found) = behind_extensions(packet, at + IPV6_HEADER, head[6])? else { return Ok(false) };
            let source: [u32; 4] = packet.words(at + 8).ok_or(malformed)?;
            out.set_addresses(out.direction, source, packet.words(at + 24).ok_or(malformed)?);
            found
        }
        _ => return Ok(false),
    };
    let head = packet.read(at).ok_or(malformed)?;
    if udp(packet.0, &head, at, more_fragments, out.direction, out) { Ok(true) } else { Err(malformed) }
}

#[inline(always)]
fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// Walks the extension headers (RFC 8200 §4) to UDP: where it begins, and whether fragments follow.
#[inline(always)]
fn behind_extensions(packet: Copied, mut at: u32, mut next: u8) -> Result<Option<(u32, bool)>, MediaCounter> {
    const HOP_BY_HOP: u8 = 0;
    const ROUTING: u8 = 43;
    const FRAGMENT: u8 = 44;
    const ENCRYPTED: u8 = 50;
    const AUTHENTICATION: u8 = 51;
    const DESTINATION: u8 = 60;
    const MOST: u32 = 6;
    let mut more = false;
    let mut walked = 0;
    while walked < MOST {
        match next {
            UDP => return Ok(Some((at, more))),
            HOP_BY_HOP | ROUTING | DESTINATION | FRAGMENT | AUTHENTICATION => {}
            ENCRYPTED => return Err(MediaCounter::Extension),
            _ => return Ok(None),
        }
        let [following, length, a, b]: [u8; 4] = packet.read(at).ok_or(MediaCounter::Malformed)?;
        let length = u32::from(length);
        at += match next {
            FRAGMENT => {
                let place = be16(a, b);
                if place & 0xfff8 != 0 {
                    // Every fragment names what the first one begins with.
                    return if following == UDP { Err(MediaCounter::Fragment) } else { Ok(None) };
                }
                more = place & 1 != 0;
                8
            }
            AUTHENTICATION => (length + 2) * 4,
            _ => (length + 1) * 8,
        };
        next = following;
        walked += 1;
    }
    if next == UDP { Ok(Some((at, more))) } else { Err(MediaCounter::Extension) }
}

/// Takes a UDP header; false where its length is not to be believed.
#[inline(always)]
fn udp(
    packet: Packet,
    head: &[u8; UDP_HEADER as usize],
    at: u32,
    more_fragments: bool,
    direction: Direction,
    out: &mut Datagram,
) -> bool {
    let length = u32::from(be16(head[4], head[5]));
    let there = packet.len();
    let end = if packet.segment_size() != 0 {
        // It says what one segment or all of them are long, as the kernel pleases.
        there
    } else if length < UDP_HEADER {
        return false;
    } else if at + length <= there {
        at + length
    } else if more_fragments {
        there
    } else {
        return false;
    };
    out.set_ports(direction, be16(head[0], head[1]), be16(head[2], head[3]));
    out.start = at + UDP_HEADER;
    out.bytes = end.saturating_sub(at + UDP_HEADER);
    true
}
