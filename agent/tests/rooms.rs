//! The rooms and what each may know. docs/architecture.md shows the same; this is what holds it.
#![allow(clippy::unwrap_used)]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// `(room, rooms it may use)`. Samples flow kernel → collect → aggregate → health → {export, feed, view}.
const ROOMS: &[(&str, &[&str])] = &[
    ("model", &[]),
    ("config", &["model"]),
    ("kernel", &[]),
    ("collect", &["kernel"]),
    ("attribution", &["model"]),
    ("aggregate", &["collect", "model"]),
    ("health", &["model"]),
    ("telemetry", &["aggregate", "model"]),
    ("engine", &["aggregate", "collect", "health", "kernel", "model", "telemetry"]),
    ("export", &["model", "telemetry"]),
    ("feed", &["model", "telemetry"]),
    ("view", &["model"]),
    ("probe", &["model"]),
    (
        "run",
        &[
            "aggregate",
            "attribution",
            "cli",
            "collect",
            "config",
            "engine",
            "export",
            "feed",
            "health",
            "kernel",
            "model",
            "probe",
            "telemetry",
            "view",
        ],
    ),
    (
        "cli",
        &["attribution", "config", "engine", "feed", "kernel", "model", "probe", "run", "telemetry", "view"],
    ),
];

/// `(crate, rooms that may use it)`.
const CRATES: &[(&str, &[&str])] = &[
    ("aya", &["kernel"]),
    ("aya_log", &["kernel"]),
    ("aya_obj", &["kernel"]),
    ("btf_rs", &["kernel"]),
    ("caps", &["kernel"]),
    ("libc", &["kernel", "probe"]),
    ("postcard", &["engine"]),
    ("netlink_sys", &["collect"]),
    ("netlink_packet_core", &["collect"]),
    ("netlink_packet_route", &["collect"]),
    ("toml", &["config"]),
    ("humantime", &["config"]),
    ("opentelemetry", &["export"]),
    ("opentelemetry_sdk", &["export"]),
    ("opentelemetry_otlp", &["export"]),
    ("opentelemetry_proto", &["export"]),
    ("prost", &["attribution", "export"]),
    ("tonic", &["attribution", "export"]),
    ("reqwest", &["export"]),
    ("rustls", &["export", "probe"]),
    ("rustls_native_certs", &["probe"]),
    ("tokio_rustls", &["probe"]),
    ("flate2", &["export"]),
    ("axum", &["feed"]),
    ("hyper", &["feed", "export"]),
    ("ratatui", &["view"]),
    ("crossterm", &["view"]),
    ("nix", &["probe"]),
    ("ring", &["probe"]),
    ("subtle", &["probe"]),
    ("base64", &["probe"]),
    ("tokio", &["attribution", "feed", "export", "probe", "run", "cli"]),
    ("clap", &["cli"]),
    ("clap_complete", &["cli"]),
    ("clap_mangen", &["cli"]),
    ("signal_hook", &["run"]),
];

/// What pure rooms do without: clocks, files, sockets, threads.
const IMPURE: &[&str] = &[
    "std::fs",
    "std::net::Tcp",
    "std::net::Udp",
    "std::thread",
    "std::process",
    "std::env",
    "Instant::now",
    "SystemTime::now",
    "Timestamp::now",
    "async fn",
];
const PURE: &[&str] = &["model", "health", "aggregate", "telemetry"];

fn sources(room: &str) -> Vec<(PathBuf, String)> {
    fn walk(directory: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(directory).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|e| e == "rs") {
                found.push(path);
            }
        }
    }
    let mut paths = Vec::new();
    walk(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(room), &mut paths);
    // Tests may use what they need; they stand last in a file, or in files of their own.
    paths.retain(|p| {
        !p.iter().any(|part| part == "tests")
            && p.file_stem().is_none_or(|s| s != "tests" && s != "simulation")
    });
    paths
        .into_iter()
        .map(|path| {
            let text = fs::read_to_string(&path).unwrap();
            let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
            let code = code
                .lines()
                .filter(|line| !line.trim_start().starts_with("//"))
                .collect::<Vec<_>>()
                .join("\n");
            (path, code)
        })
        .collect()
}

