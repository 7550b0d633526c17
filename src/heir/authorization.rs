//! The token that HEIR is shown.

use std::path::PathBuf;

use http::HeaderValue;

use super::config::HeirConfig;
use crate::plain_file;

/// Why there is no token to show.
#[derive(Debug, thiserror::Error)]
#[error("heir.token_file {path}: {reason}")]
pub struct TokenError {
    /// The file.
    path: PathBuf,
    /// What is wrong with it.
    reason: String,
}

/// The header that the token file makes; printed as `Sensitive` by everything that prints headers.
pub(super) fn read(config: &HeirConfig) -> Result<Option<HeaderValue>, TokenError> {
    let path = &config.token_file;
    if path.as_os_str().is_empty() {
        return Ok(None);
    }
    let refuse = |reason: String| TokenError {
        path: path.clone(),
        reason,
    };
    let content = plain_file::read(path).map_err(|error| refuse(error.to_string()))?;
    let token = content.trim_ascii();
    if token.is_empty() {
        return Err(refuse("it is empty".into()));
    }
    let mut value = HeaderValue::from_bytes(&[b"Bearer ", token].concat())
        .map_err(|_characters| refuse("it has characters that no header may have".into()))?;
    value.set_sensitive(true);
    Ok(Some(value))
}
