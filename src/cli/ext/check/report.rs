//! What `ext check` checks, and what it finds.

use std::time::Duration;

use serde_json::Value;

use crate::{
    cli::ext::{
        component_info::ComponentInfo,
        engine::{component_cache, limits, refusal},
        show::{bytes, listed, time},
    },
    extensions::{
        CallLimits, Capability, ConfigProblem, ExtensionsConfig, Manifest, ManifestKind, ModuleDigest,
        Prepared, Time, Unusable, check_import,
    },
    policy::{Problem, Severity, json_path},
};

/// What was found, as far as it could be examined.
#[derive(Debug, Default)]
pub(super) struct Report {
    pub(super) record: Option<(String, Manifest)>,
    pub(super) info: Option<ComponentInfo>,
    pub(super) compiled_in: Option<Duration>,
    pub(super) idle_memory_bytes: Option<usize>,
    pub(super) memory_limit_bytes: usize,
    pub(super) is_config_accepted: Option<bool>,
    pub(super) problems: Vec<Problem>,
}

impl Report {
    pub(super) fn record(&self) -> Option<&Manifest> {
        self.record.as_ref().map(|(_, record)| record)
    }

    pub(super) fn problem(&mut self, path: &str, message: impl Into<String>, remedy: impl Into<String>) {
        self.problems.push(Problem::error(path, message, remedy));
    }

    pub(super) fn warning(&mut self, path: &str, message: impl Into<String>, remedy: impl Into<String>) {
        self.problems.push(Problem::warning(path, message, remedy));
    }

    pub(super) fn kind(&mut self, info: &ComponentInfo) {
        let named = self.record().map(|record| record.kind);
        match (info.kind, named) {
            (None, _) => self.problem(
                "exports",
                format!(
                    "it is of no world that is known: it exports {}",
                    listed(info.exports.iter().map(String::as_str))
                ),
                "implement pre-processor, validator, scorer or post-processor of beamline:extension@0.1.0",
            ),
            (Some(_), Some(ManifestKind::Provider)) => self.problem(
                "$.type",
                "the record describes a provider, which is never called, and this is an extension",
                "write the type that it has",
            ),
            (Some(kind), Some(ManifestKind::Runs(named))) if kind != named => self.problem(
                "$.type",
                format!(
                    "the record says {}, and the component is a {}",
                    named.as_str(),
                    kind.as_str()
                ),
                format!(
                    "write \"type\": \"{}\", or build for the world {}",
                    kind.as_str(),
                    named.world()
                ),
            ),
            _ => {}
        }
    }

    pub(super) fn size(&mut self, info: &ComponentInfo) {
        let max = ExtensionsConfig::default().max_module_bytes;
        if info.bytes as u64 > max {
            self.problem(
                "size",
                format!(
                    "it has {}; a sidecar takes {} unless configured otherwise",
                    bytes(info.bytes as u64),
                    bytes(max)
                ),
                "build it smaller (Rust: opt-level = \"s\", lto, strip), or raise extensions.max_module_bytes",
            );
        }
    }

    pub(super) fn digest(&mut self, digest: ModuleDigest) {
        let named = self
            .record()
            .and_then(|record| record.base.module.as_ref()?.digest);
        if named.is_some_and(|named| named != digest) {
            self.problem(
                "$.sha256",
                "the record has the digest of another build",
                format!("write {digest}"),
            );
        }
    }

    /// Checks each import: a linker stops at the first that it cannot resolve. Returns whether linking can succeed.
    pub(super) fn imports(&mut self, info: &ComponentInfo) -> bool {
        let mut can_link = true;
        let is_wasi = |import: &&String| import.starts_with("wasi:");
        let wasi: Vec<&str> = info.imports.iter().filter(is_wasi).map(String::as_str).collect();
        if !wasi.is_empty() {
            can_link = false;
            self.problem(
                "imports",
                format!("it imports WASI, and there is none here: {}", wasi.join(", ")),
                "build it for wasm32-unknown-unknown (Rust), or with the stubs that `ext new` sets up (JavaScript: \
                 --backend-qjs-stub-wasi, Python: --stub-wasi)",
            );
        }
        let is_unknown = |import: &&String| {
            let linked = check_import(import, &Capability::ALL);
            matches!(linked, Err(Unusable::UnknownImport { .. }))
        };
        for import in info.imports.iter().filter(is_unknown) {
            can_link = false;
            self.problem(
                "imports",
                format!("it imports {import}, which no sidecar of this version has"),
                "there are log, clock, random and metrics of beamline:extension@0.1.0",
            );
        }
        let Some(granted) = self.record().map(|record| record.capabilities.clone()) else {
            return can_link;
        };
        for needed in info
            .capabilities
            .iter()
            .filter(|needed| !granted.contains(needed))
        {
            let needed = needed.as_str();
            self.problem(
                "$.capabilities",
                format!("it imports {needed}, which it was not granted"),
                format!("add \"{needed}\" to \"capabilities\" of the record, if it may"),
            );
        }
        for unused in granted
            .iter()
            .filter(|granted| !info.capabilities.contains(granted))
        {
            let unused = unused.as_str();
            self.warning(
                "$.capabilities",
                format!("it was granted {unused} and does not use it"),
                format!("remove \"{unused}\": what is not granted cannot be misused"),
            );
        }
        can_link
    }

