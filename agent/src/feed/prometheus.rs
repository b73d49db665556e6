//! The catalog as Prometheus text (exposition format 0.0.4), with the names that the `OpenTelemetry` specification gives
//! ("Prometheus and `OpenMetrics` Compatibility"): dots become underscores, units and `_total` are appended.

use std::fmt::Write;

use graylag_ebpf::bucket::{OFFSET, SCALE};

use crate::{
    model::Distribution,
    telemetry::{
        AttributeValue, Attributes, Lengths, Point, Value,
        catalog::{Kind, Metric},
    },
};

/// Bounds of classic histograms: powers of four of a second, 61 µs to 64 s. A subset of the exponential bounds, so
/// that nothing is interpolated.
const BOUNDS: std::ops::RangeInclusive<i32> = -7..=3;

/// Appends one metric; nothing where it has no points.
pub fn write(text: &mut String, metric: &Metric, points: &[Point]) {
    let points: Vec<&Point> = points.iter().filter(|point| !matches!(point.value, Value::Ended)).collect();
    if points.is_empty() {
        return;
    }
    let name = name(metric);
    let kind = match metric.kind {
        Kind::Counter => "counter",
        Kind::UpDownCounter | Kind::Gauge => "gauge",
        Kind::ExponentialHistogram => "histogram",
    };
    let _ = writeln!(text, "# HELP {name} {}\n# TYPE {name} {kind}", metric.description);
    for point in points {
        match &point.value {
            Value::Count(n) => line(text, &name, &point.attributes, None, *n),
            Value::Seconds(s) | Value::Gauge(s) => line(text, &name, &point.attributes, None, *s),
            Value::Level(n) => line(text, &name, &point.attributes, None, *n),
            Value::Distribution(distribution) => histogram(text, &name, &point.attributes, distribution),
            Value::Lengths(lengths) => self::lengths(text, &name, &point.attributes, lengths),
            Value::Ended => {}
        }
    }
}

fn histogram(text: &mut String, name: &str, attributes: &Attributes, distribution: &Distribution) {
    let counts = distribution.counts();
    let bucket = format!("{name}_bucket");
    for exponent in BOUNDS {
        // Bucket `i` ends at 2^((i + 1 + OFFSET) / 2^SCALE); the bound is 2^(2 · exponent).
        let below = usize::try_from(((2 * exponent) << SCALE) - OFFSET).unwrap_or(0).min(counts.len());
        let sum: u64 = counts[..below].iter().sum();
        line(text, &bucket, attributes, Some(&format!("{}", 4f64.powi(exponent))), sum);
    }
    line(text, &bucket, attributes, Some("+Inf"), distribution.count());
    line(text, &format!("{name}_sum"), attributes, None, distribution.sum().as_secs_f64());
    line(text, &format!("{name}_count"), attributes, None, distribution.count());
}

fn lengths(text: &mut String, name: &str, attributes: &Attributes, lengths: &Lengths) {
    let bucket = format!("{name}_bucket");
    let mut sum = 0;
    // The last bucket has no upper bound.
    for (i, count) in lengths.counts.iter().enumerate().take(lengths.counts.len().saturating_sub(1)) {
        sum += count;
        line(text, &bucket, attributes, Some(&(1u64 << i).to_string()), sum);
    }
    let count: u64 = lengths.counts.iter().sum();
    line(text, &bucket, attributes, Some("+Inf"), count);
    line(text, &format!("{name}_sum"), attributes, None, lengths.sum);
    line(text, &format!("{name}_count"), attributes, None, count);
}

