//! Extensions: which there are, how they fare, and what can be done about them.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use schemars::JsonSchema;
use serde::Serialize;

use super::{
    extension_view::{
        DisabledBy, DisabledEntry, ExtensionDetail, ExtensionEntry, ExtensionList, ExtensionView,
        InstanceCounts, Unavailable, WorkerPool,
    },
    operator::Operator,
};
use crate::{
    clock::now,
    extensions::{BreakerReport, Extension, ExtensionHost, HealthReport, Look},
    failure::{ErrorCode, Failure},
    policy::{Problem, Severity},
    refresh,
};

/// What an operator can do to an extension.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExtensionChange {
    /// Undo an operator's `Disable`.
    Enable,
    /// Until the next start, whatever its record says.
    Disable,
    /// End a quarantine and close the breaker.
    Release,
}

impl ExtensionChange {
    /// The name of the change, for the log.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Enable => "enable",
            Self::Disable => "disable",
            Self::Release => "release",
        }
    }
}

/// Whether a change changed anything.
#[derive(Debug, Clone, Copy, Serialize, JsonSchema)]
pub struct ExtensionChanged {
    /// Always `true`.
    pub ok: bool,
    /// `false`: the extension was in that state already.
    pub changed: bool,
}

/// What there is after the directory was read again.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct ExtensionsReloaded {
    /// Whether nothing is wrong with any record or module; warnings do not count.
    pub ok: bool,
    /// Extensions that can be called.
    pub extensions: usize,
    /// What is wrong with records, by extension.
    pub problems: BTreeMap<String, Vec<Problem>>,
    /// `extensions_dir`, where one is configured.
    pub dir: Option<PathBuf>,
}

