//! `componentize OUT FILE…`: makes a component of each core module and writes it into the directory OUT.
//!
//! A `.wasm` says itself which world it is for. A `.wat` says in its first line what to do with it:
//! `;; world: validator` names the world it is for, `;; as it is` only turns it into bytes. A component
//! that has not changed is not written again. Prints each one's size and which interfaces it imports.

use std::{
    env, fs,
    io::{self, Write as _},
    path::Path,
};

use anyhow::{Context, Result, bail};
use wasmparser::{Parser, Payload, Validator, WasmFeatures};
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

fn main() -> Result<()> {
    let mut arguments = env::args_os().skip(1);
    let Some(out) = arguments.next() else {
        bail!("which directory? componentize OUT FILE…");
    };
    let out = Path::new(&out);
    fs::create_dir_all(out).with_context(|| format!("cannot make {}", out.display()))?;
    for file in arguments {
        let file = Path::new(&file);
        let component =
            componentize(file).with_context(|| format!("cannot make a component of {}", file.display()))?;
        let name = file
            .file_stem()
            .context("has no name")?
            .to_string_lossy()
            .replace('_', "-");
        write_if_changed(&out.join(format!("{name}.wasm")), &component)?;
        // A closed pipe does not stop the work.
        let _ = writeln!(
            io::stdout(),
            "{name:<34} {:>8} bytes   {}",
            component.len(),
            imports(&component)?.join(" ")
        );
    }
    Ok(())
}

/// A program that runs beside this one never sees half a component.
fn write_if_changed(path: &Path, component: &[u8]) -> Result<()> {
    if fs::read(path).is_ok_and(|written| written == component) {
        return Ok(());
    }
    let new = path.with_extension("new");
    fs::write(&new, component).with_context(|| format!("cannot write {}", new.display()))?;
    fs::rename(&new, path).with_context(|| format!("cannot write {}", path.display()))
}

fn componentize(file: &Path) -> Result<Vec<u8>> {
    let mut module = wat::parse_file(file)?;
    if file.extension().is_some_and(|extension| extension == "wat") {
        let text = fs::read_to_string(file)?;
        let first = text.lines().next().unwrap_or_default().trim_end();
        if first == ";; as it is" {
            return Ok(module);
        }
        let world = first
            .strip_prefix(";; world: ")
            .context("the first line is neither `;; world: NAME` nor `;; as it is`")?;
        let mut resolve = Resolve::default();
        let (package, _) = resolve.push_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../wit"))?;
        let world = resolve.select_world(&[package], Some(world))?;
        embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8)?;
    }
    let component = ComponentEncoder::default()
        .module(&module)?
        .validate(true)
        .encode()?;
    Validator::new_with_features(WasmFeatures::default()).validate_all(&component)?;
    Ok(component)
}

/// The interfaces that the component itself imports; what lies within it imports from its own parts.
fn imports(component: &[u8]) -> Result<Vec<String>> {
    let mut names = Vec::new();
    let mut depth = 0_usize;
    for payload in Parser::new(0).parse_all(component) {
        match payload? {
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::ComponentImportSection(section) if depth == 0 => {
                for import in section {
                    let name = import?.name.name;
                    // The others are types.
                    if name.contains(':') {
                        names.push(name.to_owned());
                    }
                }
            }
            _ => {}
        }
    }
    Ok(names)
}
