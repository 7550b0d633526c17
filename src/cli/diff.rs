//! `beamline-sidecar diff`.

use std::{collections::BTreeMap, io, path::PathBuf, process::ExitCode};

use clap::Args;
use serde_json::{Value, json};

use super::{
    EXIT_USAGE, complain,
    explain::{context, read_input},
    policy_files, say,
};
use crate::{
    decide::{
        Circumstances, Context, DecisionId, Effects, Explaining, Inquiry, Message, Moment, Provenance, Rules,
        Scripted, Seed, decide,
        memory::{Memory, MemoryLimits},
    },
    policy::{DetailLevel, PolicyId, RoutingPolicy, TenantId},
};

/// When everything is decided: the first second of 2025.
const NOW: Moment = Moment::from_unix_ms(1_735_689_600_000);
/// Changed requests that are shown.
const EXAMPLES: usize = 5;

#[derive(Debug, Args)]
#[command(
    after_help = "Every request is decided under both policies with the same seeds. Without --requests, requests are made from the
policies' own rules: one without a failure, and one for every status that a rule names, of every provider.

Exits 0, or 1 with --fail-on-change if any decision changes, or 64 for what cannot be read.

Examples:
  beamline-sidecar diff chat.json chat-new.json
  beamline-sidecar diff chat.json chat-new.json --requests yesterday.ndjson --fail-on-change"
)]
pub(super) struct DiffArgs {
    /// The policy as it is.
    old: PathBuf,
    /// The policy as it is to be.
    new: PathBuf,
    /// Requests, one JSON object a line: requests for decisions, or contexts.
    #[arg(long, value_name = "FILE")]
    requests: Option<PathBuf>,
    /// Seeds that each request is decided with.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    seeds: u64,
    /// Exit with 1 if any decision changes.
    #[arg(long)]
    fail_on_change: bool,
    /// Print JSON, for machines.
    #[arg(long)]
    json: bool,
}

/// What one request comes to under one policy: how often which outcome, and an example of why.
#[derive(Default)]
struct Decided {
    counts: BTreeMap<String, u64>,
    steps: Vec<String>,
}

struct Request {
    tenant: TenantId,
    policy_id: PolicyId,
    context: Context,
}

pub(super) fn run(args: &DiffArgs) -> ExitCode {
    match diff(args) {
        Ok(true) if args.fail_on_change => ExitCode::FAILURE,
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error.to_string());
            ExitCode::from(EXIT_USAGE)
        }
    }
}

/// Compares, shows, and says whether anything changes.
fn diff(args: &DiffArgs) -> io::Result<bool> {
    let (old, new) = (policy_files::read(&args.old)?, policy_files::read(&args.new)?);
    let requests = match &args.requests {
        Some(file) => {
            let text = String::from_utf8(read_input(file)?).map_err(io::Error::other)?;
            let lines = text.lines().filter(|line| !line.trim().is_empty());
            lines
                .map(|line| request(line.as_bytes()))
                .collect::<io::Result<Vec<_>>>()?
        }
        None => made_up(&old, &new)?,
    };
    let (mut total_old, mut total_new) = (BTreeMap::new(), BTreeMap::new());
    let mut changed = Vec::new();
    let (mut moved, mut decisions) = (0, 0);
    for request in &requests {
        let (before, after) = (
            decided(&old, request, args.seeds),
            decided(&new, request, args.seeds),
        );
        let here = moved_between(&before.counts, &after.counts);
        decisions += args.seeds;
        moved += here;
        for (total, one) in [(&mut total_old, &before), (&mut total_new, &after)] {
            for (outcome, count) in &one.counts {
                let provider = outcome.split(' ').next_back().unwrap_or(outcome);
                *total.entry(provider.to_owned()).or_insert(0_u64) += count;
            }
        }
        if here > 0 {
            changed.push((request, before, after));
        }
    }
    if args.json {
        let examples = changed.iter().take(EXAMPLES).map(|(request, before, after)| {
            json!({
                "context": request.context,
                "old": {"outcomes": before.counts, "steps": before.steps},
                "new": {"outcomes": after.counts, "steps": after.steps},
            })
        });
        let report = json!({
            "requests": requests.len(),
            "changed_requests": changed.len(),
            "moved_share": moved as f64 / decisions.max(1) as f64,
            "old": total_old,
            "new": total_new,
            "examples": examples.collect::<Value>(),
        });
        say(&report.to_string());
        return Ok(!changed.is_empty());
    }
    if changed.is_empty() {
        say(&format!(
            "No decision changes, of {} requests with {} seeds each.",
            requests.len(),
            args.seeds
        ));
        return Ok(false);
    }
    let percent = |count: u64| 100.0 * count as f64 / decisions.max(1) as f64;
    say(&format!(
        "{} of {} requests are decided otherwise; {:.1} % of all decisions move.\n",
        changed.len(),
        requests.len(),
        percent(moved)
    ));
    let names: std::collections::BTreeSet<&String> = total_old.keys().chain(total_new.keys()).collect();
    let width = names
        .iter()
        .map(|name| name.chars().count())
        .max()
        .unwrap_or(0)
        .max("provider".len());
    say(&format!("{:width$}      old      new   change", "provider"));
    for name in names {
        let count = |total: &BTreeMap<String, u64>| percent(total.get(name).copied().unwrap_or(0));
        let (before, after) = (count(&total_old), count(&total_new));
        say(&format!(
            "{name:width$}  {before:5.1} %  {after:5.1} %  {:+6.1} %",
            after - before
        ));
    }
    for (request, before, after) in changed.iter().take(EXAMPLES) {
        let mut context = request.context.clone();
        context.remove("tenant_id");
        say(&format!("\nRequest {}", Value::Object(context)));
        for (name, one) in [("old", before), ("new", after)] {
            let outcomes: Vec<String> = one
                .counts
                .iter()
                .map(|(outcome, count)| {
                    format!("{outcome} {:.0} %", 100.0 * *count as f64 / args.seeds as f64)
                })
                .collect();
            say(&format!("  {name}: {}", outcomes.join(", ")));
            for step in &one.steps {
                say(&format!("       {step}"));
            }
        }
    }
    if changed.len() > EXAMPLES {
        say(&format!("\n… and {} requests more.", changed.len() - EXAMPLES));
    }
    Ok(true)
}

