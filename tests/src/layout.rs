//! What `cargo xtask` has made to be shipped, read: the image as a layout (opencontainers/image-spec, image-layout.md), and files.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};

use crate::{container::Bundle, elf};

/// The version of all of it.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// Bytes to fetch for one architecture.
const LIMIT: u64 = 12_000_000;

/// This machine's architecture, in the words of Debian and of OCI.
pub const fn here() -> &'static str {
    if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" }
}

/// Something that was built for shipping, below target/.
pub fn built(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target").join(name);
    assert!(path.exists(), "{} is missing: cargo xtask test makes it, or with --shipped", path.display());
    path
}

/// A layout in a directory.
pub struct Layout(PathBuf);

impl Layout {
    /// One below target/.
    pub fn built(name: &str) -> Self {
        Self(built(name))
    }

    /// The image of this machine's architecture alone, which every run of all tests makes.
    pub fn tested() -> Self {
        Self::built("tested/image")
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// What a descriptor stands for.
    pub fn blob(&self, descriptor: &Value) -> Vec<u8> {
        let digest = descriptor["digest"].as_str().expect("a digest").replace(':', "/");
        let content = fs::read(self.0.join("blobs").join(digest)).expect("a blob");
        assert_eq!(content.len() as u64, descriptor["size"].as_u64().expect("a size"));
        content
    }

    /// The same as JSON.
    pub fn parsed(&self, descriptor: &Value) -> Value {
        serde_json::from_slice(&self.blob(descriptor)).expect("JSON")
    }

    /// The descriptor of a name.
    pub fn reference(&self, name: &str) -> Value {
        let index = fs::read(self.0.join("index.json")).expect("an index");
        let index: Value = serde_json::from_slice(&index).expect("JSON");
        let manifests = index["manifests"].as_array().expect("manifests");
        let named = |m: &&Value| m["annotations"]["org.opencontainers.image.ref.name"] == name;
        manifests.iter().find(named).unwrap_or_else(|| panic!("no {name} in {index}")).clone()
    }

    /// Fails unless the image of an architecture holds its program, what that is made of, and nothing else. Returns the program.
    #[track_caller]
    pub fn holds_the_program(&self, architecture: &str) -> Vec<u8> {
        let name = format!("{VERSION}-{architecture}");
        let files = files(&Bundle::unpack(self, &name).file(""));
        let expected = [
            "etc/ssl/certs/ca-certificates.crt",
            "usr/bin/graylag",
            "usr/share/doc/graylag/LICENSE-APACHE",
            "usr/share/doc/graylag/LICENSE-MIT",
            "usr/share/doc/graylag/graylag.cdx.json",
        ];
        assert_eq!(files.keys().collect::<Vec<_>>(), expected);
        let manifest = self.parsed(&self.reference(&name));
        let size = |descriptor: &Value| descriptor["size"].as_u64().expect("a size");
        let layers = manifest["layers"].as_array().expect("layers").iter();
        let fetched = size(&manifest["config"]) + layers.map(size).sum::<u64>();
        println!("{architecture}: {fetched} bytes, unpacked {}", files.values().map(Vec::len).sum::<usize>());
        assert!(fetched <= LIMIT, "{architecture}: {fetched} bytes");

        let program = &files["usr/bin/graylag"];
        // `e_machine` of the ELF header.
        let machine = if architecture == "amd64" { 62 } else { 183 };
        assert_eq!(u16::from_le_bytes([program[18], program[19]]), machine);
        assert!(elf::is_static(program));
        made_of(program, &files["usr/share/doc/graylag/graylag.cdx.json"]);
        // Where it was built does not show.
        for place in [env!("CARGO_MANIFEST_DIR").trim_end_matches("/tests"), "/.cargo/registry", "/.rustup/"]
        {
            let found = program.windows(place.len()).any(|window| window == place.as_bytes());
            assert!(!found, "{architecture}: {place} is in the program");
        }
        program.clone()
    }
}

/// Fails unless the crates that a program says it is made of are those that it is, and all of them are in the bill of materials.
#[track_caller]
fn made_of(program: &[u8], bill: &[u8]) {
    let crates = elf::crates(program);
    for name in ["graylag ", "graylag-ebpf ", "aya ", "tokio ", "ring "] {
        assert!(crates.iter().any(|found| found.starts_with(name)), "no {name}in {crates:?}");
    }
    let bill: Value = serde_json::from_slice(bill).expect("JSON");
    let (format, name) = (&bill["bomFormat"], &bill["metadata"]["component"]["name"]);
    assert_eq!((format, name), (&json!("CycloneDX"), &json!("graylag")));
    let components = bill["components"].as_array().expect("components").iter();
    let mut components: BTreeSet<String> = components.map(elf::named).collect();
    components.insert(elf::named(&bill["metadata"]["component"]));
    let missing: Vec<_> = crates.iter().filter(|name| !components.contains(*name)).collect();
    assert!(missing.is_empty(), "in the program, and not in the bill of materials: {missing:?}");
}

/// Path below a directory, and the file's bytes.
fn files(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut rest = vec![directory.to_owned()];
    while let Some(next) = rest.pop() {
        for entry in fs::read_dir(&next).expect("a directory").flatten() {
            let path = entry.path();
            if path.is_dir() {
                rest.push(path);
            } else {
                let name = path.strip_prefix(directory).expect("below").display().to_string();
                found.insert(name, fs::read(&path).expect("a file"));
            }
        }
    }
    found
}
