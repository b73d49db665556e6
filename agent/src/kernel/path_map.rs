//! The pinned map of path states: the one thing that others read in the kernel, and that outlives the agent.
//!
//! No program of graylag's reads it, so it is not in the kernel object: it is made here, or taken over as the last agent left it, so that
//! who holds it open goes on reading over a restart. Both need `CAP_BPF` on most hosts; afterwards entries are written through the
//! descriptor, which takes no privilege since Linux 5.19 (before, the agent keeps `CAP_BPF`; see [`super::privileges`]).

use std::{
    fs::{self, File, TryLockError},
    io,
    os::unix::fs::PermissionsExt,
    path::Path,
};

use aya::{
    maps::{LpmTrie, Map, MapData, MapError, MapType, lpm_trie},
    sys::SyscallError,
};
use graylag_ebpf::{
    key::Address,
    path_state::{Entry, Key, NAME},
};

use super::{
    KernelError,
    bpffs::{self, PinError, lock},
    error::chain,
    maps::{Raw, absent_is_fine, failed},
};

/// `BPF_F_NO_PREALLOC`: there is no other kind of trie.
const FLAGS: u32 = 1;
/// Of the directory that is made for it: readers may enter.
const DIRECTORY_MODE: u32 = 0o750;
/// Of the pin: its owner writes, its group reads.
const MODE: u32 = 0o640;

type Trie = LpmTrie<MapData, Raw<Address>, Raw<Entry>>;

/// The map, pinned, and written to by nobody else.
pub struct PathMap {
    trie: Trie,
    /// Held as long as this agent writes.
    _directory: File,
}

impl PathMap {
    /// Makes the map with room for so many entries, or takes over the one that is there; it is empty afterwards.
    pub fn open(path: &Path, entries: u32) -> Result<Self, PinError> {
        let directory = path.parent().unwrap_or(Path::new("/"));
        let lock = lock(directory, DIRECTORY_MODE)?;
        let refused = |error: &MapError| PinError::Refused { path: path.into(), error: chain(error) };
        // Until Linux 6.13 an update of a full trie fails, even of an entry that it has (`trie_update_elem`).
        let entries = entries + 1;
        let data = match left(path, entries)? {
            Some(data) => data,
            None => pinned(path, entries)?,
        };
        let mut trie: Trie = LpmTrie::try_from(Map::LpmTrie(data)).map_err(|error| refused(&error))?;
        // What the last agent said is no longer true because it was: a new one has to see for itself.
        let keys: Vec<_> = trie.keys().collect::<Result<_, _>>().map_err(|error| refused(&error))?;
        for key in &keys {
            trie.remove(key).map_err(|error| refused(&error))?;
        }
        Ok(Self { trie, _directory: lock })
    }

    /// Enters a path, or replaces what is said of it.
    pub fn write(&mut self, key: &Key, entry: &Entry) -> Result<(), KernelError> {
        self.trie.insert(&trie_key(key), Raw(*entry), 0).map_err(failed(NAME))
    }

    /// Removes a path.
    pub fn remove(&mut self, key: &Key) -> Result<(), KernelError> {
        absent_is_fine(NAME, self.trie.remove(&trie_key(key)))
    }
}

const fn trie_key(key: &Key) -> lpm_trie::Key<Raw<Address>> {
    lpm_trie::Key::new(key.bits, Raw(key.address))
}

/// What an agent would find at a pin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pin {
    /// Nothing: it would be made.
    None,
    /// A map that would be taken over.
    Left,
    /// A map of another version or size, which would be replaced.
    Other,
    /// Another agent writes there.
    InUse,
}

/// Looks at a pin and changes nothing.
pub fn look(path: &Path, entries: u32) -> Result<Pin, PinError> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    bpffs::require(directory)?;
    if !directory.exists() {
        return Ok(Pin::None);
    }
    let failed = |error| PinError::Directory { path: directory.into(), error };
    let file = File::open(directory).map_err(failed)?;
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => return Ok(Pin::InUse),
        Err(TryLockError::Error(error)) => return Err(failed(error)),
        Ok(()) => {}
    }
    Ok(match found(path)? {
        None => Pin::None,
        Some((_, shape)) if shape == shape_of(entries + 1) => Pin::Left,
        Some(_) => Pin::Other,
    })
}

/// Sizes of key and value, entries, flags.
type Shape = (u32, u32, u32, u32);

/// What this version makes.
const fn shape_of(entries: u32) -> Shape {
    (size_of::<Key>() as u32, size_of::<Entry>() as u32, entries, FLAGS)
}

/// The map of graylag's that is there, and its shape.
fn found(path: &Path) -> Result<Option<(MapData, Shape)>, PinError> {
    let refused = |error: String| PinError::Refused { path: path.into(), error };
    let data = match MapData::from_pin(path) {
        Ok(data) => data,
        Err(MapError::SyscallError(SyscallError { io_error, .. })) => {
            return match io_error.kind() {
                io::ErrorKind::NotFound => Ok(None),
                // The kernel says so of a directory too.
                io::ErrorKind::PermissionDenied if !path.is_dir() => Err(refused(io_error.to_string())),
                _ => Err(PinError::Foreign(path.into())),
            };
        }
        Err(_) => return Err(PinError::Foreign(path.into())),
    };
    // Of a program or a link, which can be pinned as well, this reads other fields: none of them has that name there.
    let info = data.info().map_err(|error| refused(chain(&error)))?;
    if !matches!(info.map_type(), Ok(MapType::LpmTrie)) || info.name_as_str() != Some(NAME) {
        return Err(PinError::Foreign(path.into()));
    }
    let shape = (info.key_size(), info.value_size(), info.max_entries(), info.map_flags());
    Ok(Some((data, shape)))
}

/// The map that an earlier agent left. One of another size or version is removed.
fn left(path: &Path, entries: u32) -> Result<Option<MapData>, PinError> {
    let refused = |error: String| PinError::Refused { path: path.into(), error };
    match found(path)? {
        None => return Ok(None),
        Some((data, shape)) if shape == shape_of(entries) => return Ok(Some(data)),
        Some(_) => {}
    }
    tracing::warn!(
        "{} was made by another version or with other limits, and is replaced: readers must open it again",
        path.display()
    );
    fs::remove_file(path).map_err(|error| refused(error.to_string()))?;
    Ok(None)
}

/// A new map.
fn pinned(path: &Path, entries: u32) -> Result<MapData, PinError> {
    let refused = |error: String| PinError::Refused { path: path.into(), error };
    let (key, value, entries, flags) = shape_of(entries);
    let definition = aya_obj::Map::new_from_params(MapType::LpmTrie as u32, key, value, entries, flags);
    let data = MapData::create(definition, NAME, None).map_err(|error| refused(chain(&error)))?;
    data.pin(path).map_err(|error| refused(chain(&error)))?;
    fs::set_permissions(path, fs::Permissions::from_mode(MODE))
        .map_err(|error| refused(error.to_string()))?;
    Ok(data)
}
