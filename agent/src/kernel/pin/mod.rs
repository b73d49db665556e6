//! What outlives the agent, where the configuration asks for it: maps, programs and their links, pinned, so that the kernel half goes
//! on counting while there is no agent, and the next one goes on where this one stopped.
//!
//! The directory has `header` (which version of the contract this is, and which programs), `checkpoint` (what user space had made of
//! the counters), `maps/`, `programs/` and `links/`. Nothing of it is taken over unseen: the header says which version it has, and
//! the kernel says of each map what it is. A directory that does not fit is emptied, and the series begin anew.
//!
//! Programs stay attached as they are where the next agent would load the very same ones: the same object with the same
//! constants. Nothing is attached to a tracepoint then, nor detached, which would cost others there an event in some hundreds.
//! Other programs of the same contract take their places one by one, over the same maps.

mod leave;
mod store;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, DirBuilder, File},
    io,
    os::{
        fd::{AsRawFd, OwnedFd, RawFd},
        unix::fs::DirBuilderExt,
    },
    path::{Path, PathBuf},
};

use aya::{
    maps::{MapData, MapError, MapType},
    programs::{
        SchedClassifier,
        links::{FdLink, PinnedLink},
        tc::SchedClassifierLink,
    },
};
use graylag_ebpf::{ABI_VERSION, table::Seed};

use super::{
    KernelError,
    bpffs::{self, PinError},
    error::chain,
    iterator, load, maps, media,
    settings::Limits,
};
use leave::Leaving;
use store::{Header, Store};

/// Of directories: nobody else's.
const MODE: u32 = 0o700;
const MAPS: &str = "maps";
const PROGRAMS: &str = "programs";
const LINKS: &str = "links";

/// The agent's pins. Dropping this leaves them where they are.
pub struct Pins {
    directory: PathBuf,
    /// Held as long as this agent runs.
    _lock: File,
    store: Store,
    definitions: Vec<Definition>,
    mode: Mode,
    /// What became of what was there.
    found: Found,
    /// Links that are this agent's, by name.
    links: BTreeSet<String>,
    /// Programs that run, by name.
    programs: BTreeMap<&'static str, Pinned>,
    /// Of these, those that are taken over and go to interfaces as they come.
    classifiers: BTreeMap<&'static str, SchedClassifier>,
    /// Links of an earlier agent's programs, until their successors come.
    leaving: Leaving,
}

/// A program that runs, and what it had counted when this agent began.
struct Pinned {
    fd: OwnedFd,
    before: Run,
}

/// What the kernel counts of a program.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Run {
    /// Nanoseconds spent in it, where that is measured.
    pub nanoseconds: u64,
    /// Times it ran, where that is measured.
    pub runs: u64,
    /// Times it did not run because it interrupted itself.
    pub missed: u64,
}

impl Run {
    fn of(fd: RawFd) -> Self {
        let field = |name| maps::fdinfo(fd, name).unwrap_or(0);
        Self {
            nanoseconds: field("run_time_ns:"),
            runs: field("run_cnt:"),
            missed: field("recursion_misses:"),
        }
    }
}

/// How programs come to be attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// There are none.
    Fresh,
    /// Those that are there stay.
    Keep,
    /// Those that are there go, one by one, as their successors come.
    Exchange,
}

/// What was found in the directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// Nothing.
    Nothing,
    /// Something that does not fit, and was removed.
    Unfit(String),
    /// What an earlier agent left.
    Left,
}

/// What a map has to be.
struct Definition {
    name: String,
    kind: u32,
    key: u32,
    value: u32,
    /// 0 where the kernel decides.
    entries: u32,
    flags: u32,
}

