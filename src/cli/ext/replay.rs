//! `beamline-sidecar ext replay`.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use clap::Args;
use serde_json::{Value, json};

use super::{
    component_info::ComponentInfo,
    engine::Ready,
    show::{bytes, time},
    target::Target,
};
use crate::{
    cli::{
        output::{EXIT_USAGE, counted, print, print_err},
        policy_files::{Paint, collect},
    },
    extensions::{
        Recording, read_recordings,
        testing::{self, CallSettings, Difference},
    },
};

/// The most changed answers that are shown whole.
const SHOWN: usize = 20;

#[derive(Debug, Args)]
#[command(
    after_help = "A sidecar writes recordings into `recordings` below its state_dir where `extensions.record` says so. Each call is made
again with its input, configuration, clock and seed. Calls of which secrets were left out may be answered otherwise for
that; they are marked.

Exits 0 if every answer is as recorded, 1 if one differs, 64 if they cannot be replayed.

Examples:
  beamline-sidecar ext replay state/recordings my-guard.wasm
  beamline-sidecar ext replay state/recordings my-guard --extension my-guard --json
  beamline-sidecar ext replay yesterday.ndjson today.ndjson my-guard"
)]
pub(super) struct ReplayArgs {
    /// Recordings, or directories of *.ndjson; the last is the component, or a project that was built.
    #[arg(required = true, num_args = 2.., value_name = "FILE… COMPONENT")]
    paths: Vec<PathBuf>,
    /// Replay the calls of this extension; otherwise of all in the files, which must be of one kind.
    #[arg(long, value_name = "ID")]
    extension: Option<String>,
    /// The registry record, for capabilities and limits; of a project its extension.json.
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
    /// When a call is ended, in milliseconds. More than the record says, so that a busy machine decides nothing.
    #[arg(long, value_name = "MS", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=60_000))]
    timeout_ms: u32,
    /// Print JSON, for machines.
    #[arg(long)]
    json: bool,
}

/// A call that was made again.
struct Replayed {
    recording: Recording,
    differences: Vec<Difference>,
    got: Value,
    took: Duration,
    memory_bytes: usize,
}

pub(super) fn run(args: &ReplayArgs) -> ExitCode {
    match replay(args) {
        Ok(code) => code,
        Err(reason) => {
            print_err(&reason);
            ExitCode::from(EXIT_USAGE)
        }
    }
}

