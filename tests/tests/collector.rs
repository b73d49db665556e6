//! Collectors between agents and their readers (deploy/collector): rotel with the real agent and a fault, decoded behind it by
//! code that is not ours; and what can be said of the OpenTelemetry Collector's configuration without one.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    time::Duration,
};

use graylag::telemetry::catalog::Id;
use graylag_tests::{
    agent::Setup,
    deploy::{file, yaml},
    eventually,
    net::{Host, Pair, address},
    nft::Nft,
    otlp::{Collector, Protocol},
    proc::{Directory, Process},
    traffic::{Echo, ask, begin, connect},
};
use serde_json::Value;

const PORT: u16 = 8080;
const SOON: Duration = Duration::from_secs(60);
/// Ports on the client's loopback.
const GRPC: u16 = 24317;
const HTTP: u16 = 24318;
const STORAGE: u16 = 24319;
const CONTROLLER: u16 = 24320;

/// The variables of deploy/collector/rotel.env.
fn variables() -> BTreeMap<String, String> {
    let text = fs::read_to_string(file("deploy/collector/rotel.env")).expect("rotel.env");
    let pair = |line: &str| line.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
    text.lines().filter(|line| !line.starts_with('#')).filter_map(pair).collect()
}

/// rotel as deploy/ has it, with places of this test.
fn rotel(host: &Host, directory: &Directory) -> Process {
    let mut variables = variables();
    for (name, value) in [
        ("ROTEL_OTLP_GRPC_ENDPOINT", format!("127.0.0.1:{GRPC}")),
        ("ROTEL_OTLP_HTTP_ENDPOINT", format!("127.0.0.1:{HTTP}")),
        ("ROTEL_EXPORTER_STORAGE_ENDPOINT", format!("http://127.0.0.1:{STORAGE}")),
        ("ROTEL_EXPORTER_CONTROLLER_ENDPOINT", format!("http://127.0.0.1:{CONTROLLER}")),
    ] {
        assert!(variables.insert(name.into(), value).is_some(), "rotel.env has no {name}");
    }
    let program = rotel_program();
    let mut command = host.command(program.to_str().expect("a path"));
    command.arg("start").arg("--pid-file").arg(directory.path().join("rotel.pid")).envs(variables);
    Process::start(&mut command)
}

/// Where pip put it.
fn rotel_program() -> std::path::PathBuf {
    let libraries = fs::read_dir(file("target/venv/lib")).expect("target/venv is missing: cargo xtask setup");
    let places = libraries.flatten().map(|python| python.path().join("site-packages/rotel/rotel-agent"));
    places.into_iter().find(|path| path.exists()).expect("rotel is missing: cargo xtask setup")
}

#[test]
fn behind_rotel_the_event_and_the_state_arrive_each_at_its_reader() {
    for protocol in Protocol::ALL {
        let pair = Pair::new();
        let directory = Directory::new();
        // As rotel.env says how each is spoken to.
        let storage = Collector::start(&pair.client, Protocol::Http, STORAGE);
        let controller = Collector::start(&pair.client, Protocol::Grpc, CONTROLLER);
        let rotel = rotel(&pair.client, &directory);
        let port = if protocol == Protocol::Grpc { GRPC } else { HTTP };
        let agent = Setup::watching(&[&pair.client])
            .inside(&pair.client)
            .env("OTEL_EXPORTER_OTLP_ENDPOINT", &format!("http://127.0.0.1:{port}"))
            .env("OTEL_EXPORTER_OTLP_PROTOCOL", protocol.name())
            .env("OTEL_METRIC_EXPORT_INTERVAL", "500")
            .config("[node]\nname = \"media-3\"")
            .start();
        {
            let _echo = Echo::start(&pair.server, address::SERVER_V4, PORT);
            let mut stream = connect(&pair.client, address::SERVER_V4, PORT).unwrap();
            ask(&mut stream, 100).unwrap();
        }
        let is_raised = |point: &graylag_tests::otlp::Point| {
            point.attributes.get("graylag.condition.name").is_some_and(|name| name == "handshake_stall")
                && point.integer("as_int") == 1
        };
        eventually("metrics arrive", SOON, || {
            (!storage.points("graylag.tcp.handshake.count").is_empty()).then_some(())
        });
        assert!(!storage.points("graylag.condition").iter().any(is_raised), "before the fault");

        let nft = Nft::new(&pair.server);
        nft.rule("syn", "tcp flags syn / syn,ack", "drop");
        let sockets: Vec<_> = (0..20).map(|_| begin(&pair.client, address::SERVER_V4, PORT)).collect();
        let (_, event, _) = eventually("the event arrives at the controller", SOON, || {
            controller.events().into_iter().find(|(name, _, _)| name == "graylag.condition.changed")
        });
        for (name, value) in [
            ("graylag.condition.name", "handshake_stall"),
            ("graylag.condition.to", "raised"),
            ("graylag.peer.name", "10.77.0.1"),
            ("graylag.role", "client"),
        ] {
            assert_eq!(event.get(name).map(String::as_str), Some(value), "{event:?}");
        }
        eventually("the state arrives at storage", SOON, || {
            storage.points("graylag.condition").iter().any(is_raised).then_some(())
        });
        // Whose it is arrives with it, and a histogram is still one.
        let resource = &storage.taken("metrics")[0].body["resource_metrics"][0]["resource"];
        let host = graylag_tests::otlp::attributes(resource).remove("host.name");
        assert_eq!(host.as_deref(), Some("media-3"));
        assert!(!storage.points("graylag.tcp.handshake.duration").is_empty());
        // And each signal has one way.
        assert!(storage.events().is_empty() && controller.taken("metrics").is_empty());
        drop((sockets, agent, rotel));
    }
}

