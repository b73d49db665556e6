//! Which interfaces are watched: those that are up and match, and of interfaces that lie on one another the lowest, so that
//! no packet is seen twice.

use std::collections::HashSet;

use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage};

/// An interface as netlink tells of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// Its index.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Whether it is up, and not the loopback.
    pub usable: bool,
    /// Whether its packets have Ethernet headers; `None` where they have something that is not understood.
    pub ethernet: Option<bool>,
    /// What it belongs to: a bridge, a bond.
    pub master: Option<u32>,
    /// What it lies on, in the same namespace: the carrier of a VLAN.
    pub lower: Option<u32>,
}

impl Link {
    /// Reads a message.
    pub fn of(message: &LinkMessage) -> Self {
        let flags = message.header.flags;
        let mut link = Self {
            index: message.header.index,
            usable: flags.contains(LinkFlags::Up) && !flags.contains(LinkFlags::Loopback),
            ethernet: match message.header.link_layer_type {
                LinkLayerType::Ether => Some(true),
                // Tunnels and point-to-point links: packets begin with their IP header.
                LinkLayerType::None
                | LinkLayerType::Tunnel
                | LinkLayerType::Tunnel6
                | LinkLayerType::Sit
                | LinkLayerType::Ipgre
                | LinkLayerType::Ip6gre
                | LinkLayerType::Ppp
                | LinkLayerType::Rawip => Some(false),
                _ => None,
            },
            ..Self::default()
        };
        let (mut lower, mut lies_on_it, mut elsewhere) = (None, false, false);
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name.clone_from(name),
                LinkAttribute::Controller(master) => link.master = Some(*master),
                LinkAttribute::Link(index) => lower = Some(*index),
                LinkAttribute::LinkNetNsId(_) => elsewhere = true,
                LinkAttribute::LinkInfo(all) => {
                    lies_on_it = all.iter().any(|info| {
                        matches!(
                            info,
                            LinkInfo::Kind(
                                InfoKind::Vlan
                                    | InfoKind::MacVlan
                                    | InfoKind::MacVtap
                                    | InfoKind::IpVlan
                                    | InfoKind::IpVtap
                            )
                        )
                    });
                }
                _ => {}
            }
        }
        // A veth's "link" is its peer, a tunnel's what it leaves through: other packets.
        link.lower = lower.filter(|_| lies_on_it && !elsewhere);
        link
    }
}

/// Of all interfaces the ones to watch; `patterns` may contain `*` for any characters.
pub fn chosen<'a>(links: &'a [Link], patterns: &[String]) -> Vec<&'a Link> {
    let named = |link: &Link| patterns.iter().any(|pattern| matches(pattern, &link.name));
    let fits: Vec<&Link> = links.iter().filter(|link| link.usable && named(link)).collect();
    let fit: HashSet<u32> = fits.iter().map(|link| link.index).collect();
    let with_ports: HashSet<u32> = fits.iter().filter_map(|link| link.master).collect();
    let lowest = |link: &&&Link| {
        !with_ports.contains(&link.index) && !link.lower.is_some_and(|lower| fit.contains(&lower))
    };
    fits.iter().filter(lowest).copied().collect()
}

/// Whether a name fits a pattern in which `*` stands for any characters, or none.
fn matches(pattern: &str, name: &str) -> bool {
    let Some((before, after)) = pattern.split_once('*') else { return pattern == name };
    let Some(rest) = name.strip_prefix(before) else { return false };
    (0..=rest.len()).filter(|at| rest.is_char_boundary(*at)).any(|at| matches(after, &rest[at..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(index: u32, name: &str) -> Link {
        Link { index, name: name.into(), usable: true, ethernet: Some(true), ..Link::default() }
    }

    fn names(links: &[Link], patterns: &[&str]) -> Vec<String> {
        let patterns: Vec<String> = patterns.iter().map(|&p| p.into()).collect();
        chosen(links, &patterns).into_iter().map(|l| l.name.clone()).collect()
    }

    #[test]
    fn of_interfaces_that_lie_on_one_another_the_lowest() {
        let mut links: Vec<Link> = ["eth0", "eth1", "bond0", "bond0.7", "br0", "veth1", "wg0"]
            .iter()
            .zip(2..)
            .map(|(n, i)| link(i, n))
            .collect();
        (links[0].master, links[1].master) = (Some(4), Some(4));
        links[3].lower = Some(4);
        links[5].master = Some(6);
        assert_eq!(names(&links, &["*"]), ["eth0", "eth1", "veth1", "wg0"]);
        assert_eq!(names(&links, &["bond0*"]), ["bond0"], "the VLAN's packets pass there");
        assert_eq!(names(&links, &["bond0.*"]), ["bond0.7"]);
        links[0].usable = false;
        assert_eq!(names(&links, &["eth*", "br0"]), ["eth1", "br0"]);
    }

    #[test]
    fn patterns() {
        for (pattern, name, expected) in [
            ("*", "eth0", true),
            ("eth0", "eth0", true),
            ("eth0", "eth01", false),
            ("e*0", "eth0", true),
            ("e*0", "eth01", false),
            ("*.7", "bond0.7", true),
            ("a*b*c", "aXbYbc", true),
            ("", "eth0", false),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }
}
