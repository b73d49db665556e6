//! Keys from a file that others cannot read.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use thiserror::Error;

use super::keys::{Keys, KeysError};

/// Why a file gives no keys.
#[derive(Debug, Error)]
pub enum KeyFileError {
    /// It cannot be read.
    #[error(
        "the keys of `[stamp] key_file` cannot be read from {path}: {source}; name a file that graylag may read"
    )]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Everybody can read it, or write to it.
    #[error("{path} has mode {mode:04o}: everybody may read or change the keys; chmod 0640 or stricter")]
    Mode {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It holds no keys.
    #[error("{path}: {source}")]
    Keys {
        /// The file.
        path: PathBuf,
        /// Why.
        source: KeysError,
    },
}

/// Reads the keys of a file; its owner and its group may read it, nobody else.
pub fn read(path: &Path) -> Result<Keys, KeyFileError> {
    let failed = |source| KeyFileError::Read { path: path.to_owned(), source };
    let file = fs::File::open(path).map_err(failed)?;
    // Of what is open, so that what is checked is what is read.
    let mode = file.metadata().map_err(failed)?.mode() & 0o7777;
    if mode & 0o007 != 0 {
        return Err(KeyFileError::Mode { path: path.to_owned(), mode });
    }
    let text = io::read_to_string(file).map_err(failed)?;
    Keys::parse(&text).map_err(|source| KeyFileError::Keys { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_file_that_everybody_can_read_is_refused() {
        let path = std::env::temp_dir().join(format!("graylag-keys-{}", std::process::id()));
        fs::write(&path, "00".repeat(16)).unwrap();
        let with = |mode| {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            read(&path).map_err(|error| error.to_string())
        };
        assert!(with(0o640).is_ok() && with(0o600).is_ok());
        let error = with(0o644).unwrap_err();
        assert!(error.contains("has mode 0644") && error.contains("chmod 0640"), "{error}");
        fs::remove_file(&path).unwrap();
        let error = read(&path).unwrap_err().to_string();
        assert!(error.contains("[stamp] key_file"), "{error}");
    }
}
