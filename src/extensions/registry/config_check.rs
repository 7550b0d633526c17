//! Configurations, checked by their extensions. Each is checked once, and never while a snapshot is made: writes and other
//! tenants' policies would wait for that. A snapshot counts what is known, and has the rest asked afterwards.

use std::{
    sync::Arc,
    time::{Duration, Instant},
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
        sandbox::{CallError, CallLimits, ConfigProblem, Kind, Prepared, Time, one_line},
    },
    policy::{Item, Mode, Pipeline, Problem, Processor, json_path},
};

/// For how long one check may compute.
const TIMEOUT: Duration = Duration::from_millis(100);
/// How long it is waited for where nothing else waits, whatever keeps it from computing.
pub(in crate::extensions) const PATIENCE: Duration = Duration::from_secs(5);
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
}

/// An extension that can be asked.
#[derive(Debug, Clone, Copy)]
pub(super) struct Checker<'a> {
    pub(super) digest: ModuleDigest,
    pub(super) prepared: &'a Prepared,
    pub(super) limits: CallLimits,
}

/// Whether extensions are asked about configurations that they were not asked about before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checking {
    /// What they said before counts.
    Known,
    /// They are, for so long, and each answer is waited for so long, whatever keeps the extension from computing.
    For {
        /// All of them.
        within: Duration,
        /// Each.
        patience: Duration,
    },
}

/// What extensions find wrong with their configurations.
#[derive(Debug, Default)]
pub struct Judged {
    /// What is known.
    pub problems: Vec<Problem>,
    /// There is something that an extension was not asked about yet.
    pub has_unasked: bool,
}

/// A problem of a configuration, wherever that was written.
#[derive(Debug, Clone)]
pub(super) enum InConfig {
    /// The extension reports it.
    Wrong(ConfigProblem),
    /// The extension did not say whether anything is wrong with it.
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
            Self::NotChecked(reason) => Problem::error(
                path,
                format!("its configuration could not be checked: {reason}"),
                "correct the configuration, or the extension that checks it",
            ),
        }
    }
}

impl Checking {
    /// Until when extensions are asked, and how long each is waited for.
    fn until(self) -> Option<(Instant, Duration)> {
        match self {
            Self::Known => None,
            Self::For { within, patience } => Some((Instant::now() + within, patience)),
        }
    }
}

impl<'a> Checker<'a> {
    fn of(target: &'a Target) -> Self {
        Self {
            digest: target.built.digest,
            prepared: &target.prepared,
            limits: target.limits,
        }
    }

    fn asked(&self, config: &str) -> Asked {
        let config = Sha256::digest(config).into();
        (self.digest, self.prepared.kind(), config)
    }
}

impl Default for ConfigChecks {
    fn default() -> Self {
        Self {
            known: Table::new(MAX_REMEMBERED),
        }
    }
}

impl ConfigChecks {
    /// What an extension finds wrong with a configuration. `None`: it was not asked yet.
    pub(super) fn known(&self, checker: Checker<'_>, config: &str) -> Option<Vec<InConfig>> {
        let asked = checker.asked(config);
        let known = self.known.change(&asked, Some(now()), |known| known.clone())?;
        Some(known.to_vec())
    }

    /// As [`Self::known`], and asks if need be, which is waited for so long. `None`: there was no instance or no processor for
    /// it.
    pub(super) fn ask(
        &self,
        checker: Checker<'_>,
        config: &str,
        patience: Duration,
    ) -> Option<Vec<InConfig>> {
        let known = self.known(checker, config);
        known.or_else(|| {
            let problems = answer(checker, config, patience)?;
            let asked = checker.asked(config);
            let make = || (asked, problems);
            Some(
                self.known
                    .change_or_make(&asked, now(), make, |known| known.to_vec()),
            )
        })
    }

    /// What the extensions that a pipeline names find wrong with their configurations there.
    /// `is_admitted`: whether what is called is signed as the policy's tenant demands.
    pub(super) fn pipeline(
        &self,
        registry: &Registry,
        is_admitted: impl Fn(&Target) -> bool,
        pipeline: &Pipeline,
        checking: Checking,
    ) -> Judged {
        let until = checking.until();
        let mut has_unasked = false;
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
                    let checker = Checker::of(target);
                    let found = match until {
                        Some((until, patience)) if Instant::now() < until => {
                            self.ask(checker, &config, patience)
                        }
                        _ => self.known(checker, &config),
                    };
                    has_unasked |= found.is_none();
                    let found = found
                        .into_iter()
                        .flatten()
                        .map(|problem| problem.at(&format!("{at}.config")));
                    for problem in found {
                        if !problems.contains(&problem) {
                            problems.push(problem);
                        }
                    }
                }
            }
        }
        Judged {
            problems,
            has_unasked,
        }
    }
}

/// Asks an extension about a configuration. `None`: there was no instance or no processor for it, and it is asked again.
fn answer(checker: Checker<'_>, config: &str, patience: Duration) -> Option<Problems> {
    let time = Time {
        deadline: TIMEOUT,
        patience,
        fast: None,
    };
    let ran = checker.prepared.check_config(config, checker.limits, time);
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
        Err(CallError::NoInstance { .. }) => return None,
        // A busy machine must not make an extension unavailable.
        Err(CallError::Timeout) if ran.timer.ran(ran.took) < TIMEOUT => return None,
        Err(CallError::Timeout) => {
            let most = TIMEOUT.as_millis();
            vec![InConfig::NotChecked(format!(
                "the check took longer than {most} ms"
            ))]
        }
        Err(error) => vec![InConfig::NotChecked(error.to_string())],
    };
    Some(problems.into())
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
