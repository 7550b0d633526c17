//! What the refresher does beside a call that hangs: it finds out whether HEIR answers others, and asks once more.
//!
//! How long it takes to notice that HEIR is back is the sum of what is here, in `refresh/runner.rs`, in `connections.rs` and
//! in `resolver.rs`; docs/operations.md has the sums, which are promised to stay below 2.5 s.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, stream::FuturesUnordered};
use http::{HeaderMap, Method, StatusCode};
use tokio::time::{self, Instant};

use super::{
    answer::outcome_of, availability::Admission, body::HeirBody, client::HeirClient, error::HeirError,
    metrics::HeirCall,
};

/// Once a call of the refresher has waited for so long for a HEIR that had failed, HEIR is asked for its health beside it.
const BESIDE_A_FAILURE: Duration = Duration::from_millis(500);

/// The pause before the first of those questions, and those between them, each anything from the one to the other.
const FIRST_PROBE: [Duration; 2] = [Duration::ZERO, Duration::from_millis(300)];
const NEXT_PROBE: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(1)];

/// How long such a question waits for its answer, and how many do at one time: more than are ever asked in that time.
const LONGEST_PROBE: Duration = Duration::from_secs(3);
const MOST_PROBES: usize = 8;

/// A long poll whose answer is overdue for so long is asked again, on another connection.
const OVERDUE: Duration = Duration::from_millis(500);

/// How often one call is asked in all.
const MOST_ATTEMPTS: usize = 3;

fn between([least, most]: [Duration; 2]) -> Duration {
    least + (most - least).mul_f64(fastrand::f64())
}

impl HeirClient {
    /// How long a call waits for its answer before HEIR is asked for its health beside it. `None`: it only waits.
    pub(super) fn patience(
        &self,
        call: HeirCall,
        admission: Admission,
        timeout: Duration,
    ) -> Option<Duration> {
        if admission != Admission::Always {
            None
        } else if self.availability.has_failed() {
            Some(BESIDE_A_FAILURE)
        } else {
            (call == HeirCall::Changes).then(|| self.overdue(call, timeout))
        }
    }

    /// When an answer is overdue that a HEIR in good health gives.
    fn overdue(&self, call: HeirCall, timeout: Duration) -> Duration {
        if call == HeirCall::Changes {
            // What its time-out has beyond that of others is the time that HEIR may wait.
            timeout.saturating_sub(self.timeout) + OVERDUE
        } else {
            timeout
        }
    }

    /// As [`exchange`](Self::exchange), for a read of the refresher that may hang: a HEIR that answers others is asked
    /// again, on another connection. What comes first counts. A time-out alone would notice a HEIR that is back only when it
    /// is over.
    pub(super) async fn exchange_or_again(
        &self,
        call: HeirCall,
        path: &str,
        headers: HeaderMap,
        timeout: Duration,
        mut patience: Duration,
    ) -> Result<http::Response<HeirBody>, HeirError> {
        let attempt = || self.exchange(call, Method::GET, path, headers.clone(), Bytes::new(), timeout);
        let mut moves = self.availability.moves();
        let mut attempts = FuturesUnordered::new();
        attempts.push(attempt());
        for asked in 1..=MOST_ATTEMPTS {
            let healthy = async {
                time::sleep(patience).await;
                self.until_healthy().await;
            };
            tokio::select! {
                biased;
                Some(result) = attempts.next() => match result {
                    // Its connection led to nowhere, which says nothing of HEIR before another one does, too.
                    Err(error) if asked == 1 && error.is_lost() => {
                        self.connect_anew();
                        patience = BESIDE_A_FAILURE;
                    }
                    result => return result,
                },
                () = healthy, if asked < MOST_ATTEMPTS => patience = self.overdue(call, timeout),
                _ = moves.changed(), if asked < MOST_ATTEMPTS => patience = self.overdue(call, timeout),
            }
            attempts.push(attempt());
        }
        // Not reached: the last turn only waits for an answer.
        attempt().await
    }

    /// Asks for HEIR's health until it has said that it is. Each question has a connection of its own: those before may lead
    /// to nowhere.
    async fn until_healthy(&self) {
        let mut probes = FuturesUnordered::new();
        let mut next = Instant::now() + between(FIRST_PROBE);
        loop {
            tokio::select! {
                Some(healthy) = probes.next() => if healthy { return },
                () = time::sleep_until(next), if probes.len() < MOST_PROBES => {
                    // From one question to the next: an answer in between does not put it off.
                    next = Instant::now() + between(NEXT_PROBE);
                    self.connect_anew();
                    probes.push(self.is_healthy());
                }
            }
        }
    }

    async fn is_healthy(&self) -> bool {
        let (call, timeout) = (HeirCall::Health, self.timeout.min(LONGEST_PROBE));
        let answered = self
            .exchange(
                call,
                Method::GET,
                "/health",
                HeaderMap::new(),
                Bytes::new(),
                timeout,
            )
            .await;
        let outcome = match &answered {
            Ok(response) => outcome_of(response.status()),
            Err(error) => error.outcome(),
        };
        self.metrics.request(call, outcome, None);
        answered.is_ok_and(|response| response.status() == StatusCode::OK)
    }
}
