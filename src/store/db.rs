//! The database: one SQLite file, memory, or a Postgres that several stores may share.
//!
//! Every query here and in [`write`](super::write) runs unchanged on both; what differs is how a connection is
//! set up, how a transaction begins, and the types in the migrations.

use std::{path::PathBuf, sync::Arc, time::Duration};

use bytes::Bytes;
use sqlx::{
    Any, AnyConnection, AnyPool, ConnectOptions, Row, SqlSafeStr, Transaction,
    any::{AnyConnectOptions, AnyPoolOptions, AnyRow},
    migrate::{Migration, MigrationType, Migrator},
};
use tokio::sync::{Mutex, watch};

use super::{
    chain,
    error::DbError,
    key::{Key, ModuleDigest},
};
use crate::policy::ETag;

/// Connections to one database. Reads in SQLite's WAL mode run beside each other and beside the one writer.
const CONNECTIONS: u32 = 8;
/// How long a request waits for a connection, and a connection for another's lock.
const LOCK_TIMEOUT: Duration = Duration::from_secs(5);

/// Where the data is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    Memory,
    File(PathBuf),
    /// With its URL, which may hold a password.
    Postgres(String),
}

impl Place {
    pub(super) fn parse(text: &str) -> Self {
        if text == ":memory:" {
            Self::Memory
        } else if text.starts_with("postgres://") || text.starts_with("postgresql://") {
            Self::Postgres(text.to_owned())
        } else {
            Self::File(text.into())
        }
    }

    fn url(&self) -> std::io::Result<String> {
        Ok(match self {
            Self::Memory => "sqlite::memory:".to_owned(),
            Self::Postgres(url) => url.clone(),
            Self::File(path) => {
                let path = std::path::absolute(path)?;
                let mut url = "sqlite://".to_owned();
                for &byte in path.as_os_str().as_encoded_bytes() {
                    if byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'.' | b'-' | b'_') {
                        url.push(char::from(byte));
                    } else {
                        url.push_str(&format!("%{byte:02X}"));
                    }
                }
                url + "?mode=rwc"
            }
        })
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Memory => f.write_str("in memory"),
            Self::File(path) => path.display().fmt(f),
            Self::Postgres(_) => f.write_str("Postgres"),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Dialect {
    Sqlite,
    Postgres,
}

/// An open, migrated database.
#[derive(Debug)]
pub(super) struct Db {
    pool: AnyPool,
    dialect: Dialect,
    /// Writers of this process queue here, in order, instead of polling for the database's own lock.
    pub(super) writer: Arc<Mutex<()>>,
    /// The newest revision that this process has seen; a signal to look again, not the truth.
    pub(super) news: watch::Sender<u64>,
    /// How many changes are kept.
    pub(super) changes_kept: u64,
}

/// The newest revision of the store, and the revision from which its changes are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) revision: u64,
    pub(super) chain: String,
    pub(super) floor_revision: u64,
    pub(super) floor_chain: String,
}

/// A stored document.
#[derive(Debug, Clone)]
pub(super) struct Stored {
    pub(super) revision: u64,
    pub(super) etag: ETag,
    pub(super) document: Bytes,
}

/// A statement with its bound values.
pub(super) type Query = sqlx::query::Query<'static, Any, sqlx::any::AnyArguments>;

impl Db {
    /// Connects, migrates the tables and, for a new store, begins its chain.
    pub(super) async fn open(place: &Place, changes_kept: u64) -> Result<Self, DbError> {
        sqlx::any::install_default_drivers();
        let dialect = match place {
            Place::Memory | Place::File(_) => Dialect::Sqlite,
            Place::Postgres(_) => Dialect::Postgres,
        };
        let options = place
            .url()?
            .parse::<AnyConnectOptions>()?
            .disable_statement_logging();
        let mut pool = AnyPoolOptions::new()
            .acquire_timeout(LOCK_TIMEOUT)
            // A file is always there; a server may go away, and then the pool connects again.
            .test_before_acquire(dialect == Dialect::Postgres)
            .after_connect(move |connection, _| Box::pin(set_up(connection, dialect)));
        pool = match place {
            // Each connection to memory is a separate database, which is lost when the connection closes.
            Place::Memory => pool
                .max_connections(1)
                .min_connections(1)
                .idle_timeout(None)
                .max_lifetime(None),
            Place::File(_) | Place::Postgres(_) => pool.max_connections(CONNECTIONS),
        };
        let pool = pool.connect_with(options).await?;
        migrations(dialect).run(&pool).await?;
        let db = Self {
            pool,
            dialect,
            writer: Arc::default(),
            news: watch::Sender::new(0),
            changes_kept,
        };
        db.found().await?;
        db.look_for_news().await?;
        Ok(db)
    }

