//! Counters under the extension's own prefix. An extension that uses them needs the capability `metrics`.

/// Adds to a counter. A name has at most 48 characters of `a` to `z`, `0` to `9` and `_`, the first
/// one a letter; the host drops what is added to others, and to more names than it keeps.
pub fn count(name: &str, amount: u64) {
    #[cfg(target_family = "wasm")]
    crate::component::count(name, amount);
    #[cfg(not(target_family = "wasm"))]
    crate::testing::with(|host| {
        let counter = host.counters.entry(name.to_owned()).or_default();
        *counter = counter.saturating_add(amount);
    });
}
