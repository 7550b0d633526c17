//! Where the snapshot stands, and everything that is wrong with what it was made of.

use std::{collections::BTreeMap, time::Instant};

use schemars::JsonSchema;
use serde::Serialize;

use super::operator::{MAX_LISTED, Operator};
use crate::{
    heir::Level,
    policy::{PolicyId, Problem, TenantId},
    readiness::ReadinessStatus,
    refresh::{BadFile, Status},
    snapshot::{Age, Coverage, Origin, Snapshot},
};

/// The place of the snapshot in HEIR's history, and how sure that place is.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Coordinates {
    /// What HEIR can do, as far as it is known.
    pub level: Option<Level>,
    /// What the absence of a policy means.
    pub coverage: Coverage,
    /// `null` where HEIR keeps no revisions.
    pub revision: Option<u64>,
    /// Digest over the history up to here, where HEIR keeps one.
    pub chain: Option<String>,
    /// Since HEIR last confirmed the snapshot.
    pub age_ms: u64,
    /// `age_ms` against the limits of the configuration.
    pub freshness: Age,
    /// Where HEIR's part of the snapshot came from.
    pub source: Origin,
}

/// The snapshot, what keeps it up to date, and its problems.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct SnapshotStatus {
    /// The position of the snapshot in HEIR's history.
    #[serde(flatten)]
    pub coordinates: Coordinates,
    /// Policies that a lookup finds.
    pub policies: usize,
    /// Tenants with policies in memory.
    pub tenants: usize,
    /// Extensions that HEIR has records of.
    pub extensions: usize,
    /// Bytes of all policies.
    pub bytes: usize,
    /// Counts the publications of this process.
    pub generation: u64,
    /// Whether the sidecar is ready, and if not, why.
    pub ready: ReadinessStatus,
    /// `null` where there is no HEIR.
    pub refresh: Option<Status>,
    /// `null` where there is no HEIR.
    pub heir: Option<HeirStatus>,
    /// The first 1 000 policies that are broken: refused, or with mistakes, or with configurations that their extensions
    /// refuse.
    pub problems: Vec<PolicyProblems>,
    /// Number of policies with problems, including those that are not listed.
    pub problem_count: usize,
    /// The first 1 000 policies that were accepted with warnings.
    pub warnings: Vec<PolicyProblems>,
    /// Number of policies with warnings, including those that are not listed.
    pub warning_count: usize,
    /// Files of `policies_dir` that cannot be used.
    pub bad_files: Vec<BadFile>,
    /// Problems of extensions' records, by extension.
    pub extension_problems: BTreeMap<String, Vec<Problem>>,
    /// Extensions that can be called.
    pub extensions_ready: usize,
}

/// The connection to HEIR.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct HeirStatus {
    /// Base URL, from `heir.url`.
    pub url: String,
    /// Whether HEIR answered the last call.
    pub up: bool,
    /// `closed`, `open` or `half_open`.
    pub breaker: &'static str,
}

/// What is wrong with one policy.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct PolicyProblems {
    /// The tenant.
    pub tenant_id: TenantId,
    /// Unique within the tenant.
    pub policy_id: PolicyId,
    /// Each with its path in the document.
    pub problems: Vec<Problem>,
}

impl Operator {
    /// The snapshot in force, and everything around it.
    pub fn snapshot_status(&self) -> SnapshotStatus {
        let snapshot = self.store.load_full();
        let count = |of: fn(&crate::snapshot::Tenant) -> usize| -> usize {
            snapshot.tenants().map(|(_, tenant)| of(tenant)).sum()
        };
        SnapshotStatus {
            coordinates: self.coordinates(&snapshot),
            policies: count(|tenant| tenant.size),
            tenants: snapshot.tenants().count(),
            extensions: snapshot.extensions().len(),
            bytes: count(|tenant| tenant.bytes),
            generation: snapshot.generation(),
            ready: self.readiness.status(),
            refresh: self.refresher.as_ref().map(|refresher| refresher.status()),
            heir: self.client.as_ref().map(|client| HeirStatus {
                url: client.base().to_string(),
                up: client.availability().is_up(),
                breaker: client.availability().breaker_state().as_str(),
            }),
            problems: problems(&snapshot),
            problem_count: snapshot.problems().len() + snapshot.broken_count(),
            warnings: warnings(&snapshot),
            warning_count: count(|tenant| tenant.noted),
            bad_files: self
                .directory
                .as_ref()
                .map(|dir| dir.bad_files())
                .unwrap_or_default(),
            extension_problems: snapshot.registry().problems().clone(),
            extensions_ready: snapshot.registry().len(),
        }
    }

    pub(super) fn coordinates(&self, snapshot: &Snapshot) -> Coordinates {
        let (age_ms, freshness) = self.store.freshness().at(Instant::now());
        Coordinates {
            level: self
                .refresher
                .as_ref()
                .and_then(|refresher| refresher.status().level),
            coverage: snapshot.coverage(),
            revision: snapshot.position().revision,
            chain: snapshot.position().chain.as_deref().map(ToOwned::to_owned),
            age_ms,
            freshness,
            source: snapshot.origin(),
        }
    }
}

fn problems(snapshot: &Snapshot) -> Vec<PolicyProblems> {
    let refused = snapshot.problems().iter();
    let refused = refused.map(|((tenant, policy), problems)| PolicyProblems {
        tenant_id: tenant.clone(),
        policy_id: policy.clone(),
        problems: problems.clone(),
    });
    let broken = snapshot.tenants().flat_map(|(id, tenant)| {
        let broken = tenant.all_broken().into_iter();
        broken.map(move |(policy_id, broken)| PolicyProblems {
            tenant_id: id.clone(),
            policy_id: policy_id.clone(),
            problems: broken.problems(),
        })
    });
    refused.chain(broken).take(MAX_LISTED).collect()
}

fn warnings(snapshot: &Snapshot) -> Vec<PolicyProblems> {
    let noted = snapshot.tenants().filter(|(_, tenant)| tenant.noted > 0);
    let noted = noted.flat_map(|(id, tenant)| {
        let policies = tenant.sorted().into_iter();
        policies.filter_map(move |(policy_id, found)| {
            let problems = tenant.notes_of(policy_id.as_str(), found.policy);
            (!problems.is_empty()).then(|| PolicyProblems {
                tenant_id: id.clone(),
                policy_id: policy_id.clone(),
                problems,
            })
        })
    });
    noted.take(MAX_LISTED).collect()
}
