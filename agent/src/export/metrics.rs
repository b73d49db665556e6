//! The metrics' loop: a round on every interval, and a last one at the end.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use opentelemetry_proto::tonic::resource::v1::Resource;
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior, interval_at, sleep},
};

use super::{
    Outcome, Settings, Signal, Source,
    client::{Client, Failure},
    encode::{Packed, Packer},
    resource::of_pod,
    retry::Backoff,
};
use crate::telemetry::catalog::Id;

/// Sends every metric of the catalog.
pub struct Metrics {
    client: Client,
    source: Arc<dyn Source>,
    resource: Resource,
    outcome: Arc<Outcome>,
    interval: Duration,
    round: Duration,
}

impl Metrics {
    pub fn new(
        client: Client,
        source: Arc<dyn Source>,
        resource: Resource,
        outcome: Arc<Outcome>,
        settings: &Settings,
    ) -> Self {
        Self { client, source, resource, outcome, interval: settings.interval, round: settings.round }
    }

    /// Runs until it is stopped.
    pub async fn run(self, mut stopped: watch::Receiver<bool>) {
        let mut ticks = interval_at(Instant::now() + self.interval, self.interval);
        // Sums are cumulative: a round that came too late is not caught up with.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            let stopping = tokio::select! {
                _ = ticks.tick() => false,
                _ = stopped.wait_for(|stop| *stop) => true,
            };
            self.send_round(&mut stopped).await;
            if stopping {
                return;
            }
        }
    }

    /// One round. What does not arrive in its time is dropped: the next one says more.
    async fn send_round(&self, stopped: &mut watch::Receiver<bool>) {
        let deadline = Instant::now() + self.round;
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let now = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        let mut packer = Packer::default();
        let mut failed: Option<String> = None;
        for pod in self.source.resources() {
            let pod = pod.as_deref();
            packer.speak_for(pod.map_or_else(|| self.resource.clone(), |pod| of_pod(&self.resource, pod)));
            for id in Id::ALL.iter().filter(|id| pod.is_none() || id.is_of_pods()) {
                // One metric at a time, sent as soon as a request is full: never all of it in memory.
                let points = self.source.points(pod, *id);
                let full = packer.add(*id, points, now, &|point| self.source.unix_nanos(point.since));
                for packed in full {
                    self.deliver(packed, deadline, &mut failed, stopped).await;
                }
            }
        }
        if let Some(packed) = packer.finish() {
            self.deliver(packed, deadline, &mut failed, stopped).await;
        }
        self.outcome.set(Signal::Metrics, failed);
    }

    async fn deliver(
        &self,
        packed: Packed,
        deadline: Instant,
        failed: &mut Option<String>,
        stopped: &mut watch::Receiver<bool>,
    ) {
        let mut backoff = Backoff::default();
        // A round that has failed once is only counted: its deadline is over, or the collector refuses what we say.
        while failed.is_none() {
            match self.client.send(&packed.request).await {
                Ok(accepted) => {
                    self.outcome.lose(accepted.rejected);
                    if accepted.rejected > 0 {
                        *failed = Some(format!("{} points rejected: {}", accepted.rejected, accepted.said));
                    }
                    return;
                }
                Err(Failure::Refused(reason)) => *failed = Some(reason),
                Err(Failure::Retry { reason, after }) => {
                    let delay = backoff.next(after);
                    if Instant::now() + delay >= deadline {
                        *failed = Some(reason);
                        break;
                    }
                    tracing::debug!("metrics: {reason}; again in {delay:?}");
                    let is_over = async { drop(stopped.wait_for(|stop| *stop).await) };
                    tokio::select! {
                        () = sleep(delay) => {}
                        // The last round gets one attempt at each request.
                        () = is_over => { *failed = Some(reason); }
                    }
                }
            }
        }
        self.outcome.lose(packed.points);
    }
}
