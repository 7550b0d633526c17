//! `beamline-sidecar ext check`.

mod against;
mod output;
mod report;

use std::{fs, path::PathBuf, process::ExitCode};

use clap::Args;

use self::{
    output::{problem_lines, table, to_json},
    report::Report,
};
use super::{
    about::About,
    component_info::ComponentInfo,
    target::{Target, read_module},
};
use crate::{
    cli::output::{EXIT_USAGE, errors_and_warnings, print, print_err},
    extensions::Manifest,
    policy::Severity,
};

#[derive(Debug, Args)]
#[command(
    after_help = "Looks at everything that a sidecar looks at before it calls an extension, and reports every mistake at once.
Without a record it does not know what the extension may use, and how it is configured.

Exits 0 if a sidecar would take it, 1 if not, 64 if there is nothing to check.

Examples:
  beamline-sidecar ext check                              the project in this directory
  beamline-sidecar ext check my-guard --deny-warnings
  beamline-sidecar ext check my-guard --against extensions/my-guard.wasm --deny-warnings
  beamline-sidecar ext check my-guard.wasm --record my-guard.json --json"
)]
pub(super) struct CheckArgs {
    /// A component, or a project that was built.
    #[arg(value_name = "FILE|DIR", default_value = ".")]
    path: PathBuf,
    /// The registry record; of a project its extension.json.
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
    /// A component that is in use, to say what this one newly asks for.
    #[arg(long, value_name = "OLD")]
    against: Option<PathBuf>,
    /// Take warnings for mistakes.
    #[arg(long)]
    deny_warnings: bool,
    /// Print JSON, for machines.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &CheckArgs) -> ExitCode {
    match check(args) {
        Ok((target, report)) => show(args, &target, &report),
        Err(reason) => {
            print_err(&reason);
            ExitCode::from(EXIT_USAGE)
        }
    }
}

/// # Errors
/// When there is nothing to check, or no engine to check it with.
fn check(args: &CheckArgs) -> Result<(Target, Report), String> {
    let target = Target::find(&args.path, args.record.as_deref())?;
    let module = target.read()?;
    let mut report = Report::default();
    if let Some(path) = &target.record {
        let text = fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
        match Manifest::read(&text) {
            Ok((manifest, warnings)) => {
                report.problems.extend(warnings);
                report.record = Some((text, manifest));
            }
            Err(problems) => report.problems.extend(problems),
        }
    }
    let info = match ComponentInfo::of(&module) {
        Ok(info) => info,
        Err(reason) => {
            report.problem(
                "component",
                reason,
                "name the file that `ext build` wrote, or its project",
            );
            return Ok((target, report));
        }
    };
    if let Some(old) = &args.against {
        let named = |reason: String| format!("{}: {reason}", old.display());
        let bytes = read_module(old).map_err(named)?;
        report.against(&info, &ComponentInfo::of(&bytes).map_err(named)?);
    }
    report.kind(&info);
    report.size(&info);
    report.digest(info.sha256);
    let can_link = report.imports(&info);
    report.run(&info, &module, can_link)?;
    report.about(&info, About::of(&module));
    report.info = Some(info);
    Ok((target, report))
}

fn show(args: &CheckArgs, target: &Target, report: &Report) -> ExitCode {
    let (errors, warnings) = (report.count(Severity::Error), report.count(Severity::Warning));
    let ok = errors == 0 && !(args.deny_warnings && warnings > 0);
    if args.json {
        print(&to_json(target, report, ok).to_string());
    } else {
        if let Some(stale) = target.stale() {
            print_err(&stale);
        }
        print(&table(target, report).to_string());
        for problem in &report.problems {
            print(&problem_lines(problem, target, report));
        }
        print(&format!("{}.", errors_and_warnings(errors, warnings)));
    }
    if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
