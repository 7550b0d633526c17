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
    /// What a call may compute, counted in its instructions.
    pub fuel: Option<u64>,
}

/// The least and the most fuel: a call of nothing needs some, and none lasts longer than its time-out.
const FUEL: std::ops::RangeInclusive<u64> = 1_000..=1_000_000_000_000;

impl Reader {
    pub(super) fn limits(&mut self, fields: &Map<String, Value>) -> ManifestLimits {
        let limits = self.object("$", fields, "limits");
        let at = "$.limits";
        self.unknown(at, &limits, LIMITS);
        ManifestLimits {
            memory_bytes: self
                .number(at, &limits, "memory_bytes", 65_536, u32::MAX)
                .map(u64::from),
            output_bytes: self
                .number(at, &limits, "output_bytes", 64, 64 << 20)
                .map(u64::from),
            concurrency: self.number(at, &limits, "concurrency", 1, 1_000),
            table_elements: self.number(at, &limits, "table_elements", 1, 20_000),
            fuel: self.fuel(at, &limits),
        }
    }

    fn fuel(&mut self, at: &str, limits: &Map<String, Value>) -> Option<u64> {
        let value = limits.get("fuel").filter(|value| !value.is_null())?;
        let within = value.as_u64().filter(|fuel| FUEL.contains(fuel));
        if within.is_none() {
            self.error(
                format!("{at}.fuel"),
                format!("fuel is {value}"),
                format!("write a whole number from {} to {}", FUEL.start(), FUEL.end()),
            );
        }
        within
    }
}
