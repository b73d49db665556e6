//! What leaves over OTLP, as a stranger decodes it (tests/collector), with a collector that is well, away, slow, refusing
//! and back.
#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests are tests

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    thread,
    time::Duration,
};

use graylag::telemetry::catalog::{Id, Kind};
use graylag_tests::{
    agent::{Agent, Setup},
    eventually,
    net::{Pair, address},
    nft::Nft,
    otlp::{Collector, Point, Protocol, attributes, metrics},
    traffic::{Echo, ask, begin, connect},
};

const PORT: u16 = 8080;
const COLLECTOR: u16 = 14317;
const SOON: Duration = Duration::from_secs(40);
const SERVERS: [IpAddr; 2] = [address::SERVER_V4, address::SERVER_V6];

/// An agent on the client, which exports to the client's own loopback every half second.
fn setup(pair: &Pair, protocol: Protocol) -> Setup {
    Setup::watching(&[&pair.client])
        .inside(&pair.client)
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", &format!("http://127.0.0.1:{COLLECTOR}"))
        .env("OTEL_EXPORTER_OTLP_PROTOCOL", protocol.name())
        .env("OTEL_METRIC_EXPORT_INTERVAL", "500")
}

/// `n` connections to each address with three requests each.
fn work(pair: &Pair, n: usize) {
    for server in SERVERS {
        let _echo = Echo::start(&pair.server, server, PORT);
        for _ in 0..n {
            let mut stream = connect(&pair.client, server, PORT).unwrap();
            (0..3).for_each(|_| ask(&mut stream, 100).unwrap());
        }
    }
}

fn established(points: &[Point]) -> BTreeMap<String, u64> {
    let mut latest = BTreeMap::new();
    for point in points {
        // The agent's own connections to the collector are connections of this host as well.
        let is = |name: &str, value: &str| point.attributes.get(name).is_some_and(|found| found == value);
        if is("graylag.service.name", "tcp/8080") && is("graylag.outcome", "established") {
            latest.insert(point.attributes["graylag.peer.name"].clone(), point.integer("as_int"));
        }
    }
    latest
}

fn each(n: u64) -> BTreeMap<String, u64> {
    SERVERS.iter().map(|server| (server.to_string(), n)).collect()
}

/// Makes handshakes hang until the agent says so, then lets them be.
fn stall(pair: &Pair, agent: &Agent) {
    let nft = Nft::new(&pair.server);
    nft.rule("syn", "tcp flags syn / syn,ack", "drop");
    let sockets: Vec<_> = (0..20).map(|_| begin(&pair.client, address::SERVER_V4, PORT)).collect();
    eventually("the stall is found", SOON, || (!agent.conditions().is_empty()).then_some(()));
    drop(sockets);
}

