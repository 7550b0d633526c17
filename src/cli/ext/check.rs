//! `beamline-sidecar ext check`.

use std::{fs, path::PathBuf, process::ExitCode, time::Duration};

use clap::Args;
use serde_json::{Value, json};

use super::{
    anatomy::{Anatomy, PACKAGE},
    engine::{limits, workshop},
    show::{Table, bytes, listed, time},
    target::Target,
};
use crate::{
    cli::{EXIT_USAGE, policy_files::Paint, print, print_err},
    extensions::{
        Capability, ConfigProblem, ExtensionsConfig, Kind, ModuleDigest, Prepared, Record, RecordKind, Time,
        Unusable,
    },
    policy::{Problem, Severity, locate},
};

#[derive(Debug, Args)]
#[command(
    after_help = "Looks at everything that a sidecar looks at before it calls an extension, and tells every mistake at once.
Without a record it does not know what the extension may use, and how it is configured.

Exits 0 if a sidecar would take it, 1 if not, 64 if there is nothing to check.

Examples:
  beamline-sidecar ext check                              the project in this directory
  beamline-sidecar ext check my-guard --deny-warnings
  beamline-sidecar ext check my-guard.wasm --record my-guard.json --json"
)]
pub(super) struct CheckArgs {
    /// A component, or a project that was built.
    #[arg(value_name = "FILE|DIR", default_value = ".")]
    path: PathBuf,
    /// The registry record; of a project its extension.json.
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
    /// Take warnings for mistakes.
    #[arg(long)]
    deny_warnings: bool,
    /// Print JSON, for machines.
    #[arg(long)]
    json: bool,
}

/// What was found, of what could be looked at.
#[derive(Debug, Default)]
struct Report {
    record: Option<(String, Record)>,
    anatomy: Option<Anatomy>,
    compiled_in: Option<Duration>,
    idle_memory_bytes: Option<usize>,
    memory_limit_bytes: usize,
    is_config_accepted: Option<bool>,
    problems: Vec<Problem>,
}

pub(super) fn run(args: &CheckArgs) -> ExitCode {
    match check(args) {
        Ok((target, report)) => show(args, &target, &report),
        Err(reason) => {
            print_err(&reason);
            ExitCode::from(EXIT_USAGE)
        }
    }
}

/// # Errors
/// When there is nothing to check, or no engine to check it with.
fn check(args: &CheckArgs) -> Result<(Target, Report), String> {
    let target = Target::find(&args.path, args.record.as_deref())?;
    let module = target.read()?;
    let mut report = Report::default();
    if let Some(path) = &target.record {
        let text = fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
        match Record::read(&text) {
            Ok((record, warnings)) => {
                report.problems.extend(warnings);
                report.record = Some((text, record));
            }
            Err(problems) => report.problems.extend(problems),
        }
    }
    let anatomy = match Anatomy::of(&module) {
        Ok(anatomy) => anatomy,
        Err(reason) => {
            report.problem(
                "component",
                reason,
                "name the file that `ext build` wrote, or its project",
            );
            return Ok((target, report));
        }
    };
    report.kind(&anatomy);
    report.size(&anatomy);
    report.digest(anatomy.sha256);
    let can_link = report.imports(&anatomy);
    report.run(&anatomy, &module, can_link)?;
    report.anatomy = Some(anatomy);
    Ok((target, report))
}

impl Report {
    fn record(&self) -> Option<&Record> {
        self.record.as_ref().map(|(_, record)| record)
    }

    fn problem(&mut self, path: &str, message: impl Into<String>, remedy: impl Into<String>) {
        self.problems.push(Problem::error(path, message, remedy));
    }

    fn warning(&mut self, path: &str, message: impl Into<String>, remedy: impl Into<String>) {
        self.problems.push(Problem::warning(path, message, remedy));
    }

