//! What is wrong with a configuration, as `check` and a failed start report it.

use std::fmt;

/// One thing wrong with a configuration.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Mistake {
    /// The key, such as `refresh.interval_ms`; empty for the whole file.
    pub key: String,
    /// What is wrong.
    pub message: String,
    /// What would be valid, or what to do.
    pub remedy: String,
}

impl Mistake {
    /// A mistake at a key; an empty key stands for the whole file.
    pub fn new(key: impl Into<String>, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            key: key.into(),
            message: message.into(),
            remedy: remedy.into(),
        }
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = if self.key.is_empty() {
            "(whole file)"
        } else {
            &self.key
        };
        write!(f, "{key}: {}\n    remedy: {}", self.message, self.remedy)
    }
}

/// All mistakes of one configuration; never empty.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize, thiserror::Error)]
pub struct Mistakes {
    /// Where the configuration came from.
    pub origin: String,
    /// The mistakes, in the order of the checks.
    pub list: Vec<Mistake>,
}

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = if self.list.len() == 1 {
            "mistake"
        } else {
            "mistakes"
        };
        write!(f, "{} {plural} in {}", self.list.len(), self.origin)?;
        for mistake in &self.list {
            write!(f, "\n  {mistake}")?;
        }
        Ok(())
    }
}
