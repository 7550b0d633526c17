//! A file system of its own that is soon full, or read-only, and one that hangs.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use command_fds::{CommandFdExt, FdMapping};

/// A small file system, gone when dropped.
pub(crate) struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    /// Mounts one of this size, such as `256k`.
    ///
    /// Where this process may not mount, the test runs once more in a namespace in which it may, which is `None`: then
    /// all of it has been done, and the test has nothing left to do. Where there are no such namespaces the test fails,
    /// because it proves nothing.
    pub(crate) fn mount(size: &str) -> Option<Self> {
        const INSIDE: &str = "BEAMLINE_TEST_IN_A_NAMESPACE";
        let dir = tempfile::tempdir().unwrap();
        let options = format!("size={size}");
        let mounted = mount(&[
            "-t",
            "tmpfs",
            "-o",
            &options,
            "tmpfs",
            dir.path().to_str().unwrap(),
        ]);
        if mounted.status.success() {
            return Some(Self(dir));
        }
        let said = String::from_utf8_lossy(&mounted.stderr).into_owned();
        assert!(
            std::env::var_os(INSIDE).is_none(),
            "a small file system cannot be mounted: {said}"
        );
        let name = std::thread::current().name().unwrap().to_owned();
        assert!(name.contains("::"), "{name} is not the name of a test");
        let again = Command::new("unshare")
            .args(["--user", "--map-root-user", "--mount"])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", &name, "--nocapture"])
            .env(INSIDE, "1")
            .status();
        assert!(
            again.is_ok_and(|status| status.success()),
            "failed in a namespace of its own, or there are none and only root may mount: {said}"
        );
        None
    }

    /// Takes it off its place; what is below it is there again.
    pub(crate) fn unmount(&self) {
        let ended = Command::new("umount").arg("-l").arg(self.path()).status();
        assert!(ended.unwrap().success());
    }

    /// Mounts another one over its place.
    pub(crate) fn mount_another(&self) {
        let mounted = mount(&["-t", "tmpfs", "tmpfs", self.path().to_str().unwrap()]);
        assert!(mounted.status.success());
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// Takes all the room that is left.
    pub(crate) fn fill(&self) {
        use std::io::Write as _;
        let mut ballast = fs::File::options()
            .create(true)
            .append(true)
            .open(self.ballast())
            .unwrap();
        for piece in [1 << 16, 1 << 12, 1] {
            while ballast.write_all(&vec![0; piece]).is_ok() {}
        }
    }

    /// Gives it back.
    pub(crate) fn free(&self) {
        fs::remove_file(self.ballast()).unwrap();
    }

    fn ballast(&self) -> std::path::PathBuf {
        self.path().join("ballast")
    }

    pub(crate) fn make_read_only(&self) {
        let remounted = mount(&["-o", "remount,ro", self.path().to_str().unwrap()]);
        assert!(remounted.status.success());
    }
}

/// A file system on a device of its own that can be frozen, as under a storage array that does not answer: what writes to it
/// waits in the kernel, and cannot even be killed. Only root may.
pub(crate) struct FrozenDisk {
    dir: tempfile::TempDir,
    is_frozen: bool,
}

impl FrozenDisk {
    pub(crate) fn mount() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (image, place) = (dir.path().join("image"), dir.path().join("disk"));
        fs::File::create(&image).unwrap().set_len(16 << 20).unwrap();
        fs::create_dir(&place).unwrap();
        let run = |command: &mut Command| {
            let output = command.output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{command:?}: {said}");
        };
        run(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&image));
        run(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(&place));
        Self {
            dir,
            is_frozen: false,
        }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.dir.path().join("disk")
    }

    pub(crate) fn freeze(&mut self) {
        self.freeze_with("--freeze");
        self.is_frozen = true;
    }

    pub(crate) fn thaw(&mut self) {
        self.freeze_with("--unfreeze");
        self.is_frozen = false;
    }

    fn freeze_with(&self, what: &str) {
        let done = Command::new("fsfreeze").arg(what).arg(self.path()).status();
        assert!(done.unwrap().success(), "{what}");
    }
}

impl Drop for FrozenDisk {
    fn drop(&mut self) {
        if self.is_frozen {
            self.thaw();
        }
        let _ended = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}

/// A file system in the place of a directory of which nothing is ever answered, not even what is in it: what looks at it waits,
/// and can be killed. Only root may.
pub(crate) struct SilentDisk {
    place: PathBuf,
    /// The end that would have to answer. Closed, all that waits fails.
    silent: Option<fs::File>,
}

impl SilentDisk {
    pub(crate) fn mount_over(place: &Path) -> Self {
        let silent = fs::File::options()
            .read(true)
            .write(true)
            .open("/dev/fuse")
            .unwrap();
        let mapping = FdMapping {
            parent_fd: silent.try_clone().unwrap().into(),
            child_fd: 3,
        };
        let mut command = Command::new("mount");
        command
            // Without a helper, which would want a program that answers.
            .args([
                "-i",
                "-t",
                "fuse",
                "-o",
                "fd=3,rootmode=40000,user_id=0,group_id=0",
                "silent",
            ])
            .arg(place)
            .fd_mappings(vec![mapping])
            .unwrap();
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        Self {
            place: place.to_owned(),
            silent: Some(silent),
        }
    }
}

impl Drop for SilentDisk {
    fn drop(&mut self) {
        // First: taking it off looks at it as well.
        self.silent = None;
        let _ended = Command::new("umount").arg("-l").arg(&self.place).status();
    }
}

fn mount(arguments: &[&str]) -> Output {
    Command::new("mount").args(arguments).output().unwrap()
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ended = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}
