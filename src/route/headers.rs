//! Headers of the data plane's answers.

use http::HeaderName;

/// Revision of the snapshot that answered.
pub const SNAPSHOT_REVISION: HeaderName = HeaderName::from_static("x-beamline-snapshot-revision");
/// Milliseconds since HEIR last confirmed that snapshot.
pub const SNAPSHOT_AGE_MS: HeaderName = HeaderName::from_static("x-beamline-snapshot-age-ms");
/// `heir`, `disk`, `file` or `journal`.
pub const SOURCE: HeaderName = HeaderName::from_static("x-beamline-source");
/// `fresh`, `stale` or `expired`.
pub const FRESHNESS: HeaderName = HeaderName::from_static("x-beamline-freshness");
/// `true` where HEIR is away and the answer could be out of date for that reason.
pub const STALE: HeaderName = HeaderName::from_static("x-beamline-stale");
/// `queued` where HEIR is away and the journal has the write.
pub const WRITE: HeaderName = HeaderName::from_static("x-beamline-write");
/// How many mistakes the policy in this answer has for which a write of it would be refused.
pub(super) const POLICY_PROBLEMS: HeaderName = HeaderName::from_static("x-beamline-policy-problems");
