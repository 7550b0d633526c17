//! `componentize OUT FILE…`: makes a component of each core module and writes it into the directory OUT.
//!
//! A `.wasm` says itself which world it is for. A `.wat` has the name of its world in its first line:
//! `;; world: validator`. Prints each component's size and what it imports.
#![expect(clippy::print_stdout, reason = "a command prints its result")]

use std::{env, fs, path::Path};

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
        let path = out.join(format!("{name}.wasm"));
        fs::write(&path, &component).with_context(|| format!("cannot write {}", path.display()))?;
        println!(
            "{name:<34} {:>8} bytes   {}",
            component.len(),
            imports(&component)?.join(" ")
        );
    }
    Ok(())
}

fn componentize(file: &Path) -> Result<Vec<u8>> {
    let mut module = wat::parse_file(file)?;
    if file.extension().is_some_and(|extension| extension == "wat") {
        let text = fs::read_to_string(file)?;
        let world = text
            .lines()
            .next()
            .and_then(|line| line.strip_prefix(";; world: "))
            .context("the first line names no world")?;
        let mut resolve = Resolve::default();
        let (package, _) = resolve.push_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../wit"))?;
        let world = resolve.select_world(&[package], Some(world.trim()))?;
        embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8)?;
    }
    let component = ComponentEncoder::default()
        .module(&module)?
        .validate(true)
        .encode()?;
    Validator::new_with_features(WasmFeatures::default()).validate_all(&component)?;
    Ok(component)
}

/// The names that the component itself imports; what lies within it imports from its own parts.
fn imports(component: &[u8]) -> Result<Vec<String>> {
    let mut names = Vec::new();
    let mut depth = 0_usize;
    for payload in Parser::new(0).parse_all(component) {
        match payload? {
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::ComponentImportSection(section) if depth == 0 => {
                for import in section {
                    names.push(import?.name.name.to_owned());
                }
            }
            _ => {}
        }
    }
    Ok(names)
}
