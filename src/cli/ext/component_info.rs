//! What a component is, read from its bytes: nothing is compiled and nothing runs.

use serde::Serialize;
use wasmparser::{BinaryReader, KnownCustom, Parser, Payload};
use wit_component::DecodedWasm;
use wit_parser::{Function, Resolve, Type, TypeDefKind, WorldItem};

use super::about::About;
use crate::extensions::{Capability, Kind, ModuleDigest, Profile};

/// The package whose worlds extensions implement.
const PACKAGE: &str = "beamline:extension";

/// A component, as far as its bytes show. Its author chose every name in it: what of these is printed is one line, and no
/// escape sequence of a terminal.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct ComponentInfo {
    pub(super) sha256: ModuleDigest,
    pub(super) bytes: usize,
    pub(super) profile: Profile,
    /// The kind that its exports make it; none if they make it nothing that is called here.
    pub(super) kind: Option<Kind>,
    /// The version of the WIT package that it was built for.
    pub(super) package: Option<String>,
    pub(super) imports: Vec<String>,
    /// Functions with their types.
    pub(super) exports: Vec<String>,
    /// Capabilities that its imports need.
    pub(super) capabilities: Vec<Capability>,
    /// What it says of itself; `None` where it says nothing that can be read.
    pub(super) about: Option<About>,
    /// What made it: `language Rust`, `processed-by rustc 1.95.0`.
    pub(super) producers: Vec<Producer>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(super) struct Producer {
    /// `language`, `processed-by` or `sdk`.
    pub(super) field: String,
    pub(super) name: String,
    pub(super) version: String,
}

impl ComponentInfo {
    /// # Errors
    /// What the bytes are, if no component.
    pub(super) fn of(bytes: &[u8]) -> Result<Self, String> {
        check_header(bytes)?;
        let (resolve, world) = match wit_component::decode(bytes) {
            Ok(DecodedWasm::Component(resolve, world)) => (resolve, world),
            Ok(DecodedWasm::WitPackage(..)) => {
                return Err("it is a WIT package, which only describes components".to_owned());
            }
            Err(error) => return Err(format!("it is not a valid component: {error:#}")),
        };
        let name = |key| resolve.name_world_key(key);
        let world = &resolve.worlds[world];
        let imports: Vec<String> = world
            .imports
            .iter()
            .filter(|(_, item)| !matches!(item, WorldItem::Type { .. }))
            .map(|(key, _)| name(key))
            .collect();
        let mut exports = Vec::new();
        let mut kind = None;
        for (key, item) in &world.exports {
            match item {
                WorldItem::Function(function) => {
                    exports.push(signature(&resolve, function));
                    kind = kind.or(kind_of(function));
                }
                WorldItem::Interface { .. } => exports.push(name(key)),
                WorldItem::Type { .. } => {}
            }
        }
        let package = imports.iter().find_map(|import| {
            let (_, version) = import.strip_prefix(PACKAGE)?.split_once('@')?;
            Some(format!("{PACKAGE}@{version}"))
        });
        let needs = |capability: &Capability| {
            let prefix = format!("{PACKAGE}/{}@", capability.as_str());
            imports.iter().any(|import| import.starts_with(&prefix))
        };
        Ok(Self {
            sha256: ModuleDigest::of(bytes),
            bytes: bytes.len(),
            profile: Profile::of(bytes),
            kind,
            package,
            capabilities: Capability::ALL.into_iter().filter(needs).collect(),
            imports,
            exports,
            about: About::of(bytes).ok().flatten(),
            producers: producers(bytes),
        })
    }
}

fn check_header(bytes: &[u8]) -> Result<(), String> {
    if Parser::is_component(bytes) {
        check_structure(bytes)
    } else if Parser::is_core_wasm(bytes) {
        Err(
            "it is a core module, not a component: make one of it with `beamline-sidecar ext build`"
                .to_owned(),
        )
    } else {
        Err("it is not WebAssembly: a component begins with 00 61 73 6d 0d 00 01 00".to_owned())
    }
}

/// The sections of a component that hold a component.
const COMPONENT_SECTION: u8 = 4;
/// The bytes before the first section.
const HEADER: usize = 8;
/// How deeply components may lie within each other. Tools that make components go two or three levels deep.
const MAX_DEPTH: usize = 64;

/// Refuses a section that claims more bytes than there are: a reader would make room for all of them first. And refuses what is
/// nested too deeply: what reads a component looks at its bytes again for each level.
fn check_structure(bytes: &[u8]) -> Result<(), String> {
    let mut at = HEADER;
    // Where each component that is being read ends, the outermost first.
    let mut ends = vec![bytes.len()];
    while let Some(end) = ends.last().copied() {
        let Some((id, rest)) = bytes.get(at..end).and_then(<[u8]>::split_first) else {
            ends.pop();
            continue;
        };
        let mut reader = BinaryReader::new(rest, 0);
        let length = reader.read_var_u32().map_err(|error| error.to_string())? as usize;
        let contents = &rest[reader.current_position()..];
        if length > contents.len() {
            return Err(format!(
                "it ends in the middle: its section {id} claims {length} bytes, and {} are left",
                contents.len()
            ));
        }
        at = end - contents.len();
        if *id == COMPONENT_SECTION && length >= HEADER {
            if ends.len() > MAX_DEPTH {
                return Err(format!(
                    "it holds components within each other, more than {MAX_DEPTH} deep: no tool makes such, and none is read"
                ));
            }
            ends.push(at + length);
            at += HEADER;
        } else {
            at += length;
        }
    }
    Ok(())
}

