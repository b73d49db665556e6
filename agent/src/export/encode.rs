//! From points to OTLP messages, split into requests of bounded size.

use graylag_ebpf::bucket::{OFFSET, SCALE};
use opentelemetry_proto::tonic::{
    collector::metrics::v1::ExportMetricsServiceRequest,
    common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value},
    metrics::v1::{
        AggregationTemporality, DataPointFlags, ExponentialHistogram, ExponentialHistogramDataPoint, Gauge,
        Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum,
        exponential_histogram_data_point::Buckets, metric::Data, number_data_point,
    },
    resource::v1::Resource,
};

use crate::telemetry::{
    AttributeValue, Attributes, Point, Value,
    catalog::{Id, Kind},
};

/// Points in one request: what collectors take by default is 4 MiB, a point is well below 1 KiB.
const MOST_POINTS: usize = 2000;

/// The scope of everything that graylag says.
pub fn scope() -> InstrumentationScope {
    InstrumentationScope {
        name: "graylag".into(),
        version: env!("CARGO_PKG_VERSION").into(),
        ..InstrumentationScope::default()
    }
}

/// Collects metrics into requests.
#[derive(Default)]
pub struct Packer {
    resource: Resource,
    metrics: Vec<Metric>,
    /// What others said before, in the same request.
    before: Vec<ResourceMetrics>,
    points: usize,
}

/// A request, and how many points are in it.
pub struct Packed {
    /// The request.
    pub request: ExportMetricsServiceRequest,
    /// Its points.
    pub points: u64,
}

impl Packer {
    /// What is added from now on is said by this resource.
    pub fn speak_for(&mut self, resource: Resource) {
        self.close();
        self.resource = resource;
    }

    fn close(&mut self) {
        let metrics = std::mem::take(&mut self.metrics);
        if metrics.is_empty() {
            return;
        }
        self.before.push(ResourceMetrics {
            resource: Some(self.resource.clone()),
            scope_metrics: vec![ScopeMetrics { scope: Some(scope()), metrics, schema_url: String::new() }],
            schema_url: String::new(),
        });
    }

    /// Adds the points of a metric; returns the requests that are full. `now` is the time of the points and `unix` turns
    /// the ticks' clock into it, both nanoseconds since the Unix epoch.
    pub fn add(
        &mut self,
        id: Id,
        mut points: Vec<Point>,
        now: u64,
        unix: &dyn Fn(&Point) -> u64,
    ) -> Vec<Packed> {
        let mut full = Vec::new();
        while !points.is_empty() {
            let room = MOST_POINTS - self.points;
            let rest = if points.len() > room { points.split_off(room) } else { Vec::new() };
            self.points += points.len();
            self.metrics.push(metric(id, points, now, unix));
            points = rest;
            if self.points == MOST_POINTS {
                full.extend(self.finish());
            }
        }
        full
    }

    /// What is left.
    pub fn finish(&mut self) -> Option<Packed> {
        self.close();
        let points = std::mem::take(&mut self.points) as u64;
        let resource_metrics = std::mem::take(&mut self.before);
        (points > 0).then_some(Packed { points, request: ExportMetricsServiceRequest { resource_metrics } })
    }
}

fn metric(id: Id, points: Vec<Point>, now: u64, unix: &dyn Fn(&Point) -> u64) -> Metric {
    let declared = id.metric();
    let cumulative = AggregationTemporality::Cumulative as i32;
    let numbers =
        |points: Vec<Point>| points.into_iter().map(|p| number(unix(&p).min(now), p, now)).collect();
    let data = match declared.kind {
        Kind::Counter => Data::Sum(Sum {
            data_points: numbers(points),
            aggregation_temporality: cumulative,
            is_monotonic: true,
        }),
        Kind::UpDownCounter => Data::Sum(Sum {
            data_points: numbers(points),
            aggregation_temporality: cumulative,
            is_monotonic: false,
        }),
        // A gauge has no start.
        Kind::Gauge => {
            Data::Gauge(Gauge { data_points: points.into_iter().map(|p| number(0, p, now)).collect() })
        }
        Kind::ExponentialHistogram => Data::ExponentialHistogram(ExponentialHistogram {
            data_points: points.into_iter().map(|p| histogram(unix(&p).min(now), p, now)).collect(),
            aggregation_temporality: cumulative,
        }),
    };
    Metric {
        name: declared.name.into(),
        description: declared.description.into(),
        unit: declared.unit.into(),
        metadata: Vec::new(),
        data: Some(data),
    }
}

