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
    call_report::{self, crash_lines, log_lines},
    engine::Ready,
    replay,
    show::time,
    target::{CASES, RECORDED_CASES, Target},
    vendor, watch,
};
use crate::{
    cli::{
        output::{EXIT_USAGE, counted, print, print_err},
        policy_files::Paint,
    },
    extensions::testing::{self, CaseFile, CaseRun, Difference, ExtensionCase},
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

What was compiled is kept for the next run in the user's cache directory (beamline-sidecar/compiled), where others can
neither read nor write it.

Exits 0 if every case holds, 1 if one does not, 64 if they cannot be run.

Examples:
  beamline-sidecar ext test                              the project in this directory
  beamline-sidecar ext test my-guard --watch             again after each change, built anew where that is needed
  beamline-sidecar ext test my-guard --filter card --logs
  beamline-sidecar ext test my-guard.wasm tests/cases.yaml --json"
)]
pub(super) struct TestArgs {
    /// A component, or a project that was built.
    #[arg(value_name = "FILE|DIR", default_value = ".")]
    path: PathBuf,
    /// The cases; of a project its tests/cases.yaml.
    #[arg(value_name = "CASES")]
    cases: Option<PathBuf>,
    /// Make cases of recorded calls, with their answers as what is expected, add them to the project's
    /// tests/recorded.yaml (or to CASES) and run those. A project's recorded cases run along with its own from then on.
    #[arg(long, value_name = "RECORDING")]
    from: Option<PathBuf>,
    /// Run only the cases whose name has this text in it.
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,
    /// The registry record, for its capabilities and limits; of a project its extension.json.
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
    /// When a call is ended, in milliseconds. More than the record says, so that a busy machine decides nothing.
    #[arg(long, value_name = "MS", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=60_000))]
    timeout_ms: u32,
    /// Show what was logged in cases that hold, too.
    #[arg(long)]
    logs: bool,
    /// Run them again after each change of the cases, the record, the component or the project's source, which is built
    /// anew; until it is interrupted.
    #[arg(long, conflicts_with = "json")]
    watch: bool,
    /// Print JSON, for machines.
    #[arg(long)]
    json: bool,
}

/// A case with what came of it.
struct CaseResult<'a> {
    case: &'a ExtensionCase,
    path: &'a Path,
    run: CaseRun,
    differences: Vec<Difference>,
}

pub(super) fn run(args: &TestArgs) -> ExitCode {
    if args.watch {
        let files = watch::Files {
            path: args.path.clone(),
            others: args.cases.iter().chain(&args.record).cloned().collect(),
        };
        watch::again(&files, || run_once(args));
    }
    run_once(args)
}

