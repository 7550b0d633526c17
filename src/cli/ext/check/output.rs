//! How `ext check` shows what it found.

use std::fs;

use serde_json::{Value, json};

use super::report::Report;
use crate::{
    cli::{
        ext::{
            show::{Table, bytes, listed, time},
            target::Target,
        },
        policy_files::Paint,
    },
    extensions::{Capability, Kind},
    policy::{Problem, Severity, locate},
};

/// What the component is, as a table.
pub(super) fn table(target: &Target, report: &Report) -> Table {
    let mut table = Table::default();
    table.row("component", target.file.display().to_string());
    match &target.record {
        Some(record) => table.row("record", record.display().to_string()),
        None => table.row("record", "none given"),
    }
    let Some(info) = &report.info else {
        return table;
    };
    let version = info
        .package
        .as_deref()
        .unwrap_or("no version of beamline:extension");
    table.row(
        "world",
        format!(
            "{}, built for {version}",
            info.kind.map_or("unknown", Kind::world)
        ),
    );
    table.row("imports", listed(info.imports.iter().map(String::as_str)));
    let names =
        |capabilities: &[Capability]| listed(capabilities.iter().map(|capability| capability.as_str()));
    let granted = report
        .record()
        .map_or("unknown".to_owned(), |record| names(&record.capabilities));
    table.row(
        "capabilities",
        format!("needed: {}; granted: {granted}", names(&info.capabilities)),
    );
    table.row("size", bytes(info.bytes as u64));
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

/// A problem as compilers write it.
pub(super) fn problem_lines(problem: &Problem, target: &Target, report: &Report) -> String {
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

/// The place of a problem in the record, if it has one.
fn place(problem: &Problem, target: &Target, report: &Report) -> Option<(String, usize, usize)> {
    let file = target.record.as_ref().filter(|_| problem.path.starts_with('$'))?;
    let text = match &report.record {
        Some((text, _)) => text.clone(),
        None => fs::read_to_string(file).ok()?,
    };
    let position = locate(&text, &problem.path);
    Some((file.display().to_string(), position.line, position.column))
}

/// Everything, for machines.
pub(super) fn to_json(target: &Target, report: &Report, ok: bool) -> Value {
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
        "component": report.info,
        "granted": report.record().map(|record| &record.capabilities),
        "compile_ms": report.compiled_in.map(|took| took.as_secs_f64() * 1e3),
        "idle_memory_bytes": report.idle_memory_bytes,
        "memory_limit_bytes": report.memory_limit_bytes,
        "config_accepted": report.is_config_accepted,
        "problems": problems.collect::<Value>(),
    })
}
