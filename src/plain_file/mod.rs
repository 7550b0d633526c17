//! Files that others write and this process reads: its configuration, tokens, certificates, policies.
//!
//! A pipe in a file's place would be waited for until someone writes into it, and a device might never end. Neither is
//! opened in a way that waits, nor read. What takes long all the same is left to threads of its own: `readers.rs`.

mod readers;

pub use readers::{read_all, read_one};

use std::{
    fs::File,
    io::{self, Read},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use rustix::fs::OFlags;

/// Opens a file to read.
///
/// # Errors
/// When there is no such file, it cannot be opened, or it is a pipe, a device, a socket or a directory.
pub fn open(path: &Path) -> io::Result<File> {
    let file = File::options()
        .read(true)
        // Without it, opening a pipe waits for a writer.
        .custom_flags(OFlags::NONBLOCK.bits().cast_signed())
        .open(path)?;
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "it is no regular file, but a directory, a pipe or a device",
        ))
    }
}

/// Reads a file whole.
///
/// # Errors
/// As [`open`], and when it cannot be read.
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    open(path)?.read_to_end(&mut content)?;
    Ok(content)
}

/// Reads a text file whole.
///
/// # Errors
/// As [`read`], and when it is not UTF-8.
pub fn read_to_string(path: &Path) -> io::Result<String> {
    let mut content = String::new();
    open(path)?.read_to_string(&mut content)?;
    Ok(content)
}

/// Whether a path names something that this process was given open, such as `/dev/stdin` or the `/dev/fd/63` of a shell:
/// it can be read once, and waiting for it is what was asked for.
pub fn is_handed_over(path: &Path) -> bool {
    ["/dev", "/proc"].iter().any(|root| path.starts_with(root))
}

#[cfg(test)]
mod tests {
    use std::{fs, process::Command};

    use super::*;

    #[test]
    fn a_file_is_read_and_nothing_else_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "content").unwrap();
        assert_eq!(read_to_string(&file).unwrap(), "content");
        let pipe = dir.path().join("pipe");
        assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&pipe, &link).unwrap();
        for other in [&pipe, &link, dir.path(), Path::new("/dev/zero")] {
            let error = read(other).unwrap_err();
            assert!(error.to_string().contains("no regular file"), "{error}");
        }
        assert_eq!(
            read(&dir.path().join("none")).unwrap_err().kind(),
            io::ErrorKind::NotFound
        );
    }
}
