//! `beamline-sidecar simulate`.

mod args;
mod report;
mod world;

use std::{collections::BTreeSet, io, process::ExitCode};

pub(super) use self::args::SimulateArgs;
use self::world::World;
use super::{
    output::{EXIT_USAGE, print, print_err},
    policy_files,
};
use crate::policy::RoutingPolicy;

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
    let report = World::new(args, &policy)?.run();
    if args.json {
        print(&report.to_json(args).to_string());
    } else {
        report.show(args);
    }
    Ok(())
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
