//! A collector that decodes what graylag exports with code that is not ours (tests/collector), and what it received.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use serde_json::Value;

use crate::{eventually, net::Host};

/// How a collector is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// OTLP/gRPC.
    Grpc,
    /// OTLP/HTTP with binary protobuf.
    Http,
}

impl Protocol {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Grpc, Self::Http];

    /// The value of `OTEL_EXPORTER_OTLP_PROTOCOL`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Grpc => "grpc",
            Self::Http => "http/protobuf",
        }
    }
}

/// One request that the collector saw.
#[derive(Clone, Debug)]
pub struct Seen {
    /// `metrics` or `logs`.
    pub signal: String,
    /// What the collector was told to do at the time.
    pub mode: String,
    /// Headers or metadata, names in lower case.
    pub headers: BTreeMap<String, String>,
    /// How its body was compressed; HTTP only.
    pub encoding: String,
    /// Its content, as protobuf's JSON mapping with the fields' own names: 64-bit integers are strings.
    pub body: Value,
}

/// A point of a number or a histogram.
#[derive(Clone, Debug)]
pub struct Point {
    /// Name of its metric.
    pub metric: String,
    /// Attributes as text.
    pub attributes: BTreeMap<String, String>,
    /// The point itself.
    pub value: Value,
}

impl Point {
    /// A 64-bit member, which JSON has as a string; zero where it is absent, as in protobuf.
    pub fn integer(&self, member: &str) -> u64 {
        let value = &self.value[member];
        value.as_str().map_or_else(|| value.as_u64().unwrap_or(0), |text| text.parse().expect("an integer"))
    }

    /// Its time.
    pub fn time(&self) -> u64 {
        self.integer("time_unix_nano")
    }
}

/// A running collector.
pub struct Collector {
    child: Child,
    told: ChildStdin,
    lines: Arc<Mutex<Vec<Value>>>,
}

/// Certificates that a collector uses.
#[derive(Clone, Copy)]
pub struct Certificates<'a> {
    /// Its own.
    pub certificate: &'a Path,
    /// Its key.
    pub key: &'a Path,
    /// Who signs its clients, where they must show a certificate.
    pub client_authority: Option<&'a Path>,
}

impl Collector {
    /// Listens on 127.0.0.1 of a host.
    pub fn start(host: &Host, protocol: Protocol, port: u16) -> Self {
        Self::with(host, protocol, port, None)
    }

