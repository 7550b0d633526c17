//! `beamline-sidecar ext build`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Args;
use serde_json::{Value, json};
use wit_component::ComponentEncoder;

use super::{
    about::{About, CONFIG_SCHEMA},
    compile,
    component_info::ComponentInfo,
    record_text::with_member,
    show::{Table, bytes, listed, thousands},
    target::{Language, Project, RECORD},
};
use crate::{
    cli::output::{EXIT_USAGE, print, print_err},
    extensions::ModuleDigest,
};

#[derive(Debug, Args)]
#[command(
    after_help = "Rust is compiled for wasm32-unknown-unknown, with rustup's compiler or Debian's, and made a component. A project in
JavaScript or Python is built by its own script: `npm run build`, or build.sh. Either runs code of the project and of what
it depends on, on this machine: build only projects that you trust.

Exits 0 if there is a component, 64 if not.

Examples:
  beamline-sidecar ext build                      the project in this directory
  beamline-sidecar ext build my-guard --out extensions/my-guard.wasm
  beamline-sidecar ext build --debug              keeps names and lines, for crashes to be told by"
)]
pub(super) struct BuildArgs {
    /// The project.
    #[arg(value_name = "DIR", default_value = ".")]
    dir: PathBuf,
    /// Where the component goes; otherwise the project's target/components/NAME.wasm.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Keep the names of functions and the lines of the source (Rust).
    #[arg(long)]
    debug: bool,
    /// Print JSON, for machines.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &BuildArgs) -> ExitCode {
    match build(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            print_err(&reason);
            ExitCode::from(EXIT_USAGE)
        }
    }
}

/// A component that was built.
pub(super) struct Made {
    out: PathBuf,
    compiler: &'static str,
    /// The size of the one before.
    before: Option<u64>,
    info: ComponentInfo,
}

impl Made {
    /// What was built, for a line among others.
    pub(super) fn in_a_line(&self) -> String {
        let size = self.info.bytes as u64;
        format!(
            "Built {}: {}{}",
            self.out.display(),
            bytes(size),
            change(self.before, size)
        )
    }
}

/// Builds a project.
///
/// # Errors
/// What is missing, or that it does not compile.
pub(super) fn make(project: &Project, out: Option<&Path>, debug: bool) -> Result<Made, String> {
    let out = out.map_or_else(|| project.component(), ToOwned::to_owned);
    print_err(&format!(
        "Building runs {}: build only projects that you trust.",
        compile::runs_what(project)
    ));
    // A script may write it there itself.
    let before = fs::metadata(&out).ok().map(|metadata| metadata.len());
    let compiled = match project.language {
        Language::Rust => compile::rust(&project.dir, debug)?,
        Language::Js | Language::Python => compile::by_script(project)?,
    };
    let module = fs::read(&compiled.file).map_err(|error| format!("{}: {error}", compiled.file.display()))?;
    let component = match project.language {
        Language::Rust => componentize(&module)?,
        Language::Js | Language::Python => module,
    };
    let info =
        ComponentInfo::of(&component).map_err(|reason| format!("what was built cannot be used: {reason}"))?;
    let component = match info.kind {
        Some(kind) => About {
            name: project.name.clone(),
            version: project.version.clone(),
            kind,
            capabilities: info.capabilities.clone(),
            config_schema: config_schema(project)?,
        }
        .written_into(&component)?,
        // `ext check` says what it is instead.
        None => component,
    };
    let info = ComponentInfo::of(&component)?;
    write(&out, &component).map_err(|error| format!("{}: {error}", out.display()))?;
    record_digest(&project.dir.join(RECORD), info.sha256)?;
    Ok(Made {
        out,
        compiler: compiled.compiler,
        before,
        info,
    })
}

fn build(args: &BuildArgs) -> Result<(), String> {
    let project = Project::open(&args.dir)?;
    let Made {
        out,
        compiler,
        before,
        info,
    } = make(&project, args.out.as_deref(), args.debug)?;
    let size = info.bytes as u64;
    if args.json {
        let report = json!({
            "file": out,
            "compiler": compiler,
            "previous_bytes": before,
            "component": info,
        });
        print(&report.to_string());
        return Ok(());
    }
    let mut table = Table::default();
    table.row("component", out.display().to_string());
    table.row("built by", compiler);
    table.row("size", format!("{}{}", bytes(size), change(before, size)));
    table.row("imports", listed(info.imports.iter().map(String::as_str)));
    table.row("sha256", info.sha256.to_string());
    print(&table.to_string());
    Ok(())
}

/// The project's description of its configuration, if it has one.
fn config_schema(project: &Project) -> Result<Option<Value>, String> {
    let file = project.dir.join(CONFIG_SCHEMA);
    let named = |error: &dyn std::fmt::Display| format!("{}: {error}", file.display());
    let text = match fs::read_to_string(&file) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(named(&error)),
    };
    let schema: Value = serde_json::from_str(&text).map_err(|error| named(&error))?;
    jsonschema::validator_for(&schema).map_err(|error| named(&format!("it is no JSON Schema: {error}")))?;
    Ok(Some(schema))
}

/// Writes the digest into the project's record, so that the record is of this very component.
fn record_digest(file: &Path, digest: ModuleDigest) -> Result<(), String> {
    let named = |error: &dyn std::fmt::Display| format!("{}: {error}", file.display());
    let text = match fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(named(&error)),
    };
    // What is wrong with a record, `ext check` reports.
    let Some(with) = with_member(&text, "sha256", &digest.to_string(), "module").filter(|with| *with != text)
    else {
        return Ok(());
    };
    fs::write(file, with).map_err(|error| named(&error))
}

/// Makes a component of a module, which carries the description of its world.
fn componentize(module: &[u8]) -> Result<Vec<u8>, String> {
    let encode = || {
        ComponentEncoder::default()
            .module(module)?
            .validate(true)
            .encode()
    };
    encode().map_err(|error| {
        format!(
            "no component can be made of what was compiled: {error:#}\n\
             Is there `beamline_extension_sdk::export!(KIND: TYPE);` at the root of the crate?"
        )
    })
}

/// `, 12 bytes more than before`.
fn change(before: Option<u64>, now: u64) -> String {
    match before {
        None => String::new(),
        Some(before) if before == now => ", as before".to_owned(),
        Some(before) => {
            let way = if now > before { "more" } else { "less" };
            format!(", {} bytes {way} than before", thousands(now.abs_diff(before)))
        }
    }
}

/// Writes a file that appears whole or not at all: a sidecar may be watching its directory.
fn write(path: &Path, component: &[u8]) -> std::io::Result<()> {
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir)?;
    }
    let new = path.with_extension(format!("new-{}", std::process::id()));
    fs::write(&new, component)?;
    fs::rename(&new, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_of_size_is_told() {
        assert_eq!(change(None, 5), "");
        assert_eq!(change(Some(5), 5), ", as before");
        assert_eq!(change(Some(1_000), 5_000), ", 4,000 bytes more than before");
        assert_eq!(change(Some(5), 4), ", 1 bytes less than before");
    }

    #[test]
    fn a_module_that_exports_no_extension_is_refused() {
        let empty = b"\0asm\x01\0\0\0";
        assert!(componentize(b"no wasm").unwrap_err().contains("export!"));
        // It becomes a component, of no world.
        assert!(
            componentize(empty)
                .is_ok_and(|component| ComponentInfo::of(&component).is_ok_and(|it| it.kind.is_none()))
        );
    }
}
