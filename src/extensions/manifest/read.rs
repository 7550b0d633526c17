//! Reads a registry record. A mistake makes the record unusable; all mistakes are reported at once.

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Map, Value};

use super::{
    created_at::CreatedAt,
    fields::Reader,
    module::{Module, ModuleSource},
    types::{Instance, Manifest, ManifestKind, Release},
};
use crate::{
    extensions::{
        digest::ModuleDigest,
        sandbox::{Capability, Kind},
    },
    policy::{Problem, check_id},
};

const DEFAULT_PAYLOAD_BYTES: usize = 1_048_576;
const DEFAULT_METADATA_BYTES: usize = 65_536;

impl Manifest {
    /// Reads a record. Warnings come with it.
    ///
    /// # Errors
    /// Every mistake and every warning, each with its place and remedy.
    pub fn read(text: &str) -> Result<(Self, Vec<Problem>), Vec<Problem>> {
        let value: Value = serde_json::from_str(text).map_err(|error| {
            vec![Problem::error(
                "$",
                format!("not valid JSON: {error}"),
                "write one JSON object",
            )]
        })?;
        let Value::Object(fields) = value else {
            return Err(vec![Problem::error(
                "$",
                "the record is not an object",
                "write {\"id\": …, \"type\": …}",
            )]);
        };
        let mut reader = Reader::default();
        match reader.manifest(&fields) {
            Some(manifest) if !reader.failed => Ok((manifest, reader.problems)),
            _ => Err(reader.problems),
        }
    }
}

/// `/admin/extensions/…` are pages of these names.
const RESERVED: [&str; 3] = ["circuit-breakers", "health", "reload"];
const FIELDS: &[&str] = &[
    "id",
    "type",
    "subject",
    "timeout_ms",
    "retry",
    "enabled",
    "config",
    "metadata",
    "version",
    "created_at",
    "updated_at",
    "created_by",
    "updated_by",
    "module",
    "sha256",
    "capabilities",
    "limits",
    "signature",
    "versions",
    "instances",
    "routing_rules",
    "revision",
];
const RELEASE_FIELDS: &[&str] = &[
    "id",
    "version",
    "subject",
    "timeout_ms",
    "retry",
    "config",
    "metadata",
    "routing_rules",
    "enabled",
    "created_at",
    "created_by",
    "module",
    "sha256",
    "signature",
];
const INSTANCE_FIELDS: &[&str] = &[
    "extension_id",
    "instance_id",
    "subject",
    "weight",
    "enabled",
    "health_status",
    "last_health_check",
    "created_at",
    "updated_at",
    "module",
    "sha256",
    "signature",
];

impl Reader {
    fn manifest(&mut self, fields: &Map<String, Value>) -> Option<Manifest> {
        self.unknown("$", fields, FIELDS);
        let id = match fields
            .get("id")
            .and_then(Value::as_str)
            .map(|id| (id, check_id(id)))
        {
            Some((id, Ok(()))) => {
                if RESERVED.contains(&id) {
                    self.error(
                        "$.id",
                        "this id is the name of an admin page",
                        "name it otherwise",
                    );
                }
                id.into()
            }
            Some((_, Err(error))) => {
                self.error(
                    "$.id",
                    format!("the id {error}"),
                    "use letters, digits, `_`, `.` and `-`",
                );
                "".into()
            }
            None => {
                self.error(
                    "$.id",
                    "id is missing, or not a text",
                    "name the extension, as policies do",
                );
                "".into()
            }
        };
        let kind = match fields.get("type").and_then(Value::as_str) {
            Some("provider") => Some(ManifestKind::Provider),
            Some(name) => Kind::ALL
                .into_iter()
                .find(|kind| kind.as_str() == name)
                .map(ManifestKind::Runs),
            None => None,
        };
        if kind.is_none() {
            self.error(
                "$.type",
                "there is no such type",
                "one of pre, validator, scorer, post, provider",
            );
        }
        let base = self.release("$", fields, None);
        let enabled = self.boolean("$", fields, "enabled", true);
        let capabilities = self.capabilities(fields);
        let limits = self.limits(fields);
        let mut versions = self.versions(fields, &base);
        versions.sort_by(|a, b| {
            b.created_at
                .cmp(&a.created_at)
                .then_with(|| newer(&b.version, &a.version))
        });
        let releases = match versions.as_slice() {
            [] => std::slice::from_ref(&base),
            versions => versions,
        };
        let instances = self.instances(fields, common_module(releases));
        let runs = matches!(kind, Some(ManifestKind::Runs(_)));
        // One that is named and wrong was reported already.
        let has_module =
            fields.contains_key("module") || versions.iter().any(|version| version.module.is_some());
        if runs && !has_module {
            if base.subject.is_some() {
                self.error(
                    "$.module",
                    "the extension has a subject and no module: this sidecar does not call handlers on the message bus",
                    "give it a module, or leave it to the Router",
                );
            } else {
                self.error(
                    "$.module",
                    "module is missing",
                    "name one: file:…, heir:sha256/…, https://… or oci://…",
                );
            }
        }
        let description = fields
            .get("metadata")
            .and_then(|metadata| metadata.get("description"))
            .and_then(Value::as_str)
            .unwrap_or_default();
        let metadata = self.object("$", fields, "metadata");
        let is_guard = self.boolean("$.metadata", &metadata, "guard", false);
        let mut manifest = Manifest {
            id,
            kind: kind?,
            enabled,
            description: description.into(),
            is_guard,
            base,
            capabilities,
            limits,
            versions,
            instances,
        };
        if limits.fuel.is_some() {
            manifest.exchange_modules(|module| {
                let mut metered = module.clone();
                metered.is_metered = true;
                Some(metered)
            });
        }
        Some(manifest)
    }