    /// Gives a new store its identity.
    async fn found(&self) -> Result<(), DbError> {
        let mut random = [0; 32];
        rustls::crypto::ring::default_provider()
            .secure_random
            .fill(&mut random)
            .map_err(|_no_details| DbError::Random)?;
        let store_id = hex::encode(random);
        sqlx::query(
            "INSERT INTO head (id, store_id, revision, chain, floor_revision, floor_chain)
             VALUES (1, $1, 0, $2, 0, $2) ON CONFLICT (id) DO NOTHING",
        )
        .bind(store_id.as_str())
        .bind(chain::genesis(&store_id))
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Begins a transaction that sees one consistent state of the store.
    pub(super) async fn read(&self) -> Result<Transaction<'static, Any>, DbError> {
        let begin = match self.dialect {
            Dialect::Sqlite => "BEGIN",
            Dialect::Postgres => "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
        };
        Ok(self.pool.begin_with(begin).await?)
    }

    /// Begins a transaction that will write.
    pub(super) async fn begin_write(&self) -> Result<Transaction<'static, Any>, DbError> {
        let begin = match self.dialect {
            // A transaction that begins with a read could fail at its first write; this one waits for its turn.
            Dialect::Sqlite => "BEGIN IMMEDIATE",
            Dialect::Postgres => "BEGIN",
        };
        Ok(self.pool.begin_with(begin).await?)
    }

    pub(super) async fn head(&self) -> Result<Head, DbError> {
        head_of(&sqlx::query(HEAD).fetch_one(&self.pool).await?)
    }

    /// Checks whether another process wrote, and wakes the requests that wait for changes.
    pub(super) async fn look_for_news(&self) -> Result<(), DbError> {
        let revision = self.head().await?.revision;
        self.news
            .send_if_modified(|known| std::mem::replace(known, revision) != revision);
        Ok(())
    }

    /// One record, if it exists.
    pub(super) async fn fetch(&self, key: &Key) -> Result<Option<Stored>, DbError> {
        let sql = match key {
            Key::Policy { .. } => {
                "SELECT revision, etag, document FROM policies WHERE tenant_id = $1 AND policy_id = $2"
            }
            Key::Extension(_) => "SELECT revision, etag, document FROM extensions WHERE id = $1",
        };
        let row = bind_key(sqlx::query(sql), key).fetch_optional(&self.pool).await?;
        row.map(|row| stored_of(&row, 0)).transpose()
    }

    /// A module's bytes.
    pub(super) async fn module(&self, digest: &ModuleDigest) -> Result<Option<Bytes>, DbError> {
        let row = sqlx::query("SELECT bytes FROM modules WHERE sha256 = $1")
            .bind(digest.as_str())
            .fetch_optional(&self.pool)
            .await?;
        row.map(|row| Ok(row.try_get::<Vec<u8>, _>(0)?.into()))
            .transpose()
    }

    /// A module's size in bytes.
    pub(super) async fn module_size(&self, digest: &ModuleDigest) -> Result<Option<u64>, DbError> {
        let row = sqlx::query("SELECT CAST(length(bytes) AS BIGINT) FROM modules WHERE sha256 = $1")
            .bind(digest.as_str())
            .fetch_optional(&self.pool)
            .await?;
        row.map(|row| number(&row, 0)).transpose()
    }

    /// Stores a module; whether it is new.
    pub(super) async fn put_module(&self, digest: &ModuleDigest, bytes: &[u8]) -> Result<bool, DbError> {
        let _turn = self.writer.lock().await;
        let done = sqlx::query(
            "INSERT INTO modules (sha256, bytes) VALUES ($1, $2) ON CONFLICT (sha256) DO NOTHING",
        )
        .bind(digest.as_str())
        .bind(bytes)
        .execute(&self.pool)
        .await?;
        Ok(done.rows_affected() > 0)
    }

    /// Waits for running statements and closes the files.
    pub(super) async fn close(&self) {
        self.pool.close().await;
    }
}