fn number(start: u64, point: Point, now: u64) -> NumberDataPoint {
    let value = match point.value {
        Value::Count(n) => Some(number_data_point::Value::AsInt(i64::try_from(n).unwrap_or(i64::MAX))),
        Value::Level(n) => Some(number_data_point::Value::AsInt(n)),
        Value::Seconds(v) | Value::Gauge(v) => Some(number_data_point::Value::AsDouble(v)),
        Value::Distribution(_) | Value::Lengths(_) | Value::Ended => None,
    };
    NumberDataPoint {
        attributes: attributes(point.attributes),
        start_time_unix_nano: start,
        time_unix_nano: now,
        flags: flags(value.is_none()),
        value,
        exemplars: Vec::new(),
    }
}

fn histogram(start: u64, point: Point, now: u64) -> ExponentialHistogramDataPoint {
    let empty = ExponentialHistogramDataPoint {
        attributes: attributes(point.attributes),
        start_time_unix_nano: start,
        time_unix_nano: now,
        scale: SCALE,
        ..ExponentialHistogramDataPoint::default()
    };
    match point.value {
        Value::Distribution(durations) => ExponentialHistogramDataPoint {
            count: durations.count(),
            sum: Some(durations.sum().as_secs_f64()),
            positive: Some(buckets(&durations.counts(), OFFSET)),
            ..empty
        },
        Value::Lengths(lengths) => ExponentialHistogramDataPoint {
            count: lengths.counts.iter().sum(),
            sum: Some(lengths.sum as f64),
            scale: 0,
            positive: Some(buckets(&lengths.counts, -1)),
            ..empty
        },
        _ => ExponentialHistogramDataPoint { flags: flags(true), ..empty },
    }
}

/// From the first bucket that is not empty to the last; the first of all has the index `offset`.
fn buckets(counts: &[u64], offset: i32) -> Buckets {
    let Some(first) = counts.iter().position(|n| *n > 0) else { return Buckets::default() };
    let last = counts.iter().rposition(|n| *n > 0).unwrap_or(first);
    Buckets { offset: first as i32 + offset, bucket_counts: counts[first..=last].to_vec() }
}

fn flags(ended: bool) -> u32 {
    if ended { DataPointFlags::NoRecordedValueMask as u32 } else { DataPointFlags::DoNotUse as u32 }
}

/// Attributes as OTLP has them.
pub fn attributes(attributes: Attributes) -> Vec<KeyValue> {
    let value = |value| match value {
        AttributeValue::Text(text) => any_value::Value::StringValue(text),
        AttributeValue::Flag(flag) => any_value::Value::BoolValue(flag),
    };
    attributes.into_iter().map(|(name, v)| attribute(name, value(v))).collect()
}

