//! What the sidecar knows: every policy it can answer with, immutable, replaced as a whole.
//!
//! Readers load the current snapshot once per request and see one state of the world. A change builds the next
//! snapshot aside, copying only the tenants it touches.
//!
//! ```text
//!  store ─► the current snapshot (state: tenants, policies, provenance)
//!  a change ─► draft ─► publish ─► retire drops the one before
//!  activate (guard, pins): what HEIR has, taken whole, or withheld
//! ```

mod activate;
mod ask;
mod broken;
mod draft;
mod freshness;
mod gone;
mod guard;
mod incoming;
mod key;
mod metrics;
mod outcome;
mod pins;
mod policy;
mod provenance;
mod retire;
mod state;
mod store;
mod tenant;

pub use ask::Asked;
pub use broken::{BrokenPolicies, BrokenPolicy};
pub use draft::Draft;
pub use freshness::{Age, Freshness, Unconfirmed, WhenExpired};
pub use gone::Gone;
pub use guard::Guarded;
pub use incoming::{ChangeSet, Incoming, Operation, Scope, check};
pub use key::{Key, Problems};
pub use metrics::{SnapshotMetrics, TenantMetrics};
pub use outcome::{Activation, Withheld};
pub use pins::FetchStart;
pub use policy::{Entry, Found, Policy, PolicyFlags, Queued, Source};
pub use provenance::{Coverage, Origin, Position};
pub use state::{Lookup, Snapshot};
pub use store::SnapshotStore;
pub use tenant::Tenant;
