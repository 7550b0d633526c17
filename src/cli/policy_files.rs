//! Policy files on the command line: finding them, and reporting their problems.

use std::{
    ffi::OsStr,
    fs,
    io::{self, IsTerminal},
    path::{Path, PathBuf},
};

use bytes::Bytes;
use serde_json::{Value, json};

use crate::policy::{self, Problem, RoutingPolicy, Severity, locate};

/// A file with its problems.
pub(super) struct Checked {
    pub(super) path: PathBuf,
    text: String,
    pub(super) problems: Vec<Problem>,
}

/// The files that the arguments name; for a directory, every `*.json` in it and below.
pub(super) fn files(arguments: &[PathBuf]) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for argument in arguments {
        collect(argument, &["json"], &mut files)?;
    }
    Ok(files)
}

/// A file, or the files with one of these extensions in a directory and below, in order.
pub(super) fn collect(path: &Path, extensions: &[&str], files: &mut Vec<PathBuf>) -> io::Result<()> {
    let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    if !fs::metadata(path).map_err(named)?.is_dir() {
        files.push(path.to_owned());
        return Ok(());
    }
    let mut entries = Vec::new();
    for entry in fs::read_dir(path).map_err(named)? {
        entries.push(entry.map_err(named)?.path());
    }
    entries.sort_unstable();
    for entry in entries {
        let wanted = |found: &OsStr| extensions.iter().any(|extension| found == *extension);
        if entry.is_dir() || entry.extension().is_some_and(wanted) {
            collect(&entry, extensions, files)?;
        }
    }
    Ok(())
}

/// Reads a file and checks it as a write is checked.
pub(super) fn check(path: &Path) -> io::Result<Checked> {
    let bytes = fs::read(path)
        .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))?;
    let problems = policy::check(&Bytes::from(bytes.clone()));
    let text = String::from_utf8_lossy(&bytes).into_owned();
    Ok(Checked {
        path: path.to_owned(),
        text,
        problems,
    })
}

/// Reads the policy of a file, for the commands that try it. An error only if it is not a JSON object.
pub(super) fn read(path: &Path) -> io::Result<RoutingPolicy> {
    let bytes = fs::read(path)
        .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))?;
    match policy::PolicyDocument::parse(bytes.into()) {
        Ok(document) => Ok(policy::read(document.bytes()).0),
        Err(problems) => {
            let all: Vec<String> = problems
                .iter()
                .map(|problem| format!("{}: {problem}", path.display()))
                .collect();
            Err(io::Error::other(all.join("\n")))
        }
    }
}

impl Checked {
    pub(super) fn count(&self, severity: Severity) -> usize {
        self.problems
            .iter()
            .filter(|problem| problem.severity == severity)
            .count()
    }

    fn place(&self, problem: &Problem) -> (usize, usize) {
        // For text that is not JSON, the message has the place.
        if problem.is_not_json()
            && let Some((line, column)) = place_in_message(&problem.message)
        {
            return (line, column.max(1));
        }
        let position = locate(&self.text, &problem.path);
        (position.line, position.column)
    }

    /// The problems as JSON, each with its place.
    pub(super) fn to_json(&self) -> Value {
        let problems = self.problems.iter().map(|problem| {
            let (line, column) = self.place(problem);
            let mut shown = json!(problem);
            shown["line"] = line.into();
            shown["column"] = column.into();
            shown
        });
        json!({"file": self.path.display().to_string(), "problems": problems.collect::<Value>()})
    }

    /// The problems in the form of compiler messages.
    pub(super) fn to_text(&self) -> String {
        let paint = Paint::of_stdout();
        let mut text = String::new();
        for problem in &self.problems {
            let (line, column) = self.place(problem);
            let (name, color) = match problem.severity {
                Severity::Error => ("error", "31"),
                Severity::Warning => ("warning", "33"),
            };
            let source = self.text.lines().nth(line - 1).unwrap_or_default();
            // Of a long line, the part around the place is shown.
            let skip = column.saturating_sub(60);
            let shown: String = source
                .chars()
                .skip(skip)
                .take(100)
                .map(|c| if c == '\t' { ' ' } else { c })
                .collect();
            let margin = line.to_string().len();
            text.push_str(&format!(
                "{}:{line}:{column}: {}: {} ({})\n {line} | {shown}\n {:margin$} | {}{}\n {:margin$} = help: {}\n",
                self.path.display(),
                paint.color(color, name),
                paint.color("1", &problem.message),
                problem.path,
                "",
                " ".repeat(column - 1 - skip.min(column - 1)),
                paint.color(color, "^"),
                "",
                problem.remedy,
            ));
        }
        text
    }
}

fn place_in_message(message: &str) -> Option<(usize, usize)> {
    let (_, place) = message.rsplit_once(" at line ")?;
    let (line, column) = place.split_once(" column ")?;
    Some((line.parse().ok()?, column.parse().ok()?))
}

/// Colours, if the output is a terminal.
#[derive(Debug, Clone, Copy)]
pub(super) struct Paint(bool);

impl Paint {
    /// For standard output: on a terminal, unless `NO_COLOR` is set.
    pub(super) fn of_stdout() -> Self {
        let environment = crate::config::environment();
        let unwanted = environment.get("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self(io::stdout().is_terminal() && !unwanted)
    }

    pub(super) fn color(self, code: &str, text: &str) -> String {
        if self.0 {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }
}
