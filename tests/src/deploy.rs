//! What is in `deploy/`, read and judged by code that is not ours (`tests/deploy/judge.py`), and what graylag calls things
//! in Prometheus.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use graylag::{
    feed::prometheus,
    telemetry::catalog::{Id, Kind, attribute},
};
use serde_json::Value;

use crate::proc::Directory;

/// A file of the repository.
pub fn file(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

/// A program that `cargo xtask setup` put below `target/`.
#[track_caller]
pub fn tool(path: &str) -> Command {
    let path = file("target").join(path);
    assert!(path.exists(), "{} is missing: cargo xtask setup", path.display());
    Command::new(path)
}

/// What a command says; fails where it fails.
#[track_caller]
pub fn said(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}{err}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8(output.stdout).expect("text")
}

#[track_caller]
fn judge(arguments: &[&str], input: &str) -> Value {
    let mut command = tool("venv/bin/python");
    command.arg(file("tests/deploy/judge.py")).args(arguments);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("python");
    child.stdin.take().expect("stdin").write_all(input.as_bytes()).expect("python reads");
    let output = child.wait_with_output().expect("python");
    assert!(output.status.success(), "{arguments:?}");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// The documents of a YAML file.
#[track_caller]
pub fn yaml(path: &str) -> Vec<Value> {
    let path = file(path).display().to_string();
    judge(&["yaml", &path], "").as_array().expect("a list").clone()
}

/// What kustomize makes of a part of `deploy/kubernetes`.
#[track_caller]
pub fn kustomize(path: &str) -> String {
    said(tool("venv/bin/kubectl").arg("kustomize").arg(file("deploy/kubernetes").join(path)))
}

/// The same with a component added, as somebody's own overlay would.
#[track_caller]
pub fn kustomize_with(path: &str, component: &str) -> String {
    let directory = Directory::new();
    // Kustomize wants its directories relative to each other.
    let up = "../".repeat(fs::canonicalize(directory.path()).expect("a path").components().count() - 1);
    let from = |path: &str| {
        let path = fs::canonicalize(file("deploy/kubernetes").join(path)).expect("a path");
        format!("{up}{}", path.strip_prefix("/").expect("absolute").display())
    };
    let text = format!("resources: [{}]\ncomponents: [{}]\n", from(path), from(component));
    directory.write("kustomization.yaml", &text);
    said(tool("venv/bin/kubectl").arg("kustomize").arg(directory.path()))
}

/// The documents of a text, and what is wrong with them by the strict schemas of these versions of Kubernetes.
#[track_caller]
pub fn kubernetes(text: &str, versions: &[&str]) -> (Vec<Value>, Vec<String>) {
    let answer = judge(&[&["kubernetes"][..], versions].concat(), text);
    let errors = answer["errors"].as_array().expect("a list");
    let errors = errors.iter().map(|error| error.as_str().expect("text").to_owned()).collect();
    (answer["documents"].as_array().expect("a list").clone(), errors)
}

/// What a query asks for.
#[derive(Debug)]
pub struct Asks {
    /// Metrics, each with the labels that its matchers name, how they compare and with what.
    pub selectors: Vec<(String, Vec<[String; 3]>)>,
    /// Labels by which it aggregates and matches.
    pub labels: Vec<String>,
}

/// What queries ask for; one that cannot be parsed fails.
#[track_caller]
pub fn promql(queries: &[String]) -> Vec<Asks> {
    let input = serde_json::to_string(queries).expect("JSON");
    let answers = judge(&["promql"], &input);
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let list = |value: &Value| value.as_array().expect("a list").clone();
    let asks = |(query, answer): (&String, &Value)| {
        assert!(answer.get("error").is_none(), "{query}: {}", answer["error"]);
        let matchers = |selector: &Value| {
            let matchers = list(&selector["matchers"]);
            matchers.iter().map(|m| [text(&m[0]), text(&m[1]), text(&m[2])]).collect()
        };
        let selectors = list(&answer["selectors"]);
        Asks {
            selectors: selectors.iter().map(|s| (text(&s["metric"]), matchers(s))).collect(),
            labels: list(&answer["labels"]).iter().map(text).collect(),
        }
    };
    queries.iter().zip(answers.as_array().expect("a list")).map(asks).collect()
}

/// The catalog as Prometheus has it.
pub struct Catalog {
    /// Labels of each series.
    series: BTreeMap<String, BTreeSet<String>>,
}

/// Labels that a scrape or a collector adds, and `pool`, which is the operator's.
const AROUND: &[&str] = &["job", "instance", "pool"];

impl Catalog {
    /// Every series that graylag or, of OTLP, a collector makes.
    pub fn new() -> Self {
        let mut series = BTreeMap::new();
        for id in Id::ALL {
            let metric = id.metric();
            let labels = metric.attributes.iter().copied().map(label);
            let labels: BTreeSet<String> = labels.chain(AROUND.iter().map(|&name| name.into())).collect();
            let name = prometheus::name(metric);
            if metric.kind == Kind::ExponentialHistogram {
                let with_bound = labels.iter().cloned().chain(["le".into()]).collect();
                series.insert(format!("{name}_bucket"), with_bound);
                series.insert(format!("{name}_sum"), labels.clone());
                series.insert(format!("{name}_count"), labels.clone());
            }
            // Of a histogram, its native form, which comes by OTLP.
            series.insert(name, labels);
        }
        Self { series }
    }

    /// What is wrong with a query: a metric, a label or a value that graylag does not have. `recorded` are the names of
    /// recording rules.
    pub fn wrong(&self, asks: &Asks, recorded: &BTreeSet<String>) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut known: BTreeSet<&str> = AROUND.iter().copied().collect();
        let mut any_recorded = false;
        for (metric, matchers) in &asks.selectors {
            if recorded.contains(metric) {
                any_recorded = true;
                continue;
            }
            let Some(labels) = self.series.get(metric) else {
                wrong.push(format!("no metric {metric}"));
                continue;
            };
            known.extend(labels.iter().map(String::as_str));
            for [name, operator, value] in matchers {
                if !labels.contains(name) {
                    wrong.push(format!("{metric} has no {name}"));
                }
                let alternatives: Vec<&str> =
                    if operator.ends_with("Equal") { vec![value] } else { value.split('|').collect() };
                // A variable of a dashboard stands for any value.
                let never =
                    alternatives.into_iter().filter(|value| !value.starts_with('$') && !may_be(name, value));
                wrong.extend(never.map(|value| format!("{name} is never {value}")));
            }
        }
        if !any_recorded {
            let unknown = asks.labels.iter().filter(|label| !known.contains(label.as_str()));
            wrong.extend(unknown.map(|label| format!("nothing here has {label}")));
        }
        wrong
    }
}

