//! What is shipped, as a whole: both architectures, and that it is the same when it is built again. What one architecture takes is
//! tried in `image` and `package`.
#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests are tests

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use graylag_tests::{
    layout::{Layout, VERSION, built, here},
    proc::finish,
};
use serde_json::json;

/// Both, in one layout.
fn image() -> Layout {
    Layout::built("image")
}

fn package(architecture: &str) -> PathBuf {
    built(&format!("debian/graylag_{VERSION}_{architecture}.deb"))
}

#[test]
fn one_name_stands_for_both_architectures() {
    let image = image();
    let index = image.parsed(&image.reference(VERSION));
    let platforms: Vec<_> = index["manifests"].as_array().unwrap().iter().map(|m| &m["platform"]).collect();
    let linux = |architecture: &str| json!({"os": "linux", "architecture": architecture});
    assert_eq!(platforms, [&linux("amd64"), &linux("arm64")]);
    for (manifest, architecture) in index["manifests"].as_array().unwrap().iter().zip(["amd64", "arm64"]) {
        assert_eq!(image.reference(&format!("{VERSION}-{architecture}"))["digest"], manifest["digest"]);
        let config = image.parsed(&image.parsed(manifest)["config"]);
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
fn each_architecture_has_its_program() {
    for architecture in ["amd64", "arm64"] {
        image().holds_the_program(architecture);
    }
}

/// What runs in the tests of `image` is what is shipped, and a second build makes it again.
#[test]
fn built_again_it_is_the_same() {
    let one = format!("{VERSION}-{}", here());
    let shipped = image().reference(&one)["digest"].clone();
    assert_eq!(Layout::tested().reference(&one)["digest"], shipped);
    assert_eq!(Layout::built("again/image").reference(&one)["digest"], shipped);
    // And there was a second one, from other sources into another directory.
    let program =
        |root: &str| built(&format!("{root}{}-unknown-linux-musl/release/graylag", std::env::consts::ARCH));
    let (first, second) = (program(""), program("again/workspace/target/"));
    let inode = |path: &Path| std::os::unix::fs::MetadataExt::ino(&fs::metadata(path).unwrap());
    assert_ne!(inode(&first), inode(&second));
    assert!(fs::read(first).unwrap() == fs::read(second).unwrap());
}

/// What a package holds: mode, owner and path of each file.
fn contents(package: &Path) -> Vec<(String, String, String)> {
    let listed = finish(Command::new("dpkg-deb").arg("--contents").arg(package));
    assert_eq!(listed.code, Some(0), "{listed:?}");
    let files = listed.out.lines().filter(|line| !line.starts_with('d'));
    let mut files: Vec<_> = files
        .map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            (words[0].to_owned(), words[1].to_owned(), words[5].to_owned())
        })
        .collect();
    files.sort();
    files
}

#[test]
fn both_packages_hold_the_same_files() {
    let (amd64, arm64) = (package("amd64"), package("arm64"));
    assert_eq!(contents(&amd64), contents(&arm64));
    for (package, architecture) in [(&amd64, "amd64"), (&arm64, "arm64")] {
        let field = finish(Command::new("dpkg-deb").arg("--field").arg(package).arg("Architecture")).out;
        assert_eq!(field.trim(), architecture);
        assert!(contents(package).iter().all(|(_, owner, _)| owner == "0/0"));
    }
}

#[test]
fn debians_judge_has_nothing_to_say() {
    for architecture in ["amd64", "arm64"] {
        let judged = finish(
            Command::new("lintian")
                .args(["--allow-root", "--fail-on", "error,warning"])
                .arg(package(architecture)),
        );
        assert_eq!(judged.code, Some(0), "{judged:?}");
        assert!(!judged.out.contains("unused-override"), "{judged:?}");
    }
}
