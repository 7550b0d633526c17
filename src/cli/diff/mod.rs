//! `beamline-sidecar diff`.

mod compare;
mod generate;
mod report;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Args;
use serde_json::{Value, json};

use self::compare::{Compared, Request, Tried, compare};
use super::{
    explain::{context, read_input},
    output::{EXIT_USAGE, counted, print, print_err},
    policy_files,
    tried_extensions::{TriedExtensions, all_succeed},
};
use crate::{
    decide::Scripted,
    policy::{TenantId, exact},
};

/// The tenant of requests that name none.
const TENANT: &str = "tenant";

#[derive(Debug, Args)]
#[command(
    after_help = "Every request is decided under both policies with the same seeds and an empty memory. Without --requests, requests are
generated from the policies' own rules: one without a failure, and for every rule the requests that satisfy it: without
a failure, after one, and with its retries used up. Other changes, such as backoffs and sessions, are listed.

In two directories, files of the same name are compared; a whole request is decided only by its <tenant>/<policy>.json.

Exits 0, or 1 with --fail-on-change if any decision changes or a policy comes or goes, or 64 for what cannot be read.

Examples:
  beamline-sidecar diff chat.json chat-new.json
  beamline-sidecar diff policies-in-use policies
  beamline-sidecar diff chat.json chat-new.json --requests yesterday.ndjson --fail-on-change
  beamline-sidecar diff chat.json chat-new.json --requests yesterday.ndjson --extensions extensions"
)]
pub(super) struct DiffArgs {
    /// The current policy, or a directory of policies.
    old: PathBuf,
    /// The new policy, or a directory.
    new: PathBuf,
    /// Requests, one JSON object per line: requests for decisions, or contexts. `-` is standard input.
    #[arg(long, value_name = "FILE")]
    requests: Option<PathBuf>,
    /// How many seeds each request is decided with.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    seeds: u64,
    /// Call the real extensions of a directory, as `extensions_dir` has one. Unset: all extensions succeed.
    #[arg(long, value_name = "DIR")]
    extensions: Option<PathBuf>,
    /// Exit with 1 if any decision changes.
    #[arg(long)]
    fail_on_change: bool,
    /// Print JSON, for machines.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &DiffArgs) -> ExitCode {
    match diff(args) {
        Ok(true) if args.fail_on_change => ExitCode::FAILURE,
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            print_err(&error.to_string());
            ExitCode::from(EXIT_USAGE)
        }
    }
}

/// Compares and prints; whether any decision changes.
fn diff(args: &DiffArgs) -> io::Result<bool> {
    let tried = Tried::of(args)?;
    let given = match &args.requests {
        Some(file) => Some(requests(file)?),
        None => None,
    };
    match (args.old.is_dir(), args.new.is_dir()) {
        (true, true) => directories(args, given.as_deref(), &tried),
        (false, false) => {
            let compared = files(&args.old, &args.new, TENANT, given.as_deref(), &tried)?;
            if args.json {
                print(&exact::written(compared.to_json().to_string()));
            } else {
                compared.show();
            }
            Ok(compared.changes())
        }
        _ => Err(io::Error::other(
            "One of the two is a directory and the other is not; name two policies or two directories.",
        )),
    }
}

