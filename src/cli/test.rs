//! `beamline-sidecar test`.

use std::{fs, io, path::PathBuf, process::ExitCode, time::Instant};

use clap::Args;
use serde_json::json;

use super::{
    output::{EXIT_USAGE, counted, print, print_err},
    policy_files::{Paint, collect},
    tried_extensions::TriedExtensions,
};
use crate::testing::{self, Mismatch};

#[derive(Debug, Args)]
#[command(
    after_help = "A case names a policy, what is remembered, requests, a seed, a time and the results that are wanted.
examples/decisions has some, and docs/policies.md describes every field.

Exits 0 if every case passes, 1 if one fails, 64 if one cannot be read.

Examples:
  beamline-sidecar test examples/decisions
  beamline-sidecar test cases --filter sticky
  beamline-sidecar test cases --extensions extensions
  beamline-sidecar test cases --junit report.xml"
)]
pub(super) struct TestArgs {
    /// Case files, or directories of *.yaml and *.yml.
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Run only the cases whose file or description contains this text.
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,
    /// Call the real extensions of a directory, as `extensions_dir` has one; those that it does not have answer as the
    /// case says. A call has the longest time there is, so that a busy machine decides nothing.
    #[arg(long, value_name = "DIR")]
    extensions: Option<PathBuf>,
    /// Print JSON, for machines.
    #[arg(long)]
    json: bool,
    /// Write a JUnit report as well.
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
}

struct Ran {
    file: String,
    description: String,
    mismatches: Vec<Mismatch>,
    seconds: f64,
}

pub(super) fn run(args: &TestArgs) -> ExitCode {
    let started = Instant::now();
    let ran = match run_all(args) {
        Ok(ran) => ran,
        Err(errors) => {
            for error in errors {
                print_err(&error.to_string());
            }
            return ExitCode::from(EXIT_USAGE);
        }
    };
    if ran.is_empty() {
        print_err("There is no such case.");
        return ExitCode::from(EXIT_USAGE);
    }
    let failed = ran.iter().filter(|case| !case.mismatches.is_empty()).count();
    if let Some(file) = &args.junit
        && let Err(error) = fs::write(file, junit(&ran))
    {
        print_err(&format!("{}: {error}", file.display()));
        return ExitCode::from(EXIT_USAGE);
    }
    if args.json {
        let cases = ran.iter().map(|case| {
            let mismatches = case
                .mismatches
                .iter()
                .map(|m| json!({"step": m.step, "path": m.path, "wanted": m.wanted, "got": m.got}));
            json!({
                "file": case.file,
                "description": case.description,
                "ok": case.mismatches.is_empty(),
                "mismatches": mismatches.collect::<serde_json::Value>(),
            })
        });
        let report = json!({"ok": failed == 0, "cases": ran.len(), "failed": failed, "results": cases.collect::<serde_json::Value>()});
        print(&report.to_string());
    } else {
        let paint = Paint::of_stdout();
        for case in &ran {
            let mark = if case.mismatches.is_empty() {
                paint.color("32", "ok  ")
            } else {
                paint.color("31", "FAIL")
            };
            print(&format!("{mark} {}: {}", case.file, case.description));
            for mismatch in &case.mismatches {
                print(&format!("  {mismatch}"));
            }
        }
        let passed = ran.len() - failed;
        print(&format!(
            "{passed} of {} passed, in {:.2} s.",
            counted(ran.len(), "case", "cases"),
            started.elapsed().as_secs_f64()
        ));
    }
    if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Runs all cases, unless one cannot be read: a case that is skipped would seem to have passed.
fn run_all(args: &TestArgs) -> Result<Vec<Ran>, Vec<io::Error>> {
    let extensions = TriedExtensions::of(args.extensions.as_deref()).map_err(|error| vec![error])?;
    let mut files = Vec::new();
    for path in &args.paths {
        collect(path, &["yaml", "yml"], &mut files).map_err(|error| vec![error])?;
    }
    let (mut ran, mut unreadable) = (Vec::new(), Vec::new());
    for path in files {
        let file = path.display().to_string();
        let cases = testing::load(&path).unwrap_or_else(|error| {
            unreadable.push(io::Error::other(error));
            Vec::new()
        });
        for case in cases {
            let wanted = |text: &String| file.contains(text) || case.description.contains(text);
            if args.filter.as_ref().is_none_or(wanted) {
                let started = Instant::now();
                let mismatches = testing::run_by(&case, &|policy, input, rules, memory, script, at| {
                    extensions.decide(policy, input, rules, memory, script, at)
                });
                let seconds = started.elapsed().as_secs_f64();
                ran.push(Ran {
                    file: file.clone(),
                    description: case.description,
                    mismatches,
                    seconds,
                });
            }
        }
    }
    if unreadable.is_empty() {
        Ok(ran)
    } else {
        Err(unreadable)
    }
}

fn junit(ran: &[Ran]) -> String {
    let failed = ran.iter().filter(|case| !case.mismatches.is_empty()).count();
    let mut xml = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n<testsuite name=\"decisions\" tests=\"{}\" failures=\"{failed}\">\n",
        ran.len()
    );
    for case in ran {
        let (file, description) = (escape(&case.file), escape(&case.description));
        xml.push_str(&format!(
            "<testcase classname=\"{file}\" name=\"{description}\" time=\"{:.6}\">",
            case.seconds
        ));
        if !case.mismatches.is_empty() {
            let texts: Vec<String> = case.mismatches.iter().map(ToString::to_string).collect();
            xml.push_str(&format!(
                "<failure message=\"{}\">{}</failure>",
                counted(texts.len(), "difference", "differences"),
                escape(&texts.join("\n"))
            ));
        }
        xml.push_str("</testcase>\n");
    }
    xml.push_str("</testsuite>\n</testsuites>\n");
    xml
}

/// Escapes text for XML; characters that XML does not allow become question marks.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\n' | '\t' => escaped.push(character),
            control if control.is_control() => escaped.push('?'),
            other => escaped.push(other),
        }
    }
    escaped
}