    fn kind(&mut self, anatomy: &Anatomy) {
        let said = self.record().map(|record| record.kind);
        match (anatomy.kind, said) {
            (None, _) => self.problem(
                "exports",
                format!(
                    "it is of no world that is known: it exports {}",
                    listed(anatomy.exports.iter().map(String::as_str))
                ),
                "implement pre-processor, validator, scorer or post-processor of beamline:extension@0.1.0",
            ),
            (Some(_), Some(RecordKind::Provider)) => self.problem(
                "$.type",
                "the record describes a provider, which is never called, and this is an extension",
                "write the type that it has",
            ),
            (Some(kind), Some(RecordKind::Runs(said))) if kind != said => self.problem(
                "$.type",
                format!(
                    "the record says {}, and the component is a {}",
                    said.as_str(),
                    kind.as_str()
                ),
                format!(
                    "write \"type\": \"{}\", or build for the world {}",
                    kind.as_str(),
                    said.world()
                ),
            ),
            _ => {}
        }
    }

    fn size(&mut self, anatomy: &Anatomy) {
        let most = ExtensionsConfig::default().max_module_bytes;
        if anatomy.bytes as u64 > most {
            self.problem(
                "size",
                format!(
                    "it has {}; a sidecar takes {} unless configured otherwise",
                    bytes(anatomy.bytes as u64),
                    bytes(most)
                ),
                "build it smaller (Rust: opt-level = \"s\", lto, strip), or raise extensions.max_module_bytes",
            );
        }
    }

    fn digest(&mut self, digest: ModuleDigest) {
        let said = self
            .record()
            .and_then(|record| record.base.module.as_ref()?.digest);
        if said.is_some_and(|said| said != digest) {
            self.problem(
                "$.sha256",
                "the record has the digest of another build",
                format!("write {digest}"),
            );
        }
    }

    /// Looks at each import, for a linker stops at the first that it cannot serve. Says whether linking can succeed.
    fn imports(&mut self, anatomy: &Anatomy) -> bool {
        let mut can_link = true;
        let is_wasi = |import: &&String| import.starts_with("wasi:");
        let wasi: Vec<&str> = anatomy
            .imports
            .iter()
            .filter(is_wasi)
            .map(String::as_str)
            .collect();
        if !wasi.is_empty() {
            can_link = false;
            self.problem(
                "imports",
                format!("it imports WASI, and there is none here: {}", wasi.join(", ")),
                "build it for wasm32-unknown-unknown (Rust), or with the stubs that `ext new` sets up (JavaScript: \
                 --backend-qjs-stub-wasi, Python: --stub-wasi)",
            );
        }
        let offered = |import: &str| {
            let names = ["types", "log"]
                .into_iter()
                .chain(Capability::ALL.map(Capability::as_str));
            names
                .into_iter()
                .any(|name| import == format!("{PACKAGE}/{name}@0.1.0"))
        };
        for import in anatomy
            .imports
            .iter()
            .filter(|import| !import.starts_with("wasi:") && !offered(import))
        {
            can_link = false;
            self.problem(
                "imports",
                format!("it imports {import}, which no sidecar of this version has"),
                "there are log, clock, random and metrics of beamline:extension@0.1.0",
            );
        }
        let Some(granted) = self.record().map(|record| record.capabilities.clone()) else {
            return can_link;
        };
        for needed in anatomy
            .capabilities
            .iter()
            .filter(|needed| !granted.contains(needed))
        {
            let needed = needed.as_str();
            self.problem(
                "$.capabilities",
                format!("it imports {needed}, which it was not granted"),
                format!("add \"{needed}\" to \"capabilities\" of the record, if it may"),
            );
        }
        for unused in granted
            .iter()
            .filter(|granted| !anatomy.capabilities.contains(granted))
        {
            let unused = unused.as_str();
            self.warning(
                "$.capabilities",
                format!("it was granted {unused} and does not use it"),
                format!("remove \"{unused}\": what is not granted cannot be misused"),
            );
        }
        can_link
    }

