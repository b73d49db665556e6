//! The judge's part about services whose exchanges should not come more slowly than their floor.

use std::{collections::BTreeMap, sync::Arc};

use super::{Judge, conditions::Held, verdict::Verdict};
use crate::model::{Blame, ConditionName, Phase, Role, Target, Tick, Transition};

impl Judge {
    pub(super) fn observe_rates(&mut self, tick: &Tick, late: bool, transitions: &mut Vec<Transition>) {
        let mut exchanges: BTreeMap<&Arc<str>, u64> = BTreeMap::new();
        for seen in &tick.subjects {
            *exchanges.entry(&seen.subject.service).or_default() += seen.counts.response.count();
        }
        for (service, declared) in &self.declared {
            if declared.floor.is_some() {
                self.rates.entry(service.clone()).or_default();
            }
        }
        let mut verdicts = Vec::new();
        for (service, rate) in &mut self.rates {
            let floor = self.declared.get(service).and_then(|declared| declared.floor);
            let exchanges = exchanges.get(service).copied().unwrap_or(0);
            rate.look(&self.settings, tick.at, tick.elapsed, floor, exchanges);
            let (n, time) = rate.evidence();
            let floor = rate.floor();
            let text = format!(
                "{n} exchanges in {:.1}s, where there should be {floor:.1} a second",
                time.as_secs_f64()
            );
            verdicts.push((service.clone(), n, text, *rate.life()));
        }
        for (service, n, text, life) in verdicts {
            let verdict =
                Verdict { name: ConditionName::RateLow, blame: self.blame_rate(&service), n, bad: 0, text };
            let held = Held::of(&life, &self.settings);
            transitions.extend(self.conditions.settle(
                tick.at,
                Target::Service(service),
                verdict,
                held,
                late,
            ));
        }
        self.rates.retain(|service, rate| {
            self.declared.get(service).is_some_and(|declared| declared.floor.is_some())
                || !rate.life().is_idle(&self.settings, tick.at)
        });
    }

    /// Where the service itself does not answer, it is its doing; else who should ask asks less.
    fn blame_rate(&self, service: &Arc<str>) -> Blame {
        let about = |name, role| {
            self.conditions.iter().any(|condition| {
                condition.key.name == name
                    && condition.phase == Phase::Raised
                    && matches!(&condition.key.target, Target::Subject(of) if of.service == *service && of.role == role)
            })
        };
        let stalls =
            [ConditionName::ResponseSlow, ConditionName::FirstByteStall, ConditionName::HandshakeStall];
        if stalls.iter().any(|name| about(*name, Role::Client)) {
            return Blame::PeerApplication;
        }
        if stalls.iter().any(|name| about(*name, Role::Server)) {
            return Blame::LocalProcess;
        }
        let is_client = self.answers.keys().any(|(known, role)| known == service && *role == Role::Client);
        if is_client { Blame::LocalProcess } else { Blame::Unknown }
    }
}
