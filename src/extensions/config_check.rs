//! Configurations, checked by the extensions they are for, while a snapshot is made. Each is checked once.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use sha2::{Digest, Sha256};

use super::{
    answer::text,
    call::CallError,
    component::Kind,
    host::Time,
    module::ModuleDigest,
    registry::{Registry, Target, merged},
    wire::ConfigProblem,
};
use crate::{
    decide::Stage,
    policy::{Item, Pipeline, Problem},
};

/// What one check may take.
const DEADLINE: Duration = Duration::from_millis(100);
/// What all checks of one snapshot may take that are not over at once.
const BUDGET: Duration = Duration::from_secs(1);
/// Results that are remembered.
const REMEMBERED: usize = 4_096;
/// Problems of one configuration.
const PROBLEMS: usize = 32;

/// What was asked, with the digest of the configuration: ten thousand large ones are not kept.
type Asked = (ModuleDigest, Kind, [u8; 32]);
type Problems = Arc<[InConfig]>;

#[derive(Debug, Default)]
pub(super) struct ConfigChecks {
    known: Mutex<HashMap<Asked, Problems>>,
    spent: Mutex<Duration>,
    /// Something was not asked in this snapshot.
    unasked: AtomicBool,
}

/// A problem, wherever the configuration was written.
#[derive(Debug, Clone)]
pub(super) enum InConfig {
    /// What the extension says.
    Wrong(ConfigProblem),
    /// It did not come to say anything in time. A busy machine must not take an extension out.
    NotChecked(String),
}

impl InConfig {
    pub(super) fn in_record(self) -> Problem {
        self.at("$.config")
    }

    fn at(self, path: &str) -> Problem {
        match self {
            Self::Wrong(ConfigProblem {
                path: pointer,
                message,
            }) => Problem::error(
                format!("{path}{}", json_path(&pointer)),
                message,
                "correct the configuration",
            ),
            Self::NotChecked(message) => {
                Problem::warning(path, message, "let the extension check it in less time")
            }
        }
    }
}

impl ConfigChecks {
    /// Another snapshot is made. Whether something was not asked in the one before.
    pub(super) fn begin(&self) -> bool {
        *self.spent.lock().unwrap_or_else(PoisonError::into_inner) = Duration::ZERO;
        self.unasked.swap(false, Ordering::SeqCst)
    }

    /// Whether another snapshot would ask more.
    pub(super) fn has_unasked(&self) -> bool {
        self.unasked.load(Ordering::SeqCst)
    }

    pub(super) fn of(&self, target: &Target, config: &str) -> Vec<InConfig> {
        let asked = (
            target.built.digest,
            target.prepared.kind(),
            Sha256::digest(config).into(),
        );
        let known = self
            .known
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&asked)
            .cloned();
        let problems = match known {
            Some(problems) => problems,
            None => match self.ask(target, config) {
                Some(problems) => {
                    let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
                    if known.len() >= REMEMBERED {
                        known.clear();
                    }
                    known.entry(asked).or_insert(problems).clone()
                }
                None => {
                    self.unasked.store(true, Ordering::SeqCst);
                    return Vec::new();
                }
            },
        };
        problems.to_vec()
    }

    /// `None`: there is no time left to ask, or no instance; it is asked with the next snapshot.
    fn ask(&self, target: &Target, config: &str) -> Option<Problems> {
        let spent = *self.spent.lock().unwrap_or_else(PoisonError::into_inner);
        if spent >= BUDGET {
            return None;
        }
        let time = Time {
            deadline: DEADLINE.min(BUDGET - spent),
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
                        path: text(&path).into(),
                        message: text(&message).into(),
                    })
                };
                problems.into_iter().take(PROBLEMS).map(bounded).collect()
            }
            // It had less time than a check may take: that is nothing to remember.
            Err(CallError::Timeout) if time.deadline < DEADLINE => return None,
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
}

impl super::ExtensionHost {
    /// What the extensions that a pipeline names have against their configurations there.
    pub fn check_pipeline(&self, registry: &Registry, pipeline: &Pipeline) -> Vec<Problem> {
        let mut problems = Vec::new();
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
                for (release, target) in extension.targets() {
                    let config = serde_json::Value::Object(merged(&release.config, &item.config)).to_string();
                    let found = self.checks.of(target, &config);
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

/// `/a/0/b c` as `.a[0]["b c"]`.
fn json_path(pointer: &str) -> String {
    use std::fmt::Write as _;
    let mut path = String::new();
    for segment in pointer.split('/').skip(1) {
        let segment = segment.replace("~1", "/").replace("~0", "~");
        let is_name = !segment.is_empty()
            && segment
                .bytes()
                .all(|c| c.is_ascii_alphanumeric() || c == b'_' || c == b'-');
        // Writing to a text cannot fail.
        let _ = if !segment.is_empty() && segment.bytes().all(|c| c.is_ascii_digit()) {
            write!(path, "[{segment}]")
        } else if is_name {
            write!(path, ".{segment}")
        } else {
            write!(path, "[{segment:?}]")
        };
    }
    path
}

#[cfg(test)]
mod tests {
    use super::json_path;

    #[test]
    fn pointers_become_paths() {
        for (pointer, path) in [
            ("", ""),
            ("/kinds", ".kinds"),
            ("/kinds/0", ".kinds[0]"),
            ("/a~1b/~0", "[\"a/b\"][\"~\"]"),
            ("no pointer", ""),
        ] {
            assert_eq!(json_path(pointer), path);
        }
    }
}
