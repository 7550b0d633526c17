//! Log lines: sentences with fields, as JSON for machines or as text for people, with a filter that can be changed
//! while the process runs.

use std::{sync::Arc, time::Duration};

use prometheus::{IntCounterVec, Registry as Metrics};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tracing_subscriber::{EnvFilter, Registry, fmt, layer::SubscriberExt, reload, util::SubscriberInitExt};

use super::{
    log_queue::{LEVELS, LogQueue},
    registry::counters,
};

/// The log, which goes to standard error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LogConfig {
    /// How a line is written.
    pub format: LogFormat,
    /// What is logged: a level, or levels by module such as `info,beamline_sidecar::refresh=debug`.
    pub filter: String,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            format: LogFormat::Json,
            filter: "info".into(),
        }
    }
}

/// How a line is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

/// Checks a filter without using it.
pub fn parse_filter(filter: &str) -> Result<EnvFilter, String> {
    EnvFilter::builder()
        .parse(filter)
        .map_err(|error| error.to_string())
}

/// How long the end of the process waits for the last lines to be written; where the log is not read, in vain.
const LAST_LINES: Duration = Duration::from_millis(250);

/// The handle to the running log.
#[derive(Clone)]
pub struct Logs {
    /// `None` where no log runs.
    queue: Option<LogQueue>,
    change: Arc<dyn Fn(EnvFilter) -> Result<(), String> + Send + Sync>,
    current: Arc<std::sync::Mutex<String>>,
}

impl std::fmt::Debug for Logs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Logs").field("filter", &self.filter()).finish()
    }
}

impl Logs {
    /// Starts the process's log. Call once, before anything can log.
    pub fn start(config: &LogConfig) -> Result<Self, String> {
        let (filter, handle) = reload::Layer::<EnvFilter, Registry>::new(parse_filter(&config.filter)?);
        let registry = tracing_subscriber::registry().with(filter);
        let queue =
            LogQueue::to_stderr(config.format == LogFormat::Json).map_err(|error| error.to_string())?;
        let started = match config.format {
            LogFormat::Json => registry
                .with(
                    fmt::layer()
                        .json()
                        .flatten_event(true)
                        .with_current_span(false)
                        .with_writer(queue.clone()),
                )
                .try_init(),
            LogFormat::Text => {
                let colours = std::io::IsTerminal::is_terminal(&std::io::stderr());
                registry
                    .with(fmt::layer().with_ansi(colours).with_writer(queue.clone()))
                    .try_init()
            }
        };
        started.map_err(|error| error.to_string())?;
        let change = move |filter| handle.reload(filter).map_err(|error| error.to_string());
        Ok(Self {
            queue: Some(queue),
            change: Arc::new(change),
            current: Arc::new(config.filter.clone().into()),
        })
    }

    /// A handle without a log behind it, for a sidecar that runs inside a test.
    pub fn detached() -> Self {
        Self {
            queue: None,
            change: Arc::new(|_| Ok(())),
            current: Arc::new(String::new().into()),
        }
    }

    /// Gives the last lines a moment to be written. Call once, when nothing logs any more: the process does not wait for
    /// its log when it ends.
    pub fn finish(&self) {
        if let Some(queue) = &self.queue {
            queue.flush(LAST_LINES);
        }
    }

    /// The filter in use.
    pub fn filter(&self) -> String {
        self.current
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .clone()
    }

    /// Uses another filter from now on; an invalid one changes nothing.
    pub fn set_filter(&self, filter: &str) -> Result<(), String> {
        (self.change)(parse_filter(filter)?)?;
        filter.clone_into(
            &mut self
                .current
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner),
        );
        Ok(())
    }
}

/// The metrics of the log.
#[derive(Debug)]
pub struct LogMetrics {
    dropped: IntCounterVec,
}

impl LogMetrics {
    /// Registers them.
    ///
    /// # Errors
    /// When a name is taken.
    pub fn register(r: &Metrics) -> Result<Self, prometheus::Error> {
        let dropped = counters(
            r,
            "beamline_sidecar_log_lines_dropped_total",
            "Log lines that were not read in time, by level.",
            &["level"],
        )?;
        for (_, level) in LEVELS {
            dropped.with_label_values(&[level]);
        }
        Ok(Self { dropped })
    }

    /// Brings them up to date.
    pub fn update(&self, logs: &Logs) {
        for (level, now) in logs.queue.iter().flat_map(LogQueue::dropped) {
            let counter = self.dropped.with_label_values(&[level]);
            counter.inc_by(now.saturating_sub(counter.get()));
        }
    }
}

/// An error with its causes in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
