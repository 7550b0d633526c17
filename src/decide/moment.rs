//! Time as an argument.

/// A moment, in milliseconds since the Unix epoch. Never read from a clock in here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment {
    pub unix_ms: u64,
}

impl Moment {
    pub const fn from_unix_ms(unix_ms: u64) -> Self {
        Self { unix_ms }
    }

    /// Milliseconds since another moment; zero if that one is later, as after a clock that was set back.
    pub const fn since(self, earlier: Self) -> u64 {
        self.unix_ms.saturating_sub(earlier.unix_ms)
    }
}
