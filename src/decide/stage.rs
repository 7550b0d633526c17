//! The stages of a pipeline.

/// The lists of extensions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "ExtensionStage")]
pub enum Stage {
    /// Pre-processors, before the selection: they may change the message and the context.
    Pre,
    /// Validators, after the pre-processors: they may refuse the request.
    Validator,
    /// Weighs the providers before one is drawn; not in the platform's contract.
    Scorer,
    /// Post-processors, after the selection: they may add to the decision's metadata.
    Post,
}
