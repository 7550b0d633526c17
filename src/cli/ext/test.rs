//! `beamline-sidecar ext test`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, Instant},
};

use clap::Args;
use serde_json::{Value, json};

use super::{
    engine::{component_cache, default_timeout_ms, limits},
    frames,
    show::time,
    target::{CASES, Target},
};
use crate::{
    cli::{
        output::{EXIT_USAGE, counted, print, print_err},
        policy_files::Paint,
    },
    extensions::{
        Capability, Manifest, Profile,
        testing::{self, CallSettings, CaseFile, CaseRun, Difference, ExtensionCase, Outcome},
    },
};

#[derive(Debug, Args)]
#[command(
    after_help = "A case names what the extension is given and what must come of it. The same file holds for an extension whatever
it is written in:

  extension: validator                       # pre, validator, scorer or post
  cases:
    - name: a card number is refused
      message: {payload: {text: \"4111 1111 1111 1111\"}}
      config: {kinds: [card]}
      expect: {reject: {reason: \"personal data in the message: card (1)\"}}

A case may have: message {message_id, message_type, payload, metadata}, context, config, candidates (scorer), decision
(post), now_ms, seed. It expects accept, unchanged, or one of reject {reason, details}, message and context (pre),
scores, metadata, failure: CODE, config_problems: [\"/place\"], error: timeout | trap | memory | table | output.

Exits 0 if every case holds, 1 if one does not, 64 if they cannot be run.

Examples:
  beamline-sidecar ext test                              the project in this directory
  beamline-sidecar ext test my-guard --filter card
  beamline-sidecar ext test my-guard.wasm tests/cases.yaml --json"
)]
pub(super) struct TestArgs {
    /// A component, or a project that was built.
    #[arg(value_name = "FILE|DIR", default_value = ".")]
    path: PathBuf,
    /// The cases; of a project its tests/cases.yaml.
    #[arg(value_name = "CASES")]
    cases: Option<PathBuf>,
    /// Run only the cases whose name has this text in it.
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,
    /// The registry record, for its capabilities and limits; of a project its extension.json.
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
    /// When a call is ended, in milliseconds. More than the record says, so that a busy machine decides nothing.
    #[arg(long, value_name = "MS", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=60_000))]
    timeout_ms: u32,
    /// Print JSON, for machines.
    #[arg(long)]
    json: bool,
}

/// A case with what came of it.
struct CaseResult<'a> {
    case: &'a ExtensionCase,
    run: CaseRun,
    differences: Vec<Difference>,
}

pub(super) fn run(args: &TestArgs) -> ExitCode {
    match run_all(args) {
        Ok(code) => code,
        Err(reason) => {
            print_err(&reason);
            ExitCode::from(EXIT_USAGE)
        }
    }
}

fn run_all(args: &TestArgs) -> Result<ExitCode, String> {
    let began = Instant::now();
    let target = Target::find(&args.path, args.record.as_deref())?;
    let path = match (&args.cases, &target.project) {
        (Some(cases), _) => cases.clone(),
        (None, Some(project)) => project.dir.join(CASES),
        (None, None) => {
            return Err("which cases? name them after the component: ext test FILE CASES.yaml".to_owned());
        }
    };
    let file = load(&path)?;
    let record = record(&target)?;
    if let Some(stale) = target.stale() {
        print_err(&stale);
    }
    let module = target.read()?;
    let limits = limits(Profile::of(&module), record.as_ref());
    let cache = component_cache(1, limits.memory_bytes)?;
    let refused = |reason: String| format!("{}: {reason}", target.file.display());
    let built = cache.build(&module).map_err(|error| refused(error.reason))?;
    let capabilities: Vec<Capability> = match &record {
        Some(record) => record.capabilities.clone(),
        None => built.interface.needs(),
    };
    let prepared = cache
        .link(&built, file.kind, &capabilities)
        .map_err(|error| refused(error.to_string()))?;
    let timeout_ms = record
        .as_ref()
        .and_then(|record| record.base.timeout_ms)
        .unwrap_or_else(default_timeout_ms);
    let settings = CallSettings {
        limits,
        deadline: Duration::from_millis(args.timeout_ms.into()),
        remaining_ms: timeout_ms,
    };
    let wanted = |case: &&ExtensionCase| args.filter.as_ref().is_none_or(|text| case.name.contains(text));
    let mut all = Vec::new();
    for case in file.cases.iter().filter(wanted) {
        let run = settings.run(&prepared, case)?;
        let differences = testing::compare(case, &run.outcome);
        all.push(CaseResult {
            case,
            run,
            differences,
        });
    }
    if all.is_empty() {
        return Err(format!("{}: there is no such case", path.display()));
    }
    let failed = all.iter().filter(|result| !result.differences.is_empty()).count();
    if args.json {
        print(&to_json(&all, failed).to_string());
    } else {
        for result in &all {
            show(result, &path, timeout_ms);
        }
        let passed = all.len() - failed;
        print(&format!(
            "{passed} of {} passed, in {}.",
            counted(all.len(), "case", "cases"),
            time(began.elapsed())
        ));
    }
    Ok(if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Reads the cases, or says all that is wrong with them.
fn load(path: &Path) -> Result<CaseFile, String> {
    let text = fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    testing::read(&text).map_err(|mistakes| {
        let lines: Vec<String> = mistakes
            .iter()
            .map(|mistake| format!("{}:{mistake}", path.display()))
            .collect();
        lines.join("\n")
    })
}

/// The record, if there is one. `ext check` reports more about a wrong one.
pub(super) fn record(target: &Target) -> Result<Option<Manifest>, String> {
    let Some(path) = &target.record else {
        return Ok(None);
    };
    let text = fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    match Manifest::read(&text) {
        Ok((record, _)) => Ok(Some(record)),
        Err(problems) => {
            let lines: Vec<String> = problems
                .iter()
                .map(|problem| format!("{}: {problem}", path.display()))
                .collect();
            Err(lines.join("\n"))
        }
    }
}

fn show(result: &CaseResult<'_>, file: &Path, timeout_ms: u32) {
    let paint = Paint::of_stdout();
    let CaseResult {
        case,
        run,
        differences,
    } = result;
    if differences.is_empty() {
        print(&format!("{} {}", paint.color("32", "ok  "), case.name));
    } else {
        print(&format!(
            "{} {} ({}:{})",
            paint.color("31", "FAIL"),
            case.name,
            file.display(),
            case.line
        ));
        for Difference { path, wanted, got } in differences {
            if !path.is_empty() {
                print(&format!("       {path}"));
            }
            print(&format!("         wanted {wanted}\n         got    {got}"));
        }
        for (level, line) in &run.output.lines {
            print(&format!(
                "       it logged, as {}: {line}",
                json!(level).as_str().unwrap_or_default()
            ));
        }
        if run.output.dropped > 0 {
            print(&format!(
                "       it logged {} lines more than are kept",
                run.output.dropped
            ));
        }
        if let Outcome::Error(failed) = &run.outcome {
            for (index, frame) in frames::shown(&failed.frames).iter().enumerate() {
                print(&format!(
                    "       {} {frame}",
                    if index == 0 {
                        "it crashed in"
                    } else {
                        "  called from"
                    }
                ));
            }
            if failed.frames.iter().any(|frame| frame.starts_with("function ")) {
                print("       (`ext build --debug` keeps the names of functions)");
            }
        }
    }
    let took = run.took;
    let expects_it = matches!(case.expect, testing::Expect::Error(_));
    if took > Duration::from_millis(timeout_ms.into()) && !expects_it {
        print(&format!(
            "       note: it took {}; a sidecar would have ended it after {timeout_ms} ms",
            time(took)
        ));
    }
}

fn to_json(all: &[CaseResult<'_>], failed: usize) -> Value {
    let results = all.iter().map(
        |CaseResult {
             case,
             run,
             differences,
         }| {
            let lines = run
                .output
                .lines
                .iter()
                .map(|(level, line)| json!({"level": level, "message": line}));
            let counters: serde_json::Map<String, Value> = run
                .output
                .counters
                .iter()
                .map(|(name, amount)| (name.clone(), json!(amount)))
                .collect();
            let frames = match &run.outcome {
                Outcome::Error(failed) => failed.frames.as_slice(),
                _ => &[],
            };
            json!({
                "name": case.name,
                "line": case.line,
                "ok": differences.is_empty(),
                "differences": differences,
                "outcome": run.outcome.to_json(),
                "frames": frames,
                "log": lines.collect::<Value>(),
                "counters": counters,
                "took_us": run.took.as_secs_f64() * 1e6,
                "memory_bytes": run.memory_bytes,
            })
        },
    );
    json!({"ok": failed == 0, "cases": all.len(), "failed": failed, "results": results.collect::<Value>()})
}
