//! The local directory of extensions: one record to a file. Whatever becomes of a file, what it held before goes on.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
};

use crate::{policy::Problem, snapshot::ExtensionRecords};

/// The largest record.
const RECORD_BYTES: u64 = 1 << 20;

/// Records of the local directory.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Files {
    pub(super) records: ExtensionRecords,
    pub(super) problems: BTreeMap<String, Vec<Problem>>,
    /// The file that each record is from, by the record's id.
    from: BTreeMap<String, PathBuf>,
}

impl Files {
    /// Reads the directory. What cannot be read of it is left as it was `before`.
    pub(super) fn read(dir: &Path, before: &Self) -> io::Result<Self> {
        let mut files = Self::default();
        let mut paths: Vec<PathBuf> = fs::read_dir(dir)?
            .map(|entry| entry.map(|entry| entry.path()))
            .collect::<Result<_, _>>()?;
        paths.sort_unstable();
        for path in paths {
            let is_record = path.extension().is_some_and(|extension| extension == "json");
            let name = path
                .file_stem()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            // Kubernetes keeps a mounted ConfigMap's generations under names that begin with a dot.
            if !is_record || name.starts_with('.') || !path.is_file() {
                continue;
            }
            let read = read_record(&path);
            files.take(before, path, &name, read);
        }
        Ok(files)
    }

    fn id_in(&self, path: &Path) -> Option<&String> {
        let in_it = |(_, from): &(&String, &PathBuf)| *from == path;
        self.from.iter().find(in_it).map(|(id, _)| id)
    }

    fn problem(&mut self, id: String, message: String, remedy: &str) {
        let problem = Problem::error("$", message, remedy);
        self.problems.entry(id).or_default().push(problem);
    }

    /// Takes what was read of a file, or leaves what it held before.
    fn take(&mut self, before: &Self, path: PathBuf, name: &str, read: io::Result<String>) {
        let known = before.id_in(&path);
        let text = match read {
            Ok(text) => text.into(),
            Err(error) => {
                let message = format!("{} cannot be read: {error}", path.display());
                let id = known.map_or(name, String::as_str);
                self.problem(id.to_owned(), message, "put it right");
                let Some(last) = before.records.get(id).filter(|_| known.is_some()) else {
                    return;
                };
                last.clone()
            }
        };
        let named = serde_json::from_str::<serde_json::Value>(&text)
            .ok()
            .and_then(|record| Some(record.get("id")?.as_str()?.to_owned()));
        let id = named.unwrap_or_else(|| known.map_or(name, String::as_str).to_owned());
        if let Some(other) = self.from.get(&id) {
            let message = format!(
                "{} and {} both hold a record {id:?}",
                other.display(),
                path.display()
            );
            self.problem(id.clone(), message, "remove one of them");
            if before.from.get(&id) != Some(&path) {
                return;
            }
        }
        self.records.insert(id.clone(), text);
        self.from.insert(id, path);
    }
}

fn read_record(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    let mut file = fs::File::open(path)?.take(RECORD_BYTES + 1);
    file.read_to_string(&mut text)?;
    if text.len() as u64 > RECORD_BYTES {
        return Err(io::Error::other(format!("it has more than {RECORD_BYTES} bytes")));
    }
    Ok(text)
}
