//! The pinned map of path states: the feed says what is to be in it, the kernel takes it.

use std::{path::Path, time::Duration};

use super::collector::Failing;
use crate::{
    config::{Config, ConfigError, Peer},
    engine::Engine,
    feed::path_map::{self, Change, MappedPeer},
    kernel::{self, PathMapPin, PinError},
    model::status::MapStatus,
};

/// Prefixes of all peers together, as the configuration allows. They have room beside the paths that come by themselves.
const PREFIXES: u32 = 1000;

const fn room(config: &Config) -> u32 {
    config.limits.paths + PREFIXES
}

/// The map, where the configuration asks for it. Capabilities are needed.
pub fn open(config: &Config) -> Result<Option<kernel::PathMap>, ConfigError> {
    let open = |path| {
        kernel::PathMap::open(path, room(config)).map_err(|error| ConfigError {
            path: None,
            line: 0,
            field: "api.path_map".into(),
            problem: error.to_string(),
            remedy: error.remedy().into(),
        })
    };
    config.path_map.as_deref().map(open).transpose()
}

/// What an agent would find where the configuration wants the map; nothing is changed. `None` where it wants none.
pub fn look(config: &Config) -> Option<(&Path, Result<PathMapPin, PinError>)> {
    let path = config.path_map.as_deref()?;
    Some((path, kernel::look_at_path_map(path, room(config))))
}

/// Keeps the map in step with what the engine knows.
pub struct Publisher {
    told: path_map::PathMap,
    map: kernel::PathMap,
    failing: Failing,
}

impl Publisher {
    /// Begins with an empty map.
    pub fn new(map: kernel::PathMap, config: &Config, engine: &Engine) -> Self {
        // As long as a message of the feed.
        let valid = config.interval * 3 + Duration::from_secs(1);
        let told =
            path_map::PathMap::new(engine.epoch(), room(config) as usize, valid, mapped(&config.peers));
        Self { told, map, failing: Failing::default() }
    }

    /// Takes other peers.
    pub fn replace_peers(&mut self, peers: &[Peer]) {
        self.told.replace_peers(mapped(peers));
    }

    /// After a look at the kernel: writes what changed, and renews the rest.
    pub fn publish(&mut self, engine: &Engine, at: Duration) {
        let changes = self.told.look(at, &engine.paths(false));
        self.apply(changes);
        let (used, limit) = self.told.usage();
        engine.set_path_map(MapStatus {
            name: "path_state".into(),
            used: used as u64,
            limit: limit as u64,
            evicted: self.told.refused(),
        });
    }

    /// After a look at probes: writes what changed.
    pub fn publish_probed(&mut self, engine: &Engine, at: Duration) {
        let changes = self.told.look_at_some(at, &engine.paths(true));
        self.apply(changes);
    }

    fn apply(&mut self, changes: Vec<Change>) {
        if changes.is_empty() {
            return;
        }
        let mut outcome = Ok(());
        for change in changes {
            let (key, result) = match &change {
                Change::Write(key, entry) => (key, self.map.write(key, entry)),
                Change::Remove(key) => (key, self.map.remove(key)),
            };
            if let Err(error) = result {
                self.told.failed(key);
                outcome = Err(error.into());
            }
        }
        self.failing.told("updates of the map of path states", outcome);
    }
}

fn mapped(peers: &[Peer]) -> Vec<MappedPeer> {
    let mapped = |peer: &Peer| MappedPeer {
        name: peer.name.as_str().into(),
        prefixes: peer.cidrs.clone(),
        per_address: peer.per_address,
    };
    peers.iter().map(mapped).collect()
}