/// One attribute.
pub fn attribute(name: &str, value: any_value::Value) -> KeyValue {
    KeyValue { key: name.into(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        model::Distribution,
        telemetry::{Lengths, catalog::attribute as a},
    };

    const NOW: u64 = 5_000;

    fn point(value: Value) -> Point {
        let attributes =
            vec![(a::PEER, AttributeValue::Text("p".into())), (a::STALLED, AttributeValue::Flag(true))];
        Point { attributes, since: Duration::from_nanos(1_000), value }
    }

    fn packed(id: Id, values: Vec<Value>) -> Vec<Packed> {
        let mut packer = Packer::default();
        let points = values.into_iter().map(point).collect();
        let mut all = packer.add(id, points, NOW, &|p| p.since.as_nanos() as u64);
        all.extend(packer.finish());
        all
    }

    fn metrics(packed: &Packed) -> &[Metric] {
        &packed.request.resource_metrics[0].scope_metrics[0].metrics
    }

    #[test]
    fn requests_are_split_and_nothing_is_lost() {
        let all = packed(Id::HandshakeCount, (0..4_500).map(Value::Count).collect());
        assert_eq!(all.iter().map(|p| p.points).collect::<Vec<_>>(), [2000, 2000, 500]);
        let mut seen = Vec::new();
        for request in &all {
            for metric in metrics(request) {
                let Some(Data::Sum(sum)) = &metric.data else { panic!("{metric:?}") };
                assert!(sum.is_monotonic && sum.aggregation_temporality == 2);
                seen.extend(sum.data_points.iter().map(|p| p.value));
            }
        }
        let expected: Vec<_> = (0..4_500).map(|n| Some(number_data_point::Value::AsInt(n))).collect();
        assert_eq!(seen, expected);
    }

    #[test]
    fn each_resource_speaks_for_itself_in_one_request() {
        let mut packer = Packer::default();
        let named = |name: &str| Resource {
            attributes: vec![attribute("k8s.pod.uid", any_value::Value::StringValue(name.into()))],
            ..Resource::default()
        };
        for (name, points) in [("a", 1500), ("b", 0), ("c", 1500)] {
            packer.speak_for(named(name));
            let points = (0..points).map(|n| point(Value::Count(n))).collect();
            let full = packer.add(Id::HandshakeCount, points, NOW, &|_| 0);
            let said = |packed: &Packed| {
                let all = packed.request.resource_metrics.iter();
                all.map(|of| of.resource.clone().unwrap()).collect::<Vec<_>>()
            };
            let full: Vec<_> = full.iter().map(|packed| (packed.points, said(packed))).collect();
            let expected = if name == "c" { vec![(2000, vec![named("a"), named("c")])] } else { Vec::new() };
            assert_eq!(full, expected);
        }
        let rest = packer.finish().unwrap();
        assert_eq!(
            (rest.points, rest.request.resource_metrics[0].resource.clone()),
            (1000, Some(named("c")))
        );
        assert!(packer.finish().is_none());
    }

    #[test]
    fn a_point_has_its_start_and_a_gauge_has_none() {
        let start = |id, value| {
            let all = packed(id, vec![value]);
            match metrics(&all[0])[0].data.clone() {
                Some(Data::Sum(sum)) => sum.data_points[0].clone(),
                Some(Data::Gauge(gauge)) => gauge.data_points[0].clone(),
                other => panic!("{other:?}"),
            }
        };
        let counter = start(Id::HandshakeCount, Value::Count(1));
        assert_eq!((counter.start_time_unix_nano, counter.time_unix_nano), (1_000, NOW));
        assert_eq!(start(Id::Coverage, Value::Gauge(1.0)).start_time_unix_nano, 0);
    }

    #[test]
    fn an_ended_series_says_so() {
        let all = packed(Id::HandshakeCount, vec![Value::Ended]);
        let Some(Data::Sum(sum)) = &metrics(&all[0])[0].data else { panic!() };
        assert_eq!((sum.data_points[0].flags, &sum.data_points[0].value), (1, &None));
        let all = packed(Id::Rtt, vec![Value::Ended]);
        let Some(Data::ExponentialHistogram(histogram)) = &metrics(&all[0])[0].data else { panic!() };
        assert_eq!((histogram.data_points[0].flags, histogram.data_points[0].sum), (1, None));
    }

    #[test]
    fn buckets_keep_their_bounds() {
        let mut distribution = Distribution::default();
        // One second is the upper bound of bucket -1 of any scale: base^0 = 1.
        distribution.record(Duration::from_secs(1));
        distribution.record(Duration::from_millis(1_001));
        let all = packed(Id::Rtt, vec![Value::Distribution(distribution)]);
        let Some(Data::ExponentialHistogram(histogram)) = &metrics(&all[0])[0].data else { panic!() };
        let point = &histogram.data_points[0];
        assert_eq!(point.positive, Some(Buckets { offset: -1, bucket_counts: vec![1, 1] }));
        assert_eq!((point.count, point.scale, point.sum), (2, 2, Some(2.001)));
        // One burst of one, three of three or four.
        let lengths = Lengths { sum: 12, counts: vec![1, 0, 3, 0] };
        let all = packed(Id::RtpLossBurst, vec![Value::Lengths(lengths)]);
        let Some(Data::ExponentialHistogram(histogram)) = &metrics(&all[0])[0].data else { panic!() };
        let point = &histogram.data_points[0];
        assert_eq!(point.positive, Some(Buckets { offset: -1, bucket_counts: vec![1, 0, 3] }));
        assert_eq!((point.count, point.scale, point.sum), (4, 0, Some(12.0)));
    }
}