fn directories(args: &DiffArgs, given: Option<&[Request]>, tried: &Tried) -> io::Result<bool> {
    let (old, new) = (in_directory(&args.old)?, in_directory(&args.new)?);
    let only = |these: &BTreeMap<String, PathBuf>, others: &BTreeMap<String, PathBuf>| -> BTreeSet<String> {
        these
            .keys()
            .filter(|name| !others.contains_key(*name))
            .cloned()
            .collect()
    };
    let (removed, added) = (only(&old, &new), only(&new, &old));
    let mut compared = Vec::new();
    for (name, old) in &old {
        let Some(new) = new.get(name) else {
            continue;
        };
        let stem = name.strip_suffix(".json").unwrap_or(name);
        let (tenant, policy) = stem.split_once('/').unwrap_or((TENANT, stem));
        let asked: Option<Vec<Request>> = given.map(|given| {
            let meant = |request: &&Request| {
                !request.addressed
                    || (request.tenant.as_str(), request.policy_id.as_str()) == (tenant, policy)
            };
            given.iter().filter(meant).cloned().collect()
        });
        compared.push((name, files(old, new, tenant, asked.as_deref(), tried)?));
    }
    if compared.is_empty() && removed.is_empty() && added.is_empty() {
        return Err(io::Error::other("There is no *.json file in either directory."));
    }
    let differing = compared.iter().filter(|(_, compared)| compared.changes()).count();
    let changes = differing > 0 || !removed.is_empty() || !added.is_empty();
    if args.json {
        let policies = compared.iter().map(|(name, compared)| {
            let mut report = compared.to_json();
            report["policy"] = name.as_str().into();
            report
        });
        let policies = policies.collect::<Value>();
        let report = json!({"policies": policies, "added": added, "removed": removed, "changes": changes});
        print(&exact::written(report.to_string()));
        return Ok(changes);
    }
    for (name, compared) in compared.iter().filter(|(_, compared)| !compared.is_same()) {
        print(&format!("{name}\n"));
        compared.show();
        print("");
    }
    for (what, names) in [("Only in the old: ", &removed), ("Only in the new: ", &added)] {
        for name in names {
            print(&format!("{what}{name}"));
        }
    }
    print(&format!(
        "Decisions change under {differing} of {}; {} removed, {} added.",
        counted(compared.len(), "policy", "policies"),
        removed.len(),
        added.len()
    ));
    Ok(changes)
}

impl Tried {
    fn of(args: &DiffArgs) -> io::Result<Self> {
        Ok(Self {
            extensions: TriedExtensions::of(args.extensions.as_deref())?,
            script: match &args.extensions {
                Some(_) => Scripted::default(),
                None => all_succeed(),
            },
            seeds: args.seeds,
        })
    }
}

/// The policies in a directory, by their names in it.
fn in_directory(directory: &Path) -> io::Result<BTreeMap<String, PathBuf>> {
    let mut files = Vec::new();
    policy_files::collect(directory, &["json"], &mut files)?;
    let named = |file: PathBuf| {
        let name = file
            .strip_prefix(directory)
            .unwrap_or(&file)
            .to_string_lossy()
            .into_owned();
        (name, file)
    };
    Ok(files.into_iter().map(named).collect())
}

fn files(
    old: &Path,
    new: &Path,
    tenant: &str,
    given: Option<&[Request]>,
    tried: &Tried,
) -> io::Result<Compared> {
    let (old, new) = (policy_files::read(old)?, policy_files::read(new)?);
    Ok(match given {
        Some(given) => compare(&old, &new, given, tried),
        None => {
            let tenant = if TenantId::parse(tenant).is_ok() {
                tenant
            } else {
                TENANT
            };
            let contexts = generate::contexts(&old, &new);
            let requests: io::Result<Vec<Request>> = contexts
                .iter()
                .map(|context| request(context.to_string().as_bytes(), tenant))
                .collect();
            compare(&old, &new, &requests?, tried)
        }
    })
}

/// The requests in a file, one per line.
fn requests(file: &Path) -> io::Result<Vec<Request>> {
    let text = String::from_utf8(read_input(file)?).map_err(io::Error::other)?;
    let lines = text
        .lines()
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty());
    let requests: Vec<Request> = lines
        .map(|(index, line)| {
            request(line.as_bytes(), TENANT)
                .map_err(|error| io::Error::other(format!("{}:{}: {error}", file.display(), index + 1)))
        })
        .collect::<io::Result<_>>()?;
    if requests.is_empty() {
        return Err(io::Error::other(format!(
            "{}: the file has no request",
            file.display()
        )));
    }
    Ok(requests)
}

fn request(line: &[u8], tenant: &str) -> io::Result<Request> {
    let (tenant, policy_id, context) = context(line, tenant)?;
    let tree: Value = serde_json::from_slice(line)?;
    Ok(Request {
        tenant,
        policy_id,
        context,
        body: line.to_vec(),
        addressed: tree.get("task").is_some() || tree.get("message").is_some(),
    })
}
