//! `beamline-sidecar check`.

use std::{path::PathBuf, process::ExitCode};

use clap::Args;
use serde_json::json;

use super::{EXIT_USAGE, say};
use crate::{
    config::{self, Mistake, Mistakes},
    refresh::Directory,
};

#[derive(Debug, Args)]
#[command(after_help = "Exits 0 if everything is right and 64 if anything is not.

Examples:
  beamline-sidecar check --config sidecar.yaml
  beamline-sidecar check --config sidecar.yaml --json
  beamline-sidecar check --reference > docs/configuration.md")]
pub(super) struct CheckArgs {
    /// The configuration to check; variables of the environment count as they do for `run`.
    #[arg(long, value_name = "FILE", required_unless_present = "reference")]
    config: Option<PathBuf>,
    /// Print JSON, for machines.
    #[arg(long)]
    json: bool,
    /// Print the reference of all keys instead.
    #[arg(long, conflicts_with_all = ["config", "json"])]
    reference: bool,
}

pub(super) fn run(args: &CheckArgs) -> ExitCode {
    if args.reference {
        say(config::reference().trim_end());
        return ExitCode::SUCCESS;
    }
    let (mistakes, warnings) = match config::load(args.config.as_deref(), &config::environment()) {
        Ok(loaded) => (policy_mistakes(&loaded.config), loaded.warnings),
        Err(mistakes) => (mistakes.list, Vec::new()),
    };
    let origin = args
        .config
        .as_ref()
        .map(|file| file.display().to_string())
        .unwrap_or_default();
    if args.json {
        say(&json!({"ok": mistakes.is_empty(), "mistakes": mistakes, "warnings": warnings}).to_string());
    } else {
        for warning in &warnings {
            say(&format!("warning: {warning}"));
        }
        if mistakes.is_empty() {
            say(&format!("{origin} is right."));
        } else {
            say(&Mistakes {
                origin,
                list: mistakes.clone(),
            }
            .to_string());
        }
    }
    if mistakes.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(EXIT_USAGE)
    }
}

/// What is wrong with the policies of `policies_dir`.
fn policy_mistakes(config: &config::Config) -> Vec<Mistake> {
    if config.policies_dir.as_os_str().is_empty() {
        return Vec::new();
    }
    match Directory::new(&config.policies_dir, config.limits.body_bytes).read() {
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
