//! FNV-1a, 64 bits: the same in every build, unlike the standard library's hashes. It tells builds apart, not enemies.

/// Digest of parts, one after another.
pub fn of<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> u64 {
    let bytes = parts.into_iter().flatten();
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    #[test]
    fn it_is_what_others_compute() {
        // draft-eastlake-fnv, appendix C.
        assert_eq!(super::of([]), 0xcbf2_9ce4_8422_2325);
        assert_eq!(super::of([b"foo".as_slice(), b"bar"]), 0x8594_4171_f739_67e8);
    }
}
