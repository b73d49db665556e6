//! Grafana's dashboards (deploy/grafana): made by their generator, and asking only for what graylag has.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{collections::BTreeSet, fs, path::PathBuf, process::Command};

use graylag_tests::{
    deploy::{Catalog, file, promql, said, tool, yaml},
    proc::Directory,
};
use serde_json::{Value, json};

fn dashboards() -> Vec<(PathBuf, Value)> {
    let files =
        fs::read_dir(file("deploy/grafana")).expect("deploy/grafana").flatten().map(|entry| entry.path());
    let json = files.filter(|path| path.extension().is_some_and(|extension| extension == "json"));
    let read = |path: PathBuf| {
        let text = fs::read_to_string(&path).expect("a dashboard");
        let value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        (path, value)
    };
    json.map(read).collect()
}

fn list<'a>(value: &'a Value, member: &str) -> &'a [Value] {
    value[member].as_array().unwrap_or_else(|| panic!("no {member}"))
}

fn text<'a>(value: &'a Value, member: &str) -> &'a str {
    value[member].as_str().unwrap_or_else(|| panic!("no {member}"))
}

/// Every query of a dashboard, panels and variables, with Grafana's own intervals filled in.
fn queries(dashboard: &Value) -> Vec<String> {
    let targets = list(dashboard, "panels").iter().flat_map(|panel| list(panel, "targets"));
    let of_panels = targets.map(|target| text(target, "expr").to_owned());
    // `label_values(SELECTOR, LABEL)` asks for a label of a series.
    let of_variables =
        list(&dashboard["templating"], "list").iter().filter(|v| v["type"] == "query").map(|variable| {
            let query = text(&variable["query"], "query");
            let inner = query
                .strip_prefix("label_values(")
                .and_then(|rest| rest.strip_suffix(')'))
                .expect("label_values");
            let (selector, label) = inner.rsplit_once(", ").expect("a label");
            format!("count by ({label}) ({selector})")
        });
    let filled = |query: String| query.replace("$__rate_interval", "5m").replace("$__range", "1h");
    of_panels.chain(of_variables).map(filled).collect()
}

fn recorded() -> BTreeSet<String> {
    let rules = yaml("deploy/prometheus/fleet.yaml").remove(0);
    let rules = list(&rules, "groups").iter().flat_map(|group| list(group, "rules"));
    rules.filter_map(|rule| rule["record"].as_str().map(str::to_owned)).collect()
}

#[test]
fn dashboards_are_what_their_generator_makes() {
    said(tool("venv/bin/python").arg(file("deploy/grafana/generate.py")).arg("--check"));
    let names: BTreeSet<String> = dashboards()
        .iter()
        .map(|(path, _)| path.file_stem().expect("a name").to_string_lossy().into_owned())
        .collect();
    assert_eq!(
        names,
        ["graylag-fleet", "graylag-host", "graylag-media", "graylag-paths"].map(str::to_owned).into()
    );
    // A file that was changed by hand is seen.
    let directory = Directory::new();
    let copy = directory.path().join("grafana");
    said(Command::new("cp").arg("-r").arg(file("deploy/grafana")).arg(&copy));
    let changed = copy.join("graylag-host.json");
    let by_hand = fs::read_to_string(&changed).expect("a dashboard").replace("\"30s\"", "\"31s\"");
    fs::write(&changed, by_hand).expect("a dashboard");
    let output =
        tool("venv/bin/python").arg(copy.join("generate.py")).arg("--check").output().expect("python");
    assert!(
        !output.status.success() && String::from_utf8_lossy(&output.stderr).contains("graylag-host.json")
    );
}

#[test]
fn every_query_asks_for_what_graylag_has() {
    let (catalog, recorded) = (Catalog::new(), recorded());
    for (path, dashboard) in dashboards() {
        let queries = queries(&dashboard);
        assert!(queries.len() > 7, "{}: {}", path.display(), queries.len());
        for (query, asks) in queries.iter().zip(promql(&queries)) {
            // `cell` is made by the query itself.
            let wrong: Vec<String> = catalog.wrong(&asks, &recorded);
            assert_eq!(wrong, Vec::<String>::new(), "{}: {query}", path.display());
        }
    }
}

/// Prometheus's own parser takes them as well, and knows their functions.
#[test]
fn every_query_is_prometheuss() {
    let directory = Directory::new();
    let all: Vec<String> = dashboards().iter().flat_map(|(_, dashboard)| queries(dashboard)).collect();
    let rule = |(i, query): (usize, &String)| json!({ "record": format!("query:{i}"), "expr": query });
    let rules: Vec<Value> = all.iter().enumerate().map(rule).collect();
    // JSON is YAML.
    let file = directory
        .write("queries.yaml", &json!({ "groups": [{ "name": "queries", "rules": rules }] }).to_string());
    let said = said(tool("tools/promtool/usr/bin/promtool").args(["check", "rules"]).arg(file));
    assert!(said.contains(&format!("{} rules found", all.len())), "{said}");
}

/// Legends name labels that the series have, and panels lie beside each other.
#[test]
fn panels_are_whole() {
    for (path, dashboard) in dashboards() {
        let path = path.display();
        let mut places = BTreeSet::new();
        for panel in list(&dashboard, "panels") {
            let title = text(panel, "title");
            assert!(
                places.insert((panel["gridPos"]["x"].as_u64(), panel["gridPos"]["y"].as_u64())),
                "{path}: {title}"
            );
            assert!(panel["gridPos"]["x"].as_u64().unwrap() + panel["gridPos"]["w"].as_u64().unwrap() <= 24);
            for target in list(panel, "targets") {
                let query = text(target, "expr");
                let legend = text(target, "legendFormat");
                for label in legend.split("{{").skip(1).map(|rest| rest.split("}}").next().expect("a label"))
                {
                    assert!(
                        query.contains(label) || !query.contains(" by ("),
                        "{path}: {title}: {label} is summed away"
                    );
                }
            }
        }
    }
}
