//! What a component says of itself: a custom section that `ext build` writes, so that name, version, what it asks for and
//! how it is configured are bound to the bytes that the digest covers.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use wasmparser::{Parser, Payload};

use crate::extensions::{Capability, Kind};

/// The name of the section: JSON, with the fields of [`About`].
pub(super) const SECTION: &str = "beamline-extension";
/// The file of a project that describes its configuration.
pub(super) const CONFIG_SCHEMA: &str = "config.schema.json";
/// A section of a component of unknown origin is read only up to this.
const MAX_BYTES: usize = 256 << 10;

/// What a component says of itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct About {
    /// The package's name.
    pub(super) name: String,
    /// The package's version.
    pub(super) version: String,
    /// The kind of extension.
    pub(super) kind: Kind,
    /// The capabilities that it asks for, which are those that it imports.
    pub(super) capabilities: Vec<Capability>,
    /// A JSON Schema of its configuration, where the project has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) config_schema: Option<Value>,
}

impl About {
    /// What a component says of itself; `None` where it says nothing.
    ///
    /// # Errors
    /// Why the section cannot be read.
    pub(super) fn of(component: &[u8]) -> Result<Option<Self>, String> {
        let Some((_, section)) = find(component) else {
            return Ok(None);
        };
        if section.len() > MAX_BYTES {
            return Err(format!(
                "its section {SECTION} has {} bytes; at most {MAX_BYTES} are read",
                section.len()
            ));
        }
        serde_json::from_slice(section)
            .map(Some)
            .map_err(|error| format!("its section {SECTION} is not what `ext build` writes: {error}"))
    }

    /// The component with this as its last section, in place of what it said before.
    ///
    /// # Errors
    /// When it is larger than a section that is read.
    pub(super) fn written_into(&self, component: &[u8]) -> Result<Vec<u8>, String> {
        let json = serde_json::to_vec(self).map_err(|error| error.to_string())?;
        if json.len() > MAX_BYTES {
            return Err(format!(
                "{CONFIG_SCHEMA} is too large: the section that it becomes part of may have {MAX_BYTES} bytes"
            ));
        }
        let mut bytes = without(component);
        let mut contents = leb128(SECTION.len());
        contents.extend_from_slice(SECTION.as_bytes());
        contents.extend(json);
        // A custom section.
        bytes.push(0);
        bytes.extend(leb128(contents.len()));
        bytes.extend(contents);
        Ok(bytes)
    }
}

/// Where the component's own section lies, with its header, and what it holds.
fn find(component: &[u8]) -> Option<(std::ops::Range<usize>, &[u8])> {
    let mut depth = 0_u32;
    let mut found = None;
    for payload in Parser::new(0).parse_all(component).map_while(Result::ok) {
        match payload {
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            // Not one of a component or module within it.
            Payload::CustomSection(section) if depth == 0 && section.name() == SECTION => {
                let contents = section.range();
                let header = 1 + leb128(contents.len()).len();
                found = Some((
                    contents.start.saturating_sub(header)..contents.end,
                    section.data(),
                ));
            }
            _ => {}
        }
    }
    found
}

/// A component that says nothing of itself.
fn without(component: &[u8]) -> Vec<u8> {
    let mut bytes = component.to_vec();
    while let Some(range) = find(&bytes).map(|(range, _)| range) {
        bytes.drain(range);
    }
    bytes
}

/// A number as WebAssembly writes it.
fn leb128(mut number: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let low = (number & 0x7f) as u8;
        number >>= 7;
        if number == 0 {
            bytes.push(low);
            return bytes;
        }
        bytes.push(low | 0x80);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const EMPTY: &[u8] = b"\0asm\x0d\0\x01\0";

    fn about(version: &str) -> About {
        About {
            name: "my-guard".to_owned(),
            version: version.to_owned(),
            kind: Kind::Validator,
            capabilities: vec![Capability::Clock],
            config_schema: Some(json!({"type": "object", "description": "x".repeat(300)})),
        }
    }

    #[test]
    fn what_is_written_is_read_and_replaced() {
        assert_eq!(About::of(EMPTY), Ok(None));
        let first = about("1.0.0").written_into(EMPTY).unwrap();
        assert_eq!(About::of(&first), Ok(Some(about("1.0.0"))));
        let second = about("2.0.0").written_into(&first).unwrap();
        assert_eq!(About::of(&second), Ok(Some(about("2.0.0"))));
        assert_eq!(second.len(), first.len());
        assert_eq!(without(&second), EMPTY);
        assert!(crate::cli::ext::component_info::ComponentInfo::of(&second).is_ok());
    }

    #[test]
    fn a_section_of_another_origin_is_read_up_to_a_bound_and_checked() {
        let mut long = about("1");
        long.config_schema = Some("x".repeat(MAX_BYTES).into());
        assert!(long.written_into(EMPTY).is_err());
        let mut odd = EMPTY.to_vec();
        odd.extend([0, 22, 18]);
        odd.extend(SECTION.as_bytes());
        odd.extend(b"{]}");
        assert!(About::of(&odd).unwrap_err().contains("ext build"));
        for length in [0, 1, 127, 128, 300, 1 << 20] {
            let bytes = leb128(length);
            let read = bytes
                .iter()
                .enumerate()
                .map(|(at, byte)| usize::from(byte & 0x7f) << (7 * at))
                .sum::<usize>();
            assert_eq!(read, length);
        }
    }
}
