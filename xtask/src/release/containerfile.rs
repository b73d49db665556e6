//! `cargo xtask containerfile`: deploy/Containerfile really built, and what comes out compared with the image of `cargo xtask image`:
//! every file must be the same, the program to the byte.
//!
//! By buildah, which needs no daemon, and on a builder that is made here, of Debian and this machine's toolchain: no registry of images
//! has to be reached. Everything is below target/containers, and goes when it is done.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::Read,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use flate2::read::GzDecoder;
use serde_json::{Value, json};

use super::{
    Architecture, VERSION, binary, epoch,
    image::{AUTHORITIES, write},
    oci::digest,
    revision,
};
use crate::{
    debian,
    shell::{as_root, find, output, run, say},
};

const DIRECTORY: &str = "target/containers";
const BUILDER: &str = "localhost/graylag-builder";
const BUILT: &str = "localhost/graylag";
/// The builder: a Debian with its security archive, where LLVM is, and with whom this machine trusts, such as a company's proxy.
/// What is built with is seen by volumes, for copies of it would take a gigabyte each.
const BASE: &str = "\
FROM scratch
ADD debian-root.tar /
RUN echo 'deb http://deb.debian.org/debian-security bookworm-security main' >> /etc/apt/sources.list
COPY authorities/ /usr/local/share/ca-certificates/
RUN apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install --no-install-recommends ca-certificates git libllvm22
ENV CARGO_HOME=/usr/local/cargo PATH=/toolchain/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
";
/// What this machine trusts beyond Debian's authorities (update-ca-certificates(8)).
const LOCAL_AUTHORITIES: &str = "/usr/local/share/ca-certificates";
/// What both images must say alike.
const SAID: &[&str] = &["User", "Env", "Entrypoint", "Cmd", "WorkingDir", "StopSignal", "Labels"];

/// Builds it for an architecture and compares.
pub(crate) fn containerfile(architecture: Architecture) -> Result<()> {
    ensure!(
        !revision().ends_with("-dirty"),
        "the builder gets what is committed, and there are changes that are not: commit them first"
    );
    let program = binary(architecture)?;
    debian::install(&["buildah", "debootstrap"])?;
    debian::root()?;
    let _room = Room::new()?;
    let expected = Path::new(DIRECTORY).join("expected");
    write(Path::new("."), &[(architecture, program)], &expected)?;
    let expected = Image::read(&expected, &format!("{VERSION}-{}", architecture.debian()))?;
    say("building deploy/Containerfile with buildah (somewhat longer than the agent alone)");
    build(architecture, &expected)?;
    let built = Path::new(DIRECTORY).join("built");
    run(buildah()?.args(["push", "--quiet", BUILT]).arg(format!("oci:{}:built", built.display())))?;
    expected.compare(&Image::read(&built, "built")?)?;
    say("deploy/Containerfile makes the same image");
    Ok(())
}

/// Where all of it is: empty at first, and gone at the end.
struct Room;

impl Room {
    fn new() -> Result<Self> {
        clear()?;
        fs::create_dir_all(Path::new(DIRECTORY).join("base/authorities"))?;
        Ok(Self)
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        if let Err(error) = clear() {
            say(format!("{DIRECTORY} is left: {error:#}"));
        }
    }
}

fn clear() -> Result<()> {
    // A mount that an interrupted run left would be emptied with the rest, and those are this machine's own directories.
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let place = std::path::absolute(DIRECTORY)?.display().to_string();
    ensure!(!mounts.contains(&place), "something is mounted below {place}: umount it first");
    run(as_root("rm")?.arg("-rf").arg(DIRECTORY))
}

/// Nothing of it is outside, and no driver mounts anything.
fn buildah() -> Result<Command> {
    let room = std::path::absolute(DIRECTORY)?;
    let mut command = as_root("env")?;
    // What it needs meanwhile would be in /var/tmp.
    command.arg(format!("TMPDIR={}", room.display())).args(["buildah", "--storage-driver", "vfs"]);
    for (option, directory) in [("--root", "storage"), ("--runroot", "run")] {
        command.arg(option).arg(room.join(directory));
    }
    Ok(command)
}

