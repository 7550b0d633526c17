//! `beamline-sidecar ext inspect`.

use std::{path::PathBuf, process::ExitCode};

use clap::Args;
use serde_json::json;

use super::{
    component_info::ComponentInfo,
    show::{Table, bytes, escaped, listed},
    target::read_module,
};
use crate::{
    cli::output::{EXIT_USAGE, print, print_err},
    extensions::Profile,
};

#[derive(Debug, Args)]
#[command(
    after_help = "Nothing of it is compiled or run, so a component of unknown origin may be looked at.

Exits 0 if it is an extension, 1 if it is a component of another kind, 64 if it is none at all.

Examples:
  beamline-sidecar ext inspect my-guard.wasm
  beamline-sidecar ext inspect my-guard.wasm --json | jq -r .sha256"
)]
pub(super) struct InspectArgs {
    /// The component.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Print JSON, for machines.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &InspectArgs) -> ExitCode {
    let file = args.file.display();
    let read = read_module(&args.file);
    let info = match read.and_then(|module| ComponentInfo::of(&module)) {
        Ok(info) => info,
        Err(reason) => {
            print_err(&escaped(&format!("{file}: {reason}")));
            return ExitCode::from(EXIT_USAGE);
        }
    };
    if args.json {
        let mut report = json!(info);
        report["file"] = json!(args.file);
        report["world"] = json!(info.kind.map(crate::extensions::Kind::world));
        print(&report.to_string());
    } else {
        show(&info, &file.to_string());
    }
    if info.kind.is_some() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// A component's own text, which must neither speak to the terminal nor forge lines.
fn plain(text: &str) -> String {
    text.chars()
        .take(128)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

fn show(info: &ComponentInfo, file: &str) {
    let mut table = Table::default();
    table.row("file", file);
    table.row(
        "kind",
        match info.kind {
            Some(kind) => format!("{} (world {})", kind.as_str(), kind.world()),
            None => "none: it exports no validate, score or process with the parameters that the worlds name"
                .to_owned(),
        },
    );
    if let Some(about) = &info.about {
        table.row("says it is", plain(&format!("{} {}", about.name, about.version)));
        let schema = if about.config_schema.is_some() {
            "has a schema"
        } else {
            "has no schema"
        };
        table.row("config", schema);
    }
    table.row(
        "built for",
        info.package
            .as_deref()
            .unwrap_or("no version of beamline:extension"),
    );
    table.row("size", bytes(info.bytes as u64));
    table.row("sha256", info.sha256.to_string());
    table.row(
        "profile",
        match info.profile {
            Profile::Compact | Profile::CompactMetered => {
                "compact: explicit bounds checks, 16 MiB of memory unless its record says more"
            }
            Profile::Interpreter | Profile::InterpreterMetered => {
                "interpreter: guard pages, 64 MiB of memory unless its record says less"
            }
        },
    );
    table.row(
        "capabilities",
        listed(info.capabilities.iter().map(|it| it.as_str())),
    );
    table.rows("imports", &info.imports);
    table.rows("exports", &info.exports);
    let producers = info
        .producers
        .iter()
        .map(|made| format!("{} {} {}", made.field, made.name, made.version));
    table.rows(
        "made by",
        &producers
            .map(|line| line.trim_end().to_owned())
            .collect::<Vec<_>>(),
    );
    print(&table.to_string());
}
