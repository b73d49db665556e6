//! The judge's part about subjects: handshakes, first bytes and answers.
//!
//! There may be thousands of them, of which a look sees a few: what concerns all is gone through only where there is something to
//! tell, and now and then to forget.

use std::{
    collections::BTreeSet,
    sync::{Arc, LazyLock},
    time::Duration,
};

use super::{
    Judge,
    blame::PathFacts,
    subject::{Looking, News, SubjectState, Surroundings},
};
use crate::model::{
    ConditionName, Counts, Path, Pending, Role, Subject, SubjectTick, Target, Tick, Transition,
};

/// A subject without traffic, conditions or pending work for this long is forgotten …
const FORGET: Duration = Duration::from_secs(900);
/// … sooner where there are many: on a host whose peers change all the time the kernel's table gives its places to ever new ones …
const FORGET_IN_CROWD: Duration = Duration::from_secs(300);
/// … of which this many are a crowd, as many as there is room for in that table unless the configuration says otherwise …
const CROWD: usize = 4096;
/// … and looked for this often.
const FORGET_EVERY: Duration = Duration::from_secs(10);
/// Answers before silence of a service is judged: there are services that never answer (log shipping).
const KNOWN_TO_ANSWER: u64 = 1;

impl Judge {
    pub(super) fn observe_subjects(&mut self, tick: &Tick, late: bool, transitions: &mut Vec<Transition>) {
        for seen in &tick.subjects {
            self.subjects.entry(seen.subject.clone()).or_default().remember(tick.at, seen);
            let answers = seen.counts.first_byte.count() + seen.counts.response.count();
            if answers > 0 {
                let key = (seen.subject.service.clone(), seen.subject.role);
                *self.answers.entry(key).or_default() += answers;
            }
        }
        let widen = if late { tick.late } else { Duration::ZERO };
        // Where a condition stands, silence is evidence too: its lease runs out.
        let silent = self.silent(tick);
        let mut told = Vec::new();
        for seen in tick.subjects.iter().chain(&silent) {
            let looking = self.looking(tick.at, widen, &seen.subject);
            if let Some(state) = self.subjects.get_mut(&seen.subject) {
                let news = state.look(&self.settings, seen.subject.role, seen, &looking);
                if news.is_any() {
                    told.push((seen, looking, news));
                }
            }
        }
        if !told.is_empty() {
            let around = self.surroundings(tick.at);
            for (seen, looking, news) in &told {
                self.tell(seen, (looking, &around), *news, late, transitions);
            }
        }
        self.forget_subjects(tick.at);
    }

    /// Subjects of which a condition stands, and nothing was seen in this look.
    fn silent(&self, tick: &Tick) -> Vec<SubjectTick> {
        let mut standing: BTreeSet<&Subject> = self
            .conditions
            .iter()
            .filter_map(|condition| match &condition.key.target {
                Target::Subject(subject) => Some(subject),
                _ => None,
            })
            .collect();
        for seen in &tick.subjects {
            standing.remove(&seen.subject);
        }
        let nothing = |subject: &Subject| SubjectTick {
            subject: subject.clone(),
            counts: Counts::default(),
            pending: Pending::default(),
        };
        standing.into_iter().map(nothing).collect()
    }

    fn looking(&self, at: Duration, widen: Duration, subject: &Subject) -> Looking {
        let mut path = PathFacts::default();
        self.of_path(&subject.path).for_each(|state| state.add_to(&mut path, at));
        Looking { at, widen, path, answers: self.silence_means_something(subject) }
    }

    /// What is known of all services over a path.
    fn of_path<'a>(&'a self, path: &'a Path) -> impl Iterator<Item = &'a SubjectState> {
        /// Before every service's name.
        static FIRST: LazyLock<Arc<str>> = LazyLock::new(|| "".into());
        let first = Subject { path: path.clone(), service: FIRST.clone(), role: Role::Client };
        self.subjects
            .range(first..)
            .take_while(move |(subject, _)| subject.path == *path)
            .map(|(_, state)| state)
    }

