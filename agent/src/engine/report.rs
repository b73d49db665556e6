//! The status, put together from what is known.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use super::{Inner, facts::Availability, pods};
use crate::{
    aggregate::{PathProbes, Series},
    health::Standing,
    kernel::programs::Signal,
    model::{
        AddressPath, AddressTarget, Condition, Counts, Distribution, Leg, MediaCounts, MediaOutcome,
        MediaStage, NodeReport, Outcome, Path, PathReport, Phase, RelayCounts, Retransmit, Served, Share,
        Subject, Target, drops,
        status::{
            ActivationStatus, AddressProbes, AgentStatus, ConditionStatus, DropStatus, EvidenceStatus,
            HandshakeStatus, JITTER, MediaStatus, NodeStatus, PathStatus, ProbeStatus, Quantiles,
            RelayStatus, RetransmitStatus, ShareStatus, SignalStatus, Status, SubjectStatus, TargetProbes,
            TargetStatus, WaitStatus,
        },
    },
    telemetry::transport_name,
};

impl Inner {
    pub(super) fn status(&self, now: Duration) -> Status {
        Status {
            stamp: self.stamp(now),
            node: self.facts.node.clone(),
            version: env!("CARGO_PKG_VERSION").into(),
            kernel: self.facts.kernel.clone(),
            uptime: now.saturating_sub(self.started).as_secs_f64(),
            health: self.health(now),
            conditions: self.judge.conditions().map(|c| self.condition(c, c.phase, now)).collect(),
            subjects: self
                .aggregator
                .subjects()
                .iter()
                .map(|(subject, series)| self.subject(subject, series))
                .collect(),
            media: self.media(now),
            paths: self.paths(now),
            targets: self.targets(),
            reflector: self.reflector,
            activation: self.activation(),
            relays: self.relays(),
            drops: self.drops(),
            signals: self.signals(),
            pods: self.pods(),
            maps: self.agent.maps.clone(),
            agent: AgentStatus {
                late: self.late.as_secs_f64(),
                export_dropped: self.agent.export_dropped,
                export_to: self.export_to.clone(),
                export_error: self.export_error.clone(),
                events_lost: self.agent.events_lost,
                pins: self.facts.pins.clone(),
                attribution: self.attribution.clone(),
            },
        }
    }

    pub(super) fn condition(&self, condition: &Condition, phase: Phase, now: Duration) -> ConditionStatus {
        let evidence = &condition.evidence;
        ConditionStatus {
            name: condition.key.name.name().into(),
            target: target(&condition.key.target),
            phase: phase.name().into(),
            blame: condition.blame.name().into(),
            confidence: if evidence.low_confidence { "low" } else { "high" }.into(),
            evidence: EvidenceStatus {
                n: evidence.n,
                bad: evidence.bad,
                low: evidence.interval.low,
                high: evidence.interval.high,
                text: evidence.text.clone(),
            },
            since: self.wall(condition.since),
            age: now.saturating_sub(condition.since).as_secs_f64(),
            valid_until: self.wall(condition.valid_until),
            pod: self.of_pods.get(&condition.key).and_then(|pod| pod.as_deref()).map(pods::status),
        }
    }

    fn subject(&self, subject: &Subject, series: &Series) -> SubjectStatus {
        let counts = series.window.counts();
        let seconds = series.window.length().as_secs_f64();
        let rate = |n: u64| n as f64 / seconds;
        let pending = &series.pending;
        SubjectStatus {
            peer: subject.path.peer.to_string(),
            address: subject.path.address.map(|a| a.to_string()),
            service: subject.service.to_string(),
            role: subject.role_name().into(),
            standing: match self.judge.standing(subject) {
                Standing::Healthy => "healthy",
                Standing::Troubled => "troubled",
                Standing::Insufficient => "insufficient",
            }
            .into(),
            window: seconds,
            handshake: HandshakeStatus {
                rate: rate(counts.handshakes()),
                pending: pending.handshake.count(),
                stalled: pending.handshake.at_least(self.bounds.handshake_bound),
                ..handshake(&counts)
            },
            first_byte: WaitStatus {
                rate: rate(counts.first_byte.count()),
                pending: pending.first_byte.count(),
                stalled: pending.first_byte.at_least(self.bounds.first_byte_bound),
                longest: None,
                latency: quantiles(&counts.first_byte),
            },
            response: WaitStatus {
                rate: rate(counts.response.count()),
                longest: pending.longest_wait.map(|wait| wait.as_secs_f64()),
                latency: quantiles(&counts.response),
                ..WaitStatus::default()
            },
            rtt: quantiles(&counts.rtt),
            segments_in: rate(counts.segments_in),
            segments_out: rate(counts.segments_out),
            retransmitted: RetransmitStatus {
                fast: counts.retransmit(Retransmit::Fast),
                timeout: counts.retransmit(Retransmit::Timeout),
                tail_loss_probe: counts.retransmit(Retransmit::TailLossProbe),
                spurious: counts.retransmit(Retransmit::Spurious),
            },
            resets: counts.resets,
            trend: series.window.points().collect(),
        }
    }