impl Default for Catalog {
    fn default() -> Self {
        Self::new()
    }
}

/// What an attribute is called there.
fn label(attribute: &str) -> String {
    attribute.replace('.', "_")
}

/// Whether an attribute may have a value, as far as its explanation lists them.
fn may_be(name: &str, value: &str) -> bool {
    const LISTED: &[&str] = &[
        attribute::ROLE,
        attribute::OUTCOME,
        attribute::RETRANSMIT,
        attribute::DIRECTION,
        attribute::SIDE,
        attribute::STATE,
        attribute::KIND,
        attribute::STAGE,
        attribute::METHOD,
        attribute::BLAME,
        attribute::MAP,
    ];
    if name == label(attribute::CONDITION) {
        return graylag::model::ConditionName::ALL.iter().any(|condition| condition.name() == value);
    }
    let listed =
        attribute::ALL.iter().find(|(attribute, _)| label(attribute) == name && LISTED.contains(attribute));
    listed.is_none_or(|(_, values)| values.contains(&format!("`{value}`")))
}

/// The anchors of a document: its headings, as they are linked.
#[track_caller]
pub fn anchors(path: &str) -> BTreeSet<String> {
    let text = fs::read_to_string(file(path)).unwrap_or_else(|e| panic!("{path}: {e}"));
    let headings =
        text.lines().filter_map(|line| line.strip_prefix('#')?.trim_start_matches('#').strip_prefix(' '));
    let kept = |c: char| match c {
        ' ' => Some('-'),
        c if c.is_alphanumeric() || c == '-' || c == '_' => Some(c.to_ascii_lowercase()),
        _ => None,
    };
    headings.map(|heading| heading.chars().filter_map(kept).collect()).collect()
}
