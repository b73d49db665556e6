//! Values for the part of the catalog that is about the agent itself.

use super::{
    catalog::{Id, attribute as a},
    points::{Known, Point, Value, text},
};
use crate::model::status::MapStatus;

impl Known<'_> {
    /// The points of one metric of the agent itself.
    pub(super) fn agent(&self, id: Id) -> Vec<Point> {
        match id {
            Id::MapUsage => self.maps(|map| Value::Level(map.used as i64)),
            Id::MapLimit => self.maps(|map| Value::Level(map.limit as i64)),
            Id::MapEvicted => self.maps(|map| Value::Count(map.evicted)),
            Id::ProgramTime => self.program_times(|nanoseconds, _| Value::Seconds(nanoseconds as f64 * 1e-9)),
            Id::ProgramRun => self.program_times(|_, runs| Value::Count(runs)),
            Id::ProgramAttached => {
                let programs = self.agent.programs.iter();
                let point = |(name, attached): &(&str, bool)| {
                    self.point(vec![(a::PROGRAM, text(name))], Value::Level(i64::from(*attached)))
                };
                programs.map(point).collect()
            }
            Id::EventLost => vec![self.point(Vec::new(), Value::Count(self.agent.events_lost))],
            Id::SeriesFolded => vec![self.point(Vec::new(), Value::Count(self.aggregate.folded()))],
            Id::ExportDropped => vec![self.point(Vec::new(), Value::Count(self.agent.export_dropped))],
            Id::PodCount => vec![self.point(Vec::new(), Value::Level(self.agent.pods as i64))],
            Id::PodFolded => vec![self.point(Vec::new(), Value::Count(self.agent.pods_folded))],
            Id::AttributionFailed => {
                let point =
                    |(source, n): &(&str, u64)| self.point(vec![(a::SOURCE, text(source))], Value::Count(*n));
                self.agent.attribution_failed.iter().flatten().map(point).collect()
            }
            Id::Coverage => {
                let coverage = self.agent.coverage.iter();
                coverage
                    .map(|(s, share)| self.point(vec![(a::SIGNAL, text(s))], Value::Gauge(*share)))
                    .collect()
            }
            _ => Vec::new(),
        }
    }

    fn maps(&self, value: impl Fn(&MapStatus) -> Value) -> Vec<Point> {
        let point = |map: &MapStatus| self.point(vec![(a::MAP, text(&map.name))], value(map));
        self.agent.maps.iter().map(point).collect()
    }

    fn program_times(&self, value: impl Fn(u64, u64) -> Value) -> Vec<Point> {
        let point = |(program, nanoseconds, runs): &(&str, u64, u64)| {
            self.point(vec![(a::PROGRAM, text(program))], value(*nanoseconds, *runs))
        };
        self.agent.program_times.iter().map(point).collect()
    }
}
