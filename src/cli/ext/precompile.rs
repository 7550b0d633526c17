//! `beamline-sidecar ext precompile`.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use clap::Args;
use serde::Serialize;
use serde_json::json;

use super::{
    records::{check_records, file_modules},
    show::{escaped, time},
};
use crate::{
    cli::output::{EXIT_USAGE, counted, print, print_err},
    config,
    extensions::{Compiler, ComponentCache, Engines, ExtensionsConfig, Module, read_module_file},
};

#[derive(Debug, Args)]
#[command(
    after_help = "Compiles what the records of a directory name as file:…, on all processors, into the directory that a sidecar has as
state_dir: it then starts with these extensions at once. Compiled code is loaded only by a sidecar of this version, on a
processor of this kind, that has the key beside it: keep the directory as private as state_dir is, and let it belong to
the user that the sidecar runs as.

Exits 0 if all of them are compiled, 1 if one is not, 64 if there is nothing to compile.

Examples:
  beamline-sidecar ext precompile extensions --out /var/lib/beamline
  beamline-sidecar ext precompile extensions --out state --config sidecar.yaml --json"
)]
pub(super) struct PrecompileArgs {
    /// The directory of records and modules, as extensions_dir.
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// The directory that the sidecar will have as state_dir.
    #[arg(long, value_name = "STATE")]
    out: PathBuf,
    /// The configuration that the sidecar will have, for its limits.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print JSON, for machines.
    #[arg(long)]
    json: bool,
}

/// What became of a module.
#[derive(Debug, Serialize)]
struct Outcome {
    module: String,
    sha256: Option<String>,
    /// `null`: it was compiled before.
    compile_ms: Option<f64>,
    problem: Option<String>,
}

pub(super) fn run(args: &PrecompileArgs) -> ExitCode {
    match precompile(args) {
        Ok(outcomes) => show(args, &outcomes),
        Err(reason) => {
            print_err(&escaped(&reason));
            ExitCode::from(EXIT_USAGE)
        }
    }
}

fn precompile(args: &PrecompileArgs) -> Result<Vec<Outcome>, String> {
    let config = match &args.config {
        Some(file) => {
            config::load(Some(file), &config::environment())
                .map_err(|mistakes| mistakes.to_string())?
                .config
                .extensions
        }
        None => ExtensionsConfig::default(),
    };
    let unreadable = |error| format!("{}: {error}", args.dir.display());
    let modules = file_modules(&args.dir).map_err(unreadable)?;
    for (id, problems) in check_records(&config, &args.dir).map_err(unreadable)? {
        for problem in problems {
            print_err(&escaped(&format!("{id}: {problem}")));
        }
    }
    if modules.is_empty() {
        return Err(format!(
            "no valid record in {} names a module that is a file",
            args.dir.display()
        ));
    }
    let cache = cache(&config, &args.out)?;
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let (next, outcomes) = (Mutex::new(modules.into_iter()), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let take = || next.lock().unwrap_or_else(PoisonError::into_inner).next();
                while let Some(module) = take() {
                    let outcome = compile(&cache, &config, &args.dir, &module);
                    outcomes
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .push(outcome);
                }
            });
        }
    });
    let mut outcomes = outcomes.into_inner().unwrap_or_else(PoisonError::into_inner);
    outcomes.sort_unstable_by(|a, b| a.module.cmp(&b.module));
    Ok(outcomes)
}

fn cache(config: &ExtensionsConfig, out: &Path) -> Result<ComponentCache, String> {
    let engines = Engines::new(4, config.max_memory_bytes).map_err(|error| error.to_string())?;
    let compiler = Compiler {
        program: std::env::current_exe()
            .map_err(|error| format!("this program cannot find itself: {error}"))?,
        timeout: Duration::from_millis(config.compile_timeout_ms),
        memory_bytes: config.max_compile_memory_bytes,
        in_background: false,
    };
    let dir = out.join("extensions").join("compiled");
    let cache = ComponentCache::new(Arc::new(engines), compiler, Some(&dir));
    if cache.keeps() {
        Ok(cache)
    } else {
        Err(format!(
            "{} cannot be written by this user alone: name a directory that only this user can write",
            dir.display()
        ))
    }
}

fn compile(cache: &ComponentCache, config: &ExtensionsConfig, dir: &Path, module: &Module) -> Outcome {
    let read = read_module_file(config, dir, module).unwrap_or_else(|| Err("it is no file".to_owned()));
    let built = read.and_then(|bytes| {
        let built = cache.build_for(&bytes, module.profile(&bytes));
        built.map_err(|error| error.to_string())
    });
    let mut outcome = Outcome {
        module: module.source.to_string(),
        sha256: None,
        compile_ms: None,
        problem: None,
    };
    match built {
        Ok(built) => {
            outcome.sha256 = Some(built.digest.to_string());
            outcome.compile_ms = built.compiled_in.map(|took| took.as_secs_f64() * 1e3);
        }
        Err(reason) => outcome.problem = Some(reason),
    }
    outcome
}

fn show(args: &PrecompileArgs, outcomes: &[Outcome]) -> ExitCode {
    let failed = outcomes
        .iter()
        .filter(|outcome| outcome.problem.is_some())
        .count();
    if args.json {
        print(&json!({"ok": failed == 0, "out": args.out, "modules": outcomes}).to_string());
    } else {
        for outcome in outcomes {
            let what = match (&outcome.problem, outcome.compile_ms) {
                (Some(problem), _) => format!("error: {problem}"),
                (None, Some(ms)) => format!("compiled in {}", time(Duration::from_secs_f64(ms / 1e3))),
                (None, None) => "was compiled before".to_owned(),
            };
            print(&escaped(&format!("{}: {what}", outcome.module)));
        }
        print(&format!(
            "{} in {}.",
            counted(outcomes.len() - failed, "module", "modules"),
            escaped(&args.out.display().to_string())
        ));
    }
    if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
