//! Configurations, checked by their extensions while a snapshot is made. Each is checked once.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use sha2::{Digest, Sha256};

use super::{
    extension::{Target, merged},
    index::Registry,
};
use crate::{
    clock::now,
    decide::{Stage, memory::Table},
    extensions::{
        digest::ModuleDigest,
        sandbox::{CallError, ConfigProblem, Kind, Time, one_line},
    },
    policy::{Item, Mode, Pipeline, Problem, Processor, json_path},
};

/// The time that one check may take.
const TIMEOUT: Duration = Duration::from_millis(100);
/// The time that all checks of one snapshot together may take, but for those that take less than a millisecond.
const BUDGET: Duration = Duration::from_secs(1);
/// Configurations whose results are remembered.
const MAX_REMEMBERED: usize = 4_096;
/// Problems of one configuration that are reported.
const MAX_PROBLEMS: usize = 32;

/// A module, what it is used as, and the digest of a configuration. The configurations themselves may be large.
type Asked = (ModuleDigest, Kind, [u8; 32]);
type Problems = Arc<[InConfig]>;

/// Asks extensions about configurations, and remembers their answers.
#[derive(Debug)]
pub(super) struct ConfigChecks {
    known: Table<Asked, Problems>,
    spent: Mutex<Duration>,
    /// A configuration of this snapshot was not checked.
    unasked: AtomicBool,
}

/// A problem of a configuration, wherever that was written.
#[derive(Debug, Clone)]
pub(super) enum InConfig {
    /// The extension reports it.
    Wrong(ConfigProblem),
    /// The extension did not answer in time. A busy machine must not make an extension unavailable.
    NotChecked(String),
}

impl InConfig {
    pub(super) fn in_manifest(self) -> Problem {
        self.at("$.config")
    }

    fn at(self, path: &str) -> Problem {
        match self {
            Self::Wrong(ConfigProblem {
                path: pointer,
                message,
            }) => Problem::error(
                json_path::below(path, &pointer),
                message,
                "correct the configuration",
            ),
            Self::NotChecked(message) => {
                Problem::warning(path, message, "let the extension check it in less time")
            }
        }
    }
}

impl Default for ConfigChecks {
    fn default() -> Self {
        Self {
            known: Table::new(MAX_REMEMBERED),
            spent: Mutex::default(),
            unasked: AtomicBool::new(false),
        }
    }
}

impl ConfigChecks {
    /// Another snapshot is made. Returns whether a configuration of the last one was not checked.
    pub(super) fn begin(&self) -> bool {
        *self.spent.lock().unwrap_or_else(PoisonError::into_inner) = Duration::ZERO;
        self.unasked.swap(false, Ordering::SeqCst)
    }

    /// Whether another snapshot would check more.
    pub(super) fn has_unasked(&self) -> bool {
        self.unasked.load(Ordering::SeqCst)
    }

    /// What an extension finds wrong with a configuration.
    pub(super) fn of(&self, target: &Target, config: &str) -> Vec<InConfig> {
        let asked = (
            target.built.digest,
            target.prepared.kind(),
            Sha256::digest(config).into(),
        );
        if let Some(problems) = self.known.change(&asked, Some(now()), |known| known.clone()) {
            return problems.to_vec();
        }
        let Some(problems) = self.ask(target, config) else {
            self.unasked.store(true, Ordering::SeqCst);
            return Vec::new();
        };
        self.known
            .change_or_make(&asked, now(), || (asked, problems), |known| known.to_vec())
    }

    /// `None`: there is no time left to ask, or no instance; the next snapshot asks.
    fn ask(&self, target: &Target, config: &str) -> Option<Problems> {
        let spent = *self.spent.lock().unwrap_or_else(PoisonError::into_inner);
        if spent >= BUDGET {
            return None;
        }
        // The snapshot waits for it, whatever keeps it from computing.
        let deadline = TIMEOUT.min(BUDGET - spent);
        let time = Time {
            deadline,
            patience: deadline,
            fast: None,
        };
        let ran = target.prepared.check_config(config, target.limits, time);
        if ran.took > Duration::from_millis(1) {
            *self.spent.lock().unwrap_or_else(PoisonError::into_inner) += ran.took;
        }
        let problems = match ran.result {
            Ok(problems) => {
                let bounded = |ConfigProblem { path, message }| {
                    InConfig::Wrong(ConfigProblem {
                        path: one_line(&path).into(),
                        message: one_line(&message).into(),
                    })
                };
                problems.into_iter().take(MAX_PROBLEMS).map(bounded).collect()
            }
            // It had less time than a check may take: such a result is not remembered.
            Err(CallError::Timeout) if time.deadline < TIMEOUT => return None,
            Err(CallError::NoInstance { .. }) => return None,
            Err(error) => {
                let message = format!("the extension could not check it: {error}");
                vec![match error {
                    CallError::Timeout => InConfig::NotChecked(message),
                    _ => InConfig::Wrong(ConfigProblem {
                        path: String::new(),
                        message,
                    }),
                }]
            }
        };
        Some(problems.into())
    }