/// A build as buildah does it without namespaces of a network and of users, which not every machine allows.
fn bud() -> Result<Command> {
    let mut command = buildah()?;
    command.args(["bud", "--quiet", "--isolation", "chroot", "--network", "host", "--pull=never"]);
    Ok(command)
}

/// The builder first, and with it the image, labelled like the other one.
fn build(architecture: Architecture, like: &Image) -> Result<()> {
    let room = Path::new(DIRECTORY);
    let base = room.join("base");
    fs::write(base.join("Containerfile"), BASE)?;
    fs::hard_link("target/debian-root.tar", base.join("debian-root.tar"))?;
    for entry in fs::read_dir(LOCAL_AUTHORITIES).into_iter().flatten().flatten() {
        fs::copy(entry.path(), base.join("authorities").join(entry.file_name()))?;
    }
    run(bud()?.args(["--tag", BUILDER]).arg(&base))?;

    // The commit and nothing else, with a .git of its own: that of a worktree is a reference to another place.
    let context = room.join("context");
    let from = format!("file://{}", std::env::current_dir()?.display());
    run(Command::new("git").args(["clone", "--quiet", "--depth", "1", &from]).arg(&context))?;

    let sysroot = output(Command::new("rustc").args(["--print", "sysroot"]))?;
    let tools = std::path::absolute("target/tools")?;
    let linker = find("bpf-linker").context("bpf-linker is missing: cargo xtask setup")?;
    let mut command = bud()?;
    let platform = |architecture: Architecture| format!("linux/{}", architecture.debian());
    for (option, value) in [
        ("--platform", platform(architecture)),
        // buildah 1.28 leaves it empty, and then looks for a builder of the other architecture.
        ("--build-arg", format!("BUILDPLATFORM={}", platform(Architecture::host()))),
        ("--volume", format!("{sysroot}:/toolchain:ro")),
        ("--volume", format!("{}:/src/target/tools:ro", tools.display())),
        ("--volume", format!("{}:/usr/local/bin/bpf-linker:ro", linker.display())),
        // Debian's newer lists of them are other lists, and that would be all that differs.
        ("--volume", format!("{AUTHORITIES}:{AUTHORITIES}:ro")),
        ("--build-arg", format!("BUILDER={BUILDER}")),
        ("--build-arg", format!("SOURCE_DATE_EPOCH={}", epoch()?)),
        ("--build-arg", format!("REVISION={}", like.label("revision"))),
        ("--build-arg", format!("CREATED={}", like.label("created"))),
        ("--tag", BUILT.to_owned()),
        ("--file", context.join("deploy/Containerfile").display().to_string()),
    ] {
        command.args([option, &value]);
    }
    // buildah would name itself in a label of its own.
    run(command.arg("--identity-label=false").arg(context))
}

/// What is in a layer: of each path kind, mode, owner, and for files the date; and the content's digest. A builder dates directories as
/// it likes.
type Entries = BTreeMap<PathBuf, (String, String)>;

/// An image in a layout, as it is told apart from another.
struct Image {
    config: Value,
    entries: Entries,
}

impl Image {
    /// The image of that name.
    fn read(layout: &Path, name: &str) -> Result<Self> {
        let parsed = |text: &[u8]| serde_json::from_slice::<Value>(text).context("an image's JSON");
        let blob = |descriptor: &Value| {
            let path = descriptor["digest"].as_str().unwrap_or_default().replace(':', "/");
            let path = layout.join("blobs").join(path);
            fs::read(&path).with_context(|| path.display().to_string())
        };
        let index = parsed(&fs::read(layout.join("index.json"))?)?;
        let manifest = index["manifests"].as_array().into_iter().flatten();
        let manifest = manifest
            .clone()
            .find(|m| m["annotations"]["org.opencontainers.image.ref.name"] == name)
            .with_context(|| format!("no {name} in {}", layout.display()))?;
        let manifest = parsed(&blob(manifest)?)?;
        let mut entries = Entries::new();
        for layer in manifest["layers"].as_array().into_iter().flatten() {
            add(&mut entries, &blob(layer)?)?;
        }
        Ok(Self { config: parsed(&blob(&manifest["config"])?)?, entries })
    }

