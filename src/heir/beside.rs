//! What the refresher does beside a call that hangs: it finds out whether HEIR answers others, and asks once more.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, stream::FuturesUnordered};
use http::{HeaderMap, Method, StatusCode};
use tokio::time;

use super::{
    answer::outcome_of, availability::Admission, backoff::Backoff, body::HeirBody, client::HeirClient,
    config::RetryConfig, error::HeirError, metrics::HeirCall,
};

/// Once a call of the refresher has waited for so long for a HEIR that had failed, HEIR is asked for its health beside it.
const BESIDE_A_FAILURE: Duration = Duration::from_millis(500);

/// The pauses between those questions: each is anything up to a bound that grows from the first to the last.
const PROBE_PAUSES: RetryConfig = RetryConfig {
    max_attempts: u32::MAX,
    initial_ms: 500,
    factor: 2.0,
    max_ms: 1_500,
};

/// Questions for its health that wait for an answer at one time, and for how long one does.
const MOST_PROBES: usize = 8;
const LONGEST_PROBE: Duration = Duration::from_secs(5);

/// A long poll whose answer is overdue for so long is asked again, on another connection.
const OVERDUE: Duration = Duration::from_secs(1);

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
            (call == HeirCall::Changes).then(|| timeout.saturating_sub(self.timeout) + OVERDUE)
        }
    }

    /// As [`exchange`](Self::exchange), for a read of the refresher that may hang: a HEIR that answers others is asked once
    /// more, on another connection. What comes first counts. A time-out alone would notice a HEIR that is back only when it
    /// is over.
    pub(super) async fn exchange_or_again(
        &self,
        call: HeirCall,
        path: &str,
        headers: HeaderMap,
        timeout: Duration,
        patience: Duration,
    ) -> Result<http::Response<HeirBody>, HeirError> {
        let attempt = || self.exchange(call, Method::GET, path, headers.clone(), Bytes::new(), timeout);
        let mut moves = self.availability.moves();
        let again = async {
            let healthy = async {
                time::sleep(patience).await;
                self.until_healthy().await;
            };
            tokio::select! {
                () = healthy => {}
                _ = moves.changed() => {}
            }
            attempt().await
        };
        tokio::select! {
            biased;
            result = attempt() => result,
            result = again => result,
        }
    }

    /// Asks for HEIR's health until it has said that it is. Each question has a connection of its own: those before may lead
    /// to nowhere.
    async fn until_healthy(&self) {
        let mut pauses = Backoff::new(PROBE_PAUSES, fastrand::u64(..));
        let mut probes = FuturesUnordered::new();
        loop {
            let pause = time::sleep(pauses.next_pause());
            tokio::select! {
                Some(healthy) = probes.next() => if healthy { return },
                () = pause, if probes.len() < MOST_PROBES => {
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
