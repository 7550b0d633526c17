//! The database: one SQLite file, memory, or a Postgres that several stores may share; who may use it when, and for how
//! long.

use std::{sync::Arc, time::Duration};

use sqlx::{
    Any, AnyConnection, AnyPool, AssertSqlSafe, ConnectOptions, Connection,
    any::{AnyConnectOptions, AnyPoolOptions},
    pool::PoolConnection,
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::{Instant, timeout_at},
};
use tokio_util::task::TaskTracker;

use super::{
    error::DbError,
    opening::{connect, migrate, set_up},
    place::{Dialect, Place},
    storage::{DatabaseFile, Storage},
};

/// Transactions that read at one time. In SQLite's WAL mode they run beside each other and beside the one writer.
const READERS: usize = 6;
/// One for the writer, and one for health and for the look at other processes' writes, which must not wait behind lists.
const OTHERS: usize = 2;
/// How long a request waits in all: for its turn, for a connection, and for the locks of other processes.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
/// How long a start waits for a database that comes up, or for other stores that start at the same time.
const START: Duration = Duration::from_secs(10);
/// How long a transaction may take on a server. One that takes longer is on a connection that leads nowhere: the server
/// itself ends statements earlier.
const LONG_LIMIT: Duration = Duration::from_secs(120);
const WRITE_LIMIT: Duration = Duration::from_secs(10);

/// An open, migrated database.
#[derive(Debug)]
pub(super) struct Db {
    pool: AnyPool,
    dialect: Dialect,
    /// The places of those that read, of the one that writes, and of the watch. Requests of this process queue for them in
    /// order, instead of polling for the database's own locks, and one that is given up while it waits has begun nothing.
    readers: Arc<Semaphore>,
    writer: Arc<Semaphore>,
    watcher: Arc<Semaphore>,
    /// Whether the only connection is the database itself.
    is_memory: bool,
    /// The transactions that run.
    pub(super) tasks: TaskTracker,
    /// The newest revision that this process has seen; a signal to look again, not the truth.
    pub(super) news: watch::Sender<u64>,
    /// Whether writes reach the disk.
    pub(super) storage: Storage,
    /// How many changes are kept.
    pub(super) changes_kept: u64,
}

/// Who wants to use the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Several statements that see one state.
    Reader,
    /// One statement, which needs no transaction.
    Asker,
    /// Has the lock of all writers.
    Writer,
    /// Stores a module, which has no revision. That may take long over a slow line, and is in the way of no other where
    /// several can write at a time.
    Uploader,
    /// Health, and the look at other processes' writes.
    Watcher,
}

/// A place among those that may use the database now. Nothing has begun yet.
#[derive(Debug)]
pub(super) struct Turn {
    role: Role,
    deadline: Instant,
    _permit: OwnedSemaphorePermit,
}

/// A connection, mostly with a transaction on it. It goes back to the pool only if the transaction was ended properly; dropped
/// before that, or after something failed on it, it is closed, and the transaction with it.
#[derive(Debug)]
pub(super) struct Session {
    connection: PoolConnection<Any>,
    is_memory: bool,
    has_transaction: bool,
    is_over: bool,
}

impl Db {
    /// Connects, migrates the tables and, for a new store, begins its chain.
    pub(super) async fn open(place: &Place, changes_kept: u64) -> Result<Self, DbError> {
        sqlx::any::install_default_drivers();
        let dialect = place.dialect();
        let options = place
            .url()?
            .parse::<AnyConnectOptions>()?
            .disable_statement_logging();
        let deadline = Instant::now() + START;
        // The pool would say no more than that it waited in vain.
        let first = match place {
            Place::Memory => None,
            Place::File(_) | Place::Postgres(_) => Some(connect(&options, dialect, deadline).await?),
        };
        let pool = AnyPoolOptions::new()
            .acquire_timeout(PATIENCE)
            // A file is always there; a server may go away, and then the pool connects again.
            .test_before_acquire(dialect == Dialect::Postgres)
            .after_connect(move |connection, _| Box::pin(set_up(connection, dialect)));
        let pool = match place {
            // Each connection to memory is a separate database, which is lost when the connection closes.
            Place::Memory => pool
                .max_connections(1)
                .min_connections(1)
                .idle_timeout(None)
                .max_lifetime(None),
            // All stay open: to open the first of all again takes space on the disk, which may be full, and one that is
            // opened after the file was taken away is to another.
            Place::File(_) => pool
                .max_connections(u32::try_from(READERS + OTHERS).unwrap_or(u32::MAX))
                .min_connections(u32::try_from(READERS + OTHERS).unwrap_or(u32::MAX))
                .idle_timeout(None)
                .max_lifetime(None),
            Place::Postgres(_) => pool.max_connections(u32::try_from(READERS + OTHERS).unwrap_or(u32::MAX)),
        };
        let pool = pool.connect_with(options).await?;
        migrate(&pool, dialect, deadline).await?;
        if matches!(place, Place::File(_)) {
            let mut all = Vec::with_capacity(READERS + OTHERS);
            while all.len() < READERS + OTHERS {
                all.push(pool.acquire().await?);
            }
        }
        if let Some(first) = first {
            // Closed only now, so that a file's log is never without a connection.
            first.close().await?;
        }
        let writer = Arc::new(Semaphore::new(1));
        let (readers, watcher) = match place {
            Place::Memory => (writer.clone(), writer.clone()),
            Place::File(_) | Place::Postgres(_) => {
                (Arc::new(Semaphore::new(READERS)), Arc::new(Semaphore::new(1)))
            }
        };
        let file = match place {
            Place::File(path) => Some(DatabaseFile::of(path)?),
            Place::Memory | Place::Postgres(_) => None,
        };
        Ok(Self {
            pool,
            dialect,
            readers,
            writer,
            watcher,
            is_memory: *place == Place::Memory,
            tasks: TaskTracker::new(),
            news: watch::Sender::new(0),
            storage: Storage::new(file),
            changes_kept,
        })
    }

