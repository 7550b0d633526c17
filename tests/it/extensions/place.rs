//! A sidecar with a directory of policies, one of extensions, and one for its state.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};

use beamline_sidecar::app::ConfigSource;

use super::guest;
use crate::support::{Process, Sidecar};

pub(crate) struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    /// One that has what any test compiled before: most tests are not about compiling, and it is most of what they cost.
    pub(crate) fn new() -> Self {
        let place = Self::cold();
        let known = Path::new(env!("CARGO_TARGET_TMPDIR")).join("compiled");
        for dir in [&known, &place.path("state/extensions")] {
            fs::create_dir_all(dir).unwrap();
        }
        std::os::unix::fs::symlink(known, place.path("state/extensions/compiled")).unwrap();
        place
    }

    /// One that has nothing compiled, and whose compiled code is its own.
    pub(crate) fn cold() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for name in ["policies/acme", "extensions", "state"] {
            fs::create_dir_all(dir.path().join(name)).unwrap();
        }
        Self { dir }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Puts a component beside the records, under a name.
    pub(crate) fn module(&self, guest_name: &str, name: &str) {
        self.bytes(&guest(guest_name), name);
    }

    pub(crate) fn bytes(&self, bytes: &[u8], name: &str) {
        let new = self.path("extensions").join(format!(".{name}"));
        fs::write(&new, bytes).unwrap();
        fs::rename(new, self.path("extensions").join(name)).unwrap();
    }

    /// Registers an extension whose module is put beside its record.
    pub(crate) fn extension(&self, id: &str, kind: &str, guest_name: &str, more: Value) {
        let file = format!("{guest_name}.wasm");
        if !self.path("extensions").join(&file).exists() {
            self.module(guest_name, &file);
        }
        self.record(
            id,
            merge(
                json!({"id": id, "type": kind, "module": format!("file:{file}")}),
                more,
            ),
        );
    }

    pub(crate) fn record(&self, id: &str, record: Value) {
        let new = self.path("extensions").join(format!(".{id}.json"));
        fs::write(&new, record.to_string()).unwrap();
        fs::rename(new, self.path("extensions").join(format!("{id}.json"))).unwrap();
    }

    /// Registers the misbehaving extension of a kind, with all capabilities.
    pub(crate) fn misbehaving(&self, id: &str, kind: &str, more: Value) {
        let guest_name = match kind {
            "pre" => "misbehaving-pre-processor",
            "post" => "misbehaving-post-processor",
            "scorer" => "misbehaving-scorer",
            _ => "misbehaving-validator",
        };
        let granted = json!({"capabilities": ["clock", "random", "metrics"]});
        self.extension(id, kind, guest_name, merge(granted, more));
    }

    /// A policy of the tenant `acme` with the providers alpha (60) and beta (40).
    pub(crate) fn policy(&self, id: &str, more: Value) {
        self.policy_of("acme", id, more);
    }

    /// As [`policy`](Self::policy), of another tenant.
    pub(crate) fn policy_of(&self, tenant: &str, id: &str, more: Value) {
        let base = json!({"version": "2.1", "providers": [{"name": "alpha", "weight": 60}, {"name": "beta", "weight": 40}]});
        let dir = self.path("policies").join(tenant);
        fs::create_dir_all(&dir).unwrap();
        let file = dir.join(format!("{id}.json"));
        fs::write(file, merge(base, more).to_string()).unwrap();
    }

    pub(crate) fn yaml(&self, more: &str) -> String {
        format!(
            "listen: 127.0.0.1:0\nadmin: {{listen: '127.0.0.1:0'}}\nshutdown: {{lame_duck_ms: 10}}\n\
             heir_policy_store_enabled: false\npolicies_dir: {}\nextensions_dir: {}\nstate_dir: {}\n\
             decide: {{allow_seed: true}}\n{more}",
            self.path("policies").display(),
            self.path("extensions").display(),
            self.path("state").display(),
        )
    }

    /// Starts the program in a process of its own.
    pub(crate) fn process(&self, more: &str) -> Process {
        let config = self.path("sidecar.yaml");
        fs::write(&config, self.yaml(more)).unwrap();
        Process::start(&["run", "--config", config.to_str().unwrap()], &[])
    }

    /// Starts a sidecar, and waits until the modules are there.
    pub(crate) fn start(&self, more: &str) -> Sidecar {
        let sidecar = Sidecar::try_start(&self.yaml(more)).unwrap();
        // It runs on other threads than this one.
        tokio::task::block_in_place(|| {
            tokio::runtime::Handle::current().block_on(sidecar.wait_for_modules());
        });
        sidecar
    }

    /// Starts a sidecar whose modules are compiled by another program, and waits for none of them.
    pub(crate) fn start_with(&self, program: &Path, more: &str) -> Sidecar {
        let source = ConfigSource {
            program: program.to_owned(),
            ..ConfigSource::default()
        };
        Sidecar::start_from(&self.yaml(more), source).unwrap()
    }

    /// A compiler that writes a line for each module, and does this first.
    pub(crate) fn compiler(&self, first: &str) -> PathBuf {
        use std::os::unix::fs::PermissionsExt;
        let program = self.path("compiler");
        let lines = self.path("compiled");
        let real = env!("CARGO_BIN_EXE_beamline-sidecar");
        let script = format!(
            "#!/bin/sh\necho begun >> {}\n{first}\nexec {real} \"$@\"\n",
            lines.display()
        );
        // Under another name first: a file that is written cannot be run.
        let new = self.path("compiler.new");
        fs::write(&new, script).unwrap();
        fs::set_permissions(&new, fs::Permissions::from_mode(0o700)).unwrap();
        fs::rename(new, &program).unwrap();
        program
    }

    /// How often that compiler was started.
    pub(crate) fn compilers(&self) -> usize {
        fs::read_to_string(self.path("compiled")).map_or(0, |lines| lines.lines().count())
    }
}

pub(crate) fn merge(mut base: Value, more: Value) -> Value {
    if let (Some(base), Value::Object(more)) = (base.as_object_mut(), more) {
        base.extend(more);
    }
    base
}
