//! The documents say what the code does: names, defaults, tables and links are compared with their source.
#![allow(clippy::expect_used)]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use graylag::{
    health::Settings,
    kernel::programs::{PROGRAMS, Signal},
    model::{Blame, ConditionName},
    telemetry,
};
use graylag_tests::{agent::binary, proc::Directory};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The rows of a document's tables: cells, without blanks around them.
fn rows(document: &str) -> Vec<Vec<String>> {
    let cells =
        |line: &str| line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect::<Vec<_>>();
    document.lines().filter(|line| line.starts_with('|')).map(cells).collect()
}

/// What stands between two texts.
#[track_caller]
fn between<'a>(text: &'a str, begin: &str, end: &str) -> &'a str {
    let from = text.find(begin).unwrap_or_else(|| panic!("no `{begin}`")) + begin.len();
    let length = text[from..].find(end).unwrap_or_else(|| panic!("no `{end}` after `{begin}`"));
    &text[from..from + length]
}

/// Everything that stands in double quotes.
fn quoted(text: &str) -> Vec<&str> {
    text.split('"').skip(1).step_by(2).collect()
}

fn graylag(arguments: &[&str]) -> Output {
    Command::new(binary()).args(arguments).output().expect("graylag")
}

#[track_caller]
fn prints(arguments: &[&str]) -> String {
    let output = graylag(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

/// `section.key` and value of a configuration without arrays of tables.
fn settings(toml: &str) -> BTreeMap<String, String> {
    let mut section = "";
    let mut settings = BTreeMap::new();
    for line in toml.lines().filter(|line| !line.starts_with('#')) {
        if let Some(name) = line.strip_prefix('[') {
            section = name.trim_end_matches(']');
        } else if let Some((key, value)) = line.split_once(" = ") {
            settings.insert(format!("{section}.{key}"), value.to_owned());
        }
    }
    settings
}

/// The annotated configuration with its examples switched on.
fn examples() -> String {
    let switched_on = |line: &str| match line.strip_prefix('#') {
        Some(example) if !example.is_empty() && !example.starts_with(' ') => example.to_owned(),
        _ => line.to_owned(),
    };
    read("deploy/graylag.toml").lines().map(switched_on).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_annotated_configuration_changes_nothing() {
    let directory = Directory::new();
    let empty = directory.write("empty.toml", "");
    let annotated = root().join("deploy/graylag.toml");
    let print = |path: &Path| prints(&["config", "print", "--config", path.to_str().expect("a path")]);
    prints(&["config", "check", "--config", annotated.to_str().expect("a path")]);
    assert_eq!(print(&annotated), print(&empty));
    assert_eq!(settings(&read("deploy/graylag.toml")), settings(&print(&empty)), "keys and defaults");
}

#[test]
fn the_annotated_configuration_has_every_key_and_its_examples_are_valid() {
    let directory = Directory::new();
    let text = examples();
    let path = directory.write("examples.toml", &text);
    prints(&["config", "check", "--config", path.to_str().expect("a path")]);
    let raw = read("agent/src/config/raw.rs");
    let keys = raw.lines().filter_map(|line| line.strip_prefix("    pub ")?.split_once(':'));
    let mut seen = 0;
    for (key, _) in keys {
        let there = [format!("[{key}]"), format!("[[{key}]]"), format!("{key} =")]
            .iter()
            .any(|form| text.lines().any(|line| line.starts_with(form)));
        assert!(there, "deploy/graylag.toml has no `{key}`");
        seen += 1;
    }
    assert!(seen > 30, "raw.rs is read: {seen} keys");
}

#[test]
fn every_condition_and_every_blame_is_explained() {
    let verdicts = read("docs/verdicts.md");
    for condition in ConditionName::ALL {
        let name = condition.name();
        assert!(verdicts.contains(&format!("\n## `{name}`\n")), "no chapter on {name}");
        assert!(verdicts.contains(&format!("\n### `{name}`\n")), "no blame for {name}");
        let row = rows(&verdicts).into_iter().find(|row| row[0] == format!("[`{name}`](#{name})"));
        assert_eq!(row.unwrap_or_else(|| panic!("{name} is not listed"))[2], condition.says());
    }
    let meanings = rows(between(&verdicts, "\n## Blame\n", "\n### "));
    let listed: Vec<String> = meanings.iter().skip(2).map(|row| row[0].clone()).collect();
    assert_eq!(listed, Blame::ALL.map(|blame| format!("`{}`", blame.name())));
}

#[test]
fn defaults_of_the_detectors_are_those_of_the_code() {
    let s = Settings::default();
    let expected = [
        ("handshake_bound", format!("{:?}", s.handshake_bound)),
        ("first_byte_bound", format!("{:?}", s.first_byte_bound)),
        ("stall.p0", s.stall.p0.to_string()),
        ("stall.p1", s.stall.p1.to_string()),
        ("stall.threshold", s.stall.threshold.to_string()),
        ("drops.p0", s.drops.p0.to_string()),
        ("drops.p1", s.drops.p1.to_string()),
        ("drops.threshold", s.drops.threshold.to_string()),
        ("loss.p0", s.loss.p0.to_string()),
        ("loss.p1", s.loss.p1.to_string()),
        ("loss.threshold", s.loss.threshold.to_string()),
        ("probe_loss.p0", s.probe_loss.p0.to_string()),
        ("probe_loss.p1", s.probe_loss.p1.to_string()),
        ("probe_loss.threshold", s.probe_loss.threshold.to_string()),
        ("one_way.p0", s.one_way.p0.to_string()),
        ("one_way.p1", s.one_way.p1.to_string()),
        ("one_way.threshold", s.one_way.threshold.to_string()),
        ("silence.p0", s.silence.p0.to_string()),
        ("silence.p1", s.silence.p1.to_string()),
        ("silence.threshold", s.silence.threshold.to_string()),
        ("silence_learning", format!("{:?}", s.silence_learning)),
        ("activation.p0", s.activation.p0.to_string()),
        ("activation.p1", s.activation.p1.to_string()),
        ("activation.threshold", s.activation.threshold.to_string()),
        ("relay_learning", format!("{:?}", s.relay_learning)),
        ("drops_least", s.drops_least.to_string()),
        ("drops_share", s.drops_share.to_string()),
        ("shift.slack", s.shift.slack.to_string()),
        ("shift.threshold", s.shift.threshold.to_string()),
        ("shift.factor", s.shift.factor.to_string()),
        ("shift.least", format!("{:?}", s.shift.least)),
        ("shift.learn_samples", s.shift.learn_samples.to_string()),
        ("shift.learn_looks", s.shift.learn_looks.to_string()),
        ("lease", format!("{:?}", s.lease)),
        ("quiet", format!("{:?}", s.quiet)),
        ("recovery", s.recovery.to_string()),
        ("late", format!("{:?}", s.late)),
        ("reroute", format!("{:?}", s.reroute)),
        ("canary", s.canary.to_string()),
    ];
    let verdicts = read("docs/verdicts.md");
    let table = rows(between(&verdicts, "\n## Defaults\n", "\n## "));
    let found: Vec<(String, String)> =
        table.into_iter().skip(2).map(|row| (row[0].clone(), row[1].clone())).collect();
    assert_eq!(found, expected.map(|(name, value)| (format!("`{name}`"), value)));
}

#[test]
fn drop_reasons_are_listed_under_their_blame() {
    let source = read("agent/src/model/drops.rs");
    let verdicts = read("docs/verdicts.md");
    let table = rows(between(&verdicts, "\n## `host_drops`\n", "\n## "));
    // `"A" | "B" | CONSTANT => DropClass::Capacity(Blame::…)`.
    let arms = between(&source, "match reason {", "=> {").split("DropClass::Capacity(Blame::");
    let arms: Vec<&str> = arms.collect();
    for (reasons, blame) in [(arms[0], "local_process"), (arms[1], "local_host")] {
        let row = table.iter().find(|row| row[0] == format!("`{blame}`")).expect("a row");
        for reason in quoted(reasons) {
            assert!(row[1].contains(&format!("`{reason}`")), "{reason} under {blame}");
        }
    }
    for line in source.lines().filter(|line| line.starts_with("pub const ") && line.contains(": &str = ")) {
        assert!(verdicts.contains(&format!("`{}`", quoted(line)[0])), "{line}");
    }
}

#[test]
fn every_exit_code_is_documented() {
    let source = read("agent/src/cli/mod.rs");
    let operations = read("docs/operations.md");
    let documented: Vec<String> = rows(between(&operations, "\n### Exit codes\n", "\n## "))
        .into_iter()
        .skip(2)
        .map(|row| row[0].clone())
        .collect();
    let code = |line: &str| Some(line.trim().strip_prefix("pub const ")?.split_once(": u8 = ")?.1.to_owned());
    let declared: Vec<String> =
        source.lines().filter_map(code).map(|value| value.trim_end_matches(';').to_owned()).collect();
    assert_eq!(documented, declared);
    let help = prints(&["--help"]);
    for code in declared {
        assert!(help.contains(&format!("{code} ")), "--help has no {code}");
    }
}

#[test]
fn every_endpoint_and_every_variable_is_documented() {
    let operations = read("docs/operations.md");
    let server = read("agent/src/feed/server.rs");
    let routes: Vec<&str> =
        server.split(".route(\"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    assert!(routes.len() >= 5, "{routes:?}");
    for route in routes {
        assert!(operations.contains(&format!("| `{route}` |")), "{route}");
    }
    let source = read("agent/src/export/settings.rs");
    let source = source.split("#[cfg(test)]").next().expect("code");
    let mut variables: BTreeSet<String> =
        quoted(source).into_iter().filter(|s| s.starts_with("OTEL_")).map(Into::into).collect();
    for call in ["of(signal, \"", "file(\""] {
        for name in source.split(call).skip(1).filter_map(|rest| rest.split('"').next()) {
            for signal in ["", "METRICS_", "LOGS_"] {
                variables.insert(format!("OTEL_EXPORTER_OTLP_{signal}{name}"));
            }
        }
    }
    for signal in ["METRICS", "LOGS"] {
        variables.insert(format!("OTEL_{signal}_EXPORTER"));
    }
    variables.retain(|name| !name.contains('{'));
    assert!(variables.len() > 25, "{variables:?}");
    for name in variables {
        assert!(operations.contains(&format!("`{name}`")), "{name}");
    }
}

#[test]
fn the_catalog_is_the_codes() {
    let catalog = read("docs/catalog.md");
    assert_eq!(catalog, telemetry::markdown(), "make it again: cargo xtask docs");
    let json: serde_json::Value = serde_json::from_str(&prints(&["catalog", "--json"])).expect("JSON");
    let metrics = json["metrics"].as_array().expect("metrics");
    assert!(metrics.len() > 20);
    for metric in metrics {
        let name = metric["name"].as_str().expect("a name");
        assert!(catalog.contains(&format!("| `{name}` |")), "{name}; is the release binary older?");
    }
}

#[test]
fn rooms_are_those_that_are_enforced() {
    let source = read("agent/tests/rooms.rs");
    let list = between(&source, "const ROOMS: &[(&str, &[&str])] = &[", "\n];");
    let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let mut enforced: Vec<(String, Vec<String>)> = Vec::new();
    // `("room", &["may", "use"])`: an entry ends with its list.
    for entry in list.split(']') {
        if let [room, may @ ..] = quoted(entry).as_slice() {
            enforced.push(((*room).to_owned(), owned(may)));
        }
    }
    let architecture = read("docs/architecture.md");
    let table = rows(between(&architecture, "\n## The rooms\n", "\n## "));
    let name = |cell: &str| cell.trim().trim_matches('`').to_owned();
    let shown: Vec<(String, Vec<String>)> = table
        .iter()
        .skip(2)
        .map(|row| (name(&row[0]), row[1].split(',').map(name).filter(|name| !name.is_empty()).collect()))
        .collect();
    assert_eq!(shown, enforced);
}

#[test]
fn every_program_signal_and_map_is_explained() {
    let architecture = read("docs/architecture.md");
    let cells: Vec<String> = rows(&architecture).into_iter().map(|row| row[0].clone()).collect();
    let explained = |name: &str| cells.iter().any(|cell| cell.contains(&format!("`{name}`")));
    for program in PROGRAMS {
        assert!(explained(program.name), "program {}", program.name);
    }
    for signal in Signal::ALL {
        assert!(explained(signal.name()), "signal {}", signal.name());
    }
    let maps = read("agent-ebpf/src/bpf/maps.rs") + &read("agent-ebpf/src/bpf/media_maps.rs");
    let maps = maps + &read("agent-ebpf/src/bpf/relay.rs");
    let maps = maps.replace("#[map]\npub static ", "#[map]\nstatic ").replace("#[btf_map]", "#[map]");
    let maps: Vec<&str> =
        maps.split("#[map]\nstatic ").skip(1).filter_map(|rest| rest.split(':').next()).collect();
    assert!(maps.len() > 10, "{maps:?}");
    for map in maps {
        assert!(explained(map), "map {map}");
    }
}

#[test]
fn the_readme_names_both_commands() {
    let readme = read("README.md");
    for command in ["cargo xtask run", "cargo xtask test", "OTEL_EXPORTER_OTLP_ENDPOINT"] {
        assert!(readme.contains(command), "{command}");
    }
}

/// How a heading is linked to: as the forges do it.
fn anchor(heading: &str) -> String {
    let kept = heading.to_lowercase();
    let kept = kept.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

fn anchors(document: &str) -> BTreeSet<String> {
    let mut fenced = false;
    let mut found = BTreeSet::new();
    for line in document.lines() {
        fenced ^= line.starts_with("```");
        if !fenced && line.starts_with('#') {
            found.insert(anchor(line.trim_start_matches('#').trim()));
        }
    }
    found
}

#[test]
fn links_lead_somewhere() {
    let mut documents: Vec<PathBuf> = Vec::new();
    for directory in [root(), root().join("docs")] {
        let entries = fs::read_dir(directory).expect("a directory").flatten().map(|entry| entry.path());
        documents.extend(entries.filter(|path| path.extension().is_some_and(|e| e == "md")));
    }
    assert!(documents.len() >= 8, "{documents:?}");
    for path in documents {
        let text = fs::read_to_string(&path).expect("a document");
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if target.starts_with("http") {
                continue;
            }
            let (file, fragment) = target.split_once('#').unwrap_or((target, ""));
            let linked =
                if file.is_empty() { path.clone() } else { path.parent().expect("a directory").join(file) };
            assert!(linked.exists(), "{}: {target}", path.display());
            if !fragment.is_empty() {
                let there = anchors(&fs::read_to_string(&linked).expect("a document")).contains(fragment);
                assert!(there, "{}: {target}", path.display());
            }
        }
    }
}