    /// Waits for a place. A caller that gives up here has begun nothing.
    pub(super) async fn turn(&self, role: Role) -> Result<Turn, DbError> {
        let deadline = Instant::now() + PATIENCE;
        let places = match role {
            Role::Reader | Role::Asker => &self.readers,
            Role::Uploader if self.dialect == Dialect::Postgres => &self.readers,
            Role::Writer | Role::Uploader => &self.writer,
            Role::Watcher => &self.watcher,
        };
        let permit = timeout_at(deadline, places.clone().acquire_owned()).await;
        Ok(Turn {
            role,
            deadline,
            // Closed, were it ever, it would be as good as taken for good.
            _permit: permit
                .map_err(|_elapsed| DbError::Busy)?
                .map_err(|_closed| DbError::Busy)?,
        })
    }

    /// Begins what the role needs.
    pub(super) async fn begin(&self, turn: &Turn) -> Result<Session, DbError> {
        let connection = timeout_at(turn.deadline, self.pool.acquire())
            .await
            .map_err(|_elapsed| DbError::Busy)??;
        let mut session = Session {
            connection,
            is_memory: self.is_memory,
            has_transaction: true,
            is_over: false,
        };
        let left = turn.deadline.saturating_duration_since(Instant::now());
        let left = left.max(Duration::from_millis(1)).as_millis();
        let begin = match (self.dialect, turn.role) {
            // A transaction that begins with a read could fail at its first write; this one waits for its turn.
            (Dialect::Sqlite, Role::Writer | Role::Uploader) => {
                format!("PRAGMA busy_timeout = {left}; BEGIN IMMEDIATE")
            }
            (Dialect::Sqlite, Role::Reader) => format!("PRAGMA busy_timeout = {left}; BEGIN"),
            (Dialect::Sqlite, Role::Asker | Role::Watcher) => {
                session.has_transaction = false;
                format!("PRAGMA busy_timeout = {left}")
            }
            // A store that stops in the middle holds the lock of all others: the server takes it away.
            (Dialect::Postgres, Role::Writer) => format!(
                "BEGIN; SET LOCAL lock_timeout = {left}; SET LOCAL statement_timeout = 5000; \
                 SET LOCAL idle_in_transaction_session_timeout = 5000"
            ),
            (Dialect::Postgres, Role::Uploader) => "BEGIN".to_owned(),
            (Dialect::Postgres, Role::Reader) => "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY".to_owned(),
            (Dialect::Postgres, Role::Asker | Role::Watcher) => {
                session.has_transaction = false;
                return Ok(session);
            }
        };
        let begun = sqlx::raw_sql(AssertSqlSafe(begin))
            .execute(session.connection())
            .await;
        match begun {
            Ok(_) => Ok(session),
            Err(error) => Err(session.failed(error.into()).await),
        }
    }

    /// How long the transaction may take: on a server for ever would be possible, on a disk there is nothing to gain from
    /// giving up.
    pub(super) fn limit(&self, turn: &Turn) -> Option<Duration> {
        match (self.dialect, turn.role) {
            (Dialect::Sqlite, _) => None,
            (Dialect::Postgres, Role::Writer) => Some(WRITE_LIMIT),
            (Dialect::Postgres, Role::Reader | Role::Asker | Role::Uploader) => Some(LONG_LIMIT),
            (Dialect::Postgres, Role::Watcher) => Some(PATIENCE),
        }
    }

    /// Wakes the requests that wait for changes, if this revision is another than the one before.
    pub(super) fn announce(&self, revision: u64) {
        self.news
            .send_if_modified(|known| std::mem::replace(known, revision) != revision);
    }

    /// What writes something of no consequence, to see whether the disk takes it.
    pub(super) fn trial(&self) -> &'static str {
        match self.dialect {
            // The row is the same and would not be written; a number that nothing else uses is.
            Dialect::Sqlite => "PRAGMA user_version = 1; PRAGMA user_version = 0",
            Dialect::Postgres => "UPDATE head SET revision = revision WHERE id = 1",
        }
    }

    /// Waits for the transactions that run, and closes the files.
    pub(super) async fn close(&self) {
        self.tasks.close();
        self.tasks.wait().await;
        self.pool.close().await;
    }
}

impl Session {
    pub(super) fn connection(&mut self) -> &mut AnyConnection {
        &mut self.connection
    }

    /// Makes what was written durable.
    pub(super) async fn commit(mut self) -> Result<(), DbError> {
        match sqlx::raw_sql("COMMIT").execute(self.connection()).await {
            Ok(_) => {
                self.is_over = true;
                Ok(())
            }
            Err(error) => Err(self.failed(error.into()).await),
        }
    }

    /// Ends the transaction without effect.
    pub(super) async fn rollback(mut self) {
        if !self.has_transaction {
            self.is_over = true;
            return;
        }
        self.is_over = sqlx::raw_sql("ROLLBACK").execute(self.connection()).await.is_ok();
    }

    /// Ends the transaction after an error. A database may have ended it by itself, as SQLite does when the disk is full;
    /// what is certain then is only that the connection is not to be used again.
    pub(super) async fn failed(self, error: DbError) -> DbError {
        if self.is_memory || error.spares_the_connection() {
            self.rollback().await;
        }
        error
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // The connection to memory is the database.
        if !self.is_over && !self.is_memory {
            self.connection.close_on_drop();
        }
    }
}
