//! `cargo xtask image`: the static program on an empty base, for both architectures, as an OCI layout.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::{
    Architecture, Shipped, VERSION, build, epoch,
    oci::{Layer, Layout},
    revision,
    sbom::sbom,
};
use crate::{
    build::AGAIN,
    shell::{output, run, say},
};

/// Where the layout is.
const DIRECTORY: &str = "target/image";
/// Debian's authorities, a file each: without any, no collector could be reached over TLS. Not the machine's own list,
/// /etc/ssl/certs/ca-certificates.crt: whom this machine trusts besides, such as a company's proxy, is its own affair.
pub(super) const AUTHORITIES: &str = "/usr/share/ca-certificates/mozilla";
/// Directories of the image. `/etc/graylag` and `/run/graylag` are there to be mounted over.
const DIRECTORIES: &[&str] = &[
    "etc",
    "etc/graylag",
    "etc/ssl",
    "etc/ssl/certs",
    "run",
    "run/graylag",
    "usr",
    "usr/bin",
    "usr/share",
    "usr/share/doc",
    "usr/share/doc/graylag",
];

/// Writes the image of these programs to target/image; returns the directory.
pub(crate) fn image(programs: &[Shipped]) -> Result<PathBuf> {
    let directory = PathBuf::from(DIRECTORY);
    for (architecture, archive) in write(Path::new("."), programs, &directory)? {
        // For deploy/Containerfile, whose builder makes a layer of its own.
        fs::write(format!("target/image-layer-{}.tar", architecture.debian()), archive)?;
    }
    // For those who read a file: `podman load`, `skopeo copy oci-archive:…`.
    let archive = directory.with_extension("tar");
    let mut tar = Command::new("tar");
    tar.args(["--sort=name", "--owner=0", "--group=0", "--numeric-owner", "--mode=u=rwX,go=rX"])
        .arg(format!("--mtime=@{}", epoch()?))
        .arg("-cf")
        .args([&archive, Path::new("-C"), &directory, Path::new(".")]);
    run(&mut tar)?;
    say(format!("wrote {} and {}", directory.display(), archive.display()));
    Ok(directory)
}

/// Writes the image of this machine's program to target/tested/image, and not to where an image of both may be.
pub(super) fn of_host(program: &Shipped) -> Result<()> {
    write(Path::new("."), std::slice::from_ref(program), Path::new("target/tested/image")).map(drop)
}

/// Builds this machine's program once more and writes its image to target/again/image: the test compares both.
pub(crate) fn again() -> Result<PathBuf> {
    let architecture = Architecture::host();
    let program = build::again(architecture)?;
    let directory = PathBuf::from("target/again/image");
    write(Path::new(AGAIN), &[(architecture, program)], &directory)?;
    Ok(directory)
}

/// Writes an image of a workspace's programs to a directory; returns the layer of each.
pub(super) fn write(
    workspace: &Path,
    programs: &[Shipped],
    directory: &Path,
) -> Result<Vec<(Architecture, Vec<u8>)>> {
    let layout = Layout::new(directory)?;
    let (mut manifests, mut named, mut layers) = (Vec::new(), Vec::new(), Vec::new());
    for (architecture, program) in programs {
        let labels = labels()?;
        let archive = layer(workspace, *architecture, program)?;
        let mut descriptor = layout.image(&archive, config(*architecture, &labels)?, &labels)?;
        descriptor["platform"] = json!({"os": "linux", "architecture": architecture.debian()});
        named.push((format!("{VERSION}-{}", architecture.debian()), descriptor.clone()));
        manifests.push(descriptor);
        layers.push((*architecture, archive));
    }
    named.insert(0, (VERSION.to_owned(), layout.index(&manifests)?));
    layout.finish(&named)?;
    Ok(layers)
}

fn layer(workspace: &Path, architecture: Architecture, program: &Path) -> Result<Vec<u8>> {
    let read = |path: &Path| fs::read(path).with_context(|| path.display().to_string());
    let mut layer = Layer::new(epoch()?);
    for directory in DIRECTORIES {
        layer.directory(directory, 0o755)?;
    }
    layer.file("etc/ssl/certs/ca-certificates.crt", 0o644, &authorities()?)?;
    layer.file("usr/bin/graylag", 0o755, &read(program)?)?;
    for license in ["LICENSE-APACHE", "LICENSE-MIT"] {
        layer.file(&format!("usr/share/doc/graylag/{license}"), 0o644, &read(&workspace.join(license))?)?;
    }
    layer.file("usr/share/doc/graylag/graylag.cdx.json", 0o644, &sbom(workspace, architecture)?)?;
    layer.finish()
}

/// All of Debian's authorities in one file, by name.
fn authorities() -> Result<Vec<u8>> {
    let listed = fs::read_dir(AUTHORITIES).context(AUTHORITIES)?;
    let mut paths = listed.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    paths.sort();
    let mut all = Vec::new();
    for path in paths {
        all.extend(fs::read(&path).with_context(|| path.display().to_string())?);
    }
    ensure!(!all.is_empty(), "no authority is in {AUTHORITIES}");
    Ok(all)
}

/// The image's configuration (image-spec, config.md). Root by default, for the capabilities that a container runtime adds
/// reach other users as ambient ones only, which not every runtime can.
fn config(architecture: Architecture, labels: &Value) -> Result<Value> {
    let created = created()?;
    Ok(json!({
        "created": created,
        "architecture": architecture.debian(),
        "os": "linux",
        "config": {
            "User": "0:0",
            "Env": ["PATH=/usr/bin"],
            "Entrypoint": ["/usr/bin/graylag"],
            "Cmd": ["run"],
            "WorkingDir": "/",
            "StopSignal": "SIGTERM",
            "Labels": labels,
        },
        "history": [{"created": created, "created_by": "cargo xtask image"}],
    }))
}

/// Labels of the image and annotations of its manifest (image-spec, annotations.md).
fn labels() -> Result<Value> {
    Ok(json!({
        "org.opencontainers.image.title": "graylag",
        "org.opencontainers.image.description": "eBPF host network health agent",
        "org.opencontainers.image.version": VERSION,
        "org.opencontainers.image.revision": revision(),
        "org.opencontainers.image.created": created()?,
        "org.opencontainers.image.licenses": "Apache-2.0 OR MIT",
    }))
}

/// RFC 3339, from the seconds that everything is dated with.
fn created() -> Result<String> {
    output(Command::new("date").args(["-u", "+%Y-%m-%dT%H:%M:%SZ", &format!("--date=@{}", epoch()?)]))
}