fn replay(args: &ReplayArgs) -> Result<ExitCode, String> {
    let Some((component, files)) = args.paths.split_last() else {
        return Err("name recordings, and then the component".to_owned());
    };
    let target = Target::find(component, args.record.as_deref())?;
    let record = target.manifest()?;
    let module = target.read()?;
    let refused = |reason: String| format!("{}: {reason}", target.file.display());
    let kind = ComponentInfo::of(&module)
        .map_err(refused)?
        .kind
        .ok_or_else(|| refused("it is of no world that is known; `ext check` tells more".to_owned()))?;
    let mut recordings = Vec::new();
    for file in files {
        recordings.extend(read(file)?);
    }
    let of_it = |recording: &Recording| {
        args.extension
            .as_ref()
            .is_none_or(|id| *id == recording.extension)
    };
    recordings.retain(of_it);
    if recordings.is_empty() {
        return Err("there is no such recorded call".to_owned());
    }
    if let Some(other) = recordings.iter().find(|recording| recording.kind != kind) {
        return Err(format!(
            "there is a recorded call of {}, a {}, and {} is a {}: choose by --extension ID",
            other.extension,
            other.kind.as_str(),
            target.file.display(),
            kind.as_str()
        ));
    }
    let deadline = Duration::from_millis(args.timeout_ms.into());
    let ready = Ready::of(&target, &module, record.as_ref(), kind, deadline)?;
    let mut all = Vec::with_capacity(recordings.len());
    for recording in recordings {
        let settings = CallSettings {
            remaining_ms: recording.remaining_ms,
            ..ready.settings
        };
        let run = settings.run(&ready.prepared, &recording.case)?;
        all.push(Replayed {
            differences: testing::compare(&recording.case, &run.outcome),
            got: run.outcome.to_expect(),
            took: run.took,
            memory_bytes: run.memory_bytes,
            recording,
        });
    }
    let changed = all.iter().filter(|call| !call.differences.is_empty()).count();
    if args.json {
        print(&to_json(&all, changed).to_string());
    } else {
        show(&all, changed);
    }
    Ok(if changed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Reads a file of recorded calls, or all of a directory.
pub(super) fn read(path: &Path) -> Result<Vec<Recording>, String> {
    let mut files = Vec::new();
    collect(path, &["ndjson"], &mut files).map_err(|error| error.to_string())?;
    let mut recordings = Vec::new();
    for file in files {
        let text = fs::read_to_string(&file).map_err(|error| format!("{}: {error}", file.display()))?;
        let read = read_recordings(&text).map_err(|error| format!("{}:{error}", file.display()))?;
        recordings.extend(read);
    }
    Ok(recordings)
}

/// The tenant of a recorded call.
fn tenant(recording: &Recording) -> &str {
    let tenant = recording.case.context.get("tenant_id");
    tenant.and_then(Value::as_str).unwrap_or("tenant")
}

fn show(all: &[Replayed], changed: usize) {
    let paint = Paint::of_stdout();
    for call in all.iter().filter(|call| !call.differences.is_empty()).take(SHOWN) {
        let redacted = if call.recording.redacted {
            " (something was left out of it)"
        } else {
            ""
        };
        print(&format!(
            "{} {}{redacted}",
            paint.color("31", "differs"),
            call.recording.case.name
        ));
        for Difference { path, wanted, got } in &call.differences {
            if !path.is_empty() {
                print(&format!("  {path}"));
            }
            print(&format!("    recorded {wanted}\n    now      {got}"));
        }
    }
    if changed > SHOWN {
        print(&format!(
            "… and {} more.",
            counted(changed - SHOWN, "call", "calls")
        ));
    }
    for (tenant, (calls, differ)) in by_tenant(all) {
        if differ > 0 {
            print(&format!(
                "{tenant}: {differ} of {} answered otherwise",
                counted(calls, "call", "calls")
            ));
        }
    }
    let (before, now) = costs(all);
    print(&format!(
        "{changed} of {} answered otherwise. Half of them took up to {} when recorded and {} now, 99 of 100 {} and {}; at \
         most {} and {} of memory.",
        counted(all.len(), "call", "calls"),
        time(before.half),
        time(now.half),
        time(before.most),
        time(now.most),
        bytes(before.memory_bytes as u64),
        bytes(now.memory_bytes as u64),
    ));
}

/// What calls cost together.
struct Cost {
    half: Duration,
    /// Of 99 in 100.
    most: Duration,
    memory_bytes: usize,
}

fn costs(all: &[Replayed]) -> (Cost, Cost) {
    let cost = |took: fn(&Replayed) -> Duration, memory: fn(&Replayed) -> usize| {
        let mut times: Vec<Duration> = all.iter().map(took).collect();
        times.sort_unstable();
        let at = |share: usize| {
            times
                .get((times.len().max(1) - 1) * share / 100)
                .copied()
                .unwrap_or_default()
        };
        Cost {
            half: at(50),
            most: at(99),
            memory_bytes: all.iter().map(memory).max().unwrap_or_default(),
        }
    };
    (
        cost(|call| call.recording.took, |call| call.recording.memory_bytes),
        cost(|call| call.took, |call| call.memory_bytes),
    )
}

/// Calls, and those that are answered otherwise, of each tenant.
fn by_tenant(all: &[Replayed]) -> BTreeMap<&str, (usize, usize)> {
    let mut tenants = BTreeMap::<&str, (usize, usize)>::new();
    for call in all {
        let (calls, differ) = tenants.entry(tenant(&call.recording)).or_default();
        *calls += 1;
        *differ += usize::from(!call.differences.is_empty());
    }
    tenants
}

fn to_json(all: &[Replayed], changed: usize) -> Value {
    let calls = all.iter().map(|call| {
        json!({
            "name": call.recording.case.name,
            "extension": call.recording.extension,
            "tenant_id": tenant(&call.recording),
            "sha256": call.recording.sha256,
            "redacted": call.recording.redacted,
            "same": call.differences.is_empty(),
            "differences": call.differences,
            "recorded": {
                "answer": call.recording.case_json["expect"],
                "took_us": call.recording.took.as_secs_f64() * 1e6,
                "memory_bytes": call.recording.memory_bytes,
            },
            "now": {"answer": call.got, "took_us": call.took.as_secs_f64() * 1e6, "memory_bytes": call.memory_bytes},
        })
    });
    let cost = |cost: Cost| {
        json!({
            "p50_us": cost.half.as_secs_f64() * 1e6,
            "p99_us": cost.most.as_secs_f64() * 1e6,
            "memory_bytes": cost.memory_bytes,
        })
    };
    let (before, now) = costs(all);
    let tenants: serde_json::Map<String, Value> = by_tenant(all)
        .into_iter()
        .map(|(tenant, (calls, differ))| (tenant.to_owned(), json!({"calls": calls, "changed": differ})))
        .collect();
    json!({
        "calls": all.len(),
        "changed": changed,
        "tenants": tenants,
        "recorded": cost(before),
        "now": cost(now),
        "results": calls.collect::<Value>(),
    })
}
