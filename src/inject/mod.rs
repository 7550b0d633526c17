//! Puts the sidecar into pods: the one place that says what a pod looks like afterwards.
//!
//! ```text
//!  fragment (rendered by the Helm library chart) ─┐
//!  pod ─► annotations (overrides, checked) ───────┴─► pod (explicit `add`s) ─► patch
//! ```
//!
//! All of it is pure and works on JSON values, never on structs of the Kubernetes API: a struct loses the fields that it
//! does not know, and a patch made of it would remove them from the pod. The webhook and `beamline-sidecar inject` both use
//! it, with the fragment that the library chart renders for charts that include it, so all ways give the same pod.

mod annotations;
mod fragment;
mod manifest;
mod names;
mod patch;
mod pod;
mod quantity;

pub use annotations::{BadAnnotation, Override};
pub use fragment::{Fragment, FragmentError};
pub use manifest::{Found, inject_manifest};
pub use names::{FRAGMENT_API_VERSION, INJECT_LABEL, PREFIX, SIDECAR, STATUS};
pub use patch::{Add, apply};
pub use pod::{Injection, Outcome, Refusal, Skipped, State, inject, state_of};