fn request(line: &[u8]) -> io::Result<Request> {
    let (tenant, policy_id, context) = context(line, "tenant")?;
    Ok(Request {
        tenant,
        policy_id,
        context,
    })
}

/// Requests that reach what the two policies have: no failure, and each status of a rule at each provider.
fn made_up(old: &RoutingPolicy, new: &RoutingPolicy) -> io::Result<Vec<Request>> {
    let mut contexts = vec![json!({})];
    for policy in [old, new] {
        for provider in &policy.providers {
            for rule in &policy.fallbacks {
                let when = rule.when.to_json();
                let statuses = match when.get("status") {
                    Some(Value::Array(statuses)) => statuses.clone(),
                    Some(status) => vec![status.clone()],
                    None => vec!["timeout".into()],
                };
                for status in statuses {
                    let mut context = json!({"current_provider": provider.id, "status": status});
                    for (key, value) in when
                        .iter()
                        .filter(|(key, _)| key.chars().all(|c| c.is_alphanumeric() || c == '_'))
                    {
                        if key != "status" {
                            context[key] = value.get(0).unwrap_or(value).clone();
                        }
                    }
                    let mut spent = context.clone();
                    spent["retry_attempts"] = 1_000.into();
                    contexts.extend([context, spent]);
                }
            }
        }
    }
    let mut seen = std::collections::BTreeSet::new();
    contexts.retain(|context| seen.insert(context.to_string()));
    contexts
        .iter()
        .map(|context| request(context.to_string().as_bytes()))
        .collect()
}

fn decided(policy: &RoutingPolicy, request: &Request, seeds: u64) -> Decided {
    let rules = Rules::default();
    let memory = Memory::new(MemoryLimits {
        sessions: 1,
        buckets: 1,
        providers: 1,
    });
    let extensions = Scripted {
        others_succeed: true,
        ..Scripted::default()
    };
    let Request {
        tenant,
        policy_id,
        context,
    } = request;
    let inquiry = Inquiry {
        tenant,
        policy_id,
        context,
        message: Message::default(),
    };
    let mut all = Decided::default();
    for seed in 0..seeds {
        let at = Circumstances {
            id: DecisionId(0),
            seed: Seed(seed),
            now: NOW,
            later: &|| NOW,
            effects: Effects::None,
        };
        let deciding = std::pin::pin!(decide(policy, inquiry, &rules, &memory, &extensions, at));
        let mut task = std::task::Context::from_waker(std::task::Waker::noop());
        // Scripted extensions never wait.
        let std::task::Poll::Ready(outcome) = deciding.poll(&mut task) else {
            continue;
        };
        let outcome = match &outcome.result {
            Ok(decision) => {
                if all.steps.is_empty() {
                    let provenance = Provenance::default();
                    let explaining = Explaining {
                        decision,
                        policy,
                        inquiry,
                        at,
                        memory: &memory,
                        provenance,
                    };
                    all.steps = explaining.steps(DetailLevel::Verbose);
                }
                format!(
                    "{} {}",
                    decision.selection.how.reason(),
                    decision.selection.provider
                )
            }
            Err(refusal) => refusal.error_type().to_owned(),
        };
        *all.counts.entry(outcome).or_default() += 1;
    }
    all
}

/// How many of the decisions must have moved for the one to become the other.
fn moved_between(old: &BTreeMap<String, u64>, new: &BTreeMap<String, u64>) -> u64 {
    old.iter()
        .map(|(outcome, count)| count.saturating_sub(new.get(outcome).copied().unwrap_or(0)))
        .sum()
}
