//! One refresh, by the best calls that HEIR has: changes, snapshot, lists, single policies.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use http::header;
use tokio::sync::mpsc;

use super::{
    detected::{Committed, Detected, Pass},
    outcome::{Outcome, RefreshError},
    problem::log_problem,
    refresher::Refresher,
    stream,
};
use crate::{
    heir::{Fetched, HeirCall, HeirError, Level},
    snapshot::{Coverage, Guarded, Incoming, Withheld},
};

/// Most bytes of one answer with changes.
const CHANGES_BYTES: u64 = 64 << 20;

/// A snapshot that comes in more slowly than this, after the time that any request has, is given up.
const SLOWEST_BYTES_PER_SECOND: u64 = 4 << 10;

impl Refresher {
    /// One whole refresh that does not wait for anything to happen.
    pub(super) async fn pass(&self, detected: &mut Detected, pass: Pass) -> Result<Outcome, RefreshError> {
        let began = Instant::now();
        let result = self.pass_by_level(detected, pass).await;
        match &result {
            Ok(_) => detected.last_began = Some(began),
            Err(error) if error.is_away() => detected.forget_level(),
            Err(_) => {}
        }
        result
    }

    async fn pass_by_level(&self, detected: &mut Detected, pass: Pass) -> Result<Outcome, RefreshError> {
        self.note_partial(None);
        if matches!(detected.level, None | Some(Level::Changes | Level::Snapshot)) {
            if let Some(result) = self.pass_changes(detected, pass).await {
                return result;
            }
            match self.pass_snapshot(detected, pass).await {
                Err(RefreshError::Heir(error)) if error.is_unsupported() => detected.forget_level(),
                result => return result,
            }
        }
        if matches!(detected.level, None | Some(Level::List)) {
            match self.pass_lists(detected, pass).await {
                Err(RefreshError::Heir(error)) if error.is_unsupported() => {}
                result => return result,
            }
        }
        self.set_level(detected, Level::Single);
        self.pass_single(pass).await
    }

    /// Continues from the position in memory. `None`: there is none, or HEIR cannot, or everything must be taken.
    async fn pass_changes(
        &self,
        detected: &mut Detected,
        pass: Pass,
    ) -> Option<Result<Outcome, RefreshError>> {
        let covered = {
            let snapshot = self.store.load();
            snapshot.coverage() == Coverage::Whole && snapshot.position().revision.is_some()
        };
        if !covered || detected.changes_refused {
            return None;
        }
        let mut outcome = Outcome::Unchanged;
        loop {
            match self.ask_for_changes(Duration::ZERO, pass).await {
                Ok(Outcome::Changed) => outcome = Outcome::Changed,
                Ok(Outcome::Unchanged) => {
                    self.set_level(detected, Level::Changes);
                    return Some(Ok(outcome));
                }
                // Another refresh applied the same changes; see what is left.
                Err(RefreshError::Withheld(Withheld::Outdated)) => {}
                Err(error) if error.is_away() => return Some(Err(error)),
                Err(error) => {
                    detected.note_gap(&error);
                    return None;
                }
            }
        }
    }

    /// Asks once for what came after the position in memory, letting HEIR wait for it.
    pub(super) async fn ask_for_changes(&self, wait: Duration, pass: Pass) -> Result<Outcome, RefreshError> {
        let start = self.store.fetch_start();
        let base = self.store.load_full();
        let position = base.position().clone();
        let Some(since) = position.revision else {
            return Err(Withheld::Outdated.into());
        };
        let mut path = format!("/api/v1/changes?since={since}&wait_ms={}", wait.as_millis());
        if let Some(chain) = &position.chain {
            path.push_str("&chain=");
            path.push_str(chain);
        }
        let timeout = self.client.timeout() + wait;
        let asked = Instant::now();
        let mut news = self.client.availability().news();
        let fetched = self.client.fetch_once(
            HeirCall::Changes,
            pass.admission,
            &path,
            None,
            CHANGES_BYTES,
            timeout,
        );
        let fetched = tokio::select! {
            biased;
            fetched = fetched => fetched,
            // The HEIR that lets this wait may be another one, or have forgotten that anything waits.
            _ = news.changed(), if !wait.is_zero() => return Ok(Outcome::Unchanged),
        };
        let body = match fetched {
            Ok(Fetched::Changed { body, .. }) => body,
            Ok(Fetched::NotModified) => return Ok(Outcome::Unchanged),
            Err(error) => return Err(error.into()),
        };
        let began = Instant::now();
        // HEIR speaks of the moment at which it answered, and without a wait that is no later than when it was asked.
        let as_of = if wait.is_zero() { asked } else { began };
        let changes = stream::parse_changes(&body, &position, &base, self.policy_bytes)?;
        if changes.operations.is_empty()
            && changes.problems.is_empty()
            && changes.to.revision == position.revision
        {
            if let (Some(ours), Some(theirs)) = (&position.chain, &changes.to.chain)
                && ours != theirs
            {
                return Err(Withheld::OtherHistory.into());
            }
            if self.store.has_writes_beyond(start, &position) {
                return Err(Withheld::OtherHistory.into());
            }
            drop(base);
            self.store.confirm(Coverage::Whole, as_of, &[]);
            return Ok(Outcome::Unchanged);
        }
        for (key, problems) in &changes.problems {
            log_problem(key, problems);
        }
        let guarded = Guarded {
            confirmed: pass.confirm,
            ..self.config.load().guarded()
        };
        let store = self.store.clone();
        // A change of one policy is made in microseconds, but extensions may be asked about their configurations.
        let applied = tokio::task::spawn_blocking(move || store.apply_changes(changes, guarded)).await;
        let activation = applied
            .map_err(|error| HeirError::Invalid(format!("the changes could not be applied: {error}")))??;
        self.store.freshness().confirm(as_of, &[]);
        self.note_activation(began, activation);
        Ok(Outcome::Changed)
    }

