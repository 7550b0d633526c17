//! The files of recorded calls: one line of JSON for each, in files of which the oldest go first.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

/// All files together have the configured size; one of them at most this part of it.
const PARTS: u64 = 8;

/// The directory, and the file that is being written.
#[derive(Debug)]
pub(super) struct Files {
    dir: PathBuf,
    max_bytes: u64,
    current: Option<(File, u64)>,
}

impl Files {
    pub(super) const fn new(dir: PathBuf, max_bytes: u64) -> Self {
        Self {
            dir,
            max_bytes,
            current: None,
        }
    }

    /// Adds a line. `now_ms` names the file that may begin with it.
    pub(super) fn write(&mut self, line: &str, now_ms: u64) -> io::Result<()> {
        let bytes = line.len() as u64 + 1;
        if bytes > self.max_bytes / PARTS {
            return Err(io::Error::other(format!(
                "a call of {bytes} bytes is more than extensions.record.max_bytes allows for one"
            )));
        }
        let is_full = |(_, size): &(File, u64)| size + bytes > self.max_bytes / PARTS;
        if self.current.as_ref().is_none_or(is_full) {
            self.current = None;
            self.current = Some((self.begin(now_ms)?, 0));
        }
        let Some((file, size)) = &mut self.current else {
            return Ok(());
        };
        *size += bytes;
        let written = file.write_all(format!("{line}\n").as_bytes());
        if written.is_err() {
            // Whatever was written of the line, the next one begins a file.
            self.current = None;
        }
        written
    }

    /// A new file, for which there is room.
    fn begin(&self, now_ms: u64) -> io::Result<File> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.dir)?;
        let mut kept = self.max_bytes / PARTS;
        let mut names = recordings(&self.dir)?;
        names.sort_unstable();
        for path in names.iter().rev() {
            kept = kept.saturating_add(fs::metadata(path).map_or(0, |known| known.len()));
            if kept > self.max_bytes {
                fs::remove_file(path)?;
            }
        }
        let mut number = 0_u32;
        loop {
            let path = self.dir.join(format!("calls-{now_ms:013}-{number}.ndjson"));
            match OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(path)
            {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number += 1,
                result => return result,
            }
        }
    }
}

fn recordings(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with("calls-") && name.ends_with(".ndjson") {
            found.push(path);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn all_files_together_stay_below_their_bound_and_the_newest_lines_are_kept() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("recordings");
        let mut files = Files::new(dir.clone(), 8_000);
        for number in 0..500_u64 {
            files.write(&format!("{number:099}"), number / 3).unwrap();
            let sizes = recordings(&dir).unwrap();
            let all: u64 = sizes.iter().map(|path| fs::metadata(path).unwrap().len()).sum();
            assert!(all <= 8_000, "{all}");
        }
        let mut names = recordings(&dir).unwrap();
        names.sort_unstable();
        let last = fs::read_to_string(names.last().unwrap()).unwrap();
        assert!(last.ends_with(&format!("{:099}\n", 499)), "{last}");
        assert!(names.len() > 4);
        assert!(files.write(&"x".repeat(1_000), 1).is_err());
        assert_eq!(fs::metadata(&dir).unwrap().permissions().mode() & 0o077, 0);
        assert_eq!(
            fs::metadata(names.last().unwrap()).unwrap().permissions().mode() & 0o077,
            0
        );
        // What others put there is theirs.
        fs::write(dir.join("mine.txt"), "mine").unwrap();
        for number in 500..700_u64 {
            files.write(&format!("{number:099}"), number).unwrap();
        }
        assert!(dir.join("mine.txt").exists());
    }
}
