//! The lines of the source that belong to places in a component, from the debug information within it.

use std::ops::Range;

use addr2line::{
    Context,
    gimli::{Dwarf, EndianSlice, Error, LittleEndian, SectionId},
};
use wasmparser::{Parser, Payload};

type Bytes<'a> = EndianSlice<'a, LittleEndian>;

/// `ext build` writes this in place of the project's own directory.
const PROJECT: &str = "/extension/";

/// The debug information of a component; there may be none.
#[derive(Default)]
pub(super) struct SourceLines<'a>(Vec<Module<'a>>);

/// A core module within a component.
struct Module<'a> {
    bytes: Range<usize>,
    /// Where its code begins, from which debug information counts.
    code: usize,
    context: Context<Bytes<'a>>,
}

/// A core module that is being read.
struct Found<'a> {
    bytes: Range<usize>,
    code: Option<usize>,
    sections: Vec<(&'a str, &'a [u8])>,
}

/// A function at a place, and the line.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// As the compiler names it.
    pub(super) function: Option<String>,
    /// `src/lib.rs:12:5`.
    pub(super) place: Option<String>,
}

impl<'a> SourceLines<'a> {
    /// The debug information in the bytes of a component.
    pub(super) fn of(component: &'a [u8]) -> Self {
        let mut found: Vec<Found<'a>> = Vec::new();
        for payload in Parser::new(0).parse_all(component).map_while(Result::ok) {
            match payload {
                Payload::ModuleSection { unchecked_range, .. } => found.push(Found {
                    bytes: unchecked_range,
                    code: None,
                    sections: Vec::new(),
                }),
                Payload::CodeSectionStart { range, .. } => {
                    if let Some(module) = holding(&mut found, range.start) {
                        module.code = Some(range.start);
                    }
                }
                Payload::CustomSection(section) if section.name().starts_with(".debug_") => {
                    if let Some(module) = holding(&mut found, section.data_offset()) {
                        module.sections.push((section.name(), section.data()));
                    }
                }
                _ => {}
            }
        }
        Self(found.into_iter().filter_map(Found::read).collect())
    }

    /// The functions at a place, the innermost first: those that were inlined there, and the one that it is in.
    pub(super) fn at(&self, offset: usize) -> Vec<Line> {
        let lines = || {
            let module = self.0.iter().find(|module| module.bytes.contains(&offset))?;
            let probe = offset.checked_sub(module.code)? as u64;
            let mut frames = module.context.find_frames(probe).skip_all_loads().ok()?;
            let mut lines = Vec::new();
            while let Ok(Some(frame)) = frames.next() {
                let function = frame
                    .function
                    .and_then(|name| Some(name.raw_name().ok()?.into_owned()));
                let place = frame.location.and_then(|location| {
                    let file = location.file?;
                    let file = file.strip_prefix(PROJECT).unwrap_or(file);
                    let column = location.column.map(|column| format!(":{column}"));
                    Some(format!("{file}:{}{}", location.line?, column.unwrap_or_default()))
                });
                lines.push(Line { function, place });
            }
            Some(lines)
        };
        lines().unwrap_or_default()
    }
}

fn holding<'f, 'a>(found: &'f mut [Found<'a>], offset: usize) -> Option<&'f mut Found<'a>> {
    found.iter_mut().rfind(|module| module.bytes.contains(&offset))
}

impl<'a> Found<'a> {
    fn read(self) -> Option<Module<'a>> {
        let section = |id: SectionId| -> Result<Bytes<'a>, Error> {
            let data = self.sections.iter().find(|(name, _)| *name == id.name());
            Ok(EndianSlice::new(data.map_or(&[], |(_, data)| data), LittleEndian))
        };
        let dwarf = Dwarf::load(section).ok().filter(|_| !self.sections.is_empty())?;
        Some(Module {
            bytes: self.bytes,
            code: self.code?,
            context: Context::from_dwarf(dwarf).ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_debug_information_has_no_lines() {
        for bytes in [&b""[..], b"no wasm", b"\0asm\x0d\0\x01\0", b"\0asm\x01\0\0\0"] {
            assert_eq!(SourceLines::of(bytes).at(3), []);
        }
    }
}