    fn run(&mut self, anatomy: &Anatomy, module: &[u8], can_link: bool) -> Result<(), String> {
        let limits = limits(anatomy.profile, self.record());
        self.memory_limit_bytes = limits.memory_bytes;
        let most = ExtensionsConfig::default().max_memory_bytes;
        if limits.memory_bytes as u64 > most {
            self.warning(
                "$.limits.memory_bytes",
                format!(
                    "a sidecar gives a call at most {} unless configured otherwise",
                    bytes(most)
                ),
                "ask for less, or raise extensions.max_memory_bytes",
            );
        }
        let workshop = workshop(1, limits.memory_bytes)?;
        let built = match workshop.build(module) {
            Ok(built) => built,
            Err(error) => {
                self.problem(
                    "component",
                    error.reason,
                    "if it is about memory or tables, begin with less of them; else build it anew with `ext build`",
                );
                return Ok(());
            }
        };
        self.compiled_in = built.compiled_in;
        let patience = Duration::from_millis(ExtensionsConfig::default().compile_timeout_ms);
        if let Some(took) = built.compiled_in.filter(|took| *took > patience) {
            self.warning(
                "component",
                format!("compiling it took {}; a sidecar waits {} unless configured otherwise", time(took), time(patience)),
                "nothing if this machine is slow or busy; else make it smaller, or raise extensions.compile_timeout_ms",
            );
        }
        let kind = anatomy.kind.filter(|_| can_link);
        let Some(kind) = kind else { return Ok(()) };
        // What it was granted has been looked at; here it is about types.
        let prepared = match workshop.link(&built, kind, &Capability::ALL) {
            Ok(prepared) => prepared,
            Err(error) => {
                let remedy = match &error {
                    Unusable::WrongWorld { .. } => {
                        "build it against wasm-extensions/wit of this sidecar's version"
                    }
                    _ => "keep what runs before the first call small, and in the memory that a call has",
                };
                self.problem("component", error.to_string(), remedy);
                return Ok(());
            }
        };
        self.config(&prepared, limits);
        Ok(())
    }

    /// Has the extension check its configuration, as a sidecar does when a policy is loaded.
    fn config(&mut self, prepared: &Prepared, limits: crate::extensions::CallLimits) {
        let config = self
            .record()
            .map(|record| record.base.config.clone())
            .unwrap_or_default();
        let time = Time {
            deadline: Duration::from_secs(2),
            fast: None,
        };
        let ran = prepared.check_config(&Value::Object(config).to_string(), limits, time);
        self.idle_memory_bytes = Some(ran.memory_bytes);
        match ran.result {
            Ok(problems) => {
                let has_record = self.record.is_some();
                self.is_config_accepted = Some(problems.is_empty());
                for ConfigProblem { path, message } in problems {
                    if has_record {
                        self.problem(
                            &json_path(&path),
                            message,
                            "correct the configuration in the record",
                        );
                    } else {
                        let remedy = "give it a configuration by a record: --record FILE";
                        self.warning(
                            "config",
                            format!("without a configuration: {path} {message}"),
                            remedy,
                        );
                    }
                }
            }
            Err(error) => {
                let remedy =
                    "check-config must accept or refuse any configuration within the limits of a call";
                self.problem(
                    "config",
                    format!("its check of the configuration fails: {error}"),
                    remedy,
                );
            }
        }
    }

    fn count(&self, severity: Severity) -> usize {
        self.problems
            .iter()
            .filter(|problem| problem.severity == severity)
            .count()
    }
}

/// A JSON Pointer into the configuration as a path into the record.
fn json_path(pointer: &str) -> String {
    let mut path = "$.config".to_owned();
    for step in pointer.split('/').skip(1) {
        let step = step.replace("~1", "/").replace("~0", "~");
        if !step.is_empty() && step.bytes().all(|byte| byte.is_ascii_digit()) {
            path.push_str(&format!("[{step}]"));
        } else {
            path.push_str(&format!(".{step}"));
        }
    }
    path
}

