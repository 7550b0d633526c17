//! `beamline-sidecar explain`.

use std::{
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Args, ValueEnum};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{
    output::{EXIT_USAGE, print, print_err},
    policy_files,
    policy_files::Paint,
    tried_extensions::{TriedExtensions, all_succeed},
};
use crate::{
    clock::now,
    decide::{
        Context, DecideContext, DecisionId, DecisionInput, Effects, Explaining, Explanation, Outcome,
        Provenance, Rules, Scripted, Seed, Timestamp, memory::State,
    },
    intake::DecideRequest,
    policy::{DetailLevel, PolicyId, TenantId, exact},
    testing::{self, CaseMemory},
    yaml,
};

#[derive(Debug, Args)]
#[command(
    after_help = "The request is a request for a decision as the Router sends it, or the context alone: {\"user_id\": \"ada\"}.

Exits 0 with a decision, 1 with a refusal, 64 if an input cannot be read.

Examples:
  beamline-sidecar explain --policy examples/policies/acme/chat.json --request request.json
  echo '{\"current_provider\":\"openai\",\"status\":\"timeout\"}' | \\
      beamline-sidecar explain --policy examples/policies/acme/chat.json --request - --seed 2a
  beamline-sidecar explain --policy chat.json --request request.json --extensions extensions"
)]
pub(super) struct ExplainArgs {
    /// The policy.
    #[arg(long, value_name = "FILE")]
    policy: PathBuf,
    /// The request; `-` is standard input.
    #[arg(long, value_name = "FILE")]
    request: PathBuf,
    /// 1 to 16 hex digits: the same seed gives the same decision. Unset: a random one, which is printed.
    #[arg(long, value_name = "HEX")]
    seed: Option<Seed>,
    /// The time of the decision, such as 2025-01-31T08:30:00Z, or Unix milliseconds. Unset: now.
    #[arg(long, value_name = "TIME")]
    at: Option<Timestamp>,
    /// How much to explain.
    #[arg(long, value_enum, default_value = "verbose")]
    level: Level,
    /// The tenant, if the request names none.
    #[arg(long, default_value = "tenant")]
    tenant: String,
    /// A directory of extensions, as `extensions_dir` is one, which are called; or what the policy's extensions answer,
    /// in YAML: {answers: {guard: {answers: {valid: false}}}}. Unset: all succeed.
    #[arg(long, value_name = "DIR|FILE")]
    extensions: Option<PathBuf>,
    /// What is remembered, in YAML as in decision cases: {breakers: {openai: open}, unhealthy: [local_llm]}. Unset:
    /// nothing.
    #[arg(long, value_name = "FILE")]
    memory: Option<PathBuf>,
    /// Print JSON, for machines.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Level {
    Minimal,
    Detailed,
    Verbose,
}

pub(super) fn run(args: &ExplainArgs) -> ExitCode {
    match explain(args) {
        Ok(code) => code,
        Err(error) => {
            print_err(&error.to_string());
            ExitCode::from(EXIT_USAGE)
        }
    }
}

/// A file, or standard input for `-`.
pub(super) fn read_input(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if path == Path::new("-") {
        io::stdin().read_to_end(&mut bytes)?;
    } else {
        bytes = fs::read(path)
            .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))?;
    }
    Ok(bytes)
}

/// The tenant, policy and context of a request in any form: the Router's, the older one, or the context alone.
pub(super) fn context(body: &[u8], tenant: &str) -> io::Result<(TenantId, PolicyId, Context)> {
    let invalid = |error: String| io::Error::other(format!("the request: {error}"));
    let tree: Value = exact::from_slice(body).map_err(|error| invalid(error.to_string()))?;
    if tree.get("task").is_some() || tree.get("message").is_some() {
        let mut request = DecideRequest::parse(body)
            .map_err(|refused| invalid(format!("{} ({})", refused.message, refused.reason)))?;
        let context = request.take_context("");
        return Ok((request.tenant, request.policy_id, context));
    }
    let Value::Object(mut context) = tree else {
        return Err(invalid("it is not a JSON object".to_owned()));
    };
    let tenant = TenantId::parse(tenant).map_err(|error| io::Error::other(format!("--tenant {error}")))?;
    let policy = PolicyId::parse("default").map_err(io::Error::other)?;
    context.insert("tenant_id".to_owned(), tenant.as_str().into());
    Ok((tenant, policy, context))
}

/// The request of a body that is one, and not the context alone, for its message.
pub(super) fn whole_request(body: &[u8]) -> Option<DecideRequest<'_>> {
    DecideRequest::parse(body).ok()
}

fn read_yaml<T: DeserializeOwned>(file: &Path) -> io::Result<T> {
    let named = |error: String| io::Error::other(format!("{}: {error}", file.display()));
    let text = fs::read_to_string(file).map_err(|error| named(error.to_string()))?;
    yaml::read(&text).map_err(|error| named(error.to_string()))
}