    fn release(&mut self, at: &str, fields: &Map<String, Value>, base: Option<&Release>) -> Release {
        let text = |key: &str| fields.get(key).and_then(Value::as_str);
        let metadata = self.object(at, fields, "metadata");
        let within = format!("{at}.metadata");
        let mut size = |key: &str, inherited: usize| {
            self.number(&within, &metadata, key, 1, u32::MAX)
                .map_or(inherited, |size| size as usize)
        };
        let max_payload_bytes = size(
            "max_payload_size",
            base.map_or(DEFAULT_PAYLOAD_BYTES, |b| b.max_payload_bytes),
        );
        let max_metadata_bytes = size(
            "max_metadata_size",
            base.map_or(DEFAULT_METADATA_BYTES, |b| b.max_metadata_bytes),
        );
        let own = self.module(at, fields, base.and_then(|base| base.module.as_ref()));
        let mut config = base.map(|base| base.config.clone()).unwrap_or_default();
        config.extend(self.object(at, fields, "config"));
        // The platform's records allow more than a call may take: what is out of range is cut to it when it is called.
        let timeout_ms = self
            .number(at, fields, "timeout_ms", 1, 300_000)
            .map(|timeout| timeout.clamp(10, 5_000));
        let retry = self.number(at, fields, "retry", 0, 10).map(|retry| retry.min(3));
        Release {
            version: text("version").unwrap_or("v1").into(),
            module: own.or_else(|| base.and_then(|base| base.module.clone())),
            subject: text("subject").map(Into::into),
            timeout_ms: timeout_ms.or_else(|| base.and_then(|base| base.timeout_ms)),
            retry: retry.unwrap_or_else(|| base.map_or(0, |base| base.retry)),
            config,
            max_payload_bytes,
            max_metadata_bytes,
            routing_rules: self.object(at, fields, "routing_rules"),
            created_at: text("created_at").map_or(CreatedAt::Unknown, CreatedAt::read),
        }
    }

    fn versions(&mut self, fields: &Map<String, Value>, base: &Release) -> Vec<Release> {
        let mut versions = Vec::new();
        for (at, version) in self.list(fields, "versions") {
            self.unknown(&at, &version, RELEASE_FIELDS);
            if !version.get("version").is_some_and(Value::is_string) {
                self.error(
                    format!("{at}.version"),
                    "version is missing, or not a text",
                    "name it, such as \"v2\"",
                );
            }
            let release = self.release(&at, &version, Some(base));
            if self.boolean(&at, &version, "enabled", true) {
                versions.push(release);
            }
        }
        versions
    }

    fn instances(&mut self, fields: &Map<String, Value>, inherited: Option<&Module>) -> Vec<Instance> {
        let mut instances = Vec::new();
        for (at, instance) in self.list(fields, "instances") {
            self.unknown(&at, &instance, INSTANCE_FIELDS);
            let id = instance.get("instance_id").and_then(Value::as_str);
            if id.is_none() {
                self.error(
                    format!("{at}.instance_id"),
                    "instance_id is missing, or not a text",
                    "name the instance",
                );
            }
            let weight = self.number(&at, &instance, "weight", 0, 100).unwrap_or(100);
            let module = self.module(&at, &instance, inherited);
            let healthy = instance.get("health_status").and_then(Value::as_str) != Some("unhealthy");
            if self.boolean(&at, &instance, "enabled", true) && healthy {
                let id = id.unwrap_or_default().into();
                instances.push(Instance { id, weight, module });
            }
        }
        // The order of the platform's rows.
        instances.sort_by(|a, b| b.weight.cmp(&a.weight).then_with(|| a.id.cmp(&b.id)));
        instances
    }