    fn media(&self, now: Duration) -> Vec<MediaStatus> {
        let media = self.aggregator.media();
        let status = |(leg, series): (&Leg, &Series<MediaCounts>)| {
            let counts = series.window.counts();
            let seconds = series.window.length().as_secs_f64();
            let (last, last_media) = media.last().get(leg).copied().unwrap_or_default();
            let age = |at: Option<Duration>| at.map(|at| now.saturating_sub(at).as_secs_f64());
            MediaStatus {
                peer: leg.path.peer.to_string(),
                address: leg.path.address.map(|a| a.to_string()),
                direction: leg.direction.name().into(),
                datagrams: counts.datagrams.iter().sum::<u64>() as f64 / seconds,
                bytes: counts.bytes as f64 / seconds,
                packets: counts.packets as f64 / seconds,
                loss: counts.loss(),
                bursts: counts.events(),
                reordered: counts.reordered,
                duplicated: counts.duplicated,
                jitter: quantiles(&counts.jitter),
                age: age(last),
                media_age: age(last_media),
                trend: series.window.points().collect(),
            }
        };
        media.series().iter().map(status).collect()
    }

    /// How this node serves its users.
    pub(super) fn health(&self, now: Duration) -> NodeStatus {
        self.node_status(&self.judge.node(now), now)
    }

    pub(super) fn node_status(&self, node: &NodeReport, now: Duration) -> NodeStatus {
        let share = |of: &str, share: Share| ShareStatus { of: of.into(), good: share.good, n: share.n };
        NodeStatus {
            state: node.state.name().into(),
            age: now.saturating_sub(node.since).as_secs_f64(),
            valid_until: node.valid_until.map(|until| self.wall(until)),
            weight: node.weight,
            score: node.score,
            checks: share("checks", node.checks),
            users: Served::ALL.map(|kind| share(kind.name(), node.served[kind as usize])).into(),
            reasons: node.reasons.clone(),
        }
    }

    /// Paths that are spoken of.
    pub(super) fn paths(&self, now: Duration) -> Vec<PathStatus> {
        let probes = self.aggregator.probes().by_path();
        self.spoken_paths().map(|path| self.path(&path, &probes, now)).collect()
    }

    pub(super) fn path(
        &self,
        path: &PathReport,
        probes: &BTreeMap<&Path, PathProbes>,
        now: Duration,
    ) -> PathStatus {
        PathStatus {
            peer: path.leg.path.peer.to_string(),
            address: path.leg.path.address.map(|a| a.to_string()),
            direction: path.leg.direction.name().into(),
            state: path.state.name().into(),
            age: now.saturating_sub(path.since).as_secs_f64(),
            proven: path.proven.map(|proven| now.saturating_sub(proven).as_secs_f64()),
            valid_until: path.valid_until.map(|until| self.wall(until)),
            probes: probes.get(&path.leg.path).map(|probes| {
                let counts = probes.totals.counts[path.leg.direction as usize];
                let (arrived, lost) = probes.recent[path.leg.direction as usize];
                ProbeStatus {
                    sent: counts.sent,
                    lost: counts.lost,
                    loss: (arrived + lost >= 1.0).then(|| lost / (arrived + lost)),
                    round_trip: quantiles(&probes.totals.round_trip),
                }
            }),
        }
    }

    fn targets(&self) -> Vec<TargetProbes> {
        let address = |seen: &AddressPath| AddressProbes {
            address: seen.address.to_string(),
            attempts: seen.counts.attempts(),
            failed: seen.counts.failed(),
            repeated: seen.repeated,
            repeated_failed: seen.repeated_failed,
            unsent: seen.unsent,
            connect: quantiles(&seen.connect.distribution),
            tls: quantiles(&seen.tls.distribution),
            reason: seen.reason.clone(),
        };
        let target = |seen: &AddressTarget| TargetProbes {
            target: seen.target.clone(),
            kind: seen.kind().into(),
            addresses: seen.paths.iter().map(address).collect(),
            left_out: seen.left_out,
            unresolved: seen.unresolved,
            reason: seen.reason.clone(),
        };
        self.aggregator.addresses().targets().iter().map(target).collect()
    }

    fn activation(&self) -> Vec<ActivationStatus> {
        let activation = self.aggregator.activation();
        let counts = activation.window().counts();
        if activation.is_empty() {
            return Vec::new();
        }
        let status = |stage: MediaStage| {
            let i = stage as usize;
            let ended = |outcome: MediaOutcome| counts.sessions[i][outcome as usize];
            ActivationStatus {
                stage: stage.name().into(),
                pending: activation.pending()[i],
                through: counts.took[i].count(),
                failed: ended(MediaOutcome::Failed),
                one_way: ended(MediaOutcome::OneWay),
                idle: ended(MediaOutcome::Idle),
                active: ended(MediaOutcome::Active),
                took: quantiles(&counts.took[i]),
            }
        };
        MediaStage::ALL.map(status).into()
    }

