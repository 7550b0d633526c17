//! Extensions, for the operator: which there are, how they fare, and what can be done about them.

use http::StatusCode;
use serde_json::{Value, json};

use super::{Admin, Query};
use crate::{
    clock::now,
    extensions::{Extension, ExtensionHost, Wanted},
    failure::{ErrorCode, Failure},
    refresh,
    respond::{self, Response},
};

impl Admin {
    fn extension_host(&self) -> Result<&std::sync::Arc<ExtensionHost>, Failure> {
        let none = || {
            Failure::new(
                ErrorCode::NotFound,
                "extensions are switched off: extensions.enabled",
            )
        };
        self.store
            .extensions()
            .filter(|host| host.config().enabled)
            .ok_or_else(none)
    }

    /// `GET /admin/extensions[?type=]`.
    pub(super) fn extensions(&self, query: &Query<'_>) -> Result<Response, Failure> {
        let host = self.extension_host()?;
        let snapshot = self.store.load_full();
        let registry = snapshot.registry();
        let kind = query.value("type");
        let listed = registry.sorted();
        let listed = listed
            .iter()
            .filter(|e| kind.is_none_or(|kind| e.kind.as_str() == kind));
        let (waiting, running) = host.load();
        let page = json!({
            "extensions": listed.map(|extension| entry(extension)).collect::<Value>(),
            "disabled": registry.disabled().keys().map(|id| json!({
                "id": id,
                "by": if host.is_switched_off(id) { "operator" } else { "record" },
            })).collect::<Value>(),
            "problems": registry.problems(),
            "instances": {"running": running, "most": host.config().max_instances},
            "slow_lane": {"waiting": waiting, "threads": host.config().worker_threads, "most": host.config().max_queued_calls},
        });
        Ok(respond::json(StatusCode::OK, &page))
    }

    /// `GET /admin/extensions/health`: by id, as the platform reports it.
    pub(super) fn extension_health(&self) -> Result<Response, Failure> {
        self.extension_host()?;
        let snapshot = self.store.load_full();
        let all = snapshot.registry().sorted();
        let page: serde_json::Map<String, Value> = all
            .iter()
            .map(|e| (e.id.to_string(), json!(e.health.report(&e.id, now()))))
            .collect();
        Ok(respond::json(StatusCode::OK, &page))
    }

    /// `GET /admin/extensions/circuit-breakers`: by id, as the platform reports it.
    pub(super) fn extension_breakers(&self) -> Result<Response, Failure> {
        self.extension_host()?;
        let snapshot = self.store.load_full();
        let all = snapshot.registry().sorted();
        let page: serde_json::Map<String, Value> = all
            .iter()
            .map(|e| (e.id.to_string(), json!(e.health.breaker(&e.id, now()))))
            .collect();
        Ok(respond::json(StatusCode::OK, &page))
    }

    /// `GET /admin/extensions/{id}`: with its last crashes.
    pub(super) fn extension(&self, id: &str) -> Result<Response, Failure> {
        let host = self.extension_host()?;
        let snapshot = self.store.load_full();
        let registry = snapshot.registry();
        let problems = registry.problems().get(id);
        let Some(extension) = registry.get(id) else {
            if registry.disabled().contains_key(id) || problems.is_some() {
                let by_operator = host.is_switched_off(id);
                let page = json!({
                    "id": id,
                    "disabled": registry.disabled().contains_key(id),
                    "by": if by_operator { "operator" } else { "record" },
                    "problems": problems,
                });
                return Ok(respond::json(StatusCode::OK, &page));
            }
            return Err(unknown(id));
        };
        let mut page = entry(extension);
        page["problems"] = json!(problems);
        page["health"] = json!(extension.health.report(id, now()));
        page["circuit_breaker"] = json!(extension.health.breaker(id, now()));
        page["last_traps"] = json!(extension.health.traps());
        Ok(respond::json(StatusCode::OK, &page))
    }

    /// `POST /admin/extensions/{id}/enable`, `disable` or `lift`.
    pub(super) async fn change_extension(&self, id: &str, action: &str) -> Result<Response, Failure> {
        let host = self.extension_host()?;
        let snapshot = self.store.load_full();
        let registry = snapshot.registry();
        let changed = match action {
            "enable" if host.is_switched_off(id) => host.switch(id, true),
            "enable" if registry.disabled().contains_key(id) => {
                let message = "its record disables it: change the record";
                return Err(Failure::new(ErrorCode::Conflict, message));
            }
            "enable" if registry.get(id).is_some() => false,
            // One whose record is wrong may be running as it was before, or do so later.
            "disable" if registry.get(id).is_some() || registry.problems().contains_key(id) => {
                host.switch(id, false)
            }
            "disable" if registry.disabled().contains_key(id) => false,
            "lift" => match registry.get(id) {
                Some(extension) => {
                    extension.health.release();
                    self.extension_metrics.blocked(id, None);
                    true
                }
                None => return Err(unknown(id)),
            },
            "enable" | "disable" => return Err(unknown(id)),
            _ => {
                let message = "an extension can be enabled, disabled or lifted";
                return Err(Failure::new(ErrorCode::NotFound, message));
            }
        };
        if changed && action != "lift" {
            let store = self.store.clone();
            let taken_up = tokio::task::spawn_blocking(move || store.edit(|_| ())).await;
            taken_up.map_err(|error| Failure::new(ErrorCode::InternalError, error.to_string()))?;
        }
        tracing::info!(extension_id = id, action, "An extension was changed on request.");
        Ok(respond::json(
            StatusCode::OK,
            &json!({"ok": true, "changed": changed}),
        ))
    }

    /// `POST /admin/extensions/reload`: reads the directory again, fetches what is missing, and takes up what changed.
    pub(super) async fn reload_extensions(&self) -> Result<Response, Failure> {
        let host = self.extension_host()?;
        refresh::reload_extensions(&self.store, self.client.as_deref(), Wanted::Missing)
            .await
            .map_err(|error| {
                Failure::new(
                    ErrorCode::InternalError,
                    format!("extensions_dir cannot be read: {error}"),
                )
            })?;
        let snapshot = self.store.load_full();
        let registry = snapshot.registry();
        let page = json!({
            "ok": true,
            "extensions": registry.len(),
            "problems": registry.problems(),
            "dir": host.dir(),
        });
        Ok(respond::json(StatusCode::OK, &page))
    }
}

fn unknown(id: &str) -> Failure {
    Failure::new(ErrorCode::NotFound, format!("there is no extension {id:?}"))
}

fn entry(extension: &Extension) -> Value {
    let targets = extension.targets().map(|(release, target)| {
        json!({
            "version": release.version,
            "instance_id": target.instance,
            "weight": target.weight,
            "module": release.module.as_ref().map(|module| module.source.to_string()),
            "sha256": target.built.digest,
            "bytes": target.built.bytes,
            "profile": target.built.profile,
            "imports": target.built.interface.imports,
            "limits": {
                "memory_bytes": target.limits.memory_bytes,
                "output_bytes": target.limits.output_bytes,
                "table_elements": target.limits.table_elements,
            },
        })
    });
    json!({
        "id": extension.id,
        "type": extension.kind,
        "description": extension.manifest.description,
        "source": extension.source,
        "capabilities": extension.manifest.capabilities,
        "concurrency": extension.concurrency,
        "versions": targets.collect::<Value>(),
        "lane": extension.health.report(&extension.id, now()).lane,
        "state": extension.health.breaker(&extension.id, now()).state,
    })
}
