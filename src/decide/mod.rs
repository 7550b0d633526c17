//! The decision: which provider a request goes to, and why. Pure but for the memory and the extensions it is given:
//! time and chance are arguments, nothing here knows HTTP, sockets or a clock.
//!
//! ```text
//!  tenant allowed ─► policy found ─► tokens ─► depth ─► deadline ─► pre ─► validators ─► select ─► post ─► Decision
//!  select: caller's provider open? ─► rules after a failure ─► session ─► scorers, weights ─► rules ─► last resort
//! ```

mod admit;
mod backoff;
mod complexity;
mod config;
mod decision;
mod entry;
mod envelope;
mod explanation;
mod extension;
mod fallbacks;
mod input;
pub mod memory;
mod pipeline;
mod redact;
mod refusal;
mod replacement;
mod seed;
mod select;
mod stage;
mod weights;

pub use crate::clock::{InvalidTimestamp, Timestamp};
pub use admit::{Allowance, check_depth};
pub use backoff::backoff_ms;
pub use complexity::Complexity;
pub use config::DecideConfig;
pub use decision::{Decision, EXPECTED_COST, EXPECTED_LATENCY_MS, Metadata};
pub use entry::{Outcome, decide, decide_now};
pub use envelope::{Envelope, RequestContext};
pub use explanation::{
    Candidate, DrawEvidence, Evidence, Explaining, Explanation, ExtensionEvidence, Provenance,
    StickyEvidence, audit_form, detail_level,
};
pub use extension::{
    Answer, Call, Executed, ExtensionError, Extensions, Immediate, Input, MAX_METADATA_BYTES,
    MAX_PAYLOAD_BYTES, MAX_RETRIES, NoExtensions, ScoredProvider, Script, Scripted, Status, TIMEOUT_MS,
    Verdict, check_call,
};
pub use input::{
    Context, DecideContext, DecisionId, DecisionInput, Effects, FallbackEvaluation, Message, PipelineLimits,
    Rules,
};
pub use redact::{REDACTED, brief, is_sensitive, redact, redact_briefly};
pub use refusal::{RateLimited, Refusal};
pub use replacement::{MessageText, Replacement};
pub use seed::{Jitter, Seed};
pub use select::{Exclusion, Mechanism, Selection, StickyCheck};
pub use stage::Stage;
pub use weights::Draw;
