//! What the running kernel's BTF says: member offsets, tracepoint prototypes, enum values.
//!
//! The kernel's structures differ from version to version and from build to build; nothing about them is known
//! before this module has read `/sys/kernel/btf/vmlinux`.

use std::path::Path;

use btf_rs::{Backend, Btf, BtfType, Type};

use super::KernelError;

/// Where the kernel publishes its types (`CONFIG_DEBUG_INFO_BTF`).
pub const VMLINUX: &str = "/sys/kernel/btf/vmlinux";

/// The running kernel's types.
pub struct KernelTypes {
    btf: Btf,
}

/// Byte offset of a structure member, with its width where it is a bit field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// From the start of the outermost structure.
    pub offset: u32,
    /// First bit within that byte, and number of bits; `None` for an ordinary member.
    pub bits: Option<(u32, u32)>,
}

impl KernelTypes {
    /// Reads the types of the running kernel.
    pub fn of_running_kernel() -> Result<Self, KernelError> {
        Self::open(Path::new(VMLINUX))
    }

    /// Reads types from a file. Mapping it costs 1 MiB and a millisecond where the kernel lets it (since 6.16),
    /// parsing it 40 MiB and a tenth of a second.
    pub fn open(path: &Path) -> Result<Self, KernelError> {
        if !path.exists() {
            return Err(KernelError::NoBtf { path: path.to_owned() });
        }
        let btf = Btf::from_file_with_backend(path, Backend::Mmap)
            .or_else(|_| Btf::from_file(path))
            .map_err(|error| KernelError::BadBtf { path: path.to_owned(), error: error.to_string() })?;
        Ok(Self { btf })
    }

    /// Place of `structure.member.member…`, through anonymous structures and unions and through typedefs.
    pub fn member(&self, path: &str) -> Option<Member> {
        let mut names = path.split('.');
        let mut current = self.structure(names.next()?)?;
        let mut bits = 0;
        let mut width = None;
        for name in names {
            let (offset, bitfield, member_type) = self.find(&current, name)?;
            bits += offset;
            width = bitfield;
            current = member_type;
        }
        Some(Member { offset: bits / 8, bits: width.map(|width| (bits % 8, width)) })
    }

    fn structure(&self, name: &str) -> Option<Type> {
        let types = self.btf.resolve_types_by_name(name).ok()?;
        types.into_iter().find(|t| matches!(t, Type::Struct(_) | Type::Union(_)))
    }

    /// A member of a structure: offset in bits, width of a bit field, type.
    fn find(&self, structure: &Type, name: &str) -> Option<(u32, Option<u32>, Type)> {
        let (Type::Struct(structure) | Type::Union(structure)) = structure else { return None };
        for member in &structure.members {
            let member_type = self.bare(self.btf.resolve_chained_type(member).ok()?)?;
            let member_name = self.btf.resolve_name(member).ok()?;
            if member_name == name {
                return Some((member.bit_offset(), member.bitfield_size().filter(|w| *w > 0), member_type));
            }
            if member_name.is_empty()
                && let Some((offset, width, found)) = self.find(&member_type, name)
            {
                return Some((member.bit_offset() + offset, width, found));
            }
        }
        None
    }

    /// Behind typedefs and qualifiers.
    fn bare(&self, mut found: Type) -> Option<Type> {
        loop {
            found = match &found {
                Type::Typedef(t) => self.btf.resolve_chained_type(t).ok()?,
                Type::Const(t) | Type::Volatile(t) | Type::Restrict(t) => {
                    self.btf.resolve_chained_type(t).ok()?
                }
                Type::TypeTag(t) => self.btf.resolve_chained_type(t).ok()?,
                _ => return Some(found),
            };
        }
    }

    /// Types of a tracepoint's arguments, e.g. `["sock *", "sk_buff *", "int"]`; `None` where there is no such
    /// tracepoint. From `btf_trace_NAME`, whose first parameter is the tracepoint's private data.
    pub fn tracepoint(&self, name: &str) -> Option<Vec<String>> {
        let types = self.btf.resolve_types_by_name(&format!("btf_trace_{name}")).ok()?;
        let Type::Typedef(typedef) = types.into_iter().find(|t| matches!(t, Type::Typedef(_)))? else {
            return None;
        };
        let Type::Ptr(pointer) = self.btf.resolve_chained_type(&typedef).ok()? else { return None };
        let Type::FuncProto(prototype) = self.btf.resolve_chained_type(&pointer).ok()? else { return None };
        prototype
            .parameters
            .iter()
            .skip(1)
            .map(|parameter| self.type_name(&self.btf.resolve_chained_type(parameter).ok()?))
            .collect()
    }

    fn type_name(&self, found: &Type) -> Option<String> {
        let bare = self.bare(found.clone())?;
        if let Type::Ptr(pointer) = &bare {
            let target = match pointer.get_type_id() {
                Some(0) | None => "void".to_owned(),
                Some(_) => self.type_name(&self.btf.resolve_chained_type(pointer).ok()?)?,
            };
            return Some(format!("{target} *"));
        }
        match bare.as_btf_type() {
            Some(named) => self.btf.resolve_name(named).ok(),
            None => Some("void".to_owned()),
        }
    }

    /// `(name, value)` of every member of an enum.
    pub fn enumeration(&self, name: &str) -> Option<Vec<(String, u32)>> {
        let types = self.btf.resolve_types_by_name(name).ok()?;
        let Type::Enum(found) = types.into_iter().find(|t| matches!(t, Type::Enum(_)))? else { return None };
        found.members.iter().map(|m| Some((self.btf.resolve_name(m).ok()?, m.val()))).collect()
    }
}
