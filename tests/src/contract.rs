//! What one agent hands on to the next, in words: every map and every type of the ABI, as the kernel object describes them itself.

use std::{collections::BTreeMap, fmt::Write as _};

use aya_obj::generated::bpf_map_type;
use btf_rs::{Btf, BtfType, Type};

use crate::object::Object;

/// The structure that keeps the ABI's types in the BTF (agent-ebpf/src/bpf/layouts.rs): arrays of each.
const LAYOUTS: &str = "Layouts";

/// The contract of an object: a line for each map, a paragraph for each type, by name; structures that are part of others have their
/// own.
pub fn of(object: &Object) -> String {
    let mut text = maps(object);
    for described in Types::of(object.btf()).described.values() {
        let _ = write!(text, "\n{described}");
    }
    text
}

/// How many entries maps have is the configuration's. Constants are each agent's own, and are not handed on.
fn maps(object: &Object) -> String {
    let parsed = aya_obj::Object::parse(object.bytes()).expect("the object");
    let maps: BTreeMap<_, _> = parsed.maps.iter().filter(|(name, _)| !name.starts_with('.')).collect();
    let line = |(name, map): (&String, &aya_obj::Map)| {
        let kind = bpf_map_type::try_from(map.map_type()).ok().expect("a type of map");
        let (key, value, flags) = (map.key_size(), map.value_size(), map.map_flags());
        format!("{name}: {kind:?}, key {key}, value {value}, flags {flags:#x}\n")
    };
    maps.into_iter().map(line).collect()
}

struct Types<'a> {
    btf: &'a Btf,
    /// By name, and where two have the same by what they are.
    described: BTreeMap<(String, usize, usize), String>,
}

impl<'a> Types<'a> {
    fn of(btf: &'a Btf) -> Self {
        let mut types = Self { btf, described: BTreeMap::new() };
        let layouts = btf.resolve_types_by_name(LAYOUTS).expect("the ABI's types");
        for layouts in &layouts {
            if let Type::Struct(layouts) = layouts {
                for member in &layouts.members {
                    types.size_and_name(&types.behind(member));
                }
            }
        }
        types
    }

    fn behind(&self, of: &dyn BtfType) -> Type {
        let found = self.btf.resolve_chained_type(of);
        found.expect("a type")
    }

    /// In bytes, and how it is written; whatever it is made of is described.
    fn size_and_name(&mut self, of: &Type) -> (usize, String) {
        let name = |of: &dyn BtfType| self.btf.resolve_name(of).expect("a name");
        match of {
            Type::Int(int) => (int.size(), name(int)),
            Type::Array(array) => {
                let (size, name) = self.size_and_name(&self.behind(array));
                (size * array.len(), format!("[{name}; {}]", array.len()))
            }
            Type::Struct(found) => {
                let (name, size) = (name(found), found.size());
                let mut text = format!("{name}: {size} bytes\n");
                for member in &found.members {
                    let (size, kind) = self.size_and_name(&self.behind(member));
                    let (at, name) =
                        (member.bit_offset() / 8, self.btf.resolve_name(member).expect("a name"));
                    let _ = writeln!(text, "{at:6} {name}: {kind}, {size} bytes");
                }
                self.described.insert((name.clone(), size, found.members.len()), text);
                (size, name)
            }
            Type::Enum(found) => {
                let (name, size) = (name(found), found.size());
                let mut text = format!("{name}: one of, {size} bytes\n");
                for member in &found.members {
                    let _ = writeln!(
                        text,
                        "{:6} {}",
                        member.val(),
                        self.btf.resolve_name(member).expect("a name")
                    );
                }
                self.described.insert((name.clone(), size, found.members.len()), text);
                (size, name)
            }
            other => panic!("{} in the ABI", other.name()),
        }
    }
}
