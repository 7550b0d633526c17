//! Databases of a test's own: SQLite, and PostgreSQL where there is a server.

use std::sync::atomic::{AtomicU32, Ordering};

use beamline_sidecar::store::StoreConfig;
use sqlx::{AnyConnection, AssertSqlSafe, Connection, Row};
use tempfile::TempDir;

use super::running::{Running, config};

/// A database of a test's own.
pub(crate) struct Scratch {
    pub(super) database: String,
    pub(super) folder: TempDir,
    /// The URL of the server, for a database that must be dropped.
    server: Option<String>,
}

#[expect(
    clippy::disallowed_methods,
    reason = "whether there is a Postgres is a matter of the machine that runs the tests"
)]
pub(crate) fn postgres() -> Option<String> {
    std::env::var("BEAMLINE_TEST_POSTGRES").ok()
}

pub(super) async fn on_server(server: &str, sql: String) {
    sqlx::any::install_default_drivers();
    let mut connection = AnyConnection::connect(server).await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(sql))
        .execute(&mut connection)
        .await
        .unwrap();
    connection.close().await.unwrap();
}

/// The number that the server answers.
pub(super) async fn ask(server: &str, sql: String) -> i64 {
    sqlx::any::install_default_drivers();
    let mut connection = AnyConnection::connect(server).await.unwrap();
    let row = sqlx::query(AssertSqlSafe(sql))
        .fetch_one(&mut connection)
        .await
        .unwrap();
    connection.close().await.unwrap();
    row.get(0)
}

pub(super) fn fresh_name() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("beamline_test_{}_{number}", std::process::id())
}

/// The server's URL with another database.
pub(super) fn with_database(server: &str, name: &str) -> String {
    let (address, parameters) = server.split_once('?').unwrap_or((server, ""));
    let (address, _) = address.rsplit_once('/').unwrap();
    format!("{address}/{name}?{parameters}")
}

impl Scratch {
    pub(super) fn sqlite() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("a store.db").to_str().unwrap().to_owned();
        Self {
            database,
            folder,
            server: None,
        }
    }

    pub(crate) async fn postgres(server: String, template: &str) -> Self {
        let name = fresh_name();
        on_server(
            &server,
            format!("CREATE DATABASE {name} TEMPLATE {template} ENCODING 'UTF8'"),
        )
        .await;
        Self {
            database: with_database(&server, &name),
            folder: tempfile::tempdir().unwrap(),
            server: Some(server),
        }
    }

    pub(super) fn name(&self) -> &str {
        let (address, _) = self.database.split_once('?').unwrap_or((&self.database, ""));
        address.rsplit_once('/').unwrap().1
    }

    /// A backup, taken while no store runs.
    pub(super) async fn copy(&self) -> Self {
        match &self.server {
            Some(server) => Self::postgres(server.clone(), self.name()).await,
            None => {
                let copy = Self::sqlite();
                std::fs::copy(&self.database, &copy.database).unwrap();
                copy
            }
        }
    }

    /// A connection that has the lock of all writers, until it is closed.
    pub(super) async fn lock(&self) -> AnyConnection {
        sqlx::any::install_default_drivers();
        let (url, sql) = match self.server {
            Some(_) => (
                self.database.clone(),
                "BEGIN; UPDATE head SET revision = revision",
            ),
            None => (
                format!("sqlite://{}", self.database.replace(' ', "%20")),
                "BEGIN IMMEDIATE",
            ),
        };
        let mut connection = AnyConnection::connect(&url).await.unwrap();
        sqlx::raw_sql(sql).execute(&mut connection).await.unwrap();
        connection
    }

    /// Makes the server refuse writes, as one that was the primary before a failover, or take them again. Either way all
    /// connections end.
    pub(crate) async fn become_read_only(&self, is_read_only: bool) {
        let (to, name) = (if is_read_only { "on" } else { "off" }, self.name());
        let sql = format!(
            "ALTER DATABASE {name} SET default_transaction_read_only = {to};
             SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"
        );
        on_server(self.server.as_ref().unwrap(), sql).await;
    }

    pub(crate) async fn remove(self) {
        if let Some(server) = &self.server {
            let sql = format!("DROP DATABASE {} WITH (FORCE)", self.name());
            on_server(server, sql).await;
        }
    }

    pub(super) async fn start(&self) -> Running {
        self.start_with(|_| {}).await
    }

    pub(super) async fn start_with(&self, adjust: impl FnOnce(&mut StoreConfig)) -> Running {
        let mut config = StoreConfig {
            database: self.database.clone(),
            ..config()
        };
        adjust(&mut config);
        Running::start(config).await
    }
}

/// Runs the test on SQLite, and on Postgres if there is one.
pub(super) async fn everywhere(test: impl AsyncFn(&Scratch)) {
    let scratch = Scratch::sqlite();
    test(&scratch).await;
    if let Some(server) = postgres() {
        let scratch = Scratch::postgres(server, "template0").await;
        test(&scratch).await;
        scratch.remove().await;
    }
}