    async fn pass_snapshot(&self, detected: &mut Detected, pass: Pass) -> Result<Outcome, RefreshError> {
        let asked = Instant::now();
        let start = self.store.fetch_start();
        let base = self.store.load_full();
        let committed = detected.committed.as_ref();
        let unmodified = committed.filter(|c| c.position == *base.position() && c.writes == start);
        let known = unmodified.map(|committed| committed.etag.clone());
        let opened = self
            .client
            .open(
                HeirCall::Snapshot,
                pass.admission,
                "/api/v1/snapshot",
                known.as_ref(),
                self.client.timeout(),
            )
            .await?;
        let Some(response) = opened else {
            self.set_level(
                detected,
                if detected.changes_refused {
                    Level::Snapshot
                } else {
                    Level::Changes
                },
            );
            self.store.confirm(Coverage::Whole, asked, &[]);
            return Ok(Outcome::Unchanged);
        };
        let began = Instant::now();
        let etag = response.headers().get(header::ETAG).cloned();
        let incoming = self.read_snapshot(response.into_body(), base.clone()).await?;
        let position = incoming.position.clone();
        for (key, problems) in &incoming.problems {
            if base.problems().get(key) != Some(problems) {
                log_problem(key, problems);
            }
        }
        let guarded = Guarded {
            confirmed: pass.confirm,
            ..self.config.load().guarded()
        };
        let other_history = incoming.position.chain.is_some()
            && incoming.position.revision == base.position().revision
            && incoming.position.chain != base.position().chain;
        let activation = self.activate(start, incoming, guarded).await?;
        // Committed only now: a tag of something that was not activated would turn a retry into "not modified".
        detected.committed = etag.map(|etag| Committed {
            etag,
            position,
            writes: start,
        });
        self.store.freshness().confirm(asked, &[]);
        self.note_activation(began, activation);
        if activation.went_back || other_history || detected.history_broke {
            self.report_restored(base).await;
        }
        detected.history_broke = false;
        self.set_level(
            detected,
            if detected.changes_refused {
                Level::Snapshot
            } else {
                Level::Changes
            },
        );
        Ok(Outcome::Changed)
    }

    /// Reads and checks a snapshot stream; the checking is done on a thread of its own.
    async fn read_snapshot(
        &self,
        mut body: crate::heir::HeirBody,
        base: Arc<crate::snapshot::Snapshot>,
    ) -> Result<Incoming, HeirError> {
        let (pieces, parsing) = mpsc::channel(4);
        let policy_bytes = self.policy_bytes;
        let parsed =
            tokio::task::spawn_blocking(move || stream::parse_snapshot(parsing, &base, policy_bytes));
        let (mut total, began) = (0u64, Instant::now());
        let mut read = Ok(());
        loop {
            match self.client.next_chunk(HeirCall::Snapshot, &mut body).await {
                Ok(Some(piece)) => {
                    total += piece.len() as u64;
                    if total > self.max_answer_bytes {
                        read = Err(HeirError::TooLarge {
                            limit: self.max_answer_bytes,
                        });
                        break;
                    }
                    // A HEIR that sends drop by drop would hold up every refresh for as long as it likes.
                    let late = began.elapsed().saturating_sub(self.client.timeout());
                    if total < late.as_secs() * SLOWEST_BYTES_PER_SECOND {
                        let after = began.elapsed();
                        read = Err(self
                            .client
                            .gave_up(HeirCall::Snapshot, HeirError::Timeout { after }));
                        break;
                    }
                    // The parser gave up; its reason is what counts.
                    if pieces.send(piece).await.is_err() {
                        break;
                    }
                }
                Ok(None) => break,
                Err(error) => {
                    read = Err(error);
                    break;
                }
            }
        }
        drop(pieces);
        let parsed = parsed
            .await
            .map_err(|error| HeirError::Invalid(format!("the parser failed: {error}")))?;
        read?;
        parsed
    }
}