#[test]
fn metrics_are_the_catalogs_and_count_what_happened() {
    for protocol in Protocol::ALL {
        let pair = Pair::new();
        let collector = Collector::start(&pair.client, protocol, COLLECTOR);
        let agent = setup(&pair, protocol)
            .env("OTEL_EXPORTER_OTLP_HEADERS", "x-team=media%20core")
            .env("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")
            .env("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
            .config("[node]\nname = \"media-3\"")
            .start();
        work(&pair, 10);
        eventually("all handshakes are exported", SOON, || {
            (established(&collector.points("graylag.tcp.handshake.count")) == each(10)).then_some(())
        });
        drop(agent);

        let requests = collector.taken("metrics");
        for seen in &requests {
            assert_eq!(seen.headers.get("x-team").map(String::as_str), Some("media core"));
            assert!(seen.headers["user-agent"].starts_with("graylag/"), "{:?}", seen.headers);
            assert!(protocol == Protocol::Grpc || seen.encoding == "gzip");
            let resource = attributes(&seen.body["resource_metrics"][0]["resource"]);
            for (name, value) in [
                ("service.name", "graylag"),
                ("host.name", "media-3"),
                ("deployment.environment.name", "test"),
            ] {
                assert_eq!(resource.get(name).map(String::as_str), Some(value), "{resource:?}");
            }
            follows_the_catalog(&seen.body);
        }
        let names: BTreeSet<&str> = requests
            .iter()
            .flat_map(|seen| metrics(&seen.body))
            .filter_map(|(m, _)| m["name"].as_str())
            .collect();
        for expected in [
            "graylag.tcp.handshake.duration",
            "graylag.tcp.first_byte.duration",
            "graylag.tcp.response.duration",
            "graylag.tcp.segment.count",
            "graylag.tcp.rtt",
            "graylag.agent.coverage",
            "graylag.agent.program.attached",
        ] {
            assert!(names.contains(expected), "{expected} is missing among {names:?}");
        }
        starts_stand_still(&collector);
        histograms_are_whole(&collector);
    }
}

/// Name, unit, kind, temporality and attributes as declared.
fn follows_the_catalog(body: &serde_json::Value) {
    for (metric, kind) in metrics(body) {
        let name = metric["name"].as_str().unwrap();
        let id = Id::ALL.iter().find(|id| id.metric().name == name);
        let declared = id.unwrap_or_else(|| panic!("{name} is not in the catalog")).metric();
        assert_eq!(metric["unit"].as_str(), Some(declared.unit), "{name}");
        let expected = match declared.kind {
            Kind::Counter | Kind::UpDownCounter => "sum",
            Kind::Gauge => "gauge",
            Kind::ExponentialHistogram => "exponential_histogram",
        };
        assert_eq!(kind, expected, "{name}");
        if kind != "gauge" {
            assert_eq!(
                metric[kind]["aggregation_temporality"], "AGGREGATION_TEMPORALITY_CUMULATIVE",
                "{name}"
            );
        }
        let monotonic = metric[kind]["is_monotonic"].as_bool().unwrap_or(false);
        assert_eq!(monotonic, declared.kind == Kind::Counter, "{name}");
        for point in metric[kind]["data_points"].as_array().unwrap() {
            for attribute in attributes(point).keys() {
                assert!(declared.attributes.contains(&attribute.as_str()), "{name} has {attribute}");
            }
        }
    }
}

/// A series' start never moves, lies before its points, and its sums never fall.
fn starts_stand_still(collector: &Collector) {
    let mut last: BTreeMap<BTreeMap<String, String>, (u64, u64, u64)> = BTreeMap::new();
    for point in collector.points("graylag.tcp.handshake.count") {
        let now = (point.integer("start_time_unix_nano"), point.time(), point.integer("as_int"));
        assert!(now.0 > 0 && now.0 < now.1, "{now:?}");
        if let Some(before) = last.insert(point.attributes.clone(), now) {
            assert!(before.0 == now.0 && before.1 < now.1 && before.2 <= now.2, "{before:?} then {now:?}");
        }
    }
}

/// Counts of buckets add up to the count, and the buckets hold the sum.
fn histograms_are_whole(collector: &Collector) {
    let points = collector.points("graylag.tcp.handshake.duration");
    assert!(!points.is_empty());
    for point in points {
        let buckets = &point.value["positive"];
        let counts = buckets["bucket_counts"].as_array().cloned().unwrap_or_default();
        let counts: Vec<u64> = counts.iter().map(|n| n.as_str().unwrap().parse().unwrap()).collect();
        assert_eq!(counts.iter().sum::<u64>(), point.integer("count"));
        let base = 2f64.powf(2f64.powi(-(point.value["scale"].as_i64().unwrap() as i32)));
        let offset = buckets["offset"].as_i64().unwrap_or(0);
        let bound = |i: usize, more: i64| base.powf((offset + i as i64 + more) as f64);
        let (low, high) = counts.iter().enumerate().fold((0.0, 0.0), |(low, high), (i, n)| {
            (low + *n as f64 * bound(i, 0), high + *n as f64 * bound(i, 1))
        });
        let sum = point.value["sum"].as_f64().unwrap();
        assert!(low <= sum * 1.000_001 && sum <= high * 1.000_001, "{low} {sum} {high}");
    }
}

#[test]
fn a_transition_is_an_event_at_once() {
    for protocol in Protocol::ALL {
        let pair = Pair::new();
        let collector = Collector::start(&pair.client, protocol, COLLECTOR);
        // The interval of metrics is nothing that an event waits for.
        let agent = setup(&pair, protocol).env("OTEL_METRIC_EXPORT_INTERVAL", "3600000").start();
        stall(&pair, &agent);
        let (_, attributes, record) = eventually("the event arrives", SOON, || {
            collector.events().into_iter().find(|(name, _, _)| name == "graylag.condition.changed")
        });
        for (name, value) in [
            ("graylag.condition.name", "handshake_stall"),
            ("graylag.peer.name", "10.77.0.1"),
            ("graylag.service.name", "tcp/8080"),
            ("graylag.role", "client"),
            ("graylag.condition.from", "cleared"),
            ("graylag.condition.to", "raised"),
            ("graylag.sequence", "1"),
        ] {
            assert_eq!(attributes.get(name).map(String::as_str), Some(value), "{attributes:?}");
        }
        let number = |name: &str| attributes[name].parse::<f64>().unwrap();
        assert!(number("graylag.evidence.bad") <= number("graylag.evidence.n"));
        assert!(number("graylag.evidence.low") <= number("graylag.evidence.high"));
        assert_eq!(record["severity_number"], "SEVERITY_NUMBER_WARN");
        assert!(
            record["body"]["string_value"].as_str().unwrap().starts_with("handshake_stall raised: 10.77.0.1")
        );
        assert!(collector.taken("metrics").is_empty());
        // A clean end sends what there is.
        drop(agent);
        eventually("the last round", SOON, || {
            let raised = collector.points("graylag.condition");
            raised.iter().any(|p| p.integer("as_int") == 1).then_some(())
        });
    }
}

#[test]
fn counts_are_whole_after_a_collector_that_was_away() {
    for protocol in Protocol::ALL {
        let pair = Pair::new();
        let agent = setup(&pair, protocol).env("OTEL_EXPORTER_OTLP_TIMEOUT", "400").start();
        work(&pair, 5);
        stall(&pair, &agent);
        let agent_status = eventually("the failure is said", SOON, || {
            let status = agent.status().agent;
            (status.export_dropped > 0 && status.export_error.is_some()).then_some(status)
        });
        assert_eq!(agent_status.export_to.as_deref(), Some(format!("http://127.0.0.1:{COLLECTOR}").as_str()));
        assert_eq!(agent.get("/healthz").unwrap().0, 200);

        let mut collector = Collector::start(&pair.client, protocol, COLLECTOR);
        eventually("counts arrive whole, the event with them", SOON, || {
            let counted = established(&collector.points("graylag.tcp.handshake.count"));
            let told = collector.events().iter().any(|(name, _, _)| name == "graylag.condition.changed");
            (told && counted == each(5)).then_some(())
        });
        eventually("the failure is over", SOON, || agent.status().agent.export_error.is_none().then_some(()));

        // Refused for now: retried; then again away, then back.
        collector.tell("retry");
        Nft::new(&pair.server).heal();
        work(&pair, 5);
        eventually("a refusal is met", SOON, || {
            collector.seen().iter().any(|seen| seen.mode == "retry" && seen.signal == "metrics").then_some(())
        });
        drop(collector);
        work(&pair, 5);
        let collector = Collector::start(&pair.client, protocol, COLLECTOR);
        eventually("counts arrive whole", SOON, || {
            (established(&collector.points("graylag.tcp.handshake.count")) == each(15)).then_some(())
        });
        starts_stand_still(&collector);
    }
}

#[test]
fn a_slow_collector_delays_nobody_and_a_refusal_is_final() {
    for protocol in Protocol::ALL {
        let pair = Pair::new();
        let mut collector = Collector::start(&pair.client, protocol, COLLECTOR);
        collector.tell("slow");
        let agent = setup(&pair, protocol).env("OTEL_EXPORTER_OTLP_TIMEOUT", "1000").start();
        eventually("it is slow", SOON, || {
            agent.status().agent.export_error.filter(|error| error.contains("no answer within 1s"))
        });
        // Meanwhile looks go on, and what they see is served.
        work(&pair, 4);
        let labels = [("graylag.service.name", "tcp/8080"), ("graylag.outcome", "established")];
        agent.until(SOON, &8.0, |s| s.sum("graylag.tcp.handshake.count", &labels));
        assert_eq!(agent.get("/healthz").unwrap().0, 200);

        collector.tell("refuse");
        eventually("it is refused", SOON, || {
            agent.status().agent.export_error.filter(|error| error.contains("as told"))
        });
        let refused =
            |collector: &Collector| collector.seen().iter().filter(|seen| seen.mode == "refuse").count();
        let (before, dropped) = (refused(&collector), agent.status().agent.export_dropped);
        thread::sleep(Duration::from_secs(3));
        let rounds = refused(&collector) - before;
        assert!(
            (1..=7).contains(&rounds),
            "once in each interval of half a second, not again and again: {rounds}"
        );
        assert!(agent.status().agent.export_dropped > dropped);

        collector.tell("partial");
        eventually("what was rejected is said", SOON, || {
            agent.status().agent.export_error.filter(|error| error == "1 points rejected: one too many")
        });
        collector.tell("ok");
        eventually("all is well", SOON, || agent.status().agent.export_error.is_none().then_some(()));
    }
}

#[test]
fn what_is_missing_is_told() {
    let pair = Pair::new();
    let collector = Collector::start(&pair.client, Protocol::Http, COLLECTOR);
    let _agent = setup(&pair, Protocol::Http).config("[kernel]\ndisable = [\"kfree_skb\"]").start();
    let (_, attributes, record) = eventually("the event arrives", SOON, || {
        collector.events().into_iter().find(|(name, _, _)| name == "graylag.agent.degraded")
    });
    assert_eq!(attributes["graylag.signal"], "drops");
    assert_eq!(attributes["graylag.reason"], "kfree_skb: disabled in the configuration");
    assert_eq!(record["body"]["string_value"], "drops: kfree_skb: disabled in the configuration");
}

#[test]
fn a_variable_that_cannot_be_used_is_named() {
    let pair = Pair::new();
    for (name, value, said) in [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector", "OTEL_EXPORTER_OTLP_ENDPOINT: `collector` is no URL"),
        (
            "OTEL_EXPORTER_OTLP_PROTOCOL",
            "http/json",
            "OTEL_EXPORTER_OTLP_PROTOCOL: `http/json` is not known here; use grpc",
        ),
        (
            "OTEL_EXPORTER_OTLP_CERTIFICATE",
            "/nowhere.pem",
            "OTEL_EXPORTER_OTLP_CERTIFICATE: `/nowhere.pem` cannot be read",
        ),
        (
            "OTEL_METRIC_EXPORT_INTERVAL",
            "1m",
            "OTEL_METRIC_EXPORT_INTERVAL: `1m` is no number of milliseconds",
        ),
    ] {
        let ended = setup(&pair, Protocol::Http).env(name, value).refused();
        assert_eq!(ended.code, Some(2), "{ended:?}");
        assert!(ended.err.contains(said), "{}", ended.err);
    }
}
