//! `beamline-sidecar check`.

use std::{io, path::PathBuf, process::ExitCode};

use clap::Args;
use serde_json::json;

use super::{
    ext::check_records,
    output::{EXIT_USAGE, counted, errors_and_warnings, print, print_err},
    policy_files,
};
use crate::{
    config::{self, Mistake, Mistakes},
    extensions::signing::Trust,
    policy::Severity,
    refresh::Directory,
};

#[derive(Debug, Args)]
#[command(
    after_help = "Exits 0 if everything is valid and 64 otherwise. Warnings do not count, unless --deny-warnings is given.

Examples:
  beamline-sidecar check examples/policies           every *.json in it and below
  beamline-sidecar check chat.json --json
  beamline-sidecar check --config sidecar.yaml
  beamline-sidecar check --config sidecar.yaml --json
  beamline-sidecar check --reference > docs/configuration.md"
)]
pub(super) struct CheckArgs {
    /// Policies to check, as a write would: files, or directories of *.json.
    #[arg(value_name = "POLICY", required_unless_present_any = ["reference", "config"])]
    policies: Vec<PathBuf>,
    /// The configuration to check; environment variables apply as they do for `run`.
    #[arg(long, value_name = "FILE", conflicts_with = "policies")]
    config: Option<PathBuf>,
    /// Treat warnings about policies as errors.
    #[arg(long, requires = "policies")]
    deny_warnings: bool,
    /// Print JSON, for machines.
    #[arg(long)]
    json: bool,
    /// Print the reference of all keys and check nothing.
    #[arg(long, conflicts_with_all = ["config", "json", "policies"])]
    reference: bool,
}

pub(super) fn run(args: &CheckArgs) -> ExitCode {
    if args.reference {
        print(config::reference().trim_end());
        return ExitCode::SUCCESS;
    }
    if !args.policies.is_empty() {
        return check_policies(args);
    }
    let (mistakes, warnings) = match config::load(args.config.as_deref(), &config::environment()) {
        Ok(loaded) => {
            let mut mistakes = policy_mistakes(&loaded.config);
            let mut warnings = loaded.warnings;
            check_extensions(&loaded.config, &mut mistakes, &mut warnings);
            (mistakes, warnings)
        }
        Err(mistakes) => (mistakes.list, Vec::new()),
    };
    let origin = args
        .config
        .as_ref()
        .map(|file| file.display().to_string())
        .unwrap_or_default();
    if args.json {
        print(&json!({"ok": mistakes.is_empty(), "mistakes": mistakes, "warnings": warnings}).to_string());
    } else {
        for warning in &warnings {
            print(&format!("warning: {warning}"));
        }
        if mistakes.is_empty() {
            print(&format!("{origin} is valid."));
        } else {
            print(
                &Mistakes {
                    origin,
                    list: mistakes.clone(),
                }
                .to_string(),
            );
        }
    }
    if mistakes.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(EXIT_USAGE)
    }
}

fn check_policies(args: &CheckArgs) -> ExitCode {
    let files = policy_files::files(&args.policies);
    let checked = files.and_then(|files| {
        files
            .iter()
            .map(|file| policy_files::check(file))
            .collect::<io::Result<Vec<_>>>()
    });
    let checked = match checked {
        Ok(checked) if checked.is_empty() => {
            print_err("There is no *.json file there; name the policies to check.");
            return ExitCode::from(EXIT_USAGE);
        }
        Ok(checked) => checked,
        Err(error) => {
            print_err(&error.to_string());
            return ExitCode::from(EXIT_USAGE);
        }
    };
    let count = |severity| checked.iter().map(|file| file.count(severity)).sum::<usize>();
    let (errors, warnings) = (count(Severity::Error), count(Severity::Warning));
    let ok = errors == 0 && !(args.deny_warnings && warnings > 0);
    if args.json {
        let files = checked
            .iter()
            .map(policy_files::Checked::to_json)
            .collect::<serde_json::Value>();
        print(&json!({"ok": ok, "errors": errors, "warnings": warnings, "files": files}).to_string());
    } else {
        for file in &checked {
            let text = file.to_text();
            if !text.is_empty() {
                print(text.trim_end());
            }
        }
        let files = checked.len();
        print(&format!(
            "{} checked: {}.",
            counted(files, "policy", "policies"),
            errors_and_warnings(errors, warnings)
        ));
    }
    if ok {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(EXIT_USAGE)
    }
}

/// The problems of the records and modules in `extensions_dir`. Nothing is compiled.
fn check_extensions(config: &config::Config, mistakes: &mut Vec<Mistake>, warnings: &mut Vec<String>) {
    if !config.extensions.enabled {
        return;
    }
    if let Err(reason) = Trust::read(&config.extensions.signatures) {
        mistakes.push(Mistake::new(
            "extensions.signatures",
            reason,
            "name files of public keys in PEM, as `beamline-sidecar ext keygen` writes them",
        ));
    }
    let dir = &config.extensions_dir;
    if dir.as_os_str().is_empty() {
        return;
    }
    match check_records(&config.extensions, dir) {
        Ok(records) => {
            for (id, problem) in records
                .iter()
                .flat_map(|(id, all)| all.iter().map(move |it| (id, it)))
            {
                match problem.severity {
                    Severity::Error => mistakes.push(Mistake::new(
                        format!("{} {id:?} {}", dir.display(), problem.path),
                        problem.message.clone(),
                        problem.remedy.clone(),
                    )),
                    Severity::Warning => warnings.push(format!("{} {id:?} {problem}", dir.display())),
                }
            }
        }
        Err(error) => mistakes.push(Mistake::new(
            "extensions_dir",
            error.to_string(),
            "check the directory's permissions",
        )),
    }
}

/// The problems of the policies in `policies_dir`.
fn policy_mistakes(config: &config::Config) -> Vec<Mistake> {
    if config.policies_dir.as_os_str().is_empty() {
        return Vec::new();
    }
    match Directory::new(&config.policies_dir, config.limits.max_body_bytes).read() {
        Ok((_, bad)) => bad
            .into_iter()
            .flat_map(|bad| {
                let path = bad.path.display().to_string();
                bad.problems.into_iter().map(move |problem| {
                    Mistake::new(
                        format!("{path} {}", problem.path),
                        problem.message,
                        problem.remedy,
                    )
                })
            })
            .collect(),
        Err(error) => {
            vec![Mistake::new(
                "policies_dir",
                error.to_string(),
                "check the directory's permissions",
            )]
        }
    }
}