    /// What the extensions that a pipeline names find wrong with their configurations there.
    /// `is_admitted`: whether what is called is signed as the policy's tenant demands.
    pub(super) fn pipeline(
        &self,
        registry: &Registry,
        is_admitted: impl Fn(&Target) -> bool,
        pipeline: &Pipeline,
    ) -> Vec<Problem> {
        let mut problems = optional_guards(registry, pipeline);
        let lists: [(&str, Stage, Vec<&Item>); 4] = [
            ("pre", Stage::Pre, pipeline.pre.iter().map(|p| &p.item).collect()),
            (
                "validators",
                Stage::Validator,
                pipeline.validators.iter().map(|v| &v.item).collect(),
            ),
            (
                "scorers",
                Stage::Scorer,
                pipeline.scorers.iter().map(|p| &p.item).collect(),
            ),
            (
                "post",
                Stage::Post,
                pipeline.post.iter().map(|p| &p.item).collect(),
            ),
        ];
        for (list, stage, items) in lists {
            for (index, item) in items.into_iter().enumerate() {
                let Some(id) = item.id.as_deref() else { continue };
                let at = format!("$.{list}[{index}]");
                let Some(extension) = registry.get(id) else {
                    if registry.is_pending(id) {
                        // It is asked once it is here, and the policy is judged again then.
                        continue;
                    }
                    let missing = format!("there is no extension {id:?} that can be called");
                    problems.push(Problem::warning(
                        format!("{at}.id"),
                        missing,
                        "register it, or correct the id",
                    ));
                    continue;
                };
                if extension.kind != Kind::of(stage) {
                    let kind = extension.kind.as_str();
                    let message = format!("{id:?} is registered as {kind}");
                    problems.push(Problem::error(
                        format!("{at}.id"),
                        message,
                        "put it into the list of its type",
                    ));
                    continue;
                }
                if !extension.targets().all(|(_, target)| is_admitted(target)) {
                    problems.push(Problem::warning(
                        format!("{at}.id"),
                        format!(
                            "{id:?} is not signed as extensions.signatures.tenants demands: it is not found"
                        ),
                        "have it signed by a key of the tenant, or take it out",
                    ));
                }
                for (release, target) in extension.targets() {
                    let config = serde_json::Value::Object(merged(&release.config, &item.config)).to_string();
                    let found = self.of(target, &config);
                    let found = found
                        .into_iter()
                        .map(|problem| problem.at(&format!("{at}.config")));
                    for problem in found {
                        if !problems.contains(&problem) {
                            problems.push(problem);
                        }
                    }
                }
            }
        }
        problems
    }
}

/// Warns of guards that a policy names as optional: if one fails, messages pass as if it were not there.
fn optional_guards(registry: &Registry, pipeline: &Pipeline) -> Vec<Problem> {
    let lists = [("pre", &pipeline.pre), ("post", &pipeline.post)];
    let items = lists.into_iter().flat_map(|(list, processors)| {
        let numbered = processors.iter().enumerate();
        numbered.map(move |(index, processor)| (format!("$.{list}[{index}].mode"), processor))
    });
    let warning = |(path, processor): (String, &Processor)| {
        let id = processor.item.id.as_deref()?;
        let is_guard = registry
            .get(id)
            .is_some_and(|extension| extension.manifest.is_guard);
        (is_guard && processor.mode == Mode::Optional).then(|| {
            Problem::warning(
                path,
                format!("{id:?} is a guard and optional: where it fails, messages pass as they are"),
                "write \"mode\": \"required\", unless that is meant",
            )
        })
    };
    items.filter_map(warning).collect()
}