    fn tell(
        &mut self,
        seen: &SubjectTick,
        (looking, around): (&Looking, &Surroundings),
        news: News,
        late: bool,
        transitions: &mut Vec<Transition>,
    ) {
        let Some(state) = self.subjects.get(&seen.subject) else { return };
        let role = seen.subject.role;
        let verdicts: Vec<_> = state.verdicts(&self.settings, role, seen, (looking, around), news).collect();
        for (verdict, life) in verdicts {
            let target = Target::Subject(seen.subject.clone());
            self.settle(looking.at, target, verdict, &life, late, transitions);
        }
    }

    fn surroundings(&self, at: Duration) -> Surroundings {
        let mut active = [BTreeSet::new(), BTreeSet::new()];
        let mut stalling = [BTreeSet::new(), BTreeSet::new()];
        for (subject, state) in &self.subjects {
            if state.is_active(at) {
                active[subject.role as usize].insert(&subject.path);
            }
            if state.stalls() {
                stalling[subject.role as usize].insert(&subject.path);
            }
        }
        Surroundings {
            host_drops: self.conditions.is_raised(ConditionName::HostDrops),
            active_paths: active.map(|paths| paths.len()),
            stalling_paths: stalling.map(|paths| paths.len()),
        }
    }

    /// Paths that lately used a service of this node.
    pub(super) fn paths_of_service(&self, service: &Arc<str>, at: Duration) -> BTreeSet<&Path> {
        let used = |(subject, state): &(&Subject, &SubjectState)| {
            subject.role == Role::Server && subject.service == *service && state.is_active(at)
        };
        self.subjects.iter().filter(used).map(|(subject, _)| &subject.path).collect()
    }

    fn silence_means_something(&self, subject: &Subject) -> bool {
        if let Some(answers) = self.declared.get(&subject.service).and_then(|declared| declared.answers) {
            return answers;
        }
        let key = (subject.service.clone(), subject.role);
        self.answers.get(&key).is_some_and(|answers| *answers >= KNOWN_TO_ANSWER)
    }

    fn forget_subjects(&mut self, at: Duration) {
        if at.saturating_sub(self.forgot_at) >= FORGET_EVERY {
            self.forgot_at = at;
            let settings = self.settings;
            let within = if self.subjects.len() > CROWD { FORGET_IN_CROWD } else { FORGET };
            self.subjects.retain(|_, state| !state.is_forgotten(&settings, at, within));
            if self.answers.len() > CROWD {
                // A client of ever new ports, a scanner say: of a service that nobody speaks to it need not be known any more.
                let spoken_to: BTreeSet<_> =
                    self.subjects.keys().map(|subject| (subject.service.clone(), subject.role)).collect();
                self.answers.retain(|service, _| spoken_to.contains(service));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::{health::Settings, model::SubjectTick};

    #[test]
    fn ever_new_subjects_do_not_pile_up() {
        const EACH_SECOND: usize = 40;
        let mut judge = Judge::new(Settings::default(), BTreeMap::new());
        let mut most = (0, 0);
        for second in 0..1200 {
            let subject = |i: usize| {
                let number = second * EACH_SECOND + i;
                let path = Path { peer: format!("peer-{number}").into(), address: None };
                Subject { path, service: format!("tcp/{number}").into(), role: Role::Client }
            };
            let mut counts = Counts::default();
            counts.first_byte.record(Duration::from_millis(5));
            let tick =
                |i| SubjectTick { subject: subject(i), counts: counts.clone(), pending: Pending::default() };
            let subjects = (0..EACH_SECOND).map(tick).collect();
            let at = Duration::from_secs(second as u64);
            judge.observe(&Tick { at, elapsed: Duration::from_secs(1), subjects, ..Tick::default() });
            most = (most.0.max(judge.subjects.len()), most.1.max(judge.answers.len()));
        }
        let lately = EACH_SECOND * (FORGET_IN_CROWD + FORGET_EVERY).as_secs() as usize;
        assert!(most.0 > CROWD && most.0 <= lately + EACH_SECOND && most.1 <= most.0, "{most:?} {lately}");
    }
}
