//! An OCI image layout (opencontainers/image-spec 1.0, image-layout.md), written without a daemon: the same input gives the
//! same bytes.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use flate2::{Compression, GzBuilder};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
/// Names what stands in the layout's index.
const REFERENCE: &str = "org.opencontainers.image.ref.name";

/// What is in a layer, in the order in which it was put in. Owner is 0:0, and all times are one.
pub(super) struct Layer {
    archive: tar::Builder<Vec<u8>>,
    epoch: u64,
}

impl Layer {
    /// An empty one.
    pub(super) fn new(epoch: u64) -> Self {
        Self { archive: tar::Builder::new(Vec::new()), epoch }
    }

    /// A directory.
    pub(super) fn directory(&mut self, path: &str, mode: u32) -> Result<()> {
        self.entry(tar::EntryType::Directory, &format!("{path}/"), mode, &[])
    }

    /// A file.
    pub(super) fn file(&mut self, path: &str, mode: u32, content: &[u8]) -> Result<()> {
        self.entry(tar::EntryType::Regular, path, mode, content)
    }

    /// The archive.
    pub(super) fn finish(self) -> Result<Vec<u8>> {
        self.archive.into_inner().context("the layer")
    }

    fn entry(&mut self, kind: tar::EntryType, path: &str, mode: u32, content: &[u8]) -> Result<()> {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_mtime(self.epoch);
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(content.len() as u64);
        self.archive.append_data(&mut header, path, content).with_context(|| path.to_owned())
    }
}

/// A layout in a directory.
pub(super) struct Layout {
    directory: PathBuf,
}

impl Layout {
    /// A new one; what was there is removed.
    pub(super) fn new(directory: &Path) -> Result<Self> {
        let _ = fs::remove_dir_all(directory);
        fs::create_dir_all(directory.join("blobs/sha256"))?;
        fs::write(directory.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)?;
        Ok(Self { directory: directory.to_owned() })
    }

    /// An image of one layer, its archive; returns its manifest's descriptor. `config` is the image's configuration without its file
    /// system, `annotations` those of the manifest.
    pub(super) fn image(&self, archive: &[u8], mut config: Value, annotations: &Value) -> Result<Value> {
        // No name and no time in the header, and a compressor that is a line of Cargo.lock.
        let mut compressed = GzBuilder::new().mtime(0).write(Vec::new(), Compression::best());
        compressed.write_all(archive)?;
        let layer = self.blob(LAYER, &compressed.finish()?)?;
        config["rootfs"] = json!({"type": "layers", "diff_ids": [digest(archive)]});
        let config = self.json(CONFIG, &config)?;
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": config,
            "layers": [layer],
            "annotations": annotations,
        });
        self.json(MANIFEST, &manifest)
    }

    /// An index of images; returns its descriptor.
    pub(super) fn index(&self, manifests: &[Value]) -> Result<Value> {
        let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests});
        self.json(INDEX, &index)
    }

    /// The layout's own index: what it holds, by name.
    pub(super) fn finish(&self, named: &[(String, Value)]) -> Result<()> {
        let manifests = named.iter().map(|(name, descriptor)| {
            let mut descriptor = descriptor.clone();
            descriptor["annotations"] = json!({REFERENCE: name});
            descriptor
        });
        let manifests: Vec<Value> = manifests.collect();
        let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests});
        fs::write(self.directory.join("index.json"), index.to_string()).context("index.json")
    }

    fn json(&self, media_type: &str, value: &Value) -> Result<Value> {
        self.blob(media_type, value.to_string().as_bytes())
    }

    /// Content under its digest; returns its descriptor.
    fn blob(&self, media_type: &str, content: &[u8]) -> Result<Value> {
        let digest = digest(content);
        fs::write(self.directory.join("blobs").join(digest.replace(':', "/")), content)?;
        Ok(json!({"mediaType": media_type, "digest": digest, "size": content.len()}))
    }
}

/// `sha256:…` of content.
pub(super) fn digest(content: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut text = "sha256:".to_owned();
    for byte in Sha256::digest(content) {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::digest;

    #[test]
    fn the_digest_is_the_standards() {
        // FIPS 180-2, appendix B.1.
        let abc = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(digest(b"abc"), abc);
    }
}
