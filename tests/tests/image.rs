//! The image: what is in it, that it is the same when it is built again, and that it runs with no more than it is said to need.
#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests are tests

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    process::Command,
    time::Duration,
};

use graylag_tests::{
    container::{Bundle, Container, built, layout},
    elf,
    net::{Pair, address},
    proc::finish,
    traffic::{Echo, ask, connect},
};
use serde_json::{Value, json};

const VERSION: &str = env!("CARGO_PKG_VERSION");
/// Bytes to fetch for one architecture.
const LIMIT: u64 = 12_000_000;
const SOON: Duration = Duration::from_secs(20);

/// The configuration of an agent that sees the network it is in and no other.
const TOML: &str =
    "[scope]\nnetwork_namespaces = [\"host\"]\n[media]\ninterfaces = []\n[collect]\ninterval = \"200ms\"\n";

fn blob(descriptor: &Value) -> Vec<u8> {
    let digest = descriptor["digest"].as_str().expect("a digest").replace(':', "/");
    let content = fs::read(layout().join("blobs").join(digest)).unwrap();
    assert_eq!(content.len() as u64, descriptor["size"].as_u64().unwrap());
    content
}

fn parsed(descriptor: &Value) -> Value {
    serde_json::from_slice(&blob(descriptor)).unwrap()
}

/// The descriptor of a name in the layout.
fn reference(name: &str) -> Value {
    let index: Value = serde_json::from_slice(&fs::read(layout().join("index.json")).unwrap()).unwrap();
    let manifests = index["manifests"].as_array().unwrap();
    let named = |m: &&Value| m["annotations"]["org.opencontainers.image.ref.name"] == name;
    manifests.iter().find(named).unwrap_or_else(|| panic!("no {name} in {index}")).clone()
}

fn here() -> &'static str {
    if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" }
}

/// Path below a directory, and the file's bytes.
fn files(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut rest = vec![directory.to_owned()];
    while let Some(next) = rest.pop() {
        for entry in fs::read_dir(&next).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                rest.push(path);
            } else {
                let name = path.strip_prefix(directory).unwrap().display().to_string();
                found.insert(name, fs::read(&path).unwrap());
            }
        }
    }
    found
}

#[test]
fn one_name_stands_for_both_architectures() {
    let index = parsed(&reference(VERSION));
    let platforms: Vec<_> = index["manifests"].as_array().unwrap().iter().map(|m| &m["platform"]).collect();
    let linux = |architecture: &str| json!({"os": "linux", "architecture": architecture});
    assert_eq!(platforms, [&linux("amd64"), &linux("arm64")]);
    for (manifest, architecture) in index["manifests"].as_array().unwrap().iter().zip(["amd64", "arm64"]) {
        assert_eq!(reference(&format!("{VERSION}-{architecture}"))["digest"], manifest["digest"]);
        let config = parsed(&parsed(manifest)["config"]);
        assert_eq!(config["architecture"], architecture);
        let labels = &config["config"]["Labels"];
        assert_eq!(labels["org.opencontainers.image.version"], VERSION);
        assert_eq!(labels["org.opencontainers.image.licenses"], env!("CARGO_PKG_LICENSE"));
        assert_eq!(labels["org.opencontainers.image.created"], config["created"]);
        for label in ["title", "description", "revision"] {
            let label = format!("org.opencontainers.image.{label}");
            assert!(labels[&label].as_str().is_some_and(|text| !text.is_empty()), "{label}: {labels}");
        }
    }
}

#[test]
fn it_holds_the_program_and_what_the_program_is_made_of() {
    for (architecture, interpreter) in [("amd64", 62), ("arm64", 183)] {
        let bundle = Bundle::unpack(&format!("{VERSION}-{architecture}"));
        let files = files(&bundle.file(""));
        let expected = [
            "etc/ssl/certs/ca-certificates.crt",
            "usr/bin/graylag",
            "usr/share/doc/graylag/LICENSE-APACHE",
            "usr/share/doc/graylag/LICENSE-MIT",
            "usr/share/doc/graylag/graylag.cdx.json",
        ];
        assert_eq!(files.keys().collect::<Vec<_>>(), expected);
        let manifest = parsed(&reference(&format!("{VERSION}-{architecture}")));
        let size = |descriptor: &Value| descriptor["size"].as_u64().unwrap();
        let fetched =
            size(&manifest["config"]) + manifest["layers"].as_array().unwrap().iter().map(size).sum::<u64>();
        println!("{architecture}: {fetched} bytes, unpacked {}", files.values().map(Vec::len).sum::<usize>());
        assert!(fetched <= LIMIT, "{architecture}: {fetched} bytes");

        let program = &files["usr/bin/graylag"];
        // `e_machine` of the ELF header.
        assert_eq!(u16::from_le_bytes([program[18], program[19]]), interpreter);
        assert!(elf::is_static(program));
        let crates = elf::crates(program);
        for name in ["graylag ", "graylag-ebpf ", "aya ", "tokio ", "ring "] {
            assert!(crates.iter().any(|found| found.starts_with(name)), "no {name}in {crates:?}");
        }
        let sbom: Value = serde_json::from_slice(&files["usr/share/doc/graylag/graylag.cdx.json"]).unwrap();
        assert_eq!(
            (&sbom["bomFormat"], &sbom["metadata"]["component"]["name"]),
            (&json!("CycloneDX"), &json!("graylag"))
        );
        let mut components: BTreeSet<String> =
            sbom["components"].as_array().unwrap().iter().map(elf::named).collect();
        components.insert(elf::named(&sbom["metadata"]["component"]));
        let missing: Vec<_> = crates.iter().filter(|name| !components.contains(*name)).collect();
        assert!(missing.is_empty(), "in the program, and not in the bill of materials: {missing:?}");
        // Where it was built does not show.
        for place in [env!("CARGO_MANIFEST_DIR").trim_end_matches("/tests"), "/.cargo/registry", "/.rustup/"]
        {
            let found = program.windows(place.len()).any(|window| window == place.as_bytes());
            assert!(!found, "{architecture}: {place} is in the program");
        }
    }
}