    fn label(&self, name: &str) -> &str {
        let labels = &self.config["config"]["Labels"];
        labels[format!("org.opencontainers.image.{name}")].as_str().unwrap_or_default()
    }

    /// Fails where the other one differs, and says in what. Its date and its history are its builder's.
    fn compare(&self, other: &Self) -> Result<()> {
        let mut differ = Vec::new();
        let mut compare = |what: String, ours: &Value, theirs: &Value| {
            if ours != theirs {
                differ.push(format!("{what}: {ours}, by the Containerfile {theirs}"));
            }
        };
        for what in ["os", "architecture"] {
            compare(what.into(), &self.config[what], &other.config[what]);
        }
        for what in SAID {
            compare((*what).into(), &self.config["config"][what], &other.config["config"][what]);
        }
        let paths = self.entries.keys().chain(other.entries.keys()).collect::<BTreeSet<_>>();
        for path in paths {
            let (ours, theirs) = (self.entries.get(path), other.entries.get(path));
            compare(path.display().to_string(), &json!(ours), &json!(theirs));
        }
        ensure!(differ.is_empty(), "the images differ:\n{}", differ.join("\n"));
        Ok(())
    }
}

/// Adds what a layer has.
fn add(entries: &mut Entries, layer: &[u8]) -> Result<()> {
    let mut archive = tar::Archive::new(GzDecoder::new(layer));
    for entry in archive.entries()? {
        let mut entry = entry?;
        let header = entry.header();
        // Some write the kind into the mode too.
        let (kind, mode) = (header.entry_type(), header.mode()? & 0o7777);
        let (uid, gid) = (header.uid()?, header.gid()?);
        let date = if kind.is_dir() { 0 } else { header.mtime()? };
        let path = entry.path()?.into_owned();
        let mut content = Vec::new();
        entry.read_to_end(&mut content)?;
        entries.insert(path, (format!("{kind:?} {mode:o} {uid}:{gid} of {date}"), digest(&content)));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(files: &[(&str, &str, &str)], user: &str) -> Image {
        let entry = |(path, what, content): &(&str, &str, &str)| {
            (PathBuf::from(path), ((*what).to_owned(), (*content).to_owned()))
        };
        let entries = files.iter().map(entry).collect();
        Image { config: json!({"os": "linux", "config": {"User": user}}), entries }
    }

    #[test]
    fn what_differs_is_named() {
        const PROGRAM: &str = "usr/bin/graylag";
        let license = ("usr/share/doc/graylag/LICENSE-MIT", "Regular 644", "a");
        let ours = image(&[(PROGRAM, "Regular 755", "a"), license], "0:0");
        assert!(ours.compare(&image(&[license, (PROGRAM, "Regular 755", "a")], "0:0")).is_ok());
        for (theirs, named) in [
            (image(&[(PROGRAM, "Regular 777", "a"), license], "0:0"), PROGRAM),
            (image(&[(PROGRAM, "Regular 755", "b"), license], "0:0"), PROGRAM),
            (image(&[license], "0:0"), PROGRAM),
            (image(&[(PROGRAM, "Regular 755", "a")], "0:0"), license.0),
            (image(&[(PROGRAM, "Regular 755", "a"), (license.0, license.1, "b")], "0:0"), license.0),
            (image(&[(PROGRAM, "Regular 755", "a"), license], "1:1"), "User"),
        ] {
            let error = ours.compare(&theirs).unwrap_err().to_string();
            assert!(error.contains(named), "{error}");
        }
    }
}
