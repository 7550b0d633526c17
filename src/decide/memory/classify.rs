//! Which results count for or against a provider.

/// What became of a call, as far as it concerns a breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallResult {
    /// It counts for the provider.
    Success,
    /// It counts against the provider.
    Failure,
}

/// Whether a result counts for or against a provider, by the words that the platform's result messages use. `None`:
/// neither, as with a request that the client cancelled or that the provider was right to refuse.
pub fn classify(
    status: &str,
    error_code: Option<&str>,
    error_type: Option<&str>,
    error_message: Option<&str>,
) -> Option<CallResult> {
    match status {
        "success" => Some(CallResult::Success),
        "timeout" => Some(CallResult::Failure),
        "error" => {
            let code = error_code.unwrap_or_default();
            let kind = error_type.unwrap_or_default();
            if [code, kind].iter().any(|word| never_counts(word)) {
                return None;
            }
            let named = matches!(
                code,
                "TIMEOUT" | "CONNECTION_ERROR" | "PROVIDER_UNAVAILABLE" | "5XX" | "HTTP_5XX" | "SERVER_ERROR"
            ) || matches!(
                kind,
                "timeout" | "connection_error" | "provider_unavailable" | "5xx" | "server_error"
            );
            let told = || {
                let text = error_message.unwrap_or_default().to_ascii_lowercase();
                ["timeout", "connection", "unavailable"]
                    .iter()
                    .any(|word| text.contains(word))
                    || has_status_500(&text)
            };
            (named || told()).then_some(CallResult::Failure)
        }
        _ => None,
    }
}

/// Mistakes of the request, whatever the message beside them says.
fn never_counts(word: &str) -> bool {
    let word = word.to_ascii_lowercase();
    let status = word.strip_prefix("http_").unwrap_or(&word).as_bytes();
    matches!(
        word.as_str(),
        "validation_error" | "rate_limit_exceeded" | "rate_limited"
    ) || matches!(status, [b'4', b'x', b'x'])
        || matches!(status, [b'4', a, b] if a.is_ascii_digit() && b.is_ascii_digit())
}

/// Whether a text has a word of three digits that begins with 5.
fn has_status_500(text: &str) -> bool {
    text.as_bytes()
        .split(|byte| !byte.is_ascii_alphanumeric() && *byte != b'_')
        .any(|word| matches!(word, [b'5', a, b] if a.is_ascii_digit() && b.is_ascii_digit()))
}
