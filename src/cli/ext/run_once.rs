//! `beamline-sidecar ext run`.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use clap::Args;
use serde_json::{Map, Value, json};

use super::{
    call_report::{self, crash_lines, log_lines},
    component_info::ComponentInfo,
    engine::Ready,
    show::{Table, bytes, thousands, time},
    target::Target,
};
use crate::{
    cli::{
        explain::read_input,
        output::{EXIT_USAGE, print, print_err},
    },
    extensions::{
        Kind,
        testing::{
            self, CaseDecision, CaseError, CaseIds, CaseRun, Expect, ExtensionCase, MessageValue, Mistake,
            Outcome,
        },
    },
};

#[derive(Debug, Args)]
#[command(
    after_help = "The files are JSON or YAML, with the fields that cases have; `-` is standard input:
  message     {message_type: chat, payload: {text: hello}}; also message_id and metadata
  candidates  [{provider_id: openai, weight: 70, error_rate: 0.1}], for a scorer
  decision    {provider_id: openai, reason: weighted, priority: 50}, for a post-processor

Exits 0 if it answered, whatever the answer; 1 if it failed, was ended or refuses its configuration; 64 if it cannot be
called.

Examples:
  beamline-sidecar ext run my-guard --message message.json
  echo '{payload: {text: hello}}' | beamline-sidecar ext run my-guard.wasm --message - --config config.yaml
  beamline-sidecar ext run green-first --candidates candidates.yaml --json"
)]
pub(super) struct RunArgs {
    /// A component, or a project that was built.
    #[arg(value_name = "COMPONENT|DIR", default_value = ".")]
    path: PathBuf,
    /// The message; otherwise an empty one.
    #[arg(long, value_name = "FILE")]
    message: Option<PathBuf>,
    /// The configuration, laid over the record's key by key.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The request's context; its tenant_id is the call's.
    #[arg(long, value_name = "FILE")]
    context: Option<PathBuf>,
    /// What a scorer chooses from.
    #[arg(long, value_name = "FILE")]
    candidates: Option<PathBuf>,
    /// What a post-processor is given.
    #[arg(long, value_name = "FILE")]
    decision: Option<PathBuf>,
    /// The registry record, for its configuration, capabilities and limits; of a project its extension.json.
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
    /// What `clock` returns: Unix milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 0)]
    now_ms: u64,
    /// What `random` begins with.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// When the call is ended, in milliseconds. More than the record says, so that a busy machine decides nothing.
    #[arg(long, value_name = "MS", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=60_000))]
    timeout_ms: u32,
    /// Print JSON, for machines.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &RunArgs) -> ExitCode {
    match run_once(args) {
        Ok(code) => code,
        Err(reason) => {
            print_err(&reason);
            ExitCode::from(EXIT_USAGE)
        }
    }
}

fn run_once(args: &RunArgs) -> Result<ExitCode, String> {
    let target = Target::find(&args.path, args.record.as_deref())?;
    let record = target.manifest()?;
    if let Some(stale) = target.stale() {
        print_err(&stale);
    }
    let module = target.read()?;
    let refused = |reason: String| format!("{}: {reason}", target.file.display());
    let kind = ComponentInfo::of(&module)
        .map_err(refused)?
        .kind
        .ok_or_else(|| refused("it is of no world that is known; `ext check` tells more".to_owned()))?;
    let own = record.as_ref().map(|record| &record.base.config);
    let case = args.case(kind, own.cloned().unwrap_or_default())?;
    let deadline = Duration::from_millis(args.timeout_ms.into());
    let ready = Ready::of(&target, &module, record.as_ref(), kind, deadline)?;
    let run = ready.settings.run(&ready.prepared, &case)?;
    if args.json {
        let mut report = call_report::to_json(&run.output, &run.outcome, &module);
        let rest = json!({
            "outcome": run.outcome.to_json(),
            "took_us": run.took.as_secs_f64() * 1e6,
            "timeout_ms": ready.timeout_ms,
            "memory_bytes": run.memory_bytes,
            "memory_limit_bytes": ready.settings.limits.memory_bytes,
            "fuel": run.fuel,
            "fuel_limit": ready.settings.limits.fuel,
            "compile_ms": ready.compiled_in.map(|took| took.as_secs_f64() * 1e3),
        });
        if let Value::Object(rest) = rest {
            report.extend(rest);
        }
        print(&Value::Object(report).to_string());
    } else {
        show(&run, &ready, &module);
    }
    Ok(match run.outcome {
        Outcome::Failure(_) | Outcome::ConfigProblems(_) | Outcome::Error(_) => ExitCode::FAILURE,
        _ => ExitCode::SUCCESS,
    })
}