fn explain(args: &ExplainArgs) -> io::Result<ExitCode> {
    let policy = policy_files::read(&args.policy)?;
    let body = read_input(&args.request)?;
    let (tenant, policy_id, context) = context(&body, &args.tenant)?;
    let request = whole_request(&body);
    let dir = args.extensions.as_deref().filter(|path| path.is_dir());
    let script = match &args.extensions {
        Some(file) if dir.is_none() => read_yaml(file)?,
        // What a sidecar with this directory does not have, it does not find.
        Some(_) => Scripted::default(),
        None => all_succeed(),
    };
    let extensions = TriedExtensions::of(dir)?;
    let now = args.at.unwrap_or_else(now);
    let remembered = match &args.memory {
        None => CaseMemory::default(),
        Some(file) => read_yaml(file)?,
    };
    for key in remembered.without_effect(&policy) {
        print_err(&format!(
            "Warning: {key} in --memory has no effect: the policy has no circuit_breaker or health_check that is enabled."
        ));
    }
    let memory = testing::remembered(&remembered, &tenant, &policy, now);
    let later = move || now;
    let at = DecideContext {
        id: DecisionId(fastrand::u128(..)),
        seed: args.seed.unwrap_or_else(|| Seed(fastrand::u64(..))),
        now,
        later: &later,
        wall_ahead_ms: 0,
        effects: Effects::Remembered,
    };
    let input = DecisionInput {
        tenant: &tenant,
        policy_id: &policy_id,
        context: &context,
        message: request.as_ref().map(DecideRequest::message).unwrap_or_default(),
    };
    let Outcome { result, .. } = extensions.decide(&policy, input, &Rules::default(), &memory, &script, at);
    match result {
        Ok(decision) => {
            let explaining = Explaining {
                decision: &decision,
                policy: &policy,
                input,
                at,
                memory: &memory,
                provenance: Provenance::default(),
            };
            let level = match args.level {
                Level::Minimal => DetailLevel::Minimal,
                Level::Detailed => DetailLevel::Detailed,
                Level::Verbose => DetailLevel::Verbose,
            };
            let explanation = explaining.explain(level, None);
            if args.json {
                let report =
                    json!({"ok": true, "explanation": explanation, "executed_extensions": decision.executed});
                print(&exact::written(report.to_string()));
            } else {
                show(&explanation);
                let executed = decision
                    .executed
                    .iter()
                    .map(|item| format!("  {} {}: {}", json!(item.stage), item.id, json!(item.status)));
                let executed: Vec<String> = executed.map(|line| line.replace('"', "")).collect();
                if !executed.is_empty() {
                    print(&format!("\nExtensions\n{}", executed.join("\n")));
                }
                print(&format!(
                    "\nRepeat it with --seed {} --at {}",
                    at.seed, now.unix_ms
                ));
            }
            Ok(ExitCode::SUCCESS)
        }
        Err(refusal) => {
            if args.json {
                let error = json!({"code": refusal.code().as_str(), "error_type": refusal.error_type(), "message": refusal.message(), "details": refusal.details()});
                print(&json!({"ok": false, "error": error}).to_string());
            } else {
                print(&format!(
                    "Refused: {} ({})",
                    refusal.message(),
                    refusal.error_type()
                ));
                print(&format!("{:#}", Value::Object(refusal.details())));
            }
            Ok(ExitCode::FAILURE)
        }
    }
}

fn show(explanation: &Explanation) {
    let paint = Paint::of_stdout();
    let Explanation {
        provider_id,
        reason,
        priority,
        steps,
        evidence,
        ..
    } = explanation;
    print(&format!(
        "{}   {reason}, priority {priority}\n",
        paint.color("1;32", provider_id.as_str())
    ));
    for step in steps {
        print(&format!("  {step}"));
    }
    let Some(evidence) = evidence else {
        return;
    };
    let width = evidence
        .candidates
        .iter()
        .map(|candidate| candidate.provider_id.as_str().chars().count())
        .max();
    let width = width.unwrap_or(0).max("provider".len());
    print(&format!("\n  {:width$}  weight  breaker    left out", "provider"));
    for candidate in &evidence.candidates {
        let weight = candidate
            .weight
            .map_or_else(|| "-".to_owned(), |weight| format!("{weight:.2}"));
        let breaker = candidate.breaker.map_or("-", State::as_str);
        let removed = candidate.removed_by.unwrap_or("");
        let line = format!(
            "  {:width$}  {weight:>6}  {breaker:<9}  {removed}",
            candidate.provider_id.as_str()
        );
        print(line.trim_end());
    }
    if let Some(draw) = evidence.draw {
        print(&format!("\n  drew {:.4} of {:.4}", draw.point, draw.total));
    }
}
