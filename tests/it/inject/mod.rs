//! The sidecar in pods: the patch, the command, the webhook.

mod command;
mod pods;
mod properties;