fn line(
    text: &mut String,
    name: &str,
    attributes: &Attributes,
    bound: Option<&str>,
    value: impl std::fmt::Display,
) {
    text.push_str(name);
    let mut separator = '{';
    let mut label = |text: &mut String, key: &str, value: &str| {
        text.push(separator);
        separator = ',';
        let _ = write!(text, "{key}=\"");
        for c in value.chars() {
            match c {
                '\\' => text.push_str("\\\\"),
                '"' => text.push_str("\\\""),
                '\n' => text.push_str("\\n"),
                c => text.push(c),
            }
        }
        text.push('"');
    };
    for (key, value) in attributes {
        let key = key.replace('.', "_");
        match value {
            AttributeValue::Text(value) => label(text, &key, value),
            AttributeValue::Flag(value) => label(text, &key, if *value { "true" } else { "false" }),
        }
    }
    if let Some(bound) = bound {
        label(text, "le", bound);
    }
    if separator == ',' {
        text.push('}');
    }
    let _ = writeln!(text, " {value}");
}

/// What a metric is called there.
pub fn name(metric: &Metric) -> String {
    let mut name = metric.name.replace('.', "_");
    match (metric.unit, metric.kind) {
        ("s", _) => name.push_str("_seconds"),
        // Not twice: collectors do not say it again either.
        ("1", Kind::Gauge) if !name.ends_with("_ratio") => name.push_str("_ratio"),
        _ => {}
    }
    if metric.kind == Kind::Counter {
        name.push_str("_total");
    }
    name
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::telemetry::catalog::{Id, attribute};

    fn point(value: Value) -> Point {
        let attributes = vec![
            (attribute::PEER, AttributeValue::Text("a \"b\"\\\n".into())),
            (attribute::STALLED, AttributeValue::Flag(true)),
        ];
        Point { attributes, since: Duration::ZERO, value }
    }

    #[test]
    fn lines_are_as_the_format_wants_them() {
        let mut text = String::new();
        write(&mut text, Id::HandshakeCount.metric(), &[point(Value::Count(7)), point(Value::Ended)]);
        write(&mut text, Id::HandshakePending.metric(), &[point(Value::Level(2))]);
        write(&mut text, Id::Coverage.metric(), &[]);
        assert_eq!(
            text,
            "# HELP graylag_tcp_handshake_count_total Ended handshakes by outcome\n\
             # TYPE graylag_tcp_handshake_count_total counter\n\
             graylag_tcp_handshake_count_total{graylag_peer_name=\"a \\\"b\\\"\\\\\\n\",graylag_stalled=\"true\"} 7\n\
             # HELP graylag_tcp_handshake_pending Handshakes under way right now\n\
             # TYPE graylag_tcp_handshake_pending gauge\n\
             graylag_tcp_handshake_pending{graylag_peer_name=\"a \\\"b\\\"\\\\\\n\",graylag_stalled=\"true\"} 2\n"
        );
    }

    #[test]
    fn names_are_those_that_collectors_make() {
        for (id, expected) in [
            (Id::HandshakeCount, "graylag_tcp_handshake_count_total"),
            (Id::ProgramTime, "graylag_agent_program_time_seconds_total"),
            (Id::Coverage, "graylag_agent_coverage_ratio"),
            (Id::PathLossRatio, "graylag_path_loss_ratio"),
            (Id::Condition, "graylag_condition"),
        ] {
            assert_eq!(name(id.metric()), expected);
        }
    }

    #[test]
    fn classic_buckets_agree_with_the_exponential_ones() {
        let mut distribution = Distribution::default();
        for ms in [1, 1000, 1001, 5000] {
            distribution.record(Duration::from_millis(ms));
        }
        let mut text = String::new();
        let point =
            Point { attributes: Vec::new(), since: Duration::ZERO, value: Value::Distribution(distribution) };
        write(&mut text, Id::Rtt.metric(), &[point]);
        for expected in [
            "bucket{le=\"0.000244140625\"} 0",
            "bucket{le=\"0.00390625\"} 1",
            "bucket{le=\"1\"} 2",
            "bucket{le=\"4\"} 3",
            "bucket{le=\"64\"} 4",
            "bucket{le=\"+Inf\"} 4",
            "_sum 7.002",
            "_count 4",
        ] {
            assert!(
                text.contains(&format!("graylag_tcp_rtt_seconds_{}\n", expected.trim_start_matches('_'))),
                "{expected}\n{text}"
            );
        }
    }
}