#[test]
fn built_again_it_is_the_same() {
    let again = built("again/image");
    let one = format!("{VERSION}-{}", here());
    let index: Value = serde_json::from_slice(&fs::read(again.join("index.json")).unwrap()).unwrap();
    let manifest = index["manifests"].as_array().unwrap().iter();
    let mut manifest =
        manifest.filter(|m| m["annotations"]["org.opencontainers.image.ref.name"] == one.as_str());
    assert_eq!(manifest.next().expect("the second build")["digest"], reference(&one)["digest"]);
    // And there was a second one, from other sources into another directory.
    let program =
        |root: &str| built(&format!("{root}{}-unknown-linux-musl/release/graylag", std::env::consts::ARCH));
    let (first, second) = (program(""), program("again/workspace/target/"));
    let inode = |path: &Path| std::os::unix::fs::MetadataExt::ino(&fs::metadata(path).unwrap());
    assert_ne!(inode(&first), inode(&second));
    assert!(fs::read(first).unwrap() == fs::read(second).unwrap());
}

/// Runs it as a user with the three capabilities and no other, on a read-only root, and shows it traffic.
fn runs(uid: u32, seccomp: Option<Value>) {
    let pair = Pair::new();
    let bundle = Bundle::unpack(&format!("{VERSION}-{}", here()));
    let arguments = bundle.config()["process"]["args"].clone();
    assert_eq!(arguments, json!(["/usr/bin/graylag", "run"]));
    let running = Container { uid, host: &pair.server, toml: TOML, seccomp }.start(bundle);
    assert!(running.root_is_read_only());
    let status = fs::read_to_string(format!("/proc/{}/status", running.pid())).unwrap();
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim();
    assert_eq!(field("Uid:").split_whitespace().next(), Some(uid.to_string().as_str()));
    // CAP_NET_ADMIN, CAP_PERFMON, CAP_BPF (include/uapi/linux/capability.h).
    let three = 1u64 << 12 | 1 << 38 | 1 << 39;
    assert_eq!(u64::from_str_radix(field("CapBnd:"), 16).unwrap(), three);
    assert_eq!(field("NoNewPrivs:"), "1");

    for server in [address::SERVER_V4, address::SERVER_V6] {
        let _echo = Echo::start(&pair.server, server, 8080);
        for _ in 0..10 {
            ask(&mut connect(&pair.client, server, 8080).unwrap(), 10).unwrap();
        }
    }
    let seen = || {
        let role = ("graylag.role", "server");
        let scrape = running.scrape();
        let established =
            scrape.sum("graylag.tcp.handshake.count", &[role, ("graylag.outcome", "established")]);
        (established as u64, scrape.count("graylag.tcp.response.duration", &[role]) as u64)
    };
    graylag_tests::eventually("it has seen every handshake and every answer", SOON, || {
        (seen() == (20, 20)).then_some(())
    });
    assert_eq!(running.stop(), 0);
}

#[test]
fn as_root_with_three_capabilities_it_sees_every_handshake() {
    runs(0, None);
}

#[test]
fn as_nobody_with_three_capabilities_it_sees_every_handshake() {
    runs(65534, None);
}

/// What the unit's `SystemCallFilter` lets pass, as systemd resolves it, in the form that runtimes take.
fn units_filter() -> Value {
    let unit =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/systemd/graylag.service"))
            .unwrap();
    let mut allowed = BTreeSet::new();
    for line in unit.lines().filter_map(|line| line.strip_prefix("SystemCallFilter=")) {
        let (words, remove) = line.strip_prefix('~').map_or((line, false), |words| (words, true));
        for word in words.split_whitespace() {
            for call in calls(word) {
                if remove {
                    allowed.remove(&call)
                } else {
                    allowed.insert(call)
                };
            }
        }
    }
    // systemd allows what it needs itself between filter and program (systemd.exec(5): execve, exit, rt_sigreturn, …).
    allowed.extend(calls("@default"));
    json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "architectures": [if cfg!(target_arch = "x86_64") { "SCMP_ARCH_X86_64" } else { "SCMP_ARCH_AARCH64" }],
        "syscalls": [{"names": allowed, "action": "SCMP_ACT_ALLOW"}],
    })
}

/// The system calls of a group, or the one that is named.
fn calls(word: &str) -> Vec<String> {
    if !word.starts_with('@') {
        return vec![word.to_owned()];
    }
    let listed = finish(Command::new("systemd-analyze").args(["syscall-filter", word]));
    assert_eq!(listed.code, Some(0), "{listed:?}");
    let lines = listed.out.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.skip(1).flat_map(calls).collect()
}

#[test]
fn under_the_units_system_call_filter_it_sees_every_handshake() {
    runs(65534, Some(units_filter()));
}
