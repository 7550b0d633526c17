//! The metrics of extensions. Tenants, policies and extensions are labels only up to a bound; further ones share `other`.

use std::{
    collections::HashSet,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use prometheus::{
    CounterVec, Histogram, HistogramOpts, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};

use crate::telemetry::registry::{counters, gauge, gauges, histograms};

/// Label sets of an extension, a tenant and a policy.
const MAX_LABEL_SETS: usize = 1_000;
/// Extensions that have labels of their own.
const MAX_EXTENSIONS: usize = 200;
/// Counters that extensions keep themselves, all of them together.
const MAX_OWN_COUNTERS: usize = 500;

const EXECUTION_MS: &[f64] = &[
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 1000.0, 5000.0,
];
const MEMORY_BYTES: &[f64] = &[
    65_536.0,
    262_144.0,
    1_048_576.0,
    2_097_152.0,
    4_194_304.0,
    8_388_608.0,
    16_777_216.0,
    33_554_432.0,
    67_108_864.0,
];
const COMPILE_SECONDS: &[f64] = &[0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// All of these metrics.
#[derive(Debug)]
pub struct ExtensionMetrics {
    executions: IntCounterVec,
    latency_ms: HistogramVec,
    failures: IntCounterVec,
    memory_bytes: HistogramVec,
    run_seconds: CounterVec,
    own: IntCounterVec,
    log_lines: IntCounterVec,
    recorded: IntCounterVec,
    lane_moves: IntCounterVec,
    in_slow_lane: IntGaugeVec,
    blocked: IntGaugeVec,
    blocked_total: IntCounterVec,
    compile_seconds: Histogram,
    registered: IntGauge,
    problems: IntGauge,
    pending: IntGauge,
    /// Calls that wait for a worker thread.
    pub slow_waiting: IntGauge,
    /// Calls that are running.
    pub running: IntGauge,
    /// Memory of all calls under way.
    pub memory_in_use: IntGauge,
    label_sets: Mutex<HashSet<[String; 3]>>,
    extensions: Mutex<HashSet<String>>,
    own_names: Mutex<HashSet<[String; 2]>>,
}

/// The labels of a call.
#[derive(Debug, Clone, Copy)]
pub struct Execution<'a> {
    /// Its id.
    pub extension: &'a str,
    /// Its type: `pre`, `validator`, `scorer` or `post`.
    pub kind: &'static str,
    /// The tenant of the call.
    pub tenant: &'a str,
    /// The policy of the call.
    pub policy: &'a str,
}

impl ExtensionMetrics {
    /// Registers them all.
    ///
    /// # Errors
    /// When a metric of the same name is registered already.
    pub fn register(r: &Registry) -> Result<Self, prometheus::Error> {
        let extension = &["extension_id"];
        let compile = HistogramOpts::new(
            "beamline_sidecar_extension_compile_seconds",
            "Time that compiling a module took, in seconds.",
        );
        let compile_seconds = Histogram::with_opts(compile.buckets(COMPILE_SECONDS.to_vec()))?;
        r.register(Box::new(compile_seconds.clone()))?;
        Ok(Self {
            executions: counters(
                r,
                "router_extension_execution_total",
                "Calls of extensions that are over; `status` is success or error.",
                &[
                    "extension_id",
                    "extension_type",
                    "status",
                    "tenant_id",
                    "policy_id",
                ],
            )?,
            latency_ms: histograms(
                r,
                "router_extension_execution_latency_ms",
                "Time that a call of an extension took, with waiting and retries, in milliseconds.",
                &["extension_id", "extension_type", "tenant_id", "policy_id"],
                EXECUTION_MS,
            )?,
            failures: counters(
                r,
                "beamline_sidecar_extension_failures_total",
                "Calls of extensions that failed, by the name of the error.",
                &["extension_id", "error"],
            )?,
            memory_bytes: histograms(
                r,
                "beamline_sidecar_extension_memory_bytes",
                "Linear memory that a call had at most, in bytes.",
                extension,
                MEMORY_BYTES,
            )?,
            run_seconds: {
                let options = Opts::new(
                    "beamline_sidecar_extension_run_seconds_total",
                    "Time in which instances of an extension computed, in seconds.",
                );
                let metric = CounterVec::new(options, extension)?;
                r.register(Box::new(metric.clone()))?;
                metric
            },
            own: counters(
                r,
                "beamline_sidecar_extension_counter_total",
                "What extensions count themselves, by the name they give it.",
                &["extension_id", "name"],
            )?,
            log_lines: counters(
                r,
                "beamline_sidecar_extension_log_lines_total",
                "Lines that extensions wrote to the log; `outcome` is written or dropped.",
                &["extension_id", "outcome"],
            )?,
            recorded: {
                let recorded = counters(
                    r,
                    "beamline_sidecar_extension_recorded_calls_total",
                    "Calls that were to be recorded for `ext replay`; `outcome` is written, dropped or failed.",
                    &["outcome"],
                )?;
                for outcome in ["written", "dropped", "failed"] {
                    let _from_zero = recorded.with_label_values(&[outcome]);
                }
                recorded
            },
            lane_moves: counters(
                r,
                "beamline_sidecar_extension_lane_moves_total",
                "How often the calls of an extension for a tenant were moved between the lanes.",
                &["extension_id", "to"],
            )?,
            in_slow_lane: gauges(
                r,
                "beamline_sidecar_extension_in_slow_lane",
                "1 where an extension's calls, for a tenant at least, run on threads of their own.",
                extension,
            )?,
            blocked: gauges(
                r,
                "beamline_sidecar_extension_blocked",
                "For how many tenants an extension is not called: its breaker is open, or it is in quarantine.",
                extension,
            )?,
            blocked_total: counters(
                r,
                "beamline_sidecar_extension_blocked_total",
                "How often an extension's breaker opened for a tenant, or it was quarantined.",
                &["extension_id", "reason"],
            )?,
            compile_seconds,
            registered: gauge(r, "beamline_sidecar_extensions", "Extensions that can be called.")?,
            problems: gauge(
                r,
                "beamline_sidecar_extension_problems",
                "Registry records with problems.",
            )?,
            pending: gauge(
                r,
                "beamline_sidecar_extensions_pending",
                "Extensions whose modules are fetched or compiled at present.",
            )?,
            slow_waiting: gauge(
                r,
                "beamline_sidecar_extension_slow_waiting",
                "Calls that wait for a thread of the slow lanes.",
            )?,
            running: gauge(
                r,
                "beamline_sidecar_extension_running",
                "Instances of extensions that are in use, out of `extensions.max_instances`.",
            )?,
            memory_in_use: gauge(
                r,
                "beamline_sidecar_extension_memory_in_use_bytes",
                "Memory of all calls of extensions under way, out of `extensions.max_total_memory_bytes`, in bytes.",
            )?,
            label_sets: Mutex::default(),
            extensions: Mutex::default(),
            own_names: Mutex::default(),
        })
    }

    fn bounded<T: std::hash::Hash + Eq>(known: &Mutex<HashSet<T>>, label: T, most: usize) -> bool {
        let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
        known.contains(&label) || (known.len() < most && known.insert(label))
    }

    fn extension<'a>(&self, id: &'a str) -> &'a str {
        if Self::bounded(&self.extensions, id.to_owned(), MAX_EXTENSIONS) {
            id
        } else {
            "other"
        }
    }

    /// The series that calls are counted in. Found once for each extension and policy.
    pub fn series(&self, of: Execution<'_>) -> ExecutionSeries {
        let Execution {
            extension,
            kind,
            tenant,
            policy,
        } = of;
        let set = [extension.to_owned(), tenant.to_owned(), policy.to_owned()];
        let (tenant, policy) = if Self::bounded(&self.label_sets, set, MAX_LABEL_SETS) {
            (tenant, policy)
        } else {
            ("other", "other")
        };
        let extension = self.extension(extension);
        let status = |status| {
            self.executions
                .with_label_values(&[extension, kind, status, tenant, policy])
        };
        ExecutionSeries {
            success: status("success"),
            error: status("error"),
            latency_ms: self
                .latency_ms
                .with_label_values(&[extension, kind, tenant, policy]),
            memory_bytes: self.memory_bytes.with_label_values(&[extension]),
            run_seconds: self.run_seconds.with_label_values(&[extension]),
        }
    }

    /// Counts a call that failed, by the name of the error.
    pub fn failed(&self, extension: &str, error: &str) {
        self.failures
            .with_label_values(&[self.extension(extension), error])
            .inc();
    }

    /// Adds to a counter that an extension keeps itself.
    pub fn counted(&self, extension: &str, name: &str, amount: u64) {
        let label = [extension.to_owned(), name.to_owned()];
        if Self::bounded(&self.own_names, label, MAX_OWN_COUNTERS) {
            // One call cannot make the sum overflow.
            self.own
                .with_label_values(&[self.extension(extension), name])
                .inc_by(amount.min(u64::from(u32::MAX)));
        }
    }

    /// Counts lines that an extension logged, and lines that were dropped.
    pub fn logged(&self, extension: &str, written: u64, dropped: u64) {
        let extension = self.extension(extension);
        for (outcome, lines) in [("written", written), ("dropped", dropped)] {
            if lines > 0 {
                self.log_lines
                    .with_label_values(&[extension, outcome])
                    .inc_by(lines);
            }
        }
    }

    /// Counts a call that was to be recorded for its author.
    pub fn recorded(&self, outcome: &str) {
        self.recorded.with_label_values(&[outcome]).inc();
    }

    /// The calls of an extension for a tenant run in another lane from now on; whether those of any run on threads of their
    /// own.
    pub fn moved(&self, extension: &str, to: &str, slow: bool) {
        let extension = self.extension(extension);
        self.lane_moves.with_label_values(&[extension, to]).inc();
        self.in_slow_lane
            .with_label_values(&[extension])
            .set(i64::from(slow));
    }

    /// An extension is blocked for so many tenants; for the last of them for this reason. `None`: one may call it again.
    pub fn blocked(&self, extension: &str, tenants: usize, reason: Option<&str>) {
        let extension = self.extension(extension);
        self.blocked
            .with_label_values(&[extension])
            .set(i64::try_from(tenants).unwrap_or(i64::MAX));
        if let Some(reason) = reason {
            self.blocked_total.with_label_values(&[extension, reason]).inc();
        }
    }

    /// Records the compilation of a module.
    pub fn compiled(&self, took: Duration) {
        self.compile_seconds.observe(took.as_secs_f64());
    }

    /// Sets how many extensions can be called, how many records have problems, and how many extensions wait for a module.
    pub fn registered(&self, extensions: usize, problems: usize, pending: usize) {
        self.pending.set(i64::try_from(pending).unwrap_or(i64::MAX));
        self.registered.set(i64::try_from(extensions).unwrap_or(i64::MAX));
        self.problems.set(i64::try_from(problems).unwrap_or(i64::MAX));
    }
}

/// The series of the calls of one extension for one policy.
#[derive(Debug, Clone)]
pub struct ExecutionSeries {
    /// Calls that succeeded.
    pub success: prometheus::IntCounter,
    /// Calls that failed.
    pub error: prometheus::IntCounter,
    /// Time of a call, with waiting and retries, in milliseconds.
    pub latency_ms: Histogram,
    /// Linear memory of a call, in bytes.
    pub memory_bytes: Histogram,
    /// Time in which instances computed, in seconds.
    pub run_seconds: prometheus::Counter,
}
