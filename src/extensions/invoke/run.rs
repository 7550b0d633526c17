//! Runs an attempt: on the thread that serves the request, or on one of a worker pool.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

use super::{
    attempt::Attempt,
    cleaner::Cleaner,
    detached::Detached,
    input::{candidates, work},
};
use crate::{
    decide::{Answer, ExtensionError, Input},
    extensions::{
        health::Permit,
        sandbox::{CallError, CandidateRecord, Fast, Time},
        scheduling::{FAST, Place, WorkerPools},
    },
};

/// After a deadline, the time in which a call must be over: the clock's tick, and handing over the answer.
const GRACE: Duration = Duration::from_millis(5);

impl Attempt<'_> {
    /// Runs it where the extension belongs.
    pub(super) async fn run(
        &mut self,
        input: Input<'_>,
        pools: &WorkerPools,
        cleaner: &Cleaner,
    ) -> Result<Answer, ExtensionError> {
        let Some(permit) = self.extension.health.permit(self.extension.concurrency) else {
            self.extension.health.withdraw(self.terms.admitted);
            return Err(ExtensionError::Unavailable);
        };
        let candidates = candidates(input);
        let began = Instant::now();
        let deadline = Duration::from_millis(self.terms.timeout_ms.into());
        self.terms.overran = false;
        let lane = &self.extension.health.lane;
        if lane.place() == Place::Fast {
            let time = Time {
                deadline,
                fast: Some(Fast {
                    after: FAST,
                    trusted: lane.is_trusted(),
                }),
            };
            let work = work(input, self.extension.kind, &candidates);
            let call = self
                .target
                .prepared
                .call(self.record, work, self.target.limits, time, self.terms.env);
            if call.result != Err(CallError::Overrun) {
                let ids: Vec<&str> = candidates.iter().map(|candidate| candidate.provider_id).collect();
                let (answer, spent) = self.finish(call, &ids);
                cleaner.clean(spent);
                return answer;
            }
            // A call that overran is begun anew on a worker thread, with the time that is left.
            self.terms.overran = true;
            self.moved(lane.count(call.took));
        }
        self.run_on(pools, input, &candidates, permit, began + deadline)
            .await
    }

    /// Runs it on a worker thread, to its end or its deadline, whether or not the caller still waits.
    async fn run_on(
        &self,
        pools: &WorkerPools,
        input: Input<'_>,
        candidates: &[CandidateRecord<'_>],
        permit: Permit,
        until: Instant,
    ) -> Result<Answer, ExtensionError> {
        let pool = match pools.pool(self.extension.health.lane.place()) {
            Ok(pool) => pool,
            Err(error) => {
                tracing::error!(%error, "The threads of the slow lane cannot be started.");
                self.extension.health.withdraw(self.terms.admitted);
                return Err(ExtensionError::Unavailable);
            }
        };
        let detached = Detached::of(self, input, candidates);
        let (send, receive) = oneshot::channel();
        let begun = Arc::new(AtomicBool::new(false));
        let has_begun = begun.clone();
        let submitted = pool.submit(Arc::as_ptr(&self.extension.health).addr(), move || {
            let _permit = permit;
            let left = until.saturating_duration_since(Instant::now());
            // A call that has not begun is dropped with its caller; one that has begun goes on without it.
            if left.is_zero() || send.is_closed() {
                detached.withdraw();
                return;
            }
            has_begun.store(true, Ordering::Relaxed);
            let (answer, _spent) = detached.run(left);
            let _gone = send.send(answer);
        });
        if submitted.is_err() {
            self.extension.health.withdraw(self.terms.admitted);
            return Err(ExtensionError::Unavailable);
        }
        match tokio::time::timeout_at((until + GRACE).into(), receive).await {
            Ok(Ok(result)) => result,
            // It waited for a thread until its time was over, or does not end: the second would be a bug of ours.
            Ok(Err(_)) | Err(_) if !begun.load(Ordering::Relaxed) => Err(ExtensionError::Unavailable),
            Ok(Err(_)) | Err(_) => Err(ExtensionError::Timeout {
                timeout_ms: self.terms.timeout_ms,
                attempts: self.terms.attempts,
            }),
        }
    }
}
