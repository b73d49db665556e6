//! The header, and the checkpoint: two places in turn, so that one that is cut off leaves the one before it whole.

use std::{io, path::Path};

use aya::maps::{Array, HashMap, Map, MapData, MapError, MapType};
use bytemuck::{Pod, Zeroable};
use graylag_ebpf::table::Seed;

use super::super::{
    KernelError,
    bpffs::PinError,
    digest,
    error::chain,
    maps::{Raw, failed},
};

pub const HEADER: &str = "header";
pub const CHECKPOINT: &str = "checkpoint";

const MAGIC: u64 = u64::from_be_bytes(*b"graylag\0");
/// Bytes of an entry of the checkpoint: it stays below a page with what the kernel adds.
const CHUNK: usize = 4000;
/// Entries of one place: 16 MiB.
const CHUNKS: u32 = 4096;
/// `BPF_F_NO_PREALLOC`: memory is taken by the entry.
const NO_PREALLOC: u32 = 1;

/// What an agent must know before it takes anything over.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Header {
    magic: u64,
    /// Version of the contract between the halves, the checkpoint's form included.
    pub abi: u32,
    /// Inode of the agent's own network namespace: interfaces are counted there.
    pub netns: u32,
    /// Digest of the programs and their constants.
    pub programs: u64,
    /// What the tables' keys are hashed with.
    pub seed: Seed,
    /// Which of the two places has the checkpoint.
    place: u32,
    /// Its length in bytes; 0 while there is none.
    pub length: u32,
    /// Its digest.
    digest: u64,
}

impl Header {
    pub fn new(abi: u32, netns: u32, seed: Seed) -> Self {
        Self { magic: MAGIC, abi, netns, seed, ..Self::zeroed() }
    }

    pub const fn is_ours(&self) -> bool {
        self.magic == MAGIC
    }
}

/// Both maps.
pub struct Store {
    /// As it is to be; written by [`Store::write_header`].
    pub header: Header,
    headers: Array<MapData, Raw<Header>>,
    chunks: HashMap<MapData, u32, [u8; CHUNK]>,
}

impl Store {
    /// What is there; nothing where either map is missing or is another kind of map.
    pub fn open(directory: &Path) -> Result<Option<Self>, PinError> {
        let (Some(headers), Some(chunks)) =
            (left(&directory.join(HEADER))?, left(&directory.join(CHECKPOINT))?)
        else {
            return Ok(None);
        };
        let fits = |data: &MapData, kind: MapType, value: usize| {
            data.info().is_ok_and(|info| {
                info.map_type().is_ok_and(|found| found as u32 == kind as u32)
                    && (info.key_size(), info.value_size()) == (4, value as u32)
            })
        };
        if !fits(&headers, MapType::Array, size_of::<Header>()) || !fits(&chunks, MapType::Hash, CHUNK) {
            return Ok(None);
        }
        let Ok(headers) = Array::try_from(Map::Array(headers)) else { return Ok(None) };
        let Ok(chunks) = HashMap::try_from(Map::HashMap(chunks)) else { return Ok(None) };
        let Ok(Raw(header)) = headers.get(&0, 0) else { return Ok(None) };
        Ok(Some(Self { header, headers, chunks }))
    }

    /// New ones.
    pub fn create(directory: &Path, header: Header) -> Result<Self, PinError> {
        let make = |name: &str, kind: MapType, value: usize, entries, flags| {
            let path = directory.join(name);
            let refused = |error: String| PinError::Refused { path: path.clone(), error };
            let definition = aya_obj::Map::new_from_params(kind as u32, 4, value as u32, entries, flags);
            let data = MapData::create(definition, name, None).map_err(|error| refused(chain(&error)))?;
            data.pin(&path).map_err(|error| refused(chain(&error)))?;
            Ok(data)
        };
        let refused = |error: MapError| PinError::Refused { path: directory.into(), error: chain(&error) };
        let chunks = make(CHECKPOINT, MapType::Hash, CHUNK, 2 * CHUNKS, NO_PREALLOC)?;
        let headers = make(HEADER, MapType::Array, size_of::<Header>(), 1, 0)?;
        let mut store = Self {
            header,
            headers: Array::try_from(Map::Array(headers)).map_err(refused)?,
            chunks: HashMap::try_from(Map::HashMap(chunks)).map_err(refused)?,
        };
        store.headers.set(0, Raw(header), 0).map_err(refused)?;
        Ok(store)
    }

    pub fn write_header(&mut self) -> Result<(), KernelError> {
        self.headers.set(0, Raw(self.header), 0).map_err(failed(HEADER))
    }

    /// Writes a checkpoint beside the one that is there, then says that it holds.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), KernelError> {
        let too_long = bytes.len().div_ceil(CHUNK) > CHUNKS as usize;
        if too_long {
            let error = format!("{} bytes find no room", bytes.len());
            return Err(KernelError::Map { map: CHECKPOINT, error });
        }
        let place = 1 - self.header.place.min(1);
        let mut chunk = [0; CHUNK];
        for (at, part) in (place * CHUNKS..).zip(bytes.chunks(CHUNK)) {
            chunk[..part.len()].copy_from_slice(part);
            self.chunks.insert(at, chunk, 0).map_err(failed(CHECKPOINT))?;
        }
        (self.header.place, self.header.length) = (place, bytes.len() as u32);
        self.header.digest = digest::of([bytes]);
        self.write_header()
    }

    /// The checkpoint.
    pub fn read(&self) -> Result<Vec<u8>, KernelError> {
        let length = self.header.length as usize;
        let mut bytes = Vec::with_capacity(length);
        for at in (self.header.place * CHUNKS..).take(length.div_ceil(CHUNK)) {
            bytes.extend(self.chunks.get(&at, 0).map_err(failed(CHECKPOINT))?);
        }
        bytes.truncate(length);
        if digest::of([bytes.as_slice()]) != self.header.digest {
            return Err(KernelError::Map { map: CHECKPOINT, error: "it is damaged".into() });
        }
        Ok(bytes)
    }
}

fn left(path: &Path) -> Result<Option<MapData>, PinError> {
    match MapData::from_pin(path) {
        Ok(data) => Ok(Some(data)),
        Err(MapError::SyscallError(error)) if error.io_error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(PinError::Refused { path: path.into(), error: chain(&error) }),
    }
}
