//! `beamline-sidecar simulate`.

mod args;
mod report;
mod world;

use std::{collections::BTreeSet, io, process::ExitCode};

pub(super) use self::args::SimulateArgs;
use self::{args::Failing, world::World};
use super::{
    explain::read_input,
    output::{EXIT_USAGE, print, print_err},
    policy_files,
    tried_extensions::TriedExtensions,
};
use crate::{
    decide::Context,
    policy::{ConditionRules, Facts, RoutingPolicy},
};

pub(super) fn run(args: &SimulateArgs) -> ExitCode {
    match simulate(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            print_err(&error.to_string());
            ExitCode::from(EXIT_USAGE)
        }
    }
}

fn simulate(args: &SimulateArgs) -> io::Result<()> {
    let policy = policy_files::read(&args.policy)?;
    check_names(args, &policy)?;
    let warnings = unmatched(args, &policy);
    let body = match &args.request {
        Some(file) => read_input(file)?,
        None => b"{}".to_vec(),
    };
    let extensions = TriedExtensions::of(args.extensions.as_deref())?;
    let report = World::new(args, &policy, &body, extensions)?.run();
    if args.json {
        let mut report = report.to_json(args);
        report["warnings"] = warnings.into();
        print(&report.to_string());
    } else {
        for warning in &warnings {
            print_err(&format!("Warning: {warning}"));
        }
        report.show(args);
    }
    Ok(())
}

/// Failures that no fallback rule is about: with a status that no rule lists, nothing is ever retried.
fn unmatched(args: &SimulateArgs, policy: &RoutingPolicy) -> Vec<String> {
    let matches = |failing: &Failing| {
        let context: Context = [
            ("status", failing.status.as_str()),
            ("current_provider", failing.provider.as_str()),
        ]
        .map(|(key, value)| (key.to_owned(), value.into()))
        .into_iter()
        .collect();
        let mut rules = policy.fallbacks.iter();
        rules.any(|rule| rule.when.holds(Facts::of(&context), ConditionRules::default()))
    };
    let mut unmatched: Vec<String> = args
        .failures
        .iter()
        .filter(|failing| !policy.fallbacks.is_empty() && !matches(failing))
        .map(|failing| {
            let Failing { provider, status, .. } = failing;
            format!(
                "--fail {provider}={status}: no fallback rule of the policy matches the status \"{status}\""
            )
        })
        .collect();
    unmatched.dedup();
    unmatched
}

/// Refuses failures of providers that the policy does not name: with a misspelt name, nothing would fail.
fn check_names(args: &SimulateArgs, policy: &RoutingPolicy) -> io::Result<()> {
    let weighted = policy.providers.iter().map(|provider| &provider.id);
    let targets = policy.fallbacks.iter().filter_map(|rule| rule.to.as_ref());
    let names: BTreeSet<&str> = weighted
        .chain(targets)
        .chain(&policy.last_resort)
        .map(|provider| provider.as_str())
        .collect();
    match args
        .failures
        .iter()
        .find(|failing| !names.contains(failing.provider.as_str()))
    {
        Some(failing) => {
            let names: Vec<&str> = names.into_iter().collect();
            Err(io::Error::other(format!(
                "--fail {}: the policy has no such provider; it has {}",
                failing.provider,
                names.join(", ")
            )))
        }
        None => Ok(()),
    }
}