/// Names that follow `prefix` in code: of `crate::a::b` and of `use crate::{a::…, b}`.
fn names_after(code: &str, prefix: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for (at, _) in code.match_indices(prefix) {
        let before = code[..at].chars().next_back();
        if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == '$' || c == ':') {
            continue;
        }
        let rest = &code[at + prefix.len()..];
        if let Some(group) = rest.strip_prefix('{') {
            let mut depth = 0;
            let mut word = String::new();
            for c in group.chars() {
                match c {
                    '{' => depth += 1,
                    '}' if depth == 0 => break,
                    '}' => depth -= 1,
                    _ => {}
                }
                if depth == 0 && (c.is_alphanumeric() || c == '_') {
                    word.push(c);
                } else {
                    if depth == 0 && matches!(c, ',' | ':') && !word.is_empty() {
                        names.insert(word.clone());
                    }
                    if c == ':' || c == '{' {
                        word = String::from("\0"); // the rest of this item is inside it
                    } else if c == ',' || (!word.starts_with('\0') && !c.is_whitespace()) {
                        word.clear();
                    }
                }
            }
            if !word.is_empty() {
                names.insert(word);
            }
        } else {
            names.insert(rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect());
        }
    }
    names.retain(|name| !name.contains('\0'));
    names
}

#[test]
fn every_room_is_listed() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let rooms: BTreeSet<String> = fs::read_dir(source)
        .unwrap()
        .flatten()
        .filter(|e| e.path().is_dir())
        .map(|e| e.file_name().to_string_lossy().into_owned())
        .collect();
    assert_eq!(rooms, ROOMS.iter().map(|(room, _)| (*room).to_owned()).collect());
}

#[test]
fn rooms_use_only_the_rooms_they_may() {
    let all: BTreeSet<&str> = ROOMS.iter().map(|(room, _)| *room).collect();
    for (room, may) in ROOMS {
        for (path, code) in sources(room) {
            for used in names_after(&code, "crate::") {
                let fine = used == *room || may.contains(&used.as_str()) || !all.contains(used.as_str());
                assert!(fine, "{} uses {used}, which {room} must not know", path.display());
            }
        }
    }
}

#[test]
fn crates_stay_in_their_rooms() {
    for (room, _) in ROOMS {
        for (path, code) in sources(room) {
            for (name, may) in CRATES {
                let fine = may.contains(room) || !uses_path(&code, name);
                assert!(fine, "{} uses {name}, which belongs to {may:?}", path.display());
            }
        }
    }
}

/// Whether code has a path that begins with a crate's name.
fn uses_path(code: &str, name: &str) -> bool {
    let pattern = format!("{name}::");
    code.match_indices(&pattern).any(|(at, _)| {
        !code[..at].chars().next_back().is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':')
    })
}

#[test]
fn pure_rooms_have_no_clock_and_no_io() {
    for room in PURE {
        for (path, code) in sources(room) {
            for impure in IMPURE {
                assert!(!code.contains(impure), "{} uses {impure}; {room} is pure", path.display());
            }
        }
    }
}

#[test]
fn the_rules_find_what_they_look_for() {
    let code = "use crate::{\n    model::{Blame, Phase},\n    kernel::Kernel,\n    feed,\n};\nfn f() { crate::view::run() }\nmacro $crate::x";
    let names: Vec<String> = names_after(code, "crate::").into_iter().collect();
    assert_eq!(names, ["feed", "kernel", "model", "view"]);
    assert!(uses_path("let x = aya::Ebpf", "aya") && !uses_path("let x = not_aya::Ebpf", "aya"));
}
