//! Directories of a BPF file system, each one agent's own.

use std::{
    fs::{DirBuilder, File, TryLockError},
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

/// `BPF_FS_MAGIC`.
const BPFFS: u32 = 0xcafe_4a11;

/// Why nothing can be pinned; what is wrong, to be told beside the field of the configuration.
#[derive(Debug, thiserror::Error)]
pub enum PinError {
    /// Pins are in a BPF file system only.
    #[error("{} is on no BPF file system", .0.display())]
    NotBpffs(PathBuf),
    /// Its directory is not there and cannot be made, or not opened.
    #[error("directory {}: {error}", path.display())]
    Directory {
        /// Which.
        path: PathBuf,
        /// The system's words.
        error: io::Error,
    },
    /// Something is there that graylag did not make, and will not remove.
    #[error("{} is no map of graylag's", .0.display())]
    Foreign(PathBuf),
    /// Another agent has it.
    #[error("another graylag writes to a map in {}", .0.display())]
    Taken(PathBuf),
    /// The kernel refused.
    #[error("{}: {error}", path.display())]
    Refused {
        /// What it was asked for.
        path: PathBuf,
        /// Its words.
        error: String,
    },
}

impl PinError {
    /// What to do.
    pub const fn remedy(&self) -> &'static str {
        match self {
            Self::NotBpffs(_) => "mount one (mount -t bpf bpf /sys/fs/bpf), and name a path in it",
            Self::Directory { .. } => {
                "make it for the agent's user (install -d -o graylag), or name another that it can make"
            }
            Self::Foreign(_) => "remove it, or name another path",
            Self::Taken(_) => "stop that one, or name a path in a directory of its own",
            Self::Refused { .. } => "let it belong to the agent's user, or remove it",
        }
    }
}

/// Whether what would be made in a directory would be in a BPF file system.
pub fn require(directory: &Path) -> Result<(), PinError> {
    let there = directory.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    let kind = rustix::fs::statfs(there)
        .map_err(|error| PinError::Directory { path: directory.into(), error: error.into() })?;
    if kind.f_type as u32 == BPFFS { Ok(()) } else { Err(PinError::NotBpffs(directory.into())) }
}

/// Makes the directory, and makes sure that nobody else has it: two agents would each remove what the
/// other keeps there. Held as long as the file is open.
pub fn lock(directory: &Path, mode: u32) -> Result<File, PinError> {
    let failed = |error| PinError::Directory { path: directory.into(), error };
    // Before anything is made: it would be left in another file system.
    require(directory)?;
    DirBuilder::new().recursive(true).mode(mode).create(directory).map_err(failed)?;
    let file = File::open(directory).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(PinError::Taken(directory.into())),
        Err(TryLockError::Error(error)) => Err(failed(error)),
    }
}
