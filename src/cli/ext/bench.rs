//! `beamline-sidecar ext bench`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use clap::Args;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{
    component_info::ComponentInfo,
    engine::{component_cache, default_timeout_ms, limits},
    show::{bytes, thousands},
    target::Target,
};
use crate::{
    cli::output::{EXIT_USAGE, print, print_err},
    extensions::{
        BreakerState, Kind, ModuleDigest, Prepared, Raw,
        testing::{
            CallSettings, CaseCandidate, CaseDecision, CaseIds, Expect, ExtensionCase, Given, MessageValue,
        },
    },
};

#[derive(Debug, Args)]
#[command(
    after_help = "Every call is made in an instance of its own, as a sidecar does. The numbers of the run before are kept in
target/ext-bench beside the project or the file, and told along where both were about the same thing.

Exits 0 if it could be measured, 1 if the extension fails, 64 if there is nothing to measure.

Examples:
  beamline-sidecar ext bench                                    the project in this directory
  beamline-sidecar ext bench my-guard --seconds 10
  beamline-sidecar ext bench my-guard.wasm --config '{\"kinds\": [\"card\"]}' --payload message.json"
)]
pub(super) struct BenchArgs {
    /// A component, or a project that was built.
    #[arg(value_name = "FILE|DIR", default_value = ".")]
    path: PathBuf,
    /// The configuration; otherwise the record's.
    #[arg(long, value_name = "JSON")]
    config: Option<String>,
    /// A file with the message's payload; otherwise half a kilobyte of a chat.
    #[arg(long, value_name = "FILE")]
    payload: Option<PathBuf>,
    /// The registry record, for its configuration, capabilities and limits; of a project its extension.json.
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
    /// How long to call it on one core, and once more on all.
    #[arg(long, value_name = "N", default_value_t = 2.0)]
    seconds: f64,
    /// Print JSON, for machines.
    #[arg(long)]
    json: bool,
}

/// What was measured. Times in microseconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Measured {
    /// What the numbers depend on besides the component: they compare only where it is the same.
    setting: String,
    sha256: String,
    bytes: usize,
    compile_us: f64,
    calls: usize,
    p50_us: f64,
    p99_us: f64,
    mean_us: f64,
    per_second: f64,
    cores: usize,
    per_second_all: f64,
    memory_bytes: usize,
}

enum Stopped {
    /// The extension's own doing.
    Fails(String),
    Cannot(String),
}

impl From<String> for Stopped {
    fn from(reason: String) -> Self {
        Self::Cannot(reason)
    }
}

pub(super) fn run(args: &BenchArgs) -> ExitCode {
    match bench(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Stopped::Fails(reason)) => {
            print_err(&reason);
            ExitCode::FAILURE
        }
        Err(Stopped::Cannot(reason)) => {
            print_err(&reason);
            ExitCode::from(EXIT_USAGE)
        }
    }
}

