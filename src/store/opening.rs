//! Opening a database: the first connection, how each is set up, and the tables.

use std::time::Duration;

use sqlx::{
    AnyConnection, AnyPool, Connection, SqlSafeStr,
    any::AnyConnectOptions,
    migrate::{Migration, MigrationType, Migrator},
};
use tokio::time::{Instant, timeout_at};

use super::{chain, error::DbError, place::Dialect};

/// Connects and sets up, with patience for a database that is about to come up.
pub(super) async fn connect(
    options: &AnyConnectOptions,
    dialect: Dialect,
    deadline: Instant,
) -> Result<AnyConnection, DbError> {
    loop {
        let connecting = async {
            let mut connection = AnyConnection::connect_with(options).await?;
            set_up(&mut connection, dialect).await?;
            Ok::<_, sqlx::Error>(connection)
        };
        let error = match timeout_at(deadline, connecting).await {
            Ok(Ok(connection)) => return Ok(connection),
            Ok(Err(error)) => DbError::from(error),
            Err(_elapsed) => return Err(DbError::Busy),
        };
        pause_or(error, deadline).await?;
    }
}

/// A pause before the next attempt, unless there is no use or no time for one.
async fn pause_or(error: DbError, deadline: Instant) -> Result<(), DbError> {
    const PAUSE: Duration = Duration::from_millis(100);
    if !error.is_passing() || Instant::now() + PAUSE >= deadline {
        return Err(error);
    }
    // Several stores that start together must not try again together.
    tokio::time::sleep(PAUSE.mul_f64(0.5 + fastrand::f64())).await;
    Ok(())
}

pub(super) async fn set_up(connection: &mut AnyConnection, dialect: Dialect) -> Result<(), sqlx::Error> {
    let sql = match dialect {
        // With synchronous=FULL a commit has reached the disk before it is acknowledged.
        Dialect::Sqlite => {
            "PRAGMA busy_timeout = 5000;
             PRAGMA journal_mode = WAL;
             PRAGMA synchronous = FULL;
             PRAGMA foreign_keys = ON;
             PRAGMA journal_size_limit = 67108864;"
        }
        // The server ends what a store that was stopped, or cut off, would hold for ever.
        Dialect::Postgres => {
            "SET lock_timeout = '5s'; SET statement_timeout = '60s';
             SET idle_in_transaction_session_timeout = '60s';
             SET tcp_keepalives_idle = 10; SET tcp_keepalives_interval = 3; SET tcp_keepalives_count = 3;
             SET tcp_user_timeout = '20s';
             SET synchronous_commit = 'on'; SET client_encoding = 'UTF8';"
        }
    };
    sqlx::raw_sql(sql).execute(connection).await?;
    Ok(())
}

/// Brings the tables up to date and, in a new store, founds it. Several stores may do so at the same time.
pub(super) async fn migrate(pool: &AnyPool, dialect: Dialect, deadline: Instant) -> Result<(), DbError> {
    loop {
        let mut connection = pool.acquire().await?;
        let migrated = async {
            match dialect {
                // SQLite has no lock for this but that of a transaction, within which each migration is a savepoint.
                Dialect::Sqlite => {
                    let mut tx = connection.begin_with("BEGIN IMMEDIATE").await?;
                    migrations(dialect).run_direct(None, &mut *tx, false).await?;
                    found(&mut tx).await?;
                    tx.commit().await?;
                }
                Dialect::Postgres => {
                    migrations(dialect)
                        .run_direct(None, &mut *connection, false)
                        .await?;
                    found(&mut connection).await?;
                }
            }
            Ok::<_, DbError>(())
        };
        match migrated.await {
            Ok(()) => return Ok(()),
            Err(error) => {
                // With whatever lock it may have.
                connection.close_on_drop();
                drop(connection);
                pause_or(error, deadline).await?;
            }
        }
    }
}

/// Gives a new store its identity. One that has it is not waited for, where another process writes to it just now and may
/// have been stopped there.
async fn found(connection: &mut AnyConnection) -> Result<(), DbError> {
    let mut random = [0; 32];
    rustls::crypto::ring::default_provider()
        .secure_random
        .fill(&mut random)
        .map_err(|_no_details| DbError::Random)?;
    let store_id = hex::encode(random);
    sqlx::query(
        "INSERT INTO head (id, store_id, revision, chain, floor_revision, floor_chain)
         SELECT 1, $1, 0, $2, 0, $2 WHERE NOT EXISTS (SELECT 1 FROM head WHERE id = 1)
         ON CONFLICT (id) DO NOTHING",
    )
    .bind(store_id.as_str())
    .bind(chain::genesis(&store_id))
    .execute(connection)
    .await?;
    Ok(())
}

/// The numbered migrations. Each runs once, in a transaction together with the note that it ran.
fn migrations(dialect: Dialect) -> Migrator {
    let all = match dialect {
        Dialect::Sqlite => [
            ("store", include_str!("migrations/sqlite/0001_store.sql")),
            (
                "unnamed modules",
                include_str!("migrations/sqlite/0002_unnamed_modules.sql"),
            ),
        ],
        Dialect::Postgres => [
            ("store", include_str!("migrations/postgres/0001_store.sql")),
            (
                "unnamed modules",
                include_str!("migrations/postgres/0002_unnamed_modules.sql"),
            ),
        ],
    };
    let migration = |(version, (name, sql)): (i64, (&'static str, &'static str))| {
        Migration::new(
            version,
            name.into(),
            MigrationType::Simple,
            sql.into_sql_str(),
            false,
        )
    };
    Migrator::with_migrations((1..).zip(all).map(migration).collect())
}
