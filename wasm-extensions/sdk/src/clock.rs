//! The time. An extension that uses it needs the capability `clock`.

/// Milliseconds since 1970-01-01T00:00:00Z; the original time when a decision is replayed.
pub fn now_ms() -> u64 {
    #[cfg(target_family = "wasm")]
    {
        crate::component::now_ms()
    }
    #[cfg(not(target_family = "wasm"))]
    crate::testing::with(|host| host.now_ms)
}
