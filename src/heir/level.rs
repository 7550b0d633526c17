//! How much of the HEIR API there is: what a store serves, and what the sidecar finds.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Each level adds to the one before. What a store of one level leaves out it answers with 404, as a HEIR that never
/// had it would.
///
/// | level | calls | validators and revisions |
/// |---|---|---|
/// | `single` | `/health`, and one policy: `GET HEAD PUT DELETE` | none: no `ETag`, no `x-heir-revision`; conditional headers and `Idempotency-Key` are ignored |
/// | `list` | and the policies of a tenant, without `etags` | none |
/// | `snapshot` | and the snapshot, extensions and modules; lists with `etags` | all |
/// | `changes` | and the long poll for changes | all |
///
/// `single` and `list` are the HEIR that the platform's own documents promise.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Default,
    clap::ValueEnum,
    Serialize,
    Deserialize,
    schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "HeirApiLevel")]
pub enum Level {
    /// One policy at a time.
    Single,
    /// And the policies of a tenant.
    List,
    /// And everything at once, with validators.
    Snapshot,
    /// And what changed since.
    #[default]
    Changes,
}

impl Level {
    /// The names of all levels, plainest first.
    pub const ALL: [&'static str; 4] = ["single", "list", "snapshot", "changes"];

    /// The level's name on the command line, in metrics and on admin pages.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Single => "single",
            Self::List => "list",
            Self::Snapshot => "snapshot",
            Self::Changes => "changes",
        }
    }

    /// Whether answers carry entity tags and revisions, and conditional requests are understood.
    pub fn has_validators(self) -> bool {
        self >= Self::Snapshot
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
