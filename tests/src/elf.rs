//! The shipped program, read as a file.

use std::io::Read;

use flate2::read::ZlibDecoder;
use object::{Object as _, ObjectSection, read::elf::ElfFile64};
use serde_json::Value;

/// Whether it runs without anything else: no interpreter, no library.
pub fn is_static(program: &[u8]) -> bool {
    let file = ElfFile64::<object::Endianness>::parse(program).expect("an ELF file");
    file.section_by_name(".interp").is_none() && file.imports().is_ok_and(|imports| imports.is_empty())
}

/// `name version` of every crate that it says it is made of, sorted: what `cargo auditable` put into the section `.dep-v0`
/// (zlib, JSON; "cargo-auditable/PARSING.md").
pub fn crates(program: &[u8]) -> Vec<String> {
    let file = ElfFile64::<object::Endianness>::parse(program).expect("an ELF file");
    let section = file.section_by_name(".dep-v0").expect("a list of crates: built with cargo auditable");
    let mut text = String::new();
    ZlibDecoder::new(section.data().expect("data")).read_to_string(&mut text).expect("zlib");
    let list: Value = serde_json::from_str(&text).expect("JSON");
    let packages = list["packages"].as_array().expect("packages").iter();
    // What only build scripts and procedural macros use is not in the program.
    let runtime = packages.filter(|package| package["kind"] != "build");
    let mut names: Vec<String> = runtime.map(named).collect();
    names.sort();
    names
}

/// `name version` of a package of such a list, or of a component of such a bill.
pub fn named(package: &Value) -> String {
    let text = |field: &str| package[field].as_str().unwrap_or_default().to_owned();
    format!("{} {}", text("name"), text("version"))
}
