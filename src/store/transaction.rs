//! Transactions, each in a task of its own: once begun it runs to its end, whether its caller waits for it or has gone.
//!
//! A future of the database that is dropped half-way leaves its connection in an unknown state: `BEGIN` may be on its way
//! to a server, which then has a transaction of which the pool knows nothing, and the next request on the connection
//! reads the past. So no request awaits the database itself. One that is given up before its turn has come begins nothing.

use std::{sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use sqlx::AnyConnection;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::{
    db::{Db, Role},
    error::{CallError, DbError},
    rows,
    write::Write,
};

/// What is done within a transaction.
pub(super) type Work<'c, T> = BoxFuture<'c, Result<T, CallError>>;

impl Db {
    /// Reads one consistent state of the store.
    pub(super) async fn read<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl for<'c> FnOnce(&'c mut AnyConnection) -> Work<'c, T> + Send + 'static,
    ) -> Result<T, CallError> {
        self.read_as(Role::Reader, work).await
    }

    /// Reads with one statement.
    pub(super) async fn ask<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl for<'c> FnOnce(&'c mut AnyConnection) -> Work<'c, T> + Send + 'static,
    ) -> Result<T, CallError> {
        self.read_as(Role::Asker, work).await
    }

    /// Reads with one statement for health, or to look for writes of other processes: not in one queue with the readers.
    pub(super) async fn watch<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl for<'c> FnOnce(&'c mut AnyConnection) -> Work<'c, T> + Send + 'static,
    ) -> Result<T, CallError> {
        self.read_as(Role::Watcher, work).await
    }

    async fn read_as<T: Send + 'static>(
        self: &Arc<Self>,
        role: Role,
        work: impl for<'c> FnOnce(&'c mut AnyConnection) -> Work<'c, T> + Send + 'static,
    ) -> Result<T, CallError> {
        let turn = self.turn(role).await?;
        let limit = self.limit(&turn);
        let (db, caller_left) = (self.clone(), CancellationToken::new());
        let _caller = caller_left.clone().drop_guard();
        self.to_the_end(limit, async move {
            let mut session = db.begin(&turn).await?;
            if caller_left.is_cancelled() {
                session.rollback().await;
                return Err(DbError::GivenUp.into());
            }
            match work(session.connection()).await {
                Err(CallError::Db(error)) => {
                    db.storage.note_damage(&error);
                    Err(session.failed(error).await.into())
                }
                done => {
                    session.rollback().await;
                    done
                }
            }
        })
        .await
    }

    /// Writes. What `work` did has effect, and is on disk before this returns, if it returns `Ok`.
    pub(super) async fn write<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl for<'w> FnOnce(&'w mut Write) -> Work<'w, T> + Send + 'static,
    ) -> Result<T, CallError> {
        self.storage.check_file()?;
        let turn = self.turn(Role::Writer).await?;
        let limit = self.limit(&turn);
        let (db, caller_left) = (self.clone(), CancellationToken::new());
        let _caller = caller_left.clone().drop_guard();
        let written = self.to_the_end(limit, async move {
            let mut write = Write::begin(&db, &turn).await?;
            // From here on other writers come after this write. A caller that has gone may have sent a newer one elsewhere,
            // which this one must not overtake.
            if caller_left.is_cancelled() {
                write.abandon().await;
                return Err(DbError::GivenUp.into());
            }
            match work(&mut write).await {
                Ok(done) => {
                    if write.commit().await? {
                        db.storage.check_file()?;
                        db.storage.note(None);
                    }
                    Ok(done)
                }
                Err(CallError::Db(error)) => Err(write.failed(error).await.into()),
                Err(refused) => {
                    write.abandon().await;
                    Err(refused)
                }
            }
        });
        self.looked_at(written.await)
    }

    /// Writes what is no record and has no revision.
    pub(super) async fn upload<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl for<'c> FnOnce(&'c mut AnyConnection) -> Work<'c, T> + Send + 'static,
    ) -> Result<T, CallError> {
        self.storage.check_file()?;
        let turn = self.turn(Role::Uploader).await?;
        let limit = self.limit(&turn);
        let db = self.clone();
        let written = self.to_the_end(limit, async move {
            let mut session = db.begin(&turn).await?;
            match work(session.connection()).await {
                Ok(done) => {
                    session.commit().await?;
                    db.storage.check_file()?;
                    db.storage.note(None);
                    Ok(done)
                }
                Err(CallError::Db(error)) => Err(session.failed(error).await.into()),
                Err(refused) => {
                    session.rollback().await;
                    Err(refused)
                }
            }
        });
        self.looked_at(written.await)
    }

    /// What a write came to, with what that says of the disk noted.
    fn looked_at<T>(&self, written: Result<T, CallError>) -> Result<T, CallError> {
        if let Err(CallError::Db(error)) = &written {
            self.storage.note_damage(error);
            if let Some(trouble) = error.trouble() {
                self.storage.note(Some(trouble));
            } else if error.is_passing() {
                // A connection to a file that was taken away finds it locked, and waits in vain.
                self.storage.check_file()?;
            }
        }
        written
    }

    /// Checks whether another process wrote, and wakes the requests that wait for changes.
    pub(super) async fn look_for_news(self: &Arc<Self>) -> Result<(), CallError> {
        let head = self.watch(|connection| Box::pin(async { Ok(rows::head(connection).await?) }));
        let revision = head.await?.revision;
        self.announce(revision);
        Ok(())
    }

    /// Whether the disk takes writes again, where it did not.
    pub(super) async fn try_disk(self: &Arc<Self>) {
        // Its result is noted as that of any write.
        let _noted = self.write(|write| Box::pin(write.try_disk())).await;
    }

    async fn to_the_end<T: Send + 'static>(
        &self,
        limit: Option<Duration>,
        work: impl Future<Output = Result<T, CallError>> + Send + 'static,
    ) -> Result<T, CallError> {
        let bounded = async move {
            match limit {
                None => work.await,
                // The connection is closed with the transaction that is dropped.
                Some(limit) => timeout(limit, work)
                    .await
                    .unwrap_or_else(|_elapsed| Err(DbError::TooSlow.into())),
            }
        };
        self.tasks.spawn(bounded).await.map_err(DbError::from)?
    }
}