fn show(run: &CaseRun, ready: &Ready, module: &[u8]) {
    let mut table = Table::default();
    table.row("answer", run.outcome.to_json().to_string());
    let late = run.took > Duration::from_millis(ready.timeout_ms.into());
    let late = if late {
        ": a sidecar would have ended it"
    } else {
        ""
    };
    table.row(
        "took",
        format!("{} of {} ms{late}", time(run.took), ready.timeout_ms),
    );
    table.row(
        "memory",
        format!(
            "{} of {}",
            bytes(run.memory_bytes as u64),
            bytes(ready.settings.limits.memory_bytes as u64)
        ),
    );
    if let (Some(used), Some(limit)) = (run.fuel, ready.settings.limits.fuel) {
        table.row("fuel", format!("{} of {}", thousands(used), thousands(limit)));
    }
    for (name, amount) in &run.output.counters {
        table.row("counted", format!("{name} {amount}"));
    }
    print(&table.to_string());
    for line in log_lines(&run.output)
        .into_iter()
        .chain(crash_lines(&run.outcome, module))
    {
        print(&line);
    }
}

impl RunArgs {
    /// The call as a case, whose expectation is not looked at.
    fn case(&self, kind: Kind, mut config: Map<String, Value>) -> Result<ExtensionCase, String> {
        if let Some(file) = &self.config {
            config.extend(read(file, |text| {
                testing::read_object("the configuration", text)
            })?);
        }
        let context = match &self.context {
            Some(file) => read(file, |text| testing::read_object("the context", text))?,
            None => Map::new(),
        };
        let message = match &self.message {
            Some(_) if kind == Kind::Post => {
                return Err("a post is given the decision, not the message: --decision FILE".to_owned());
            }
            Some(file) => read(file, testing::read_message)?,
            None => MessageValue::default(),
        };
        let candidates = match (&self.candidates, kind) {
            (Some(file), Kind::Scorer) => read(file, testing::read_candidates)?,
            (None, Kind::Scorer) => return Err("give the scorer candidates: --candidates FILE".to_owned()),
            (Some(_), _) => return Err(format!("a {} is given no candidates", kind.as_str())),
            (None, _) => Vec::new(),
        };
        let decision = match (&self.decision, kind) {
            (Some(file), Kind::Post) => read(file, testing::read_decision)?,
            (Some(_), _) => return Err(format!("a {} is given no decision", kind.as_str())),
            (None, _) => CaseDecision::default(),
        };
        Ok(ExtensionCase {
            name: String::new(),
            line: 0,
            message,
            context,
            config,
            candidates,
            decision,
            now_ms: self.now_ms,
            seed: self.seed,
            ids: CaseIds::default(),
            // Anything but problems of the configuration, which would be asked for in place of a call.
            expect: Expect::Error(CaseError::Trap),
        })
    }
}

/// Reads a file, or says all that is wrong with it.
fn read<T>(file: &Path, read: impl FnOnce(&str) -> Result<T, Vec<Mistake>>) -> Result<T, String> {
    let text = read_input(file).map_err(|error| error.to_string())?;
    read(&String::from_utf8_lossy(&text)).map_err(|mistakes| {
        let lines: Vec<String> = mistakes
            .iter()
            .map(|mistake| format!("{}:{mistake}", file.display()))
            .collect();
        lines.join("\n")
    })
}
