//! When processes are gone through, so that it is known whose a network namespace is.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context, Result};

use super::collector::{Failing, now};
use crate::{
    attribution::{self, Attribution, usual_socket},
    collect::Collector,
    config::{self, Config},
    engine::{Asked, Engine},
    kernel::netns,
    model::status::AttributionStatus,
};

/// Where counts wait for the answer.
const SOON: Duration = Duration::from_secs(1);
/// Where it is only asked whether everybody is still there.
const EVERY: Duration = Duration::from_secs(5);
/// One in so many parts of the time is what passes may take.
const SHARE: u32 = 200;

/// Asks, and passes on what it hears.
pub struct Asker {
    attribution: Attribution,
    last: Option<Duration>,
    took: Duration,
    failing: Failing,
}

/// The container runtime's socket, where it is to be asked; and what to say where it is not there.
pub fn runtime(config: &Config) -> (Option<PathBuf>, Option<String>) {
    match &config.attribution {
        config::Attribution::Runtime { socket: Some(socket) } if !socket.exists() => {
            (Some(socket.clone()), Some(format!("{} is not there", socket.display())))
        }
        config::Attribution::Runtime { socket: Some(socket) } => (Some(socket.clone()), None),
        config::Attribution::Runtime { socket: None } => (usual_socket(), None),
        config::Attribution::Cgroup | config::Attribution::Off => (None, None),
    }
}

impl Asker {
    /// Nothing where nobody is to be told apart, or nobody can be.
    pub fn start(config: &Config, collector: &Collector, engine: &Engine) -> Result<Option<Self>> {
        let (runtime, missing) = runtime(config);
        if let Some(missing) = missing {
            tracing::warn!("attribution.cri_socket: {missing}: pods have no names until it is");
        }
        let cgroups = collector.kernel().cgroup().map(|root| root.path.clone());
        let (true, Some(cgroups)) = (collector.has_tasks(), cgroups) else { return Ok(None) };
        let own = netns::own().context("/proc/self/ns/net")?;
        let settings = attribution::Settings { cgroups, runtime, own };
        let attribution = Attribution::start(settings).context("the thread of [attribution]")?;
        engine.expect_pods(config.limits.pods as usize, config.limits.subjects as usize);
        Ok(Some(Self { attribution, last: None, took: Duration::ZERO, failing: Failing::default() }))
    }

    /// Before a look: whatever has been found out.
    pub fn tell(&self, engine: &Engine, at: Duration) {
        if let Some(places) = self.attribution.news() {
            engine.place(places, at);
        }
        let facts = self.attribution.facts();
        engine.set_attribution(AttributionStatus {
            source: facts.source,
            cgroups_lost: facts.cgroups_lost,
            unanswered: facts.unanswered,
        });
    }

    /// After a look: asks, where it is time to.
    pub fn ask(&mut self, engine: &Engine, collector: &mut Collector, at: Duration) {
        let asked = engine.asked();
        if !self.is_due(&asked, at) {
            return;
        }
        let began = now();
        let tasks = self.failing.told("passes over all processes", collector.tasks());
        (self.last, self.took) = (Some(at), now().saturating_sub(began));
        if let Some(tasks) = tasks {
            self.attribution.tell(&tasks, &asked.processes);
        }
    }

    fn is_due(&self, asked: &Asked, at: Duration) -> bool {
        let Some(last) = self.last else { return asked.others };
        let pause = if asked.waits { SOON } else { EVERY };
        asked.others && at.saturating_sub(last) >= pause.max(self.took * SHARE)
    }
}