/// The kind whose function this is. Pre- and post-processors have one of the same name.
fn kind_of(function: &Function) -> Option<Kind> {
    match (function.name.as_str(), function.params.get(1)?.name.as_str()) {
        ("validate", _) => Some(Kind::Validator),
        ("score", _) => Some(Kind::Scorer),
        ("process", "decision") => Some(Kind::Post),
        ("process", _) => Some(Kind::Pre),
        _ => None,
    }
}

/// `validate(call: call, message: message) -> result<verdict, failure>`.
fn signature(resolve: &Resolve, function: &Function) -> String {
    let params: Vec<String> = function
        .params
        .iter()
        .map(|param| format!("{}: {}", param.name, type_name(resolve, &param.ty)))
        .collect();
    let result = match &function.result {
        Some(result) => format!(" -> {}", type_name(resolve, result)),
        None => String::new(),
    };
    format!("{}({}){result}", function.name, params.join(", "))
}

/// A type as WIT writes it.
fn type_name(resolve: &Resolve, of: &Type) -> String {
    let name = |of: &Type| type_name(resolve, of);
    let Type::Id(id) = of else {
        return format!("{of:?}").to_lowercase();
    };
    let definition = &resolve.types[*id];
    if let Some(name) = &definition.name {
        return name.clone();
    }
    match &definition.kind {
        TypeDefKind::List(item) => format!("list<{}>", name(item)),
        TypeDefKind::Option(item) => format!("option<{}>", name(item)),
        TypeDefKind::Result(result) => match (&result.ok, &result.err) {
            (Some(ok), Some(err)) => format!("result<{}, {}>", name(ok), name(err)),
            (None, Some(err)) => format!("result<_, {}>", name(err)),
            (Some(ok), None) => format!("result<{}>", name(ok)),
            (None, None) => "result".to_owned(),
        },
        TypeDefKind::Tuple(tuple) => {
            let items: Vec<String> = tuple.types.iter().map(name).collect();
            format!("tuple<{}>", items.join(", "))
        }
        TypeDefKind::Type(of) => name(of),
        other => other.as_str().to_owned(),
    }
}

/// Every `producers` section, of the component and of what lies within it, each entry once.
fn producers(bytes: &[u8]) -> Vec<Producer> {
    let mut found = Vec::new();
    for payload in Parser::new(0).parse_all(bytes).map_while(Result::ok) {
        let Payload::CustomSection(section) = payload else {
            continue;
        };
        let KnownCustom::Producers(section) = section.as_known() else {
            continue;
        };
        for field in section.into_iter().map_while(Result::ok) {
            found.extend(
                field
                    .values
                    .into_iter()
                    .map_while(Result::ok)
                    .map(|value| Producer {
                        field: field.name.to_owned(),
                        name: value.name.to_owned(),
                        version: value.version.to_owned(),
                    }),
            );
        }
    }
    found.sort_unstable();
    found.dedup();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Components within each other: the innermost first, so that the time is linear.
    fn nested(depth: usize) -> Vec<u8> {
        let header = b"\0asm\x0d\0\x01\0";
        let mut reversed: Vec<u8> = header.iter().rev().copied().collect();
        for _ in 0..depth {
            let mut length = Vec::new();
            let mut rest = reversed.len();
            while rest >= 0x80 {
                length.push(u8::try_from(rest & 0x7f).unwrap() | 0x80);
                rest >>= 7;
            }
            length.push(u8::try_from(rest).unwrap());
            reversed.extend(length.iter().rev());
            reversed.push(COMPONENT_SECTION);
            reversed.extend(header.iter().rev());
        }
        reversed.reverse();
        reversed
    }

    #[test]
    fn what_is_nested_deeply_is_refused_before_anything_reads_it() {
        for depth in [0, 3, MAX_DEPTH] {
            assert_eq!(check_structure(&nested(depth)), Ok(()), "{depth}");
        }
        assert!(ComponentInfo::of(&nested(3)).is_ok_and(|info| info.kind.is_none()));
        // Thirty megabytes: to look at all bytes for each level would take hours.
        for depth in [MAX_DEPTH + 1, 10_000, 2_500_000] {
            let refused = ComponentInfo::of(&nested(depth)).unwrap_err();
            assert!(refused.contains("more than 64 deep"), "{depth}: {refused}");
        }
    }

    #[test]
    fn a_section_is_no_longer_than_what_it_lies_in() {
        let mut component = nested(2);
        assert_eq!(check_structure(&component), Ok(()));
        // The innermost claims what is there of the outermost only.
        let inner = component.len() - HEADER - 1;
        component[inner] = 20;
        component.extend([0; 40]);
        let refused = check_structure(&component).unwrap_err();
        assert!(
            refused.contains("it ends in the middle: its section 4 claims 20 bytes"),
            "{refused}"
        );
    }
}