fn bench(args: &BenchArgs) -> Result<(), Stopped> {
    if !(0.01..=600.0).contains(&args.seconds) {
        return Err(Stopped::Cannot(
            "--seconds is a number from 0.01 to 600".to_owned(),
        ));
    }
    let target = Target::find(&args.path, args.record.as_deref())?;
    let record = target.manifest()?;
    let module = target.read()?;
    let refused = |reason: String| format!("{}: {reason}", target.file.display());
    let info = ComponentInfo::of(&module).map_err(refused)?;
    let kind = info
        .kind
        .ok_or_else(|| refused("it is of no world that is known; `ext check` tells more".to_owned()))?;
    let config = match (&args.config, &record) {
        (Some(text), _) => object(text).ok_or_else(|| "--config is not a JSON object".to_owned())?,
        (None, Some(record)) => record.base.config.clone(),
        (None, None) => Map::new(),
    };
    let case = case(kind, config, payload(args.payload.as_deref())?);
    let cores = thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get);
    let limits = limits(info.profile, record.as_ref());
    let cache = component_cache(cores * 2, limits.memory_bytes, None)?;
    let profile = info.profile.metered(limits.fuel.is_some());
    let built = cache
        .build_for(&module, profile)
        .map_err(|error| refused(error.reason))?;
    // Nothing is kept on disk here.
    let compiled_in = built
        .compiled_in
        .ok_or_else(|| refused("it was not compiled anew, so that was not measured".to_owned()))?;
    let capabilities = record
        .as_ref()
        .map_or_else(|| built.interface.needs(), |record| record.capabilities.clone());
    let prepared = cache
        .link(&built, kind, &capabilities)
        .map_err(|error| refused(error.to_string()))?;
    let timeout_ms = record.as_ref().and_then(|record| record.base.timeout_ms);
    let settings = CallSettings {
        limits,
        deadline: Duration::from_secs(5),
        remaining_ms: timeout_ms.unwrap_or_else(default_timeout_ms),
    };
    let bench = Bench {
        prepared: &prepared,
        settings,
        case: &case,
    };
    let memory_bytes = bench.try_it()?;
    let wanted = Duration::from_secs_f64(args.seconds);
    bench.warm_up(wanted / 10);
    if !args.json {
        print(&format!(
            "{}: {:.1} s on one core, {:.1} s on {cores}",
            target.name(),
            args.seconds,
            args.seconds
        ));
    }
    let (one, took) = bench.on(1, wanted);
    let (all, took_all) = bench.on(cores, wanted);
    let mut times = one.concat();
    times.sort_unstable();
    let total: f64 = times.iter().map(|nanos| f64::from(*nanos)).sum();
    let measured = Measured {
        setting: setting(&case),
        sha256: info.sha256.to_string(),
        bytes: info.bytes,
        compile_us: compiled_in.as_secs_f64() * 1e6,
        calls: times.len(),
        p50_us: quantile(&times, 0.5),
        p99_us: quantile(&times, 0.99),
        mean_us: total / times.len().max(1) as f64 / 1e3,
        per_second: times.len() as f64 / took.as_secs_f64(),
        cores,
        per_second_all: all.iter().map(Vec::len).sum::<usize>() as f64 / took_all.as_secs_f64(),
        memory_bytes,
    };
    let kept = kept_in(&target);
    let before = fs::read(&kept)
        .ok()
        .and_then(|bytes| serde_json::from_slice::<Measured>(&bytes).ok());
    let comparable = before
        .as_ref()
        .filter(|before| before.setting == measured.setting && before.cores == cores);
    if args.json {
        print(&json!({"file": target.file, "measured": measured, "before": comparable}).to_string());
    } else {
        print(&measured.shown(comparable));
        if before.is_some() && comparable.is_none() {
            print(
                "The run before was about another payload, configuration or build of this program: nothing to compare.",
            );
        }
        if cfg!(debug_assertions) {
            print(
                "This is a debug build of the sidecar: its own part of each call is far slower than in a release.",
            );
        }
    }
    if let Err(error) = keep(&kept, &measured) {
        print_err(&format!(
            "{}: {error}: the next run has nothing to compare with",
            kept.display()
        ));
    }
    Ok(())
}

/// One component with one thing to do.
struct Bench<'a> {
    prepared: &'a Prepared,
    settings: CallSettings,
    case: &'a ExtensionCase,
}