const HEAD: &str = "SELECT revision, chain, floor_revision, floor_chain FROM head WHERE id = 1";

/// The head as this transaction sees it.
pub(super) async fn head(connection: &mut AnyConnection) -> Result<Head, DbError> {
    head_of(&sqlx::query(HEAD).fetch_one(connection).await?)
}

pub(super) fn head_of(row: &AnyRow) -> Result<Head, DbError> {
    Ok(Head {
        revision: number(row, 0)?,
        chain: row.try_get(1)?,
        floor_revision: number(row, 2)?,
        floor_chain: row.try_get(3)?,
    })
}

pub(super) fn stored_of(row: &AnyRow, first: usize) -> Result<Stored, DbError> {
    Ok(Stored {
        revision: number(row, first)?,
        etag: tag(row.try_get(first + 1)?)?,
        document: row.try_get::<Vec<u8>, _>(first + 2)?.into(),
    })
}

pub(super) fn tag(text: &str) -> Result<ETag, DbError> {
    ETag::parse(text).ok_or(DbError::Damaged("an entity tag"))
}

/// A column that counts something.
pub(super) fn number(row: &AnyRow, column: usize) -> Result<u64, DbError> {
    u64::try_from(row.try_get::<i64, _>(column)?).map_err(|_negative| DbError::Damaged("a negative number"))
}

/// A number for a column; one too large for any column counts as the largest.
pub(super) fn bigint(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Binds the ids of the key, with which every statement on its table begins.
pub(super) fn bind_key(query: Query, key: &Key) -> Query {
    match key {
        Key::Policy { tenant, policy } => query
            .bind(tenant.as_str().to_owned())
            .bind(policy.as_str().to_owned()),
        Key::Extension(id) => query.bind(id.as_str().to_owned()),
    }
}

async fn set_up(connection: &mut AnyConnection, dialect: Dialect) -> Result<(), sqlx::Error> {
    let sql = match dialect {
        // With synchronous=FULL a commit has reached the disk before it is acknowledged.
        Dialect::Sqlite => {
            "PRAGMA busy_timeout = 5000;
             PRAGMA journal_mode = WAL;
             PRAGMA synchronous = FULL;
             PRAGMA foreign_keys = ON;
             PRAGMA journal_size_limit = 67108864;"
        }
        Dialect::Postgres => {
            "SET lock_timeout = '5s'; SET synchronous_commit = 'on'; SET client_encoding = 'UTF8';"
        }
    };
    sqlx::raw_sql(sql).execute(connection).await?;
    Ok(())
}

/// The numbered migrations. Each runs once, in a transaction together with the note that it ran.
fn migrations(dialect: Dialect) -> Migrator {
    let first = match dialect {
        Dialect::Sqlite => include_str!("migrations/sqlite/0001_store.sql"),
        Dialect::Postgres => include_str!("migrations/postgres/0001_store.sql"),
    };
    Migrator::with_migrations(vec![Migration::new(
        1,
        "store".into(),
        MigrationType::Simple,
        first.into_sql_str(),
        false,
    )])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_told_apart_and_any_file_name_survives_the_url() {
        assert_eq!(Place::parse(":memory:"), Place::Memory);
        let secret = Place::parse("postgres://me:secret@host/db");
        assert!(matches!(secret, Place::Postgres(_)));
        assert_eq!(secret.to_string(), "Postgres");
        assert_eq!(
            Place::parse("/a b/c?d#é.db").url().unwrap(),
            "sqlite:///a%20b/c%3Fd%23%C3%A9.db?mode=rwc"
        );
    }
}
