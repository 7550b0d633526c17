//! Runs an attempt: on the thread that serves the request, or on one of a worker pool.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

use super::{
    attempt::Attempt,
    cleaner::Cleaner,
    detached::Detached,
    finish::Kept,
    input::{candidates, work},
};
use crate::{
    decide::{ExtensionError, Input},
    extensions::{
        health::Permit,
        sandbox::{CallError, CandidateRecord, Fast, Time},
        scheduling::{FAST, Owner, Place, Probably, Turn, WorkerPools},
    },
};

/// After the end of its patience, the time in which a call must be over: the clock's tick, and handing over the answer.
const GRACE: Duration = Duration::from_millis(5);

/// How often it is looked whether a call has ended that makes room.
const ENDING: Duration = Duration::from_millis(2);

/// How often in a row no call of another tenant has to be found in the pools before none is expected: for a moment, a call that
/// may run is not yet there, or no longer.
const LOOKS: u32 = 3;

impl Attempt<'_> {
    /// Runs it where the calls of its tenant belong.
    pub(super) async fn run(
        &mut self,
        input: Input<'_>,
        pools: &WorkerPools,
        cleaner: &Cleaner,
    ) -> Result<Kept, ExtensionError> {
        let candidates = candidates(input);
        let began = Instant::now();
        self.terms.overran = false;
        let mut place = self.terms.admitted.place;
        if place == Place::Fast {
            let Some(_permit) = self.permit(pools, began + self.terms.patience).await else {
                self.withdraw();
                return Err(ExtensionError::Unavailable);
            };
            let time = Time {
                deadline: Duration::from_millis(self.terms.own_timeout_ms.into()),
                patience: self.terms.patience,
                fast: Some(Fast {
                    after: FAST,
                    trusted: self.terms.admitted.is_trusted,
                }),
            };
            let work = work(input, self.extension.kind, &candidates);
            let call = self
                .target
                .prepared
                .call(self.record, work, self.target.limits, time, self.terms.env);
            if call.result != Err(CallError::Overrun) {
                self.keep_for_author(work, &call);
                let ids: Vec<&str> = candidates.iter().map(|candidate| candidate.provider_id).collect();
                let (answer, spent) = self.finish(call, &ids);
                cleaner.clean(spent);
                return answer;
            }
            // A call that overran is begun anew on a worker thread, as long as it is waited for.
            self.terms.overran = true;
            let (now, tenant) = (self.terms.now, self.record.tenant_id);
            let moved;
            (place, moved) = self.target.health.overran(now, tenant, call.timer.ran(call.took));
            self.moved(moved);
        }
        let until = began + self.terms.patience;
        self.run_on(pools, place, input, &candidates, until).await
    }

    /// Runs it on a worker thread, to its end or its limit, whether or not the caller still waits.
    async fn run_on(
        &self,
        pools: &WorkerPools,
        place: Place,
        input: Input<'_>,
        candidates: &[CandidateRecord<'_>],
        until: Instant,
    ) -> Result<Kept, ExtensionError> {
        let unavailable = || {
            self.withdraw();
            ExtensionError::Unavailable
        };
        let budget = self.target.prepared.budget();
        let pool = pools.pool(place, budget).map_err(|error| {
            tracing::error!(%error, "The threads of the slow lane cannot be started.");
            unavailable()
        })?;
        let permit = self.permit(pools, until).await.ok_or_else(unavailable)?;
        let share = budget.share_of(self.record.tenant_id, self.input_bytes(input));
        let share = share.ok_or_else(unavailable)?;
        let detached = Detached::of(self, input, candidates);
        let (send, receive) = oneshot::channel();
        let begun = Arc::new(AtomicBool::new(false));
        let has_begun = begun.clone();
        let probably = Probably {
            last: self.terms.admitted.last_ran.filter(|_| !self.terms.overran),
            usual: self.reasonable(Duration::from_millis(self.terms.own_timeout_ms.into())),
        };
        let permit = Arc::new(Mutex::new(Some(permit)));
        let give_back = move || drop(permit.lock().unwrap_or_else(PoisonError::into_inner).take());
        let over = give_back.clone();
        let submitted = pool.submit(self.owner(), probably, give_back, move |turn| {
            let _share = share;
            let left = until.saturating_duration_since(Instant::now());
            // A call that has not begun is dropped with its caller; one that has begun goes on without it.
            let is_waited_for = !left.is_zero() && !send.is_closed();
            let Turn::Run(turns) = (if is_waited_for { turn } else { Turn::PushedOut }) else {
                detached.withdraw();
                over();
                return;
            };
            has_begun.store(true, Ordering::Relaxed);
            let (answer, _spent) = detached.run(left, turns.clone());
            turns.end();
            over();
            let _gone = send.send(answer);
        });
        if submitted.is_err() {
            return Err(unavailable());
        }
        match tokio::time::timeout_at((until + GRACE).into(), receive).await {
            Ok(Ok(result)) => result,
            // It waited for a thread until its caller did not wait any longer, or had to make room; or it does not end,
            // which would be a bug of ours.
            Ok(Err(_)) | Err(_) if !begun.load(Ordering::Relaxed) => Err(ExtensionError::Unavailable),
            Ok(Err(_)) | Err(_) => Err(ExtensionError::Timeout {
                timeout_ms: self.terms.timeout_ms,
                attempts: self.terms.attempts,
            }),
        }
    }

    /// Permits the call, if need be at the expense of one that waits, of a tenant with more of them. Where other tenants' calls
    /// that have begun are in the way of one that probably takes no longer than usual, it claims the place of the first that
    /// ends, and has one give its place back that takes longer than usual.
    async fn permit(&self, pools: &WorkerPools, until: Instant) -> Option<Permit> {
        let (health, concurrency) = (&self.extension.health, self.extension.concurrency);
        loop {
            let permit = health.permit(concurrency);
            if permit.is_some() {
                return permit;
            }
            if !pools.push_out(&self.owner()) {
                break;
            }
        }
        let own = Duration::from_millis(self.terms.own_timeout_ms.into());
        let last = self.terms.admitted.last_ran?;
        if last > self.reasonable(own) {
            return None;
        }
        let claim = health.claim();
        let mut looks = 0;
        while Instant::now() < until && looks < LOOKS {
            looks = if pools.make_room(&self.owner()) {
                0
            } else {
                looks + 1
            };
            let permit = health.permit_claimed(&claim, concurrency);
            if permit.is_some() {
                return permit;
            }
            tokio::time::sleep(ENDING).await;
        }
        None
    }

    fn owner(&self) -> Owner {
        Owner {
            extension: Arc::as_ptr(&self.extension.health).addr(),
            tenant: self.record.tenant_id.into(),
        }
    }

    /// What a copy of the input takes.
    fn input_bytes(&self, input: Input<'_>) -> usize {
        let message = match input {
            Input::Message(message) | Input::Candidates(message, _) => {
                message.payload().len() + message.metadata().len()
            }
            Input::Decision(_) => 0,
        };
        message + self.record.context.len() + self.record.config.len()
    }
}