fn run_once(args: &TestArgs) -> ExitCode {
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
    let paths = args.case_files(&target)?;
    let mut files = Vec::new();
    for path in paths {
        files.push((load(&path)?, path));
    }
    let kind = files
        .first()
        .map(|(file, _)| file.kind)
        .ok_or("there are no cases")?;
    if let Some((_, path)) = files.iter().find(|(file, _)| file.kind != kind) {
        return Err(format!(
            "{}: its cases are of another kind of extension",
            path.display()
        ));
    }
    let record = target.manifest()?;
    if let Some(stale) = target.stale() {
        print_err(&stale);
    }
    let module = target.read()?;
    let deadline = Duration::from_millis(args.timeout_ms.into());
    let ready = Ready::of(&target, &module, record.as_ref(), kind, deadline)?;
    let wanted = |case: &&ExtensionCase| args.filter.as_ref().is_none_or(|text| case.name.contains(text));
    let mut all = Vec::new();
    for (file, path) in &files {
        for case in file.cases.iter().filter(wanted) {
            let run = ready.settings.run(&ready.prepared, case)?;
            let differences = testing::compare(case, &run.outcome);
            all.push(CaseResult {
                case,
                path,
                run,
                differences,
            });
        }
    }
    if all.is_empty() {
        let names: Vec<String> = files.iter().map(|(_, path)| path.display().to_string()).collect();
        return Err(format!("{}: there is no such case", names.join(", ")));
    }
    let failed = all.iter().filter(|result| !result.differences.is_empty()).count();
    if args.json {
        let mut report = to_json(&all, failed, &module);
        report["compile_ms"] = json!(ready.compiled_in.map(|took| took.as_secs_f64() * 1e3));
        print(&report.to_string());
    } else {
        for result in &all {
            show(result, &module, args.logs, ready.timeout_ms);
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

impl TestArgs {
    /// The files of cases. Those of a recording are added to theirs first.
    fn case_files(&self, target: &Target) -> Result<Vec<PathBuf>, String> {
        let own = |name: &str| target.project.as_ref().map(|project| project.dir.join(name));
        if let Some(recording) = &self.from {
            let path = self.cases.clone().or_else(|| own(RECORDED_CASES));
            let path = path.ok_or("where are the cases to go? name a file after the component")?;
            add_recorded(recording, &path)?;
            return Ok(vec![path]);
        }
        match (&self.cases, own(CASES), own(RECORDED_CASES)) {
            (Some(cases), ..) => Ok(vec![cases.clone()]),
            (None, Some(cases), recorded) => {
                let recorded = recorded.filter(|path| path.exists());
                Ok([cases].into_iter().chain(recorded).collect())
            }
            (None, None, _) => {
                Err("which cases? name them after the component: ext test FILE CASES.yaml".to_owned())
            }
        }
    }
}

/// Adds the calls of a recording to a file of cases that it alone has, one line for each; those that are there already are
/// left out.
fn add_recorded(recording: &Path, path: &Path) -> Result<(), String> {
    const HEAD: &str =
        "# Recorded calls and their answers: `beamline-sidecar ext test --from` adds to them.\n";
    let named = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let recordings = replay::read(recording)?;
    let first = recordings
        .first()
        .ok_or_else(|| format!("{}: it has no recorded call", recording.display()))?;
    let mut text = match fs::read_to_string(path) {
        Ok(text) if text.starts_with(HEAD) => text,
        Ok(_) => {
            return Err(named(
                &"it was not written by `ext test --from`: name another file",
            ));
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            format!("{HEAD}extension: {}\ncases:\n", first.kind.as_str())
        }
        Err(error) => return Err(named(&error)),
    };
    if let Some(other) = recordings.iter().find(|other| other.kind != first.kind) {
        return Err(format!(
            "{}: it has calls of several kinds of extensions, such as of {} and {}; take the lines of one",
            recording.display(),
            first.extension,
            other.extension
        ));
    }
    for recording in &recordings {
        let line = format!("  - {}\n", testing::written(&recording.case_json));
        if !text.contains(&line) {
            text += &line;
        }
    }
    vendor::write(path, &text).map_err(|error| named(&error))
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

fn show(result: &CaseResult<'_>, module: &[u8], logs: bool, timeout_ms: u32) {
    let paint = Paint::of_stdout();
    let CaseResult {
        case,
        path,
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
            path.display(),
            case.line
        ));
        for Difference { path, wanted, got } in differences {
            if !path.is_empty() {
                print(&format!("       {path}"));
            }
            print(&format!("         wanted {wanted}\n         got    {got}"));
        }
    }
    if logs || !differences.is_empty() {
        for line in log_lines(&run.output) {
            print(&format!("       {line}"));
        }
    }
    if !differences.is_empty() {
        for line in crash_lines(&run.outcome, module) {
            print(&format!("       {line}"));
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

fn to_json(all: &[CaseResult<'_>], failed: usize, module: &[u8]) -> Value {
    let results = all.iter().map(
        |CaseResult {
             case,
             run,
             differences,
             ..
         }| {
            let mut result = call_report::to_json(&run.output, &run.outcome, module);
            let rest = json!({
                "name": case.name,
                "line": case.line,
                "ok": differences.is_empty(),
                "differences": differences,
                "outcome": run.outcome.to_json(),
                "took_us": run.took.as_secs_f64() * 1e6,
                "memory_bytes": run.memory_bytes,
            });
            if let Value::Object(rest) = rest {
                result.extend(rest);
            }
            Value::Object(result)
        },
    );
    json!({"ok": failed == 0, "cases": all.len(), "failed": failed, "results": results.collect::<Value>()})
}
