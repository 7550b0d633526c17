//! The injector's certificates, where it makes them itself: which objects of the cluster hold them.

use std::path::PathBuf;

use super::authority::Lifetimes;

/// What the injector needs to make its certificates itself.
#[derive(Debug, Clone)]
pub struct SelfManaged {
    /// The API server's URL.
    pub api_server: String,
    /// The directory with the `token` and the `ca.crt` of the service account.
    pub service_account: PathBuf,
    /// The namespace of the Secret.
    pub namespace: String,
    /// The Secret, which exists and may be empty.
    pub secret: String,
    /// The MutatingWebhookConfiguration.
    pub webhook_configuration: String,
    /// The names under which the API server calls the webhook.
    pub names: Vec<String>,
    /// How long certificates are valid.
    pub lifetimes: Lifetimes,
}
