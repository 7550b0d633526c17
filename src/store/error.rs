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
    /// The token's file cannot be used.
    #[error("the token cannot be read: {0}")]
    Token(String),
    /// The files of TLS cannot be used.
    #[error("TLS cannot be used: {0}")]
    Tls(String),
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
    pub(super) fn database(
        place: &impl std::fmt::Display,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
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
    #[error("the database was busy for too long")]
    Busy,
    #[error("the database did not answer in time")]
    TooSlow,
    #[error("the caller has gone")]
    GivenUp,
    #[error("the database's file was removed or replaced")]
    Replaced,
    #[error("the database's file is damaged: restore it, and start the store again")]
    Corrupt,
}

/// What an error means for those that send requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Meaning {
    /// The same request may succeed in a moment; the connection is as good as before.
    Locked,
    /// The same request may succeed in a moment, on another connection.
    Passing,
    /// What is to be written does not fit on the disk.
    Full,
    /// The disk, or the file on it, cannot be used.
    Failing,
    /// An error whose cause the database does not say.
    Other,
}

impl DbError {
    fn meaning(&self) -> Meaning {
        match self {
            Self::Busy | Self::GivenUp => Meaning::Locked,
            Self::TooSlow => Meaning::Passing,
            Self::Replaced | Self::Corrupt => Meaning::Failing,
            Self::Sql(error) => meaning_of(error),
            Self::Migrate(sqlx::migrate::MigrateError::Execute(error)) => meaning_of(error),
            Self::Migrate(sqlx::migrate::MigrateError::ExecuteMigration(error, _)) => meaning_of(error),
            _ => Meaning::Other,
        }
    }

    /// Whether the same request may succeed in a moment: a lock, a full pool, an unreachable server.
    pub(super) fn is_passing(&self) -> bool {
        matches!(self.meaning(), Meaning::Locked | Meaning::Passing)
    }

    /// Whether the connection on which it happened is as good as before.
    pub(super) fn spares_the_connection(&self) -> bool {
        self.meaning() == Meaning::Locked || matches!(self, Self::Damaged(_))
    }

    /// Whether SQLite found its file to be other than it was written.
    pub(super) fn is_damage(&self) -> bool {
        let Self::Sql(sqlx::Error::Database(error)) = self else {
            return false;
        };
        let number = error
            .code()
            .filter(|code| code.len() < 5)
            .and_then(|code| code.parse::<u32>().ok());
        number.is_some_and(|number| number & 0xff == CORRUPT)
    }

    /// What it says about the disk.
    pub(super) fn trouble(&self) -> Option<Trouble> {
        match self.meaning() {
            Meaning::Full => Some(Trouble::Full),
            // A file that was replaced or damaged is remembered by itself.
            Meaning::Failing if !matches!(self, Self::Replaced | Self::Corrupt) => Some(Trouble::Failing),
            _ => None,
        }
    }

    /// The error for the client, without the database's own message.
    pub(super) fn failure(&self) -> Failure {
        match self.meaning() {
            Meaning::Locked | Meaning::Passing => {
                Failure::new(ErrorCode::Overloaded, "the store is busy; try again").retry_after_seconds(1)
            }
            Meaning::Full => Trouble::Full.failure(),
            Meaning::Failing => Trouble::Failing.failure(),
            Meaning::Other => Failure::new(
                ErrorCode::InternalError,
                "the store could not carry out the request",
            ),
        }
    }
}

/// Why the last write did not reach the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trouble {
    /// There is no space left.
    Full,
    /// It cannot be written, or not read.
    Failing,
}

impl Trouble {
    /// The error for a client that wanted to write, or wants to know.
    pub(super) fn failure(self) -> Failure {
        let failure = match self {
            Self::Full => Failure::new(
                ErrorCode::StorageFull,
                "the store's disk is full: documents can be read and not written",
            ),
            Self::Failing => Failure::new(
                ErrorCode::StorageUnavailable,
                "the store's disk or its file cannot be written",
            ),
        };
        failure.retry_after_seconds(10)
    }
}

fn meaning_of(error: &sqlx::Error) -> Meaning {
    match error {
        sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed
        | sqlx::Error::Io(_)
        | sqlx::Error::Tls(_) => Meaning::Passing,
        sqlx::Error::Database(error) => error.code().map_or(Meaning::Other, |code| meaning_of_code(&code)),
        _ => Meaning::Other,
    }
}

/// SQLite's code for a file whose content makes no sense.
const CORRUPT: u32 = 11;

fn meaning_of_code(code: &str) -> Meaning {
    match code.parse::<u32>() {
        // SQLite's codes are short numbers, with details in the upper bits.
        Ok(number) if code.len() < 5 => match number & 0xff {
            // BUSY, LOCKED.
            5 | 6 => Meaning::Locked,
            // NOMEM, INTERRUPT.
            7 | 9 => Meaning::Passing,
            // FULL.
            13 => Meaning::Full,
            // PERM, READONLY, IOERR, CORRUPT, CANTOPEN, NOTADB.
            3 | 8 | 10 | CORRUPT | 14 | 26 => Meaning::Failing,
            _ => Meaning::Other,
        },
        // Postgres' have five characters.
        _ => match code {
            // Serialization failure, deadlock, lock not available, cancelled or timed out.
            "40001" | "40P01" | "55P03" | "57014" => Meaning::Locked,
            // Disk full.
            "53100" => Meaning::Full,
            // An error of the disk, or what is on it makes no sense.
            "58030" | "XX001" | "XX002" => Meaning::Failing,
            // Read only, as the former primary is after a failover; idle for too long within a transaction; too many
            // connections; shutting down; starting up.
            "25006" | "25P03" | "53200" | "53300" | "57P01" | "57P02" | "57P03" | "57P05" => Meaning::Passing,
            // Exceptions of the connection.
            _ if code.starts_with("08") => Meaning::Passing,
            _ => Meaning::Other,
        },
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
                if matches!(error, DbError::GivenUp) {
                    tracing::debug!("A request was given up before its turn came.");
                } else if error.is_passing() {
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
    fn errors_of_the_databases_are_told_apart() {
        for (meaning, codes) in [
            (
                Meaning::Locked,
                &["5", "6", "261", "517", "40001", "40P01", "55P03", "57014"][..],
            ),
            (Meaning::Passing, &["25006", "25P03", "53300", "57P01", "08006"]),
            (Meaning::Full, &["13", "53100"]),
            (
                Meaning::Failing,
                &[
                    "8", "10", "11", "779", "26", "778", "14", "1032", "58030", "XX001",
                ],
            ),
            (Meaning::Other, &["1", "2067", "23505", "42P01", "00005", ""]),
        ] {
            for code in codes {
                assert_eq!(meaning_of_code(code), meaning, "{code}");
            }
        }
    }
}
