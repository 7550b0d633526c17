//! The stages of a pipeline.

/// The lists of extensions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    Pre,
    Validator,
    /// Weighs the providers before one is drawn; not in the platform's contract.
    Scorer,
    Post,
}
