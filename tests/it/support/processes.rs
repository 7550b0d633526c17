//! Store and sidecar as processes of their own.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use beamline_sidecar::store::Level;
use rustix::process::Signal;

use super::{Client, Process, within};

/// A policy store that can be killed, paused, copied and put back.
pub(crate) struct StoreProcess {
    database: PathBuf,
    level: Level,
    process: Option<Process>,
    address: SocketAddr,
}

/// What a store had on disk at some moment.
#[derive(Clone)]
pub(crate) struct Copy {
    database: Vec<u8>,
    wal: Option<Vec<u8>>,
}

impl StoreProcess {
    /// Starts one on this database, after taking in the policies of a directory.
    pub(crate) async fn start(database: &Path, import: Option<&Path>) -> Self {
        Self::start_at(Level::Changes, database, import).await
    }

    /// As [`start`](Self::start), with the calls of this level.
    pub(crate) async fn start_at(level: Level, database: &Path, import: Option<&Path>) -> Self {
        let mut store = Self {
            database: database.to_owned(),
            level,
            process: None,
            address: ([127, 0, 0, 1], 0).into(),
        };
        store.up_with(import).await;
        store
    }

    async fn up_with(&mut self, import: Option<&Path>) {
        let mut arguments: Vec<String> = ["store", "--listen", "127.0.0.1:0", "--db"]
            .map(Into::into)
            .into();
        arguments.push(self.database.to_str().unwrap().into());
        arguments.extend([
            "--level".into(),
            self.level.as_str().into(),
            "--allow-invalid".into(),
        ]);
        if let Some(import) = import {
            arguments.extend(["--import".into(), import.to_str().unwrap().into()]);
        }
        let process = start(arguments).await;
        self.address = process.listen[0].parse().unwrap();
        self.process = Some(process);
    }

    /// Starts it again, at another port of the kernel's choice.
    pub(crate) async fn up(&mut self) {
        self.up_with(None).await;
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn client(&self) -> Client {
        Client::new(self.address)
    }

    pub(crate) fn kill(&mut self) {
        self.process.take().unwrap().kill();
    }

    /// When this returns, it does nothing any more.
    pub(crate) fn pause(&self) {
        self.process.as_ref().unwrap().signal(Signal::STOP);
        // On busy processors its threads may go on for a while, until one of them has taken the signal.
        let from = Instant::now();
        while !self.is_paused() {
            assert!(from.elapsed() < Duration::from_secs(60), "it goes on");
            std::thread::park_timeout(Duration::from_millis(1));
        }
    }

    /// Whether all of its threads stand still, as the kernel sees it.
    pub(crate) fn is_paused(&self) -> bool {
        let pid = self.process.as_ref().unwrap().pid().as_raw_nonzero();
        let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
        threads.flatten().all(|thread| {
            // One that has just ended does nothing either.
            let stat = fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
            let state = stat.rsplit_once(") ").map_or("T", |(_, state)| state);
            state.starts_with('T')
        })
    }

    pub(crate) fn resume(&self) {
        self.process.as_ref().unwrap().signal(Signal::CONT);
    }

    /// Copies the database of a killed store, with what SQLite has yet to take from its log.
    pub(crate) fn copy(&self) -> Copy {
        assert!(self.process.is_none(), "a copy is made of a store at rest");
        Copy {
            database: fs::read(&self.database).unwrap(),
            wal: fs::read(self.beside("-wal")).ok(),
        }
    }

    /// Puts a copy in the place of a killed store's database.
    pub(crate) fn put_back(&self, copy: &Copy) {
        assert!(self.process.is_none());
        for suffix in ["-wal", "-shm"] {
            // A store that ended properly has left neither.
            let _absent = fs::remove_file(self.beside(suffix));
        }
        fs::write(&self.database, &copy.database).unwrap();
        if let Some(wal) = &copy.wal {
            fs::write(self.beside("-wal"), wal).unwrap();
        }
    }

    fn beside(&self, suffix: &str) -> PathBuf {
        let mut name = self.database.clone().into_os_string();
        name.push(suffix);
        name.into()
    }
}

/// A sidecar that can be killed and started again with the same state directory.
pub(crate) struct SidecarProcess {
    config: PathBuf,
    pub(crate) process: Process,
    pub(crate) data: SocketAddr,
    pub(crate) admin: SocketAddr,
}

impl SidecarProcess {
    /// Starts one whose file and state are in this directory. `yaml` comes after the keys that make it
    /// quick, the last of which are those of `heir`.
    pub(crate) async fn start(dir: &Path, heir: SocketAddr, yaml: &str) -> Self {
        let listen = if yaml.contains("\nlisten:") {
            ""
        } else {
            "listen: '127.0.0.1:0'\n"
        };
        let timeout = if yaml.contains("timeout_ms:") {
            ""
        } else {
            "  timeout_ms: 3000\n"
        };
        let text = format!(
            "{listen}admin: {{listen: '127.0.0.1:0'}}
state_dir: {}
heir:
  url: 'http://{heir}'
{timeout}  health_interval_ms: 200
  breaker: {{open_ms: 300}}
  retry: {{initial_ms: 10}}
{yaml}",
            dir.join("state").display(),
        );
        let config = dir.join("sidecar.yaml");
        fs::write(&config, text).unwrap();
        Self::start_from(config).await
    }

    async fn start_from(config: PathBuf) -> Self {
        let process = start(vec![
            "run".into(),
            "--config".into(),
            config.to_str().unwrap().into(),
        ])
        .await;
        let data = process
            .listen
            .iter()
            .find_map(|listen| listen.parse().ok())
            .unwrap();
        let admin = process.admin.unwrap();
        Self {
            config,
            process,
            data,
            admin,
        }
    }

    /// Starts it again after a kill; its addresses are others then.
    pub(crate) async fn up(&mut self) {
        *self = Self::start_from(self.config.clone()).await;
    }

    pub(crate) fn client(&self) -> Client {
        Client::new(self.data)
    }

    pub(crate) fn admin(&self) -> Client {
        Client::new(self.admin)
    }

    pub(crate) async fn wait_for(&self, state: &str) {
        let admin = self.admin();
        within(300, &format!("the sidecar is {state}"), || async {
            admin.get("/ready").await.json()["state"] == state
        })
        .await;
    }
}

/// Starting waits for the process's first words, which must not hold up a thread of the runtime.
async fn start(arguments: Vec<String>) -> Process {
    let started = tokio::task::spawn_blocking(move || {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        Process::start(&arguments, &[])
    });
    started.await.unwrap()
}
