//! Alert and recording rules (deploy/prometheus): their own tests, run by promtool, and that they fit graylag.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::{BTreeMap, BTreeSet};

use graylag::model::ConditionName;
use graylag_tests::deploy::{Catalog, anchors, file, promql, said, tool, yaml};
use serde_json::Value;

const FILES: [&str; 2] = ["deploy/prometheus/conditions.yaml", "deploy/prometheus/fleet.yaml"];
const TESTS: [&str; 3] = [
    "deploy/prometheus/tests/agent.yaml",
    "deploy/prometheus/tests/conditions.yaml",
    "deploy/prometheus/tests/fleet.yaml",
];

fn rules() -> Vec<Value> {
    let groups = |path| yaml(path)[0]["groups"].as_array().expect("groups").clone();
    let all = FILES.into_iter().flat_map(groups);
    let rules: Vec<Value> = all.flat_map(|group| group["rules"].as_array().expect("rules").clone()).collect();
    assert!(rules.len() > 30, "all rules are read: {}", rules.len());
    rules
}

fn text<'a>(rule: &'a Value, member: &str) -> Option<&'a str> {
    rule[member].as_str()
}

fn alerts(rules: &[Value]) -> BTreeMap<&str, &Value> {
    rules.iter().filter_map(|rule| Some((text(rule, "alert")?, rule))).collect()
}

fn promtool(arguments: &[&str], files: &[&str]) -> String {
    said(tool("tools/promtool/usr/bin/promtool").args(arguments).args(files.iter().map(|path| file(path))))
}

#[test]
fn the_rules_pass_their_tests() {
    promtool(&["check", "rules", "--lint=all", "--lint-fatal"], &FILES);
    promtool(&["test", "rules"], &TESTS);
}

#[test]
fn every_metric_label_and_value_is_graylags() {
    let rules = rules();
    let recorded: BTreeSet<String> =
        rules.iter().filter_map(|rule| text(rule, "record")).map(str::to_owned).collect();
    let queries: Vec<String> =
        rules.iter().map(|rule| text(rule, "expr").expect("expr").to_owned()).collect();
    let catalog = Catalog::new();
    for (query, asks) in queries.iter().zip(promql(&queries)) {
        assert!(!asks.selectors.is_empty(), "{query}");
        assert_eq!(catalog.wrong(&asks, &recorded), Vec::<String>::new(), "{query}");
    }
    // And that this would be seen.
    let misspelt = [
        r#"graylag_condition{graylag_condition_name="handshake_stal"}"#,
        "graylag_conditions",
        "sum by (graylag_peer) (graylag_condition)",
        r#"graylag_path_state{graylag_state=~"down|gone"}"#,
    ];
    for asks in promql(&misspelt.map(str::to_owned)) {
        assert_eq!(catalog.wrong(&asks, &recorded).len(), 1, "{asks:?}");
    }
}

#[test]
fn every_condition_has_its_alert() {
    let rules = rules();
    for condition in ConditionName::ALL {
        let selector = format!("graylag_condition{{graylag_condition_name=\"{}\"}}", condition.name());
        let of_it =
            alerts(&rules).into_values().filter(|rule| text(rule, "expr").expect("expr").contains(&selector));
        let runbooks: Vec<_> = of_it.filter_map(|rule| rule["annotations"]["runbook"].as_str()).collect();
        assert_eq!(runbooks, [format!("docs/verdicts.md#{}", condition.name())]);
    }
}

#[test]
fn every_alert_is_tested_and_says_how_bad_it_is_and_what_to_do() {
    let rules = rules();
    let tested: BTreeSet<String> = TESTS
        .into_iter()
        .flat_map(|path| yaml(path)[0]["tests"].as_array().expect("tests").clone())
        .flat_map(|test| test["alert_rule_test"].as_array().cloned().unwrap_or_default())
        .filter(|check| check["exp_alerts"].as_array().is_some_and(|alerts| !alerts.is_empty()))
        .map(|check| check["alertname"].as_str().expect("a name").to_owned())
        .collect();
    for (name, rule) in alerts(&rules) {
        assert!(tested.contains(name), "{name} is raised in no test");
        assert!(matches!(rule["labels"]["severity"].as_str(), Some("page" | "ticket")), "{name}");
        assert!(rule["annotations"]["summary"].as_str().is_some_and(|summary| !summary.is_empty()), "{name}");
        let runbook =
            rule["annotations"]["runbook"].as_str().unwrap_or_else(|| panic!("{name} has no runbook"));
        let (path, anchor) = runbook.split_once('#').expect("a place in a document");
        assert!(anchors(path).contains(anchor), "{name}: no {runbook}");
    }
}
