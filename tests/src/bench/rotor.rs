//! A program that turns one packet into the next of another flow and then calls the program that is measured.
//!
//! `BPF_PROG_TEST_RUN` shows a program the same packet again and again, which says what a program costs whose data is in the
//! nearest cache. This one stands before it: it counts in the packet's `mark`, writes flow, sequence number and timestamp into
//! the packet accordingly, and goes on by a tail call. What it costs itself is the same before an empty program.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
};

use super::empty::NOTHING;
use crate::{
    frames::ETHERNET,
    instruction::{
        ADD, AND, BIG_ENDIAN, CALL, EXIT, HALF, IF_GREATER, LOAD_MAP, MULTIPLY, OR, SET, SHIFT_RIGHT,
        TAIL_CALL, WORD, copy, instruction, load_word, store, value,
    },
    syscall::{Kind, Shown, array_of, load, test_run},
};

/// Where the IPv4 source address is.
const SOURCE: usize = ETHERNET + 12;
/// Where the first RTP header is.
pub const RTP: usize = ETHERNET + 20 + 8;
/// Odd: modulo a power of two, its multiples are all numbers in an order that nothing foresees.
const STEP: i32 = 0x3779_b1b5;
/// The source addresses are of 10.0.0.0/8.
const NETWORK: i32 = 10 << 24;

/// What it does to the packet.
#[derive(Clone, Copy, Debug)]
pub struct Turn {
    /// Base 2 logarithm of the number of flows.
    pub log_flows: u32,
    /// RTP packets in it, 0 for something else than RTP.
    pub segments: usize,
    /// Bytes from one to the next.
    pub size: usize,
    /// Ticks from one packet to the next; none for the packets of one video frame.
    pub ticks: i32,
}

/// The rotor before a program, and before an empty one.
pub struct Rotor {
    measured: OwnedFd,
    empty: OwnedFd,
    next: u32,
    turn: Turn,
    // The programs refer to them.
    _arrays: [OwnedFd; 2],
}

impl Rotor {
    /// Before this program. Numbers begin with the 70th of each stream.
    pub fn before(program: BorrowedFd<'_>, turn: Turn) -> io::Result<Self> {
        let nothing = load(Kind::Classifier, &NOTHING)?;
        let arrays = [array_of(program)?, array_of(nothing.as_fd())?];
        let [measured, empty] = [0, 1].map(|i| load(Kind::Classifier, &code(turn, arrays[i].as_raw_fd())));
        let next = (WARM as u32).div_ceil(turn.segments.max(1) as u32) << turn.log_flows;
        Ok(Self { measured: measured?, empty: empty?, next, turn, _arrays: arrays })
    }

    /// Shows `count` packets, and says what one of them costs over an empty program, nanoseconds.
    pub fn run(&mut self, packet: &[u8], segment_size: usize, count: u32) -> io::Result<f64> {
        let shown = Shown { mark: self.next, segment_size: segment_size as u32 };
        let empty = test_run(self.empty.as_fd(), packet, shown, count)?;
        let measured = test_run(self.measured.as_fd(), packet, shown, count)?;
        self.next = self.next.wrapping_add(count);
        Ok(f64::from(measured.nanoseconds) - f64::from(empty.nanoseconds))
    }

    /// Flows that it turns through.
    pub const fn flows(&self) -> u32 {
        1 << self.turn.log_flows
    }
}

/// Packets of a stream that come before the first of the rotor's: a stream is then as it is for the rest of its life.
pub const WARM: usize = 80;

/// The code of the rotor, in the order of its work. `r6` is the context, `r8` the flow, `r9` the stream's number.
fn code(turn: Turn, array: i32) -> Vec<u64> {
    const MARK: i16 = 8;
    const DATA: i16 = 76;
    const DATA_END: i16 = 80;
    let mut code = vec![
        copy(6, 1),
        // The count goes on.
        load_word(7, 6, MARK),
        copy(8, 7),
        value(ADD, 8, 1),
        store(WORD, 6, 8, MARK),
        copy(8, 7),
        value(MULTIPLY, 8, STEP),
        value(AND, 8, (1 << turn.log_flows) - 1),
        copy(9, 7),
        value(SHIFT_RIGHT, 9, turn.log_flows.cast_signed()),
        value(MULTIPLY, 9, turn.segments.max(1) as i32),
        // The packet is as long as it is to be.
        load_word(2, 6, DATA),
        load_word(3, 6, DATA_END),
        copy(4, 2),
        value(ADD, 4, (RTP + turn.segments * turn.size) as i32),
    ];
    let mut work =
        vec![copy(1, 8), value(OR, 1, NETWORK), value(BIG_ENDIAN, 1, 32), store(WORD, 2, 1, SOURCE as i16)];
    if turn.segments != 0 {
        work.extend([copy(5, 9), value(MULTIPLY, 5, turn.ticks), value(BIG_ENDIAN, 5, 32)]);
    }
    for segment in 0..turn.segments {
        let at = (RTP + segment * turn.size) as i16;
        work.extend([copy(1, 9), value(ADD, 1, segment as i32), value(BIG_ENDIAN, 1, 16)]);
        work.extend([store(HALF, 2, 1, at + 2), store(WORD, 2, 5, at + 4)]);
    }
    work.extend([
        copy(1, 6),
        instruction(LOAD_MAP, 2, 1, 0, array),
        0,
        value(SET, 3, 0),
        instruction(CALL, 0, 0, 0, TAIL_CALL),
    ]);
    code.push(instruction(IF_GREATER, 4, 3, work.len() as i16, 0));
    code.extend(work);
    code.extend([value(SET, 0, -1), instruction(EXIT, 0, 0, 0, 0)]);
    code
}