impl Pins {
    /// Takes the directory, and over what is there if it fits; else empties it.
    pub fn open(directory: &Path, limits: &Limits) -> Result<Self, PinError> {
        let lock = bpffs::lock(directory, MODE)?;
        let definitions =
            definitions(limits).map_err(|error| PinError::Refused { path: directory.into(), error })?;
        let netns = super::netns::own().unwrap_or(0);
        let (store, found) = match Store::open(directory)? {
            None if !has_any(directory) => (None, Found::Nothing),
            None => (None, Found::Unfit("an agent did not come to the end of its start".into())),
            Some(store) => match unfit(directory, &store.header, netns, &definitions)? {
                Some(why) => (None, Found::Unfit(why)),
                None => (Some(store), Found::Left),
            },
        };
        let (store, mode) = if let Some(store) = store {
            (store, Mode::Exchange)
        } else {
            remove(directory)?;
            for name in [MAPS, PROGRAMS, LINKS] {
                let path = directory.join(name);
                DirBuilder::new()
                    .mode(MODE)
                    .create(&path)
                    .map_err(|error| PinError::Directory { path, error })?;
            }
            let header = Header::new(ABI_VERSION, netns, media::seed());
            (Store::create(directory, header)?, Mode::Fresh)
        };
        Ok(Self {
            directory: directory.into(),
            _lock: lock,
            store,
            definitions,
            mode,
            found,
            links: BTreeSet::new(),
            programs: BTreeMap::new(),
            classifiers: BTreeMap::new(),
            leaving: Leaving::default(),
        })
    }

    /// What was there.
    pub const fn found(&self) -> &Found {
        &self.found
    }

    /// Whether the maps are an earlier agent's, with all they counted.
    pub fn continues(&self) -> bool {
        self.mode != Mode::Fresh
    }

    /// Whether other programs than the earlier agent's take their places.
    pub fn exchanges(&self) -> bool {
        self.mode == Mode::Exchange
    }

    /// What the tables' keys are hashed with.
    pub(super) const fn seed(&self) -> Seed {
        self.store.header.seed
    }

    /// Where each map is, or is to be.
    pub(super) fn maps(&self) -> impl Iterator<Item = (&str, PathBuf)> {
        self.definitions.iter().map(|map| (map.name.as_str(), self.directory.join(MAPS).join(&map.name)))
    }

    /// Says what the programs to be attached are: the same as those that are there stay.
    pub(super) fn settle(&mut self, programs: u64) -> Result<(), KernelError> {
        if self.mode != Mode::Fresh {
            self.mode = if self.store.header.programs == programs { Mode::Keep } else { Mode::Exchange };
        }
        if self.mode == Mode::Exchange {
            // Should this agent not come to the end of its start, the next one must not take a mixture for the whole.
            self.store.header.programs = 0;
            self.store.write_header()?;
            // Those at interfaces stay where they are: another program is put into the same link.
            self.leaving = Leaving::take(&self.directory.join(LINKS), |name| !name.contains(AT));
        }
        self.store.header.programs = programs;
        Ok(())
    }

    fn link(&self, name: &str) -> PathBuf {
        self.directory.join(LINKS).join(name)
    }

    fn program(&self, name: &str) -> PathBuf {
        self.directory.join(PROGRAMS).join(name)
    }

    /// Leaves a program attached as it is, where it is there and may be.
    pub(super) fn keep(&mut self, name: &'static str) -> bool {
        if self.mode != Mode::Keep || !self.link(name).exists() || !self.keep_program(name) {
            return false;
        }
        self.links.insert(name.into());
        true
    }

    fn keep_program(&mut self, name: &'static str) -> bool {
        let Ok(fd) = iterator::object_at(&self.program(name)) else { return false };
        let before = Run::of(fd.as_raw_fd());
        self.programs.insert(name, Pinned { fd, before });
        true
    }

    /// The link of an earlier agent's program goes, and with it the program.
    pub(super) fn make_room(&mut self, link: &str) -> Result<(), String> {
        self.leaving.let_go(link);
        absent_is_fine(fs::remove_file(self.link(link)))
            .map_err(|e| format!("the pin of its predecessor: {e}"))
    }

    /// Pins a program and its link.
    pub(super) fn pin(&mut self, name: &'static str, program: RawFd, link: FdLink) -> Result<(), String> {
        self.pin_program(name, program)?;
        self.pin_link(name, link)
    }

