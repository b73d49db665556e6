//! The built kernel object, read as a file: what it says of itself before any kernel has seen it.

use std::{collections::BTreeMap, fs, path::Path};

use btf_rs::{Btf, Type};
use object::{Object as _, ObjectSection, ObjectSymbol, read::elf::ElfFile64};

/// Both builds: optimised, and with debug assertions.
pub const PROFILES: [&str; 2] = ["bpf", "bpf-debug"];

/// The object of one build.
pub struct Object {
    bytes: Vec<u8>,
    btf: Btf,
}

/// Size of a structure, and offset of each of its members in their order.
#[derive(Debug, PartialEq, Eq)]
pub struct Layout {
    /// In bytes.
    pub size: usize,
    /// `(name, offset in bytes)`.
    pub members: Vec<(String, usize)>,
}

impl Object {
    /// Reads the object of a profile.
    pub fn read(profile: &str) -> Self {
        let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/bpf/bpfel-unknown-none");
        let path = target.join(profile).join("graylag-ebpf");
        let bytes = fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}: cargo xtask test", path.display()));
        let btf = Btf::from_bytes(&section(&bytes, ".BTF")).expect("the object's BTF");
        Self { bytes, btf }
    }

    /// The file.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// What it says of its types.
    pub const fn btf(&self) -> &Btf {
        &self.btf
    }

    /// The layout of a structure, by its name, as the compiler of the kernel half laid it out.
    #[track_caller]
    pub fn layout(&self, name: &str) -> Layout {
        let types = self.btf.resolve_types_by_name(name).unwrap_or_default();
        let found =
            types.into_iter().find_map(|t| if let Type::Struct(found) = t { Some(found) } else { None });
        let found = found.unwrap_or_else(|| panic!("the object's BTF has no structure {name}"));
        let member = |m: &btf_rs::Member| {
            (self.btf.resolve_name(m).expect("a member's name"), m.bit_offset() as usize / 8)
        };
        Layout { size: found.size(), members: found.members.iter().map(member).collect() }
    }

    /// Size of key and value of every map: `struct bpf_map_def`, words 1 and 2.
    pub fn maps(&self) -> BTreeMap<String, (usize, usize)> {
        let size = |at| self.words("maps", at).map(|words| (words[1] as usize, words[2] as usize));
        self.symbols("maps").into_iter().filter_map(|(name, at)| Some((name, size(at)?))).collect()
    }

    /// The first word of a constant.
    pub fn constant(&self, name: &str) -> Option<u32> {
        let (_, at) = self.symbols(".rodata").into_iter().find(|(symbol, _)| symbol == name)?;
        Some(self.words(".rodata", at)?[0])
    }

    /// `(name, offset)` of the symbols of a section.
    fn symbols(&self, name: &str) -> Vec<(String, usize)> {
        let file = self.file();
        let index = file.section_by_name(name).expect("section").index();
        let symbols = file.symbols().filter(|s| s.section_index() == Some(index));
        let symbol = |s: object::read::elf::ElfSymbol64<'_, '_>| {
            let name = s.name().expect("a symbol's name").to_owned();
            (!name.is_empty()).then_some((name, s.address() as usize))
        };
        symbols.filter_map(symbol).collect()
    }

    fn words(&self, name: &str, at: usize) -> Option<[u32; 3]> {
        let data = section(&self.bytes, name);
        let mut words = [0; 3];
        for (word, bytes) in words.iter_mut().zip(data.get(at..)?.chunks_exact(4)) {
            *word = u32::from_le_bytes(bytes.try_into().expect("four bytes"));
        }
        Some(words)
    }

    fn file(&self) -> ElfFile64<'_> {
        ElfFile64::parse(&*self.bytes).expect("an ELF file")
    }
}

fn section(bytes: &[u8], name: &str) -> Vec<u8> {
    let file: ElfFile64<'_> = ElfFile64::parse(bytes).expect("an ELF file");
    let section = file.section_by_name(name).unwrap_or_else(|| panic!("the object has no section {name}"));
    section.data().expect("a section's data").to_vec()
}