    /// The same with TLS.
    pub fn with(host: &Host, protocol: Protocol, port: u16, tls: Option<Certificates<'_>>) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let python = root.join("../target/venv/bin/python");
        assert!(python.exists(), "{} is missing: cargo xtask setup", python.display());
        let mut command: Command = host.command(python.to_str().expect("a path"));
        command.arg(root.join("collector/collector.py"));
        command.arg(if protocol == Protocol::Grpc { "grpc" } else { "http" });
        command.args(["--port", &port.to_string()]).env("GRPC_VERBOSITY", "NONE");
        if let Some(tls) = tls {
            command.arg("--certificate").arg(tls.certificate).arg("--key").arg(tls.key);
            if let Some(authority) = tls.client_authority {
                command.arg("--client-authority").arg(authority);
            }
        }
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the collector starts");
        let (told, said) = (child.stdin.take().expect("stdin"), child.stdout.take().expect("stdout"));
        let lines = Arc::new(Mutex::new(Vec::new()));
        thread::spawn({
            let lines = lines.clone();
            move || {
                for line in BufReader::new(said).lines().map_while(Result::ok) {
                    let value: Value = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line}"));
                    lines.lock().expect("lines").push(value);
                }
            }
        });
        let collector = Self { child, told, lines };
        eventually("the collector listens", Duration::from_secs(60), || {
            collector.has_said("ready", &Value::Bool(true))
        });
        collector
    }

    fn has_said(&self, what: &str, value: &Value) -> Option<()> {
        self.lines.lock().expect("lines").iter().any(|line| line[what] == *value).then_some(())
    }

    /// Changes what it does from now on; see tests/collector.
    pub fn tell(&mut self, mode: &str) {
        let before = self.lines.lock().expect("lines").len();
        writeln!(self.told, "{mode}").expect("the collector reads");
        eventually("the collector heard", Duration::from_secs(20), || {
            self.lines.lock().expect("lines")[before..].iter().any(|line| line["told"] == mode).then_some(())
        });
    }

    /// Everything it saw so far, in order.
    pub fn seen(&self) -> Vec<Seen> {
        let lines = self.lines.lock().expect("lines");
        let seen = |line: &Value| {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            line["signal"].as_str().map(|signal| Seen {
                signal: signal.to_owned(),
                mode: text(&line["mode"]),
                headers: line["headers"]
                    .as_object()
                    .map(|all| all.iter().map(|(k, v)| (k.clone(), text(v))).collect())
                    .unwrap_or_default(),
                encoding: text(&line["encoding"]),
                body: line["body"].clone(),
            })
        };
        lines.iter().filter_map(seen).collect()
    }

    /// Requests of a signal that it took.
    pub fn taken(&self, signal: &str) -> Vec<Seen> {
        let took =
            |seen: &Seen| seen.signal == signal && matches!(seen.mode.as_str(), "ok" | "slow" | "partial");
        self.seen().into_iter().filter(took).collect()
    }

    /// All points it took of a metric, in order.
    pub fn points(&self, metric: &str) -> Vec<Point> {
        let points = self.taken("metrics").into_iter().flat_map(|seen| points(&seen.body));
        points.filter(|point| point.metric == metric).collect()
    }

    /// All points it took of a metric, in order, each with the resource that said it.
    pub fn points_by_resource(&self, metric: &str) -> Vec<(BTreeMap<String, String>, Point)> {
        let mut found = Vec::new();
        for seen in self.taken("metrics") {
            for of in list(&seen.body["resource_metrics"]) {
                let said = points(&serde_json::json!({ "resource_metrics": [of] }));
                let resource = attributes(&of["resource"]);
                let said = said.into_iter().filter(|point| point.metric == metric);
                found.extend(said.map(|point| (resource.clone(), point)));
            }
        }
        found
    }

    /// All events of a name that it took, in order: attributes of the resource that said each, and its own.
    pub fn events_by_resource(&self, name: &str) -> Vec<[BTreeMap<String, String>; 2]> {
        let mut found = Vec::new();
        for seen in self.taken("logs") {
            for of in list(&seen.body["resource_logs"]) {
                for record in list(&of["scope_logs"]).iter().flat_map(|scope| list(&scope["log_records"])) {
                    if record["event_name"] == name {
                        found.push([attributes(&of["resource"]), attributes(record)]);
                    }
                }
            }
        }
        found
    }

    /// All events it took: name, attributes, record.
    pub fn events(&self) -> Vec<(String, BTreeMap<String, String>, Value)> {
        let records = |seen: Seen| {
            let mut records = Vec::new();
            for resource in list(&seen.body["resource_logs"]) {
                for scope in list(&resource["scope_logs"]) {
                    for record in list(&scope["log_records"]) {
                        let name = record["event_name"].as_str().unwrap_or_default().to_owned();
                        records.push((name, attributes(record), record.clone()));
                    }
                }
            }
            records
        };
        self.taken("logs").into_iter().flat_map(records).collect()
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// Attributes of a resource, a point or a record, as text.
pub fn attributes(of: &Value) -> BTreeMap<String, String> {
    let text = |value: &Value| {
        let value = value.as_object().and_then(|o| o.values().next()).cloned().unwrap_or_default();
        value.as_str().map_or_else(|| value.to_string(), str::to_owned)
    };
    let pair = |a: &Value| (a["key"].as_str().unwrap_or_default().to_owned(), text(&a["value"]));
    list(&of["attributes"]).iter().map(pair).collect()
}

/// Every metric of a request: the metric, and the name of the member that holds its data.
pub fn metrics(body: &Value) -> Vec<(&Value, &'static str)> {
    const KINDS: [&str; 3] = ["sum", "gauge", "exponential_histogram"];
    let mut found = Vec::new();
    for resource in list(&body["resource_metrics"]) {
        for scope in list(&resource["scope_metrics"]) {
            for metric in list(&scope["metrics"]) {
                let kind = KINDS.into_iter().find(|kind| metric.get(*kind).is_some());
                found.push((metric, kind.unwrap_or_else(|| panic!("no known kind: {metric}"))));
            }
        }
    }
    found
}

fn points(body: &Value) -> Vec<Point> {
    let mut all = Vec::new();
    for (metric, kind) in metrics(body) {
        let name = metric["name"].as_str().unwrap_or_default();
        for point in list(&metric[kind]["data_points"]) {
            all.push(Point { metric: name.to_owned(), attributes: attributes(point), value: point.clone() });
        }
    }
    all
}