    fn relays(&self) -> Vec<RelayStatus> {
        let relays = self.aggregator.relays();
        let status = |(name, series): (&Arc<str>, &Series<RelayCounts>)| {
            let counts = series.window.counts();
            let seconds = series.window.length().as_secs_f64();
            let now = || relays.now().iter().filter(|tick| tick.process.name == *name);
            RelayStatus {
                process: name.to_string(),
                processes: now().count() as u64,
                sockets: now().map(|tick| tick.sockets).sum(),
                received: counts.received as f64 / seconds,
                sent: counts.sent as f64 / seconds,
                dropped: counts.dropped,
                queued: now().map(|tick| tick.queued).sum(),
                trend: series.window.points().collect(),
            }
        };
        relays.series().iter().map(status).collect()
    }

    fn drops(&self) -> Vec<DropStatus> {
        let mut drops: Vec<DropStatus> = self
            .aggregator
            .host()
            .drops
            .iter()
            .map(|(key @ (reason, direction, transport), packets)| DropStatus {
                reason: reason.to_string(),
                side: drops::class(reason).side().into(),
                direction: direction.name().into(),
                transport: transport_name(*transport).into(),
                packets: *packets,
                rate: self.aggregator.drop_rate(key),
            })
            .collect();
        drops.sort_by(|a, b| b.rate.total_cmp(&a.rate).then(b.packets.cmp(&a.packets)));
        drops
    }

    fn signals(&self) -> Vec<SignalStatus> {
        let status = |signal: Signal| {
            let (available, reason) = match self.facts.availability(signal) {
                Availability::Full => (true, None),
                Availability::Partial(reason) => (true, Some(reason)),
                Availability::Missing(reason) => (false, Some(reason)),
            };
            let coverage = self.agent.coverage.iter().find(|(name, _)| *name == signal.name());
            SignalStatus {
                name: signal.name().into(),
                available,
                coverage: coverage.map(|(_, share)| *share),
                reason,
            }
        };
        self.facts.signals().map(status).chain(self.jitter()).collect()
    }

    /// No program's own, but of every stream for only part of the time where there are very many packets.
    fn jitter(&self) -> Option<SignalStatus> {
        let (name, share) = self.agent.coverage.iter().find(|(name, _)| *name == JITTER)?;
        let reason = "streams take turns at being measured: there are very many RTP packets";
        Some(SignalStatus {
            name: (*name).into(),
            available: true,
            coverage: Some(*share),
            reason: (*share < 1.0).then(|| reason.into()),
        })
    }
}

fn target(target: &Target) -> TargetStatus {
    match target {
        Target::Subject(subject) => TargetStatus {
            peer: Some(subject.path.peer.to_string()),
            address: subject.path.address.map(|a| a.to_string()),
            service: Some(subject.service.to_string()),
            role: Some(subject.role_name().into()),
            ..TargetStatus::default()
        },
        Target::Leg(leg) => TargetStatus {
            peer: Some(leg.path.peer.to_string()),
            address: leg.path.address.map(|a| a.to_string()),
            direction: Some(leg.direction.name().into()),
            ..TargetStatus::default()
        },
        Target::Service(service) => {
            TargetStatus { service: Some(service.to_string()), ..TargetStatus::default() }
        }
        Target::Node => TargetStatus::default(),
        Target::Process(process) => TargetStatus {
            process: Some(process.name.to_string()),
            pid: Some(process.id),
            ..TargetStatus::default()
        },
        Target::Drops { reason, direction } => TargetStatus {
            reason: Some(reason.clone()),
            direction: Some(direction.name().into()),
            ..TargetStatus::default()
        },
    }
}

fn handshake(counts: &Counts) -> HandshakeStatus {
    HandshakeStatus {
        established: counts.outcome(Outcome::Established),
        refused: counts.outcome(Outcome::Refused),
        reset: counts.outcome(Outcome::Reset),
        timed_out: counts.outcome(Outcome::TimedOut),
        unreachable: counts.outcome(Outcome::Unreachable),
        abandoned: counts.outcome(Outcome::Abandoned),
        syn_retransmitted: counts.syn_retransmitted,
        accept_queue_overflow: counts.accept_queue_overflow,
        latency: quantiles(&counts.handshake),
        ..HandshakeStatus::default()
    }
}

fn quantiles(distribution: &Distribution) -> Quantiles {
    let seconds = |q| distribution.quantile(q).map(|d| d.as_secs_f64());
    Quantiles { p50: seconds(0.5), p99: seconds(0.99) }
}
