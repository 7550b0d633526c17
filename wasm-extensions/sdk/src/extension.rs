//! What an extension does: one trait for each world.

use serde::de::DeserializeOwned;

use crate::{Call, Candidate, Decision, Failure, Json, Message, PreOutput, Problem, Score, Verdict, config};

/// What every extension has: a configuration.
pub trait Extension {
    /// The configuration. With `#[serde(deny_unknown_fields)]` a misspelt key is a problem at once.
    type Config: DeserializeOwned;

    /// What is wrong with a configuration that could be read, everything at once. Nothing unless said.
    fn check(_config: &Self::Config) -> Vec<Problem> {
        Vec::new()
    }

    /// Checks a configuration as the host does when a policy is loaded: first whether it can be
    /// read, then what [`Extension::check`] says.
    ///
    /// # Errors
    /// Every problem found.
    fn check_config(config: &Json) -> Result<(), Vec<Problem>> {
        let config = config::read_all::<Self::Config>(config.text())?;
        let problems = Self::check(&config);
        if problems.is_empty() {
            Ok(())
        } else {
            Err(problems)
        }
    }
}

/// Runs before a provider is selected.
pub trait PreProcessor: Extension {
    /// Changes the message, or adds to the context, or neither.
    ///
    /// # Errors
    /// A failure; the policy's `mode` decides what follows.
    fn process(call: &Call<Self::Config>, message: Message) -> Result<PreOutput, Failure>;
}

/// Runs after the pre-processors.
pub trait Validator: Extension {
    /// Says whether the message may pass.
    ///
    /// # Errors
    /// A failure; the policy's `on_fail` decides what follows.
    fn validate(call: &Call<Self::Config>, message: &Message) -> Result<Verdict, Failure>;
}

/// Runs between the filtering of eligible providers and the weighted draw.
pub trait Scorer: Extension {
    /// Gives exactly one score for each candidate, in any order.
    ///
    /// # Errors
    /// A failure; the draw is then made without scores, or not at all, as the policy says.
    fn score(
        call: &Call<Self::Config>,
        message: &Message,
        candidates: &[Candidate],
    ) -> Result<Vec<Score>, Failure>;
}

/// Runs after a provider was selected.
pub trait PostProcessor: Extension {
    /// An object to merge into the decision's metadata, or nothing to add.
    ///
    /// # Errors
    /// A failure; the policy's `mode` decides what follows.
    fn process(call: &Call<Self::Config>, decision: &Decision) -> Result<Option<Json>, Failure>;
}
