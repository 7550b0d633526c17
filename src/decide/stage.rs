//! The stages of a pipeline.

/// The lists of extensions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "ExtensionStage")]
pub enum Stage {
    Pre,
    Validator,
    /// Weighs the providers before one is drawn; not in the platform's contract.
    Scorer,
    Post,
}
