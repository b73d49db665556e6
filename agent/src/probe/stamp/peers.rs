//! Who is answered: prefixes, the longest first, each with a budget.

use std::{collections::HashMap, net::IpAddr, time::Duration};

use ipnet::IpNet;

/// Packets a second that one prefix is answered, and how many at once.
pub const RATE: u32 = 20_000;
const BURST: f64 = RATE as f64 / 10.0;

/// Tokens of one prefix.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    tokens: f64,
    filled_at: Duration,
}

/// Prefixes that are answered.
#[derive(Clone, Debug, Default)]
pub struct Peers {
    /// Lengths in use, the longest first, by family.
    lengths: [Vec<u8>; 2],
    buckets: HashMap<IpNet, Bucket>,
}

/// The network of this size that holds an address; one has never more bits than the address.
fn network(address: IpAddr, bits: u8) -> IpNet {
    IpNet::new(address, bits).unwrap_or_else(|_| address.into()).trunc()
}

impl Peers {
    /// These prefixes: an address and its significant bits.
    pub fn new(prefixes: impl IntoIterator<Item = (IpAddr, u8)>) -> Self {
        let mut peers = Self::default();
        let full = Bucket { tokens: BURST, filled_at: Duration::ZERO };
        for (address, bits) in prefixes {
            let lengths = &mut peers.lengths[usize::from(address.is_ipv6())];
            if !lengths.contains(&bits) {
                lengths.push(bits);
            }
            peers.buckets.insert(network(address, bits), full);
        }
        for lengths in &mut peers.lengths {
            lengths.sort_unstable_by(|a, b| b.cmp(a));
        }
        peers
    }

    /// Whether an address is in one of them.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.find(address).is_some()
    }

    /// Takes a token of the longest prefix that holds the address; false where it has none left.
    pub fn take(&mut self, address: IpAddr, now: Duration) -> bool {
        let Some(bucket) = self.find(address).and_then(|key| self.buckets.get_mut(&key)) else {
            return false;
        };
        let since = now.saturating_sub(bucket.filled_at).as_secs_f64();
        bucket.tokens = since.mul_add(f64::from(RATE), bucket.tokens).min(BURST);
        bucket.filled_at = now;
        let enough = bucket.tokens >= 1.0;
        if enough {
            bucket.tokens -= 1.0;
        }
        enough
    }

    fn find(&self, address: IpAddr) -> Option<IpNet> {
        let lengths = &self.lengths[usize::from(address.is_ipv6())];
        lengths.iter().map(|bits| network(address, *bits)).find(|key| self.buckets.contains_key(key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_prefixes_are_answered_and_each_within_its_budget() {
        let prefix = |text: &str, bits| (text.parse().unwrap(), bits);
        let mut peers =
            Peers::new([prefix("10.1.0.0", 16), prefix("10.1.2.3", 32), prefix("2001:db8::", 32)]);
        let address = |text: &str| -> IpAddr { text.parse().unwrap() };
        assert!(peers.contains(address("10.1.9.9")) && peers.contains(address("2001:db8:7::1")));
        assert!(!peers.contains(address("10.2.0.1")) && !peers.contains(address("::1")));
        let now = Duration::from_secs(9);
        let taken = (0..2 * RATE).filter(|_| peers.take(address("10.1.2.3"), now)).count();
        assert_eq!(taken, RATE as usize / 10);
        assert!(peers.take(address("10.1.2.4"), now), "another prefix, another budget");
        assert!(peers.take(address("10.1.2.3"), now + Duration::from_millis(1)));
        assert!(!peers.take(address("192.0.2.1"), now));
        assert!(Peers::new([prefix("0.0.0.0", 0)]).contains(address("192.0.2.1")));
    }
}