impl Operator {
    fn extension_host(&self) -> Result<&Arc<ExtensionHost>, Failure> {
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

    /// All extensions, or those whose type has this name.
    ///
    /// # Errors
    /// `not_found`: extensions are switched off.
    pub fn extensions(&self, kind: Option<&str>) -> Result<ExtensionList, Failure> {
        let host = self.extension_host()?;
        let snapshot = self.store.load_full();
        let registry = snapshot.registry();
        let wanted = |extension: &&&Arc<Extension>| kind.is_none_or(|kind| extension.kind.as_str() == kind);
        let disabled = registry.disabled().keys().map(|id| DisabledEntry {
            id: id.clone(),
            by: disabled_by(host, id),
        });
        let (waiting, running) = host.load();
        let config = host.config();
        Ok(ExtensionList {
            extensions: registry
                .sorted()
                .iter()
                .filter(wanted)
                .map(|e| ExtensionEntry::of(e))
                .collect(),
            disabled: disabled.collect(),
            pending: registry.pending().iter().cloned().collect(),
            problems: registry.problems().clone(),
            instances: InstanceCounts {
                running,
                most: config.max_instances,
            },
            slow_lane: WorkerPool {
                waiting,
                threads: config.worker_threads,
                most: config.max_queued_calls,
            },
        })
    }

    /// The health of every extension that can be called, by id, as the platform reports it.
    ///
    /// # Errors
    /// `not_found`: extensions are switched off.
    pub fn extension_health(&self) -> Result<BTreeMap<String, HealthReport>, Failure> {
        self.by_extension(|extension| extension.health.report(&extension.id, now()))
    }

    /// The breaker of every extension that can be called, by id, as the platform reports it.
    ///
    /// # Errors
    /// `not_found`: extensions are switched off.
    pub fn extension_breakers(&self) -> Result<BTreeMap<String, BreakerReport>, Failure> {
        self.by_extension(|extension| extension.health.breaker(&extension.id, now()))
    }

    fn by_extension<R>(&self, report: impl Fn(&Extension) -> R) -> Result<BTreeMap<String, R>, Failure> {
        self.extension_host()?;
        let snapshot = self.store.load_full();
        let all = snapshot.registry().sorted();
        Ok(all.iter().map(|e| (e.id.to_string(), report(e))).collect())
    }

    /// One extension, with its health and its last crashes.
    ///
    /// # Errors
    /// `not_found`: there is none of this id, or extensions are switched off.
    pub fn extension(&self, id: &str) -> Result<ExtensionView, Failure> {
        let host = self.extension_host()?;
        let snapshot = self.store.load_full();
        let registry = snapshot.registry();
        let problems = registry.problems().get(id).cloned();
        if let Some(extension) = registry.get(id) {
            return Ok(ExtensionView::Callable(Box::new(ExtensionDetail {
                entry: ExtensionEntry::of(extension),
                problems,
                health: extension.health.report(id, now()),
                circuit_breaker: extension.health.breaker(id, now()),
                last_traps: extension.health.traps(),
            })));
        }
        let disabled = registry.disabled().contains_key(id);
        let pending = registry.is_pending(id);
        if !disabled && !pending && problems.is_none() {
            return Err(unknown(id));
        }
        Ok(ExtensionView::Unavailable(Unavailable {
            id: id.to_owned(),
            disabled,
            by: disabled_by(host, id),
            pending,
            problems,
        }))
    }

    /// Enables, disables or releases an extension.
    ///
    /// # Errors
    /// `not_found`: there is none of this id, or extensions are switched off. `conflict`: its record disables it.
    pub async fn change_extension(
        &self,
        id: &str,
        change: ExtensionChange,
    ) -> Result<ExtensionChanged, Failure> {
        let host = self.extension_host()?;
        let changed = match change {
            ExtensionChange::Release => self.release(id)?,
            ExtensionChange::Enable => self.enable(host, id)?,
            ExtensionChange::Disable => self.disable(host, id)?,
        };
        if changed && change != ExtensionChange::Release {
            let store = self.store.clone();
            let published = tokio::task::spawn_blocking(move || store.edit(|_| ())).await;
            published.map_err(|error| Failure::new(ErrorCode::InternalError, error.to_string()))?;
        }
        let action = change.as_str();
        tracing::info!(extension_id = id, action, "An extension was changed on request.");
        Ok(ExtensionChanged { ok: true, changed })
    }

    fn release(&self, id: &str) -> Result<bool, Failure> {
        let snapshot = self.store.load_full();
        let extension = snapshot.registry().get(id).ok_or_else(|| unknown(id))?;
        extension.health.release();
        self.extension_metrics.blocked(id, 0, None);
        Ok(true)
    }

    fn enable(&self, host: &ExtensionHost, id: &str) -> Result<bool, Failure> {
        let snapshot = self.store.load_full();
        let registry = snapshot.registry();
        if host.is_switched_off(id) {
            Ok(host.switch(id, true))
        } else if registry.disabled().contains_key(id) {
            Err(Failure::new(
                ErrorCode::Conflict,
                "its record disables it: change the record",
            ))
        } else if registry.get(id).is_some() || registry.is_pending(id) {
            Ok(false)
        } else {
            Err(unknown(id))
        }
    }

    fn disable(&self, host: &ExtensionHost, id: &str) -> Result<bool, Failure> {
        let snapshot = self.store.load_full();
        let registry = snapshot.registry();
        // One whose record is wrong may be running as it was before, or do so later.
        if registry.get(id).is_some() || registry.is_pending(id) || registry.problems().contains_key(id) {
            Ok(host.switch(id, false))
        } else if registry.disabled().contains_key(id) {
            Ok(false)
        } else {
            Err(unknown(id))
        }
    }

    /// Reads the directory again, tries everything again that could not be had, and waits until it is applied.
    ///
    /// # Errors
    /// `not_found`: extensions are switched off. `internal_error`: the directory cannot be read.
    pub async fn reload_extensions(&self) -> Result<ExtensionsReloaded, Failure> {
        let host = self.extension_host()?;
        refresh::reload_extensions(&self.store, Look::Everything)
            .await
            .map_err(|error| {
                Failure::new(
                    ErrorCode::InternalError,
                    format!("extensions_dir cannot be read: {error}"),
                )
            })?;
        let snapshot = self.store.load_full();
        let registry = snapshot.registry();
        let is_wrong = |problem: &Problem| problem.severity == Severity::Error;
        Ok(ExtensionsReloaded {
            ok: !registry.problems().values().flatten().any(is_wrong),
            extensions: registry.len(),
            problems: registry.problems().clone(),
            dir: host.dir().map(ToOwned::to_owned),
        })
    }
}

fn unknown(id: &str) -> Failure {
    Failure::new(ErrorCode::NotFound, format!("there is no extension {id:?}"))
}

fn disabled_by(host: &ExtensionHost, id: &str) -> DisabledBy {
    if host.is_switched_off(id) {
        DisabledBy::Operator
    } else {
        DisabledBy::Record
    }
}
