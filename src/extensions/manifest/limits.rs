//! The limits that a record sets for the calls of its extension.

use serde_json::{Map, Value};

use super::fields::Reader;

const LIMITS: &[&str] = &[
    "memory_bytes",
    "fuel",
    "output_bytes",
    "concurrency",
    "table_elements",
];

/// Limits of each call; `None`: the default, which for memory depends on the module's profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ManifestLimits {
    /// Linear memory of a call, in bytes.
    pub memory_bytes: Option<u64>,
    /// Bytes that a call may hand to the host at once.
    pub output_bytes: Option<u64>,
    /// Calls at a time.
    pub concurrency: Option<u32>,
    /// Elements of one table.
    pub table_elements: Option<u32>,
}

impl Reader {
    pub(super) fn limits(&mut self, fields: &Map<String, Value>) -> ManifestLimits {
        let limits = self.object("$", fields, "limits");
        let at = "$.limits";
        self.unknown(at, &limits, LIMITS);
        if limits.contains_key("fuel") {
            self.warn(
                "$.limits.fuel",
                "fuel is not metered by this version",
                "timeout_ms bounds what a call computes",
            );
        }
        ManifestLimits {
            memory_bytes: self
                .number(at, &limits, "memory_bytes", 65_536, u32::MAX)
                .map(u64::from),
            output_bytes: self
                .number(at, &limits, "output_bytes", 64, 64 << 20)
                .map(u64::from),
            concurrency: self.number(at, &limits, "concurrency", 1, 1_000),
            table_elements: self.number(at, &limits, "table_elements", 1, 20_000),
        }
    }
}
