//! What an operator can do or ask, as methods over plain structs. Nothing in here knows a transport: the admin listener
//! calls it for HTTP, and any other transport can call it in the same way.

mod extension_view;
mod extensions;
mod log_filter;
mod operator;
mod policies;
mod probes;
mod providers;
mod rate_limits;
mod refresh;
mod sessions;
mod snapshot;
mod writes;

pub use extension_view::{
    DisabledBy, DisabledEntry, ExtensionDetail, ExtensionEntry, ExtensionList, ExtensionView, InstanceCounts,
    TargetEntry, TargetLimits, Unavailable, WorkerPool,
};
pub use extensions::{ExtensionChange, ExtensionChanged, ExtensionsReloaded};
pub use log_filter::LogFilter;
pub use operator::{Limit, MAX_LISTED, Operator};
pub use policies::{PolicyDetail, PolicyEntry, PolicyList, TenantEntry, TenantList, TenantPolicies};
pub use probes::{Liveness, LivenessState};
pub use providers::{
    BreakerChange, BreakerChanged, BreakerReport, EstimateForgotten, ProviderEntry, ProviderList,
};
pub use rate_limits::{BucketEntry, RateLimitList, RateLimitReset, RateLimitScope};
pub use refresh::Refreshed;
pub use sessions::{SessionList, SessionsForgotten};
pub use snapshot::{Coordinates, HeirStatus, PolicyProblems, SnapshotStatus};
pub use writes::{Journal, Settled, WriteEntry, WriteOperation};