impl Bench<'_> {
    /// Makes one call, and says how much memory it took.
    fn try_it(&self) -> Result<usize, Stopped> {
        let given = Given::of(self.case);
        let checked = given.check_config(self.prepared, &self.settings);
        match checked.result {
            Ok(problems) if problems.is_empty() => {}
            Ok(problems) => {
                let lines: Vec<String> = problems
                    .iter()
                    .map(|problem| format!("  {} {}", problem.path, problem.message))
                    .collect();
                return Err(Stopped::Fails(format!(
                    "It refuses its configuration; give it another by --config:\n{}",
                    lines.join("\n")
                )));
            }
            Err(error) => {
                return Err(Stopped::Fails(format!(
                    "It cannot check its configuration: {error}"
                )));
            }
        }
        let ran = given.call(self.prepared, &self.settings);
        match ran.result {
            Ok(_) => Ok(ran.memory_bytes),
            Err(error) => {
                let lines: Vec<String> = ran
                    .output
                    .lines
                    .iter()
                    .map(|(_, line)| format!("\n  it logged: {line}"))
                    .collect();
                Err(Stopped::Fails(format!(
                    "A call of it fails: {error}{}",
                    lines.concat()
                )))
            }
        }
    }

    fn warm_up(&self, wanted: Duration) {
        let _not_measured = self.on(1, wanted);
    }

    /// Calls it on so many threads for so long. The nanoseconds of each call, by thread, and how long it all took.
    fn on(&self, threads: usize, wanted: Duration) -> (Vec<Vec<u32>>, Duration) {
        let began = Instant::now();
        let run = || {
            let given = Given::of(self.case);
            let mut times = Vec::with_capacity(1 << 16);
            while began.elapsed() < wanted || times.is_empty() {
                let call = Instant::now();
                let ran = given.call(self.prepared, &self.settings);
                let took = call.elapsed();
                drop::<crate::extensions::CallOutput<Raw>>(ran);
                times.push(u32::try_from(took.as_nanos()).unwrap_or(u32::MAX));
            }
            times
        };
        let times = thread::scope(|scope| {
            let threads: Vec<_> = (0..threads).map(|_| scope.spawn(run)).collect();
            threads
                .into_iter()
                .filter_map(|thread| thread.join().ok())
                .collect()
        });
        (times, began.elapsed())
    }
}

/// One of the numbers.
type Number = fn(&Measured) -> f64;

impl Measured {
    fn shown(&self, before: Option<&Self>) -> String {
        let rows: [(&str, String, Number); 9] = [
            ("p50", micros(self.p50_us), |it| it.p50_us),
            ("p99", micros(self.p99_us), |it| it.p99_us),
            ("mean", micros(self.mean_us), |it| it.mean_us),
            ("calls/s, one core", thousands(self.per_second as u64), |it| {
                it.per_second
            }),
            (
                "calls/s, all cores",
                thousands(self.per_second_all as u64),
                |it| it.per_second_all,
            ),
            (
                "speed-up",
                format!(
                    "{:.2} on {} cores",
                    self.per_second_all / self.per_second,
                    self.cores
                ),
                |it| it.per_second_all / it.per_second,
            ),
            ("memory of a call", bytes(self.memory_bytes as u64), |it| {
                it.memory_bytes as f64
            }),
            ("compiling", micros(self.compile_us), |it| it.compile_us),
            ("size", bytes(self.bytes as u64), |it| it.bytes as f64),
        ];
        let mut lines = Vec::new();
        for (name, value, number) in rows {
            let change = match before {
                Some(before) => format!("  {}", change(number(before), number(self))),
                None => String::new(),
            };
            lines.push(format!("{name:<18}  {value:<28}{change}").trim_end().to_owned());
        }
        lines.join("\n")
    }
}

/// `+12 %` since the run before; `same` within half a percent.
fn change(before: f64, now: f64) -> String {
    let percent = (now / before - 1.0) * 100.0;
    if !percent.is_finite() || percent.abs() < 0.5 {
        "same as before".to_owned()
    } else {
        format!("{percent:+.0} % since the run before")
    }
}

fn micros(micros: f64) -> String {
    super::show::time(Duration::from_secs_f64(micros / 1e6))
}

/// In microseconds, of sorted nanoseconds.
fn quantile(sorted: &[u32], quantile: f64) -> f64 {
    let index = (sorted.len().saturating_sub(1) as f64 * quantile).round() as usize;
    sorted.get(index).map_or(0.0, |nanos| f64::from(*nanos) / 1e3)
}

