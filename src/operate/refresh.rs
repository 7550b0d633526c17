//! A refresh on request.

use schemars::JsonSchema;
use serde::Serialize;

use super::{operator::Operator, snapshot::Coordinates};
use crate::{
    failure::{ErrorCode, Failure},
    refresh::{Outcome, RefreshError},
};

/// What a refresh came to, and the place reached.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Refreshed {
    /// Always `true`.
    pub ok: bool,
    /// What the refresh changed.
    pub outcome: Outcome,
    /// The position of the snapshot after the refresh.
    #[serde(flatten)]
    pub coordinates: Coordinates,
}

impl Operator {
    /// Refreshes now. `confirm` accepts an answer of HEIR's that removes many policies.
    ///
    /// # Errors
    /// `not_found`: there is no HEIR. `conflict`: HEIR's answer is withheld. Else what HEIR failed with.
    pub async fn refresh(&self, confirm: bool) -> Result<Refreshed, Failure> {
        let Some(refresher) = &self.refresher else {
            return Err(Failure::new(
                ErrorCode::NotFound,
                "there is no HEIR to refresh from",
            ));
        };
        match refresher.refresh_now(confirm).await {
            Ok(outcome) => Ok(Refreshed {
                ok: true,
                outcome,
                coordinates: self.coordinates(&self.store.load()),
            }),
            Err(RefreshError::Heir(error)) => Err(error.failure()),
            Err(RefreshError::Withheld(withheld)) => {
                Err(Failure::new(ErrorCode::Conflict, withheld.to_string()))
            }
        }
    }
}
