//! Does something again after each change of files, and builds a project whose source changed.

use std::{
    collections::BTreeMap,
    fs,
    path::PathBuf,
    process::ExitCode,
    thread,
    time::{Duration, SystemTime},
};

use super::{
    build,
    target::{CASES, Project, RECORD},
};
use crate::cli::output::{print, print_err};

/// How often the files are looked at. That works on every file system, and however an editor replaces them.
const PAUSE: Duration = Duration::from_millis(150);

/// What is watched.
pub(super) struct Files {
    /// A component, or a project.
    pub(super) path: PathBuf,
    pub(super) others: Vec<PathBuf>,
}

/// When each file was changed last, and its size; a file that is not there is not in it.
type Seen = BTreeMap<PathBuf, (SystemTime, u64)>;

/// Does it once, and then after each change, until the process is interrupted.
pub(super) fn again(files: &Files, run: impl Fn() -> ExitCode) -> ! {
    let project = Project::open(&files.path).ok().filter(|_| files.path.is_dir());
    let mut built = None;
    loop {
        if let Some(project) = &project {
            let sources = seen(project.sources());
            let is_due =
                !project.component().exists() || built.as_ref().is_some_and(|built| *built != sources);
            let is_stale = built.is_none() && project.is_newer_than_component();
            if is_due || is_stale {
                match build::make(project, None, false) {
                    Ok(made) => print(&made.in_a_line()),
                    Err(reason) => print_err(&reason),
                }
            }
            built = Some(sources);
        }
        let before = files.seen(project.as_ref());
        let _shown = run();
        print("Waiting for a change; Ctrl-C ends it.");
        let changed = files.next_change(project.as_ref(), before);
        let named: Vec<String> = changed.iter().map(|path| path.display().to_string()).collect();
        print(&format!("\nChanged: {}", named.join(", ")));
    }
}

impl Files {
    fn seen(&self, project: Option<&Project>) -> Seen {
        let mut all = self.others.clone();
        match project {
            Some(project) => {
                all.extend(project.sources());
                all.extend([
                    project.dir.join(CASES),
                    project.dir.join(RECORD),
                    project.component(),
                ]);
            }
            None => all.push(self.path.clone()),
        }
        seen(all)
    }

    /// Waits until files changed and rest again. Returns which.
    #[expect(
        clippy::disallowed_methods,
        reason = "it waits for a file to change, which only looking shows everywhere"
    )]
    fn next_change(&self, project: Option<&Project>, before: Seen) -> Vec<PathBuf> {
        let mut last = before.clone();
        loop {
            thread::sleep(PAUSE);
            let now = self.seen(project);
            if now == last && now != before {
                let names = before
                    .keys()
                    .chain(now.keys().filter(|path| !before.contains_key(*path)));
                return names
                    .filter(|path| before.get(*path) != now.get(*path))
                    .cloned()
                    .collect();
            }
            last = now;
        }
    }
}

fn seen(paths: Vec<PathBuf>) -> Seen {
    let look = |path: PathBuf| {
        let known = fs::metadata(&path).ok()?;
        Some((path, (known.modified().ok()?, known.len())))
    };
    paths.into_iter().filter_map(look).collect()
}
