//! This host's own drops.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::{Aggregator, kept};
use crate::{
    collect::Observation,
    model::{Direction, Drops, HostTick, Role, Transport, drops, fade},
};

/// What drops are counted by.
pub type DropKey = (Arc<str>, Direction, Transport);

/// Cumulative drops of this host.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct HostTotals {
    /// When they began, on the ticks' clock.
    pub since: Duration,
    /// By reason, direction and transport.
    pub drops: BTreeMap<DropKey, u64>,
    /// Receive-buffer drops by service.
    pub udp_receive_buffer: BTreeMap<Arc<str>, u64>,
    #[serde(skip)]
    pub(super) rates: BTreeMap<DropKey, f64>,
    pub(super) last_drops: HashMap<(String, Direction, Transport), u64>,
    #[serde(with = "kept::by_pod")]
    pub(super) last_udp: HashMap<graylag_ebpf::key::UdpPort, u64>,
    pub(super) last_host: Option<crate::collect::HostCounters>,
}

impl HostTotals {
    /// Takes what was dropped in a look, for the rates.
    pub(super) fn remember_rates(&mut self, tick: &HostTick, elapsed: Duration) {
        const HALF_LIFE: Duration = Duration::from_secs(3);
        if elapsed.is_zero() {
            return;
        }
        let keep = fade(elapsed, HALF_LIFE);
        self.rates.values_mut().for_each(|rate| *rate *= keep);
        for drops in &tick.drops {
            let rate =
                self.rates.entry((drops.reason.clone(), drops.direction, drops.transport)).or_default();
            *rate += (1.0 - keep) * drops.packets as f64 / elapsed.as_secs_f64();
        }
        self.rates.retain(|_, rate| *rate > 0.01);
    }
}

impl Aggregator {
    pub(super) fn host_tick(&mut self, seen: &Observation, since: Duration) -> HostTick {
        let mut tick = HostTick::default();
        for dropped in &seen.drops {
            let key = (dropped.reason.clone(), dropped.direction, dropped.transport);
            let before = self.host.last_drops.insert(key, dropped.packets).unwrap_or(0);
            tick.drops.push(Drops {
                reason: dropped.reason.as_str().into(),
                direction: dropped.direction,
                transport: dropped.transport,
                packets: dropped.packets.saturating_sub(before),
            });
        }
        for (port, packets) in &seen.udp_drops {
            let before = self.host.last_udp.insert(*port, *packets).unwrap_or(0);
            let service = self.naming.service("udp", port.port, Role::Server);
            let packets = packets.saturating_sub(before);
            self.pods.add_udp(port.netns, &service, packets, since);
            tick.udp_receive_buffer.push((service, packets));
        }
        if let Some(now) = seen.host
            && let Some(before) = self.host.last_host.replace(now)
        {
            tick.packets = Some(now.packets.saturating_sub(before.packets));
            let receive = |reason: &str, now: u64, before: u64| Drops {
                reason: reason.into(),
                direction: Direction::Receive,
                transport: Transport::Other,
                packets: now.saturating_sub(before),
            };
            tick.drops.push(receive(drops::INTERFACE_MISSED, now.missed, before.missed));
            tick.drops.push(receive(drops::INTERFACE_FIFO, now.fifo, before.fifo));
            if let (Some(now), Some(before)) = (now.softnet_dropped, before.softnet_dropped) {
                tick.drops.push(receive(drops::SOFTNET, now, before));
            }
        }
        tick.drops.retain(|drops| drops.packets > 0);
        tick.udp_receive_buffer.retain(|(_, packets)| *packets > 0);
        for drops in &tick.drops {
            let key = (drops.reason.clone(), drops.direction, drops.transport);
            *self.host.drops.entry(key).or_default() += drops.packets;
        }
        for (service, packets) in &tick.udp_receive_buffer {
            *self.host.udp_receive_buffer.entry(service.clone()).or_default() += packets;
        }
        tick
    }
}