    pub(super) fn run(&mut self, info: &ComponentInfo, module: &[u8], can_link: bool) -> Result<(), String> {
        let limits = limits(info.profile, self.record());
        self.memory_limit_bytes = limits.memory_bytes;
        // What a sidecar with the defaults refuses, one with other limits may take.
        if let Some(refusal) = refusal(info.profile, self.record()) {
            self.warning("$.limits.memory_bytes", refusal.message, refusal.remedy);
        }
        let cache = component_cache(1, limits.memory_bytes, None)?;
        let profile = info.profile.metered(limits.fuel.is_some());
        let built = match cache.build_for(module, profile) {
            Ok(built) => built,
            Err(error) => {
                self.problem(
                    "component",
                    error.reason,
                    "if it is about memory or tables, begin with less of them; else build it anew with `ext build`",
                );
                return Ok(());
            }
        };
        self.compiled_in = built.compiled_in;
        let timeout = Duration::from_millis(ExtensionsConfig::default().compile_timeout_ms);
        if let Some(took) = built.compiled_in.filter(|took| *took > timeout) {
            self.warning(
                "component",
                format!("compiling it took {}; a sidecar waits {} unless configured otherwise", time(took), time(timeout)),
                "nothing if this machine is slow or busy; else make it smaller, or raise extensions.compile_timeout_ms",
            );
        }
        let kind = info.kind.filter(|_| can_link);
        let Some(kind) = kind else { return Ok(()) };
        // What it was granted has been checked; this is about types.
        let prepared = match cache.link(&built, kind, &Capability::ALL) {
            Ok(prepared) => prepared,
            Err(error) => {
                let remedy = match &error {
                    Unusable::WrongWorld { .. } => {
                        "build it against wasm-extensions/wit of this sidecar's version"
                    }
                    _ => "keep what runs before the first call small, and in the memory that a call has",
                };
                self.problem("component", error.to_string(), remedy);
                return Ok(());
            }
        };
        self.config(&prepared, limits);
        Ok(())
    }

    /// Lets the extension check its configuration, as a sidecar does when a policy is loaded.
    fn config(&mut self, prepared: &Prepared, limits: CallLimits) {
        let config = self
            .record()
            .map(|record| record.base.config.clone())
            .unwrap_or_default();
        let time = Time::of(Duration::from_secs(2));
        let call = prepared.check_config(&Value::Object(config).to_string(), limits, time);
        self.idle_memory_bytes = Some(call.memory_bytes);
        match call.result {
            Ok(problems) => {
                let has_record = self.record.is_some();
                self.is_config_accepted = Some(problems.is_empty());
                for ConfigProblem { path, message } in problems {
                    if has_record {
                        self.problem(
                            &json_path::below("$.config", &path),
                            message,
                            "correct the configuration in the record",
                        );
                    } else {
                        let remedy = "give it a configuration by a record: --record FILE";
                        self.warning(
                            "config",
                            format!("without a configuration: {path} {message}"),
                            remedy,
                        );
                    }
                }
            }
            Err(error) => {
                let remedy =
                    "check-config must accept or refuse any configuration within the limits of a call";
                self.problem(
                    "config",
                    format!("its check of the configuration fails: {error}"),
                    remedy,
                );
            }
        }
    }

    pub(super) fn count(&self, severity: Severity) -> usize {
        self.problems
            .iter()
            .filter(|problem| problem.severity == severity)
            .count()
    }
}