    pub(super) fn pin_program(&mut self, name: &'static str, program: RawFd) -> Result<(), String> {
        let path = self.program(name);
        absent_is_fine(fs::remove_file(&path)).map_err(|e| e.to_string())?;
        iterator::pin(program, &path).map_err(|e| format!("{}: {e}", path.display()))?;
        let fd = iterator::object_at(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        self.programs.insert(name, Pinned { fd, before: Run::default() });
        Ok(())
    }

    fn pin_link(&mut self, name: &str, link: FdLink) -> Result<(), String> {
        // The descriptor may be closed: the pin holds the link.
        link.pin(self.link(name)).map_err(|e| chain(&e))?;
        self.links.insert(name.into());
        Ok(())
    }

    /// Takes over a program that goes to interfaces as they come.
    pub(super) fn keep_classifier(&mut self, name: &'static str) -> bool {
        if self.mode != Mode::Keep {
            return false;
        }
        let Ok(program) = SchedClassifier::from_pin(self.program(name)) else { return false };
        if !self.keep_program(name) {
            return false;
        }
        self.classifiers.insert(name, program);
        true
    }

    /// A program that was taken over with [`Self::keep_classifier`].
    pub(super) fn classifier(&mut self, name: &str) -> Option<&mut SchedClassifier> {
        self.classifiers.get_mut(name)
    }

    /// The link of a program at an interface that an earlier agent left, where the interface is still the same one: kept, or
    /// given to `exchange` to put another program in its place, at once.
    pub(super) fn at_interface(
        &mut self,
        program: &str,
        interface: u32,
        exchange: impl FnOnce(SchedClassifierLink) -> Result<(), String>,
    ) -> Option<Result<(), String>> {
        let name = at(program, interface);
        let path = self.link(&name);
        if self.mode == Mode::Fresh || !path.exists() {
            return None;
        }
        let kept = (|| {
            let fd = iterator::object_at(&path).map_err(|e| e.to_string())?;
            // The kernel sets it to 0 when the interface goes (`tcx_link_release`).
            if maps::fdinfo(fd.as_raw_fd(), "ifindex:") != Some(u64::from(interface)) {
                return Err("the interface is another".to_owned());
            }
            if self.mode == Mode::Keep {
                return Ok(());
            }
            let link = PinnedLink::from_pin(&path).map_err(|e| chain(&e))?;
            exchange(SchedClassifierLink::try_from(FdLink::from(link)).map_err(|e| chain(&e))?)
        })();
        if kept.is_ok() {
            self.links.insert(name);
            return Some(Ok(()));
        }
        tracing::debug!("{name}: {}", kept.err().unwrap_or_default());
        self.make_room(&name).err().map(Err)
    }

    /// Pins the link of a program at an interface.
    pub(super) fn pin_at_interface(
        &mut self,
        program: &str,
        interface: u32,
        link: FdLink,
    ) -> Result<(), String> {
        self.pin_link(&at(program, interface), link)
    }

    /// Detaches from an interface.
    pub(super) fn leave_interface(&mut self, program: &str, interface: u32) {
        let name = at(program, interface);
        self.links.remove(&name);
        let _ = self.make_room(&name);
    }

    /// What a program did since this agent began; `None` where it is not pinned.
    pub(super) fn run(&self, name: &str) -> Option<Run> {
        let program = self.programs.get(name)?;
        let (now, before) = (Run::of(program.fd.as_raw_fd()), program.before);
        Some(Run {
            nanoseconds: now.nanoseconds.saturating_sub(before.nanoseconds),
            runs: now.runs.saturating_sub(before.runs),
            missed: now.missed.saturating_sub(before.missed),
        })
    }

    /// Everything is attached: what is left of an earlier agent and nobody's goes, and the next one may take over.
    pub fn commit(&mut self) -> Result<(), KernelError> {
        self.leaving = Leaving::default();
        for (directory, mine) in
            [(LINKS, &self.links), (PROGRAMS, &self.programs.keys().map(|n| (*n).into()).collect())]
        {
            for entry in fs::read_dir(self.directory.join(directory)).into_iter().flatten().flatten() {
                if !mine.contains(entry.file_name().to_string_lossy().as_ref()) {
                    let _ = fs::remove_file(entry.path());
                }
            }
        }
        self.store.write_header()
    }

    /// What the earlier agent had made of the counters.
    pub fn checkpoint(&self) -> Result<Vec<u8>, KernelError> {
        self.store.read()
    }

    /// Keeps what this agent has made of the counters.
    pub fn save(&mut self, checkpoint: &[u8]) -> Result<(), KernelError> {
        self.store.write(checkpoint)
    }

    /// Removes everything that is pinned, and everything is detached: what was left could not be taken over after all.
    pub fn discard(self, limits: &Limits, why: String) -> Result<Self, PinError> {
        let directory = self.directory.clone();
        remove(&directory)?;
        drop(self);
        Ok(Self { found: Found::Unfit(why), ..Self::open(&directory, limits)? })
    }
}

/// Between program and interface in the name of a link.
const AT: char = '@';

/// Name of a link.
fn at(program: &str, interface: u32) -> String {
    format!("{program}{AT}{interface}")
}

fn has_any(directory: &Path) -> bool {
    [MAPS, PROGRAMS, LINKS, store::HEADER, store::CHECKPOINT].iter().any(|name| directory.join(name).exists())
}

/// Removes all pins. The header goes first: without it nobody takes over the rest.
pub fn remove(directory: &Path) -> Result<(), PinError> {
    let failed = |path: PathBuf| move |error: io::Error| PinError::Refused { path, error: error.to_string() };
    for name in [store::HEADER, store::CHECKPOINT] {
        let path = directory.join(name);
        absent_is_fine(fs::remove_file(&path)).map_err(failed(path))?;
    }
    // Whatever is attached next finds nothing of it there.
    drop(Leaving::take(&directory.join(LINKS), |_| true));
    for name in [LINKS, PROGRAMS, MAPS] {
        let path = directory.join(name);
        absent_is_fine(fs::remove_dir_all(&path)).map_err(failed(path))?;
    }
    Ok(())
}

fn absent_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// What is in a directory, in words, without touching it; `None` where nothing is.
pub fn describe(directory: &Path) -> Option<String> {
    if !has_any(directory) {
        return None;
    }
    let links = fs::read_dir(directory.join(LINKS)).map_or(0, Iterator::count);
    let version = match Store::open(directory) {
        Ok(Some(store)) => format!("version {} of the contract", store.header.abi),
        Ok(None) => "no header".into(),
        Err(error) => error.to_string(),
    };
    Some(format!("{links} links, {version}"))
}

/// Every map of the object, with the sizes that are configured.
fn definitions(limits: &Limits) -> Result<Vec<Definition>, String> {
    let object = aya_obj::Object::parse(load::OBJECT).map_err(|error| chain(&error))?;
    let sizes: BTreeMap<_, _> = limits.tables().into_iter().collect();
    let definition = |(name, map): (&String, &aya_obj::Map)| {
        let by_kernel = map.map_type() == MapType::RingBuf as u32;
        Definition {
            name: name.clone(),
            kind: map.map_type(),
            key: map.key_size(),
            value: map.value_size(),
            entries: if by_kernel { 0 } else { *sizes.get(name.as_str()).unwrap_or(&map.max_entries()) },
            flags: map.map_flags(),
        }
    };
    // Constants are each agent's own.
    Ok(object.maps.iter().filter(|(name, _)| !name.starts_with('.')).map(definition).collect())
}

/// Why what an earlier agent left cannot be taken over.
fn unfit(
    directory: &Path,
    header: &Header,
    netns: u32,
    definitions: &[Definition],
) -> Result<Option<String>, PinError> {
    if !header.is_ours() {
        return Ok(Some("its header is no graylag's".into()));
    }
    if header.abi != ABI_VERSION {
        return Ok(Some(format!(
            "it has version {} of the contract between the halves, this agent has {ABI_VERSION}",
            header.abi
        )));
    }
    if header.netns != netns {
        return Ok(Some("it belongs to an agent in another network namespace".into()));
    }
    if header.length == 0 {
        return Ok(Some("an agent did not come to the end of its start".into()));
    }
    for map in definitions {
        let path = directory.join(MAPS).join(&map.name);
        let data = match MapData::from_pin(&path) {
            Ok(data) => data,
            Err(MapError::SyscallError(error)) if error.io_error.kind() == io::ErrorKind::NotFound => {
                return Ok(Some(format!("there is no map {}", map.name)));
            }
            Err(error) => return Err(PinError::Refused { path, error: chain(&error) }),
        };
        let info = data.info().map_err(|error| PinError::Refused { path, error: chain(&error) })?;
        let kind = info.map_type().map_or(0, |kind| kind as u32);
        let entries = if map.entries == 0 { 0 } else { info.max_entries() };
        let found = (kind, info.key_size(), info.value_size(), entries, info.map_flags());
        let wanted = (map.kind, map.key, map.value, map.entries, map.flags);
        if found != wanted {
            return Ok(Some(if found.3 == wanted.3 {
                format!("its map {} is laid out in another way", map.name)
            } else {
                format!("its map {} has {} entries, not {}", map.name, found.3, wanted.3)
            }));
        }
    }
    Ok(None)
}