fn show(args: &CheckArgs, target: &Target, report: &Report) -> ExitCode {
    let (errors, warnings) = (report.count(Severity::Error), report.count(Severity::Warning));
    let ok = errors == 0 && !(args.deny_warnings && warnings > 0);
    if args.json {
        print(&to_json(target, report, ok).to_string());
    } else {
        if let Some(stale) = target.stale() {
            print_err(&stale);
        }
        print(&table(target, report).to_string());
        for problem in &report.problems {
            print(&told(problem, target, report));
        }
        print(&format!("{errors} errors, {warnings} warnings."));
    }
    if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn table(target: &Target, report: &Report) -> Table {
    let mut table = Table::default();
    table.row("component", target.file.display().to_string());
    match &target.record {
        Some(record) => table.row("record", record.display().to_string()),
        None => table.row("record", "none given"),
    }
    let Some(anatomy) = &report.anatomy else {
        return table;
    };
    let version = anatomy
        .package
        .as_deref()
        .unwrap_or("no version of beamline:extension");
    table.row(
        "world",
        format!(
            "{}, built for {version}",
            anatomy.kind.map_or("unknown", Kind::world)
        ),
    );
    table.row("imports", listed(anatomy.imports.iter().map(String::as_str)));
    let names =
        |capabilities: &[Capability]| listed(capabilities.iter().map(|capability| capability.as_str()));
    let granted = report
        .record()
        .map_or("unknown".to_owned(), |record| names(&record.capabilities));
    table.row(
        "capabilities",
        format!("needed: {}; granted: {granted}", names(&anatomy.capabilities)),
    );
    table.row("size", bytes(anatomy.bytes as u64));
    if let Some(compiled_in) = report.compiled_in {
        table.row("compiled in", time(compiled_in));
    }
    if let Some(memory) = report.idle_memory_bytes {
        let most = bytes(report.memory_limit_bytes as u64);
        table.row(
            "memory",
            format!("{} before any work, of {most}", bytes(memory as u64)),
        );
    }
    if let Some(is_accepted) = report.is_config_accepted {
        table.row("config", if is_accepted { "accepted" } else { "refused" });
    }
    table
}

/// A problem the way compilers write it.
fn told(problem: &Problem, target: &Target, report: &Report) -> String {
    let paint = Paint::of_stdout();
    let severity = match problem.severity {
        Severity::Error => paint.color("31", "error"),
        Severity::Warning => paint.color("33", "warning"),
    };
    let place = match place(problem, target, report) {
        Some((file, line, column)) => format!("{file}:{line}:{column}: "),
        None => String::new(),
    };
    format!(
        "{place}{severity}: {} ({})\n  = help: {}",
        paint.color("1", &problem.message),
        problem.path,
        problem.remedy
    )
}

/// Where in the record a problem is, if it is there.
fn place(problem: &Problem, target: &Target, report: &Report) -> Option<(String, usize, usize)> {
    let file = target.record.as_ref().filter(|_| problem.path.starts_with('$'))?;
    let text = match &report.record {
        Some((text, _)) => text.clone(),
        None => fs::read_to_string(file).ok()?,
    };
    let position = locate(&text, &problem.path);
    Some((file.display().to_string(), position.line, position.column))
}

fn to_json(target: &Target, report: &Report, ok: bool) -> Value {
    let problems = report.problems.iter().map(|problem| {
        let mut shown = json!(problem);
        if let Some((file, line, column)) = place(problem, target, report) {
            shown["file"] = file.into();
            shown["line"] = line.into();
            shown["column"] = column.into();
        }
        shown
    });
    json!({
        "ok": ok,
        "file": target.file,
        "record": target.record,
        "component": report.anatomy,
        "granted": report.record().map(|record| &record.capabilities),
        "compile_ms": report.compiled_in.map(|took| took.as_secs_f64() * 1e3),
        "idle_memory_bytes": report.idle_memory_bytes,
        "memory_limit_bytes": report.memory_limit_bytes,
        "config_accepted": report.is_config_accepted,
        "problems": problems.collect::<Value>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_in_the_configuration_is_one_in_the_record() {
        for (pointer, path) in [
            ("", "$.config"),
            ("/kinds", "$.config.kinds"),
            ("/allow/0/a~1b", "$.config.allow[0].a/b"),
        ] {
            assert_eq!(json_path(pointer), path);
        }
    }
}