/// Components of a kind that the configuration defines: name, and what is said of it.
fn defined(config: &Value, kind: &str) -> BTreeMap<String, Value> {
    let all = config[kind].as_object().unwrap_or_else(|| panic!("no {kind}"));
    all.iter().map(|(name, value)| (name.clone(), value.clone())).collect()
}

fn words(value: &Value) -> Vec<String> {
    let list = value.as_array().expect("a list");
    list.iter().map(|word| word.as_str().expect("a word").to_owned()).collect()
}

/// No Collector can be had on a machine that tests this: its keys are held to a schema of ours, written from the documents of the
/// components, which knows the keys that are used here and no others.
#[test]
fn the_collectors_configuration_has_no_key_that_is_not_known() {
    let config = yaml("deploy/collector/otelcol.yaml").remove(0);
    let schema = fs::read_to_string(file("tests/deploy/otelcol.schema.json")).expect("the schema");
    let schema: Value = serde_json::from_str(&schema).expect("JSON");
    let validator = jsonschema::validator_for(&schema).expect("a schema");
    let errors: Vec<String> =
        validator.iter_errors(&config).map(|e| format!("{}: {e}", e.instance_path())).collect();
    assert_eq!(errors, Vec::<String>::new());
    let mut misspelt = config.clone();
    misspelt["exporters"]["otlp/controller"]["retry_on_failure"]["max_elapsed"] = "1s".into();
    assert!(!validator.is_valid(&misspelt));
    misspelt = config;
    misspelt["receivers"]["otlp"]["protocol"] = Value::Null;
    assert!(!validator.is_valid(&misspelt));
}

#[test]
fn the_collectors_pipelines_use_what_is_defined_and_all_of_it() {
    let config = yaml("deploy/collector/otelcol.yaml").remove(0);
    let pipelines = defined(&config["service"], "pipelines");
    for kind in ["receivers", "processors", "exporters"] {
        let used: BTreeSet<String> = pipelines.values().flat_map(|pipeline| words(&pipeline[kind])).collect();
        assert_eq!(used, defined(&config, kind).into_keys().collect(), "{kind}");
    }
    let extensions: BTreeSet<String> = words(&config["service"]["extensions"]).into_iter().collect();
    assert_eq!(extensions, defined(&config, "extensions").into_keys().collect());
    // Both readers have both signals; the controller has nothing that waits.
    for signal in ["metrics", "logs"] {
        assert_eq!(words(&pipelines[&format!("{signal}/storage")]["exporters"]), ["otlphttp/storage"]);
        let controller = &pipelines[&format!("{signal}/controller")];
        assert_eq!(words(&controller["exporters"]), ["otlp/controller"]);
        assert!(!words(&controller["processors"]).contains(&"batch".to_owned()));
    }
}

/// What is kept for the controller are metrics that there are, and among them every state.
#[test]
fn states_for_the_controller_are_those_of_the_catalog() {
    let config = yaml("deploy/collector/otelcol.yaml").remove(0);
    let conditions = words(&config["processors"]["filter/states"]["metrics"]["metric"]);
    assert_eq!(conditions.len(), 1);
    let kept: BTreeSet<&str> = conditions[0]
        .split(" and ")
        .map(|term| {
            term.trim()
                .strip_prefix("name != \"")
                .and_then(|rest| rest.strip_suffix('"'))
                .expect("name != \"…\"")
        })
        .collect();
    let names: BTreeSet<&str> = Id::ALL.iter().map(|id| id.metric().name).collect();
    assert!(kept.is_subset(&names), "{kept:?}");
    let states = names.iter().filter(|name| matches!(name.rsplit('.').next(), Some("state" | "condition")));
    assert!(states.clone().count() > 2 && states.clone().all(|name| kept.contains(name)), "{kept:?}");
}
