//! The pinned map of path states as a data plane reads it: a process with two `bpf(2)` calls, and a BPF program. None of the agent's
//! code but the ABI.

use std::{
    io,
    mem::offset_of,
    net::IpAddr,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::{Path, PathBuf},
    process::Command,
};

use graylag_ebpf::{
    counter::Direction,
    path_state::{Entry, Key, State, VERSION},
};

use crate::{
    instruction::{
        ADD, CALL, EXIT, IF_EQUAL_VALUE, IF_NOT_LESS, IF_OTHER_VALUE, KTIME_GET_NS, LOAD_LONG, LOAD_MAP,
        MAP_LOOKUP, SET, WORD_VALUE, copy, instruction, load_word, value,
    },
    monotonic,
    proc::{Directory, run},
    syscall::{Kind, Shown, load, look_up, open_pin, test_run},
};

/// Monotonic time, the clock of the map.
pub fn now_ns() -> u64 {
    monotonic().as_nanos() as u64
}

/// The map, open.
pub struct Reader(OwnedFd);

impl Reader {
    /// Opens the pin for reading.
    pub fn open(pin: &Path) -> io::Result<Self> {
        open_pin(pin).map(Self)
    }

    /// What is said of an address, valid or not.
    pub fn entry(&self, address: IpAddr) -> Option<Entry> {
        look_up(self.0.as_fd(), &Key::host(address))
    }

    /// What a data plane acts on: receive and transmit. Whatever it does not hear is unknown.
    pub fn states(&self, address: IpAddr) -> [State; 2] {
        let entry = self.entry(address).unwrap_or_default();
        let now = now_ns();
        Direction::BOTH.map(|direction| entry.state(direction, now))
    }
}

/// A BPF program that looks an address up, and answers with the state of its way out.
pub struct Program(OwnedFd);

impl Program {
    /// Loads it, tied to the reader's map. In C it is in docs/verdicts.md.
    pub fn load(reader: &Reader, address: IpAddr) -> io::Result<Self> {
        const FRAME: u8 = 10;
        let key = Key::host(address);
        let word = |at: i16, word: u32| instruction(WORD_VALUE, FRAME, 0, at, word.cast_signed());
        let call = |helper| instruction(CALL, 0, 0, 0, helper);
        let program = [
            word(-24, key.bits),
            word(-20, key.address[0]),
            word(-16, key.address[1]),
            word(-12, key.address[2]),
            word(-8, key.address[3]),
            instruction(LOAD_MAP, 1, 1, 0, reader.0.as_raw_fd()),
            0,
            copy(2, FRAME),
            value(ADD, 2, -24),
            call(MAP_LOOKUP),
            instruction(IF_EQUAL_VALUE, 0, 0, 8, 0), // no entry: to the end
            copy(6, 0),
            call(KTIME_GET_NS),
            instruction(LOAD_LONG, 1, 6, offset_of!(Entry, valid_until_ns) as i16, 0),
            instruction(IF_NOT_LESS, 0, 1, 4, 0), // its time is over: to the end
            load_word(1, 6, offset_of!(Entry, version) as i16),
            instruction(IF_OTHER_VALUE, 1, 0, 2, VERSION.cast_signed()),
            load_word(0, 6, offset_of!(Entry, transmit) as i16),
            instruction(EXIT, 0, 0, 0, 0),
            value(SET, 0, 0), // the end: unknown
            instruction(EXIT, 0, 0, 0, 0),
        ];
        load(Kind::SocketFilter, &program).map(Self)
    }

    /// What it says now.
    pub fn transmit(&self) -> io::Result<State> {
        let ran = test_run(self.0.as_fd(), &[0; 64], Shown::default(), 1)?;
        Ok(State::from_raw(ran.result))
    }
}

/// A BPF file system of its own.
pub struct BpfFs(Directory);

impl BpfFs {
    /// Mounts it.
    #[track_caller]
    pub fn new() -> Self {
        crate::require_root();
        let directory = Directory::new();
        run(Command::new("mount").args(["-t", "bpf", "bpf"]).arg(directory.path()));
        Self(directory)
    }

    /// A place in it.
    pub fn join(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}

impl Default for BpfFs {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for BpfFs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}