    /// The module that is named here; where there is only its digest or signature, the inherited one with that.
    fn module(
        &mut self,
        at: &str,
        fields: &Map<String, Value>,
        inherited: Option<&Module>,
    ) -> Option<Module> {
        let digest = match fields.get("sha256") {
            None | Some(Value::Null) => None,
            Some(value) => {
                let digest = value.as_str().and_then(ModuleDigest::parse);
                if digest.is_none() {
                    self.error(
                        format!("{at}.sha256"),
                        "this is no SHA-256 digest",
                        "write 64 hex digits",
                    );
                    return None;
                }
                digest
            }
        };
        let signature = match fields.get("signature") {
            None | Some(Value::Null) => None,
            Some(Value::String(text))
                if BASE64_STANDARD.decode(text).is_ok_and(|bytes| !bytes.is_empty()) =>
            {
                Some(Box::from(text.as_str()))
            }
            Some(_) => {
                self.error(
                    format!("{at}.signature"),
                    "this is no signature in base64",
                    "write what `beamline-sidecar ext sign` prints, or remove it",
                );
                return None;
            }
        };
        let text = match fields.get("module") {
            None | Some(Value::Null) => return self.pinned(at, digest, signature, inherited),
            Some(Value::String(text)) => text,
            Some(_) => {
                self.error(
                    format!("{at}.module"),
                    "module is not a text",
                    "name one: file:…, heir:sha256/…, https://… or oci://…",
                );
                return None;
            }
        };
        match ModuleSource::parse(text) {
            Err((message, remedy)) => {
                self.error(format!("{at}.module"), message, remedy);
                None
            }
            Ok(ModuleSource::Heir(named)) => {
                if digest.is_some_and(|digest| digest != named) {
                    self.error(
                        format!("{at}.sha256"),
                        "sha256 is another digest than the module's name has",
                        "remove sha256, or correct one of them",
                    );
                }
                Some(Module {
                    source: ModuleSource::Heir(named),
                    digest: Some(named),
                    signature,
                    is_metered: false,
                })
            }
            Ok(source @ ModuleSource::Https(_)) if digest.is_none() => {
                self.error(
                    format!("{at}.sha256"),
                    format!("{source} needs its digest"),
                    "add sha256, as `beamline-sidecar ext inspect` prints it",
                );
                None
            }
            Ok(source) => Some(Module {
                source,
                digest,
                signature,
                is_metered: false,
            }),
        }
    }

    /// An inherited module with a digest or a signature of its own.
    fn pinned(
        &mut self,
        at: &str,
        digest: Option<ModuleDigest>,
        signature: Option<Box<str>>,
        inherited: Option<&Module>,
    ) -> Option<Module> {
        if digest.is_none() && signature.is_none() {
            return None;
        }
        let key = if digest.is_some() { "sha256" } else { "signature" };
        let at = format!("{at}.{key}");
        let Some(inherited) = inherited else {
            self.error(
                at,
                format!("{key} has no one module here that it is of"),
                "name the module beside it",
            );
            return None;
        };
        if matches!((&inherited.source, digest), (ModuleSource::Heir(named), Some(digest)) if *named != digest)
        {
            self.error(
                at,
                "sha256 is another digest than the inherited module's name has",
                "remove sha256, or name the module beside it",
            );
        }
        Some(Module {
            source: inherited.source.clone(),
            digest: digest.or(inherited.digest),
            signature: signature.or_else(|| inherited.signature.clone()),
            is_metered: false,
        })
    }

    fn capabilities(&mut self, fields: &Map<String, Value>) -> Vec<Capability> {
        let mut capabilities = Vec::new();
        let list = match fields.get("capabilities") {
            None | Some(Value::Null) => return capabilities,
            Some(Value::Array(list)) => list,
            Some(_) => {
                self.error(
                    "$.capabilities",
                    "capabilities is not a list",
                    "write [\"clock\"], for example",
                );
                return capabilities;
            }
        };
        for (index, entry) in list.iter().enumerate() {
            let known = Capability::ALL.into_iter().find(|known| entry == known.as_str());
            match known {
                Some(capability) if !capabilities.contains(&capability) => capabilities.push(capability),
                Some(_) => {}
                None if entry == "log" => {}
                None => self.error(
                    format!("$.capabilities[{index}]"),
                    format!("there is no capability {entry}"),
                    "one of clock, random, metrics; log is always granted",
                ),
            }
        }
        capabilities
    }
}

/// The module of all of these, if they have the same.
fn common_module(releases: &[Release]) -> Option<&Module> {
    let (first, rest) = releases.split_first()?;
    let module = first.module.as_ref()?;
    let is_same = |release: &Release| {
        release
            .module
            .as_ref()
            .is_some_and(|other| other.source == module.source)
    };
    rest.iter().all(is_same).then_some(module)
}

/// Compares `v2` and `v10` by their numbers, other names as texts.
fn newer(a: &str, b: &str) -> std::cmp::Ordering {
    let parts = |text: &str| -> Vec<u64> {
        let digits = |c: char| !c.is_ascii_digit();
        text.split(digits).filter_map(|part| part.parse().ok()).collect()
    };
    parts(a).cmp(&parts(b)).then_with(|| a.cmp(b))
}
