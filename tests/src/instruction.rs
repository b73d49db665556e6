//! Instructions of little BPF programs that tests and the benchmark put together by hand.

/// `*(u32 *)(to + offset) = value`.
pub const WORD_VALUE: u8 = 0x62;
/// `to = *(u64 *)(from + offset)`.
pub const LOAD_LONG: u8 = 0x79;
/// `if to == value goto +offset`.
pub const IF_EQUAL_VALUE: u8 = 0x15;
/// `if to != value goto +offset`.
pub const IF_OTHER_VALUE: u8 = 0x55;
/// `if to >= from goto +offset`.
pub const IF_NOT_LESS: u8 = 0x3d;
/// `to += value`.
pub const ADD: u8 = 0x07;
/// `to *= value`.
pub const MULTIPLY: u8 = 0x27;
/// `to |= value`.
pub const OR: u8 = 0x47;
/// `to &= value`.
pub const AND: u8 = 0x57;
/// `to >>= value`.
pub const SHIFT_RIGHT: u8 = 0x77;
/// `to = value`.
pub const SET: u8 = 0xb7;
/// `to` in network order, of so many bits.
pub const BIG_ENDIAN: u8 = 0xdc;
/// `*(u32 *)(to + offset) = from`.
pub const WORD: u8 = 0x63;
/// `*(u16 *)(to + offset) = from`.
pub const HALF: u8 = 0x6b;
/// `to = map`, of two words.
pub const LOAD_MAP: u8 = 0x18;
/// `if to > from goto +offset`.
pub const IF_GREATER: u8 = 0x2d;
/// A helper.
pub const CALL: u8 = 0x85;
/// `return r0`.
pub const EXIT: u8 = 0x95;
/// `BPF_FUNC_map_lookup_elem`.
pub const MAP_LOOKUP: i32 = 1;
/// `BPF_FUNC_ktime_get_ns`.
pub const KTIME_GET_NS: i32 = 5;
/// `BPF_FUNC_tail_call`.
pub const TAIL_CALL: i32 = 12;

/// One instruction, `struct bpf_insn`.
pub const fn instruction(code: u8, to: u8, from: u8, offset: i16, value: i32) -> u64 {
    code as u64
        | (to as u64) << 8
        | (from as u64) << 12
        | (offset.cast_unsigned() as u64) << 16
        | (value.cast_unsigned() as u64) << 32
}

/// `to = from`.
pub const fn copy(to: u8, from: u8) -> u64 {
    instruction(0xbf, to, from, 0, 0)
}

/// One with a value.
pub const fn value(code: u8, to: u8, value: i32) -> u64 {
    instruction(code, to, 0, 0, value)
}

/// `to = *(u32 *)(from + offset)`.
pub const fn load_word(to: u8, from: u8, offset: i16) -> u64 {
    instruction(0x61, to, from, offset, 0)
}

/// A store of a register.
pub const fn store(code: u8, to: u8, from: u8, offset: i16) -> u64 {
    instruction(code, to, from, offset, 0)
}
