//! Errors of the store, and how they are reported to a client.

use crate::{
    failure::{ErrorCode, Failure},
    listener::Address,
};

/// Why a store could not start.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database cannot be opened, or its tables cannot be brought up to date.
    #[error("cannot open the policy store's database ({place})")]
    Database {
        /// The database without its credentials.
        place: String,
        /// What the database reported.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The directory to import cannot be read, or its policies not written.
    #[error("cannot import the policies in {path}")]
    Import {
        /// The directory.
        path: std::path::PathBuf,
        /// What failed.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The address is in use or not available.
    #[error("cannot listen at {address}")]
    Listen {
        /// The address that was configured.
        address: Address,
        /// What the system reported.
        #[source]
        source: std::io::Error,
    },
    /// The listener's own counters could not be created.
    #[error("cannot create the listener's metrics")]
    Metrics(#[from] prometheus::Error),
}

impl StoreError {
    pub(super) fn database(place: &impl std::fmt::Display, source: DbError) -> Self {
        Self::Database {
            place: place.to_string(),
            source: source.into(),
        }
    }
}

/// An error of the database.
#[derive(Debug, thiserror::Error)]
pub(super) enum DbError {
    #[error("the database reported an error")]
    Sql(#[from] sqlx::Error),
    #[error("the tables could not be brought up to date")]
    Migrate(#[from] sqlx::migrate::MigrateError),
    #[error("the path of the database cannot be made absolute")]
    Path(#[from] std::io::Error),
    #[error("the database holds {0} that this store did not write")]
    Damaged(&'static str),
    #[error("the system has no random bytes")]
    Random,
    #[error("the work on the database was cancelled")]
    Ended(#[from] tokio::task::JoinError),
}

impl DbError {
    /// Whether the same request may succeed in a moment: a lock, a full pool, an unreachable server.
    pub(super) fn is_passing(&self) -> bool {
        let Self::Sql(error) = self else { return false };
        match error {
            sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed | sqlx::Error::Io(_) => true,
            sqlx::Error::Database(error) => error.code().is_some_and(|code| is_passing_code(&code)),
            _ => false,
        }
    }

    /// The error for the client, without the database's own message.
    pub(super) fn failure(&self) -> Failure {
        if self.is_passing() {
            Failure::new(ErrorCode::Overloaded, "the store is busy; try again").retry_after_seconds(1)
        } else {
            Failure::new(
                ErrorCode::InternalError,
                "the store could not carry out the request",
            )
        }
    }
}

fn is_passing_code(code: &str) -> bool {
    match code.parse::<u32>() {
        // SQLite's codes are short numbers: BUSY and LOCKED, with the reason in the upper bits.
        Ok(number) if code.len() < 5 => matches!(number & 0xff, 5 | 6),
        // Postgres' have five characters: serialization failure, deadlock, lock not available, too many
        // connections, shutting down, starting up.
        _ => matches!(code, "40001" | "40P01" | "55P03" | "53300" | "57P01" | "57P03"),
    }
}

/// Why a call fails.
#[derive(Debug, thiserror::Error)]
pub(super) enum CallError {
    #[error("refused: {}", .0.message)]
    Refused(Failure),
    #[error(transparent)]
    Db(#[from] DbError),
}

impl From<Failure> for CallError {
    fn from(failure: Failure) -> Self {
        Self::Refused(failure)
    }
}

impl From<sqlx::Error> for CallError {
    fn from(error: sqlx::Error) -> Self {
        Self::Db(error.into())
    }
}

impl CallError {
    /// The answer; errors that concern the operator are logged.
    pub(super) fn into_failure(self) -> Failure {
        match self {
            Self::Refused(failure) => failure,
            Self::Db(error) => {
                let cause = std::error::Error::source(&error).map(ToString::to_string);
                if error.is_passing() {
                    tracing::warn!(%error, cause, "The policy store was too busy to answer.");
                } else {
                    tracing::error!(%error, cause, "The policy store could not answer.");
                }
                error.failure()
            }
        }
    }
}

/// 400: the request is not valid, for the reason given.
pub(super) fn invalid(message: impl Into<String>) -> CallError {
    Failure::new(ErrorCode::InvalidRequest, message).into()
}

/// 404.
pub(super) fn not_found(message: &str) -> CallError {
    Failure::new(ErrorCode::NotFound, message).into()
}

/// 405 with the methods that are allowed.
pub(super) fn method_not_allowed(allow: &'static str) -> CallError {
    Failure::method_not_allowed(allow).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locks_pass_and_the_rest_does_not() {
        for code in ["5", "6", "261", "517", "40001", "40P01", "55P03"] {
            assert!(is_passing_code(code), "{code}");
        }
        for code in ["1", "11", "2067", "23505", "42P01", "00005", ""] {
            assert!(!is_passing_code(code), "{code}");
        }
    }
}