/// Where the numbers of a component are kept.
fn kept_in(target: &Target) -> PathBuf {
    let beside = match &target.project {
        Some(project) => project.dir.as_path(),
        None => target.file.parent().unwrap_or(Path::new("")),
    };
    beside
        .join("target/ext-bench")
        .join(format!("{}.json", target.name()))
}

fn keep(path: &Path, measured: &Measured) -> std::io::Result<()> {
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir)?;
    }
    fs::write(path, format!("{:#}\n", json!(measured)))
}

/// Names what is given to the component, and by what program.
fn setting(case: &ExtensionCase) -> String {
    let build = if cfg!(debug_assertions) {
        "debug"
    } else {
        "release"
    };
    let given = format!("{:?}", Given::of(case));
    let digest = ModuleDigest::of(given.as_bytes()).to_string();
    format!("{build} {} {}", env!("CARGO_PKG_VERSION"), &digest[..16])
}

fn object(text: &str) -> Option<Map<String, Value>> {
    serde_json::from_str(text).ok()
}

fn payload(file: Option<&Path>) -> Result<Value, String> {
    let Some(file) = file else {
        return Ok(json!({"messages": [
            {"role": "system", "content": "You are a friendly assistant of a public library. Answer briefly, and send people to \
             the front desk where you are not sure."},
            {"role": "user", "content": "Hello! I moved to the other side of the town last month, and I would like to renew my card \
             before the summer holidays begin. Do I need to come by in person, and which papers are to be brought along? My two \
             children would like to have a card of their own as well."},
        ], "temperature": 0.2, "max_tokens": 300}));
    };
    let text = fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
    serde_json::from_str(&text).map_err(|error| format!("{}: not JSON: {error}", file.display()))
}

/// A call of an ordinary size.
fn case(kind: Kind, config: Map<String, Value>, payload: Value) -> ExtensionCase {
    let candidate = |(index, name): (usize, &str)| CaseCandidate {
        provider_id: name.to_owned(),
        weight: 0.2,
        breaker: BreakerState::Closed,
        latency_ms: Some(100.0 + 50.0 * index as f64),
        error_rate: Some(0.01 * index as f64),
        cost: Some(0.2),
    };
    let providers = ["openai-main", "openai-backup", "anthropic", "mistral", "local"];
    let context = json!({"tenant_id": "acme", "policy_id": "chat", "message_type": "chat", "tier": "gold", "region": "eu-west-1"});
    ExtensionCase {
        name: "bench".to_owned(),
        line: 0,
        message: MessageValue {
            message_id: "0198c2f0-7d3a-7c41-9a55-0c2b9e1f6a10".to_owned(),
            message_type: "chat".to_owned(),
            payload,
            metadata: Map::new(),
        },
        context: context.as_object().cloned().unwrap_or_default(),
        config,
        candidates: match kind {
            Kind::Scorer => providers.into_iter().enumerate().map(candidate).collect(),
            _ => Vec::new(),
        },
        decision: CaseDecision::default(),
        now_ms: 1_735_689_600_000,
        seed: 1,
        ids: CaseIds::default(),
        expect: Expect::Accept,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_of_what_was_measured() {
        let times: Vec<u32> = (1..=101).map(|n| n * 1_000).collect();
        assert_eq!(
            (quantile(&times, 0.5), quantile(&times, 0.99), quantile(&[], 0.5)),
            (51.0, 100.0, 0.0)
        );
    }

    #[test]
    fn runs_are_compared() {
        assert_eq!(change(100.0, 112.0), "+12 % since the run before");
        assert_eq!(change(100.0, 50.0), "-50 % since the run before");
        assert_eq!(
            (change(100.0, 100.4).as_str(), change(0.0, 0.0).as_str()),
            ("same as before", "same as before")
        );
    }

    #[test]
    fn another_payload_is_another_setting() {
        let of = |payload| setting(&case(Kind::Validator, Map::new(), payload));
        assert_eq!(of(json!(1)), of(json!(1)));
        assert_ne!(of(json!(1)), of(json!(2)));
    }
}
