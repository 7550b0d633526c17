//! The sidecar in pods: the patch, the command, the webhook.

mod cluster;
mod command;
mod pods;
mod properties;
mod webhook;
