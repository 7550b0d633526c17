//! The simulated world: requests that arrive, providers that fail, a Router that retries, and time.

use std::{collections::BTreeMap, io};

use super::{
    args::SimulateArgs,
    report::{Change, Report},
};
use crate::{
    cli::{
        explain::{context, whole_request},
        tried_extensions::{TriedExtensions, all_succeed},
    },
    decide::{
        Context, DecideContext, Decision, DecisionId, DecisionInput, Effects, Mechanism, Refusal, Rules,
        Scripted, Seed, Timestamp,
        memory::{Memory, MemoryLimits, Transition, classify},
    },
    intake::DecideRequest,
    policy::{PolicyId, ProviderId, RoutingPolicy, TenantId},
};

/// The tenant of simulated requests.
const TENANT: &str = "simulated";

/// A Router gives up after so many attempts at one request.
const ATTEMPTS: u32 = 20;

pub(super) struct World<'a> {
    args: &'a SimulateArgs,
    policy: &'a RoutingPolicy,
    tenant: TenantId,
    policy_id: PolicyId,
    rules: Rules,
    memory: Memory,
    extensions: TriedExtensions,
    /// What extensions answer that are not real.
    script: Scripted,
    /// What each request has besides its session.
    context: Context,
    /// The request that each is, where it is a whole one.
    whole: Option<DecideRequest<'a>>,
    chance: fastrand::Rng,
    /// Whether the policy has breakers.
    guarded: bool,
    /// Requests that wait for the end of a backoff, by its end and then in the order of their arrival: the memory must
    /// be given all events in their order.
    waiting: BTreeMap<(u64, u64), (Request, ProviderId)>,
    /// The provider that each session had last.
    sessions: Vec<Option<ProviderId>>,
    report: Report,
}

/// One request, until it is served or given up.
struct Request {
    session: Option<usize>,
    context: Context,
    attempts: u32,
    /// Providers at which it failed.
    failed: Vec<ProviderId>,
}

impl<'a> World<'a> {
    pub(super) fn new(
        args: &'a SimulateArgs,
        policy: &'a RoutingPolicy,
        body: &'a [u8],
        extensions: TriedExtensions,
    ) -> io::Result<Self> {
        let (_, _, mut context) = context(body, TENANT)?;
        context.insert("tenant_id".into(), TENANT.into());
        Ok(Self {
            args,
            policy,
            tenant: TenantId::parse(TENANT).map_err(io::Error::other)?,
            policy_id: PolicyId::parse("simulated").map_err(io::Error::other)?,
            rules: Rules::default(),
            memory: Memory::new(MemoryLimits {
                sessions: 1_000_000,
                buckets: 8,
                providers: 10_000,
            }),
            script: match &args.extensions {
                Some(_) => Scripted::default(),
                None => all_succeed(),
            },
            extensions,
            context,
            whole: whole_request(body),
            chance: fastrand::Rng::with_seed(args.seed.0),
            guarded: policy.has_breakers(),
            waiting: BTreeMap::new(),
            sessions: vec![None; args.sessions as usize],
            report: Report::default(),
        })
    }

    pub(super) fn run(mut self) -> Report {
        for index in 0..self.args.requests {
            let since = u64::from(index) * 1_000 / u64::from(self.args.rps);
            let arrives = self.args.at.unix_ms.saturating_add(since);
            self.resume(arrives);
            let request = self.request();
            self.decide(request, Timestamp::from_unix_ms(arrives));
        }
        self.resume(u64::MAX);
        self.report
    }

    fn request(&mut self) -> Request {
        let mut context = self.context.clone();
        let session = (!self.sessions.is_empty()).then(|| self.chance.usize(..self.sessions.len()));
        if let (Some(session), Some(sticky)) = (session, &self.policy.sticky) {
            let value = format!("session-{session}").into();
            context.insert(sticky.session_key.to_string(), value);
        }
        Request {
            session,
            context,
            attempts: 0,
            failed: Vec::new(),
        }
    }

    /// Continues the requests whose backoff is over by then, in order.
    fn resume(&mut self, until: u64) {
        while let Some(entry) = self.waiting.first_entry()
            && entry.key().0 <= until
        {
            let ((at, _), (request, provider)) = entry.remove_entry();
            let now = Timestamp::from_unix_ms(at);
            if let Some(request) = self.call(request, &provider, now) {
                self.decide(request, now);
            }
        }
    }

    /// Decides where a request goes, until it is served, given up, or has to wait.
    fn decide(&mut self, mut request: Request, now: Timestamp) {
        loop {
            let decision = match self.ask(&request.context, now) {
                Ok(decision) => decision,
                Err(refusal) => {
                    *self.report.refused.entry(refusal.error_type()).or_default() += 1;
                    return;
                }
            };
            let provider = decision.selection.provider;
            let how = decision.selection.how;
            let falls_back = matches!(
                how,
                Mechanism::Fallback { .. } | Mechanism::LastResort | Mechanism::BreakerFallback { .. }
            );
            if falls_back && request.failed.contains(&provider) {
                self.report.unserved += 1;
                return;
            }
            let share = self.report.shares.entry(provider.to_string()).or_default();
            match &how {
                Mechanism::Sticky => share.sticky += 1,
                Mechanism::Weighted => share.weighted += 1,
                Mechanism::Retry { .. } => share.retries += 1,
                Mechanism::Fallback { .. } | Mechanism::LastResort | Mechanism::BreakerFallback { .. } => {
                    share.fallbacks += 1
                }
            }
            if let (Some(session), Mechanism::Sticky | Mechanism::Weighted) = (request.session, &how)
                && let Some(last) = self.sessions.get_mut(session)
            {
                let before = last.replace(provider.clone());
                self.report.moved_sessions += u64::from(before.is_some_and(|before| before != provider));
            }
            if let Mechanism::Retry {
                rule_id,
                attempt,
                backoff_ms,
                ..
            } = how
            {
                let counter = format!("retry_attempts_{rule_id}");
                request.context.insert(counter, attempt.into());
                self.report.waited_ms += backoff_ms;
                self.report.retries += 1;
                let turn = (now.unix_ms.saturating_add(backoff_ms), self.report.retries);
                self.waiting.insert(turn, (request, provider));
                return;
            }
            match self.call(request, &provider, now) {
                Some(failed) => request = failed,
                None => return,
            }
        }
    }

    /// Calls a provider. Returns the request if the call failed and the request may be decided again.
    fn call(&mut self, mut request: Request, provider: &ProviderId, now: Timestamp) -> Option<Request> {
        let failure = self.failure(provider, now);
        self.report_result(provider, failure.as_deref(), now);
        let share = self.report.shares.entry(provider.to_string()).or_default();
        let Some(status) = failure else {
            share.served += 1;
            return None;
        };
        share.failures += 1;
        request.attempts += 1;
        if request.attempts == ATTEMPTS {
            self.report.unserved += 1;
            return None;
        }
        // A status is a text in every rule and on the platform, also where it is a number.
        request.context.insert("status".into(), status.into());
        request
            .context
            .insert("current_provider".into(), provider.as_str().into());
        if !request.failed.contains(provider) {
            request.failed.push(provider.clone());
        }
        Some(request)
    }

    fn ask(&mut self, context: &Context, now: Timestamp) -> Result<Decision, Refusal> {
        let later = move || now;
        let at = DecideContext {
            id: DecisionId(0),
            seed: Seed(self.chance.u64(..)),
            now,
            later: &later,
            wall_ahead_ms: 0,
            effects: Effects::Remembered,
        };
        let input = DecisionInput {
            tenant: &self.tenant,
            policy_id: &self.policy_id,
            context,
            message: self
                .whole
                .as_ref()
                .map(DecideRequest::message)
                .unwrap_or_default(),
        };
        let outcome = self
            .extensions
            .decide(self.policy, input, &self.rules, &self.memory, &self.script, at);
        self.note(outcome.transitions, now);
        outcome.result
    }

    /// The status that a call to the provider ends with, if it fails.
    fn failure(&mut self, provider: &ProviderId, now: Timestamp) -> Option<String> {
        let second = now.since(self.args.at) as f64 / 1e3;
        let failing = self
            .args
            .failures
            .iter()
            .filter(|failing| failing.provider == provider.as_str());
        for failing in failing.filter(|failing| (failing.from..failing.to).contains(&second)) {
            if self.chance.f64() < failing.share {
                return Some(failing.status.clone());
            }
        }
        None
    }

    fn report_result(&mut self, provider: &ProviderId, failure: Option<&str>, now: Timestamp) {
        let counted = match failure {
            None => classify("success", None, None, None),
            Some("timeout") => classify("timeout", None, None, None),
            Some(status) => classify(
                "error",
                Some(&status.to_ascii_uppercase()),
                Some(status),
                Some(status),
            ),
        };
        // A policy without breakers never reads them, so there is nothing to record.
        if let Some(counted) = counted.filter(|_| self.guarded) {
            let transition = self
                .memory
                .breakers
                .record(&self.tenant, provider, counted, None, now);
            self.note(transition, now);
        }
    }

    fn note(&mut self, transitions: impl IntoIterator<Item = Transition>, now: Timestamp) {
        let at_ms = now.since(self.args.at);
        let changes = transitions.into_iter().map(|transition| Change {
            at_ms,
            provider: transition.provider,
            to: transition.to,
        });
        self.report.changes.extend(changes);
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use serde_json::{Value, json};

    use super::*;
    use crate::policy::read_object;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: SimulateArgs,
    }

    fn simulated(policy: &Value, line: &str) -> Report {
        let (policy, _) = read_object(policy.as_object().unwrap());
        let words = format!("simulate --policy x {line}");
        let args = Line::parse_from(words.split_whitespace()).args;
        World::new(&args, &policy, b"{}", TriedExtensions::Scripted)
            .unwrap()
            .run()
    }

    #[test]
    fn a_request_is_served_given_up_or_refused() {
        let policy = json!({
            "weights": {"a": 0.5, "b": 0.5},
            "fallbacks": [{"when": {"status": ["timeout"]}, "retry": 2, "to": "c"}],
        });
        let report = simulated(
            &policy,
            "--requests 1000 --fail a=timeout:100% --fail b=timeout:100% --fail c=timeout:100%",
        );
        assert_eq!((report.unserved, report.refused.len()), (1_000, 0));
        // Once each, and not twenty times: c has failed by then.
        assert_eq!(report.shares["c"].fallbacks, 1_000);
        assert_eq!(report.shares["a"].retries + report.shares["b"].retries, 2_000);
        let report = simulated(&policy, "--requests 1000 --fail a=timeout:100%");
        let served: u64 = report.shares.values().map(|share| share.served).sum();
        assert_eq!((served, report.unserved), (1_000, 0));
        assert_eq!(report.shares["c"].served, report.shares["a"].weighted);
        let report = simulated(&json!({}), "--requests 10");
        assert_eq!(report.refused["no_provider_available"], 10);
    }

    #[test]
    fn a_status_is_a_text_as_in_the_platform_s_rules() {
        // The platform's fixture complex_fallbacks, in short.
        let policy = json!({
            "weights": {"a": 1.0},
            "fallbacks": [
                {"when": {"status": ["timeout", "5xx", "503"]}, "retry": 2, "to": "b"},
                {"when": {"status": ["rate_limited", "429"]}, "retry": 1, "to": "c"},
            ],
        });
        for (status, retries, to) in [
            ("503", 2, "b"),
            ("500", 2, "b"),
            ("429", 1, "c"),
            ("timeout", 2, "b"),
        ] {
            let report = simulated(&policy, &format!("--requests 100 --fail a={status}:100%"));
            assert_eq!(report.shares["a"].retries, 100 * retries, "{status}");
            assert_eq!((report.shares[to].served, report.unserved), (100, 0), "{status}");
        }
    }

    #[test]
    fn a_failure_that_no_rule_knows_ends_after_twenty_attempts() {
        let report = simulated(
            &json!({"weights": {"a": 1.0}}),
            "--requests 10 --fail a=timeout:100%",
        );
        assert_eq!((report.unserved, report.shares["a"].failures), (10, 200));
    }

    #[test]
    fn what_is_remembered_hears_of_everything_in_order() {
        let policy = json!({
            "weights": {"a": 0.5, "b": 0.5},
            "circuit_breaker": {"enabled": true, "timeout_ms": 1000, "failure_threshold": 3},
            "fallbacks": [{"when": {"status": ["timeout"]}, "retry": 3, "backoff": {"base_ms": 900}, "to": "b"}],
        });
        let report = simulated(
            &policy,
            "--requests 5000 --rps 50 --fail a=timeout:100%@10-50 --sessions 5",
        );
        assert!(report.changes.len() > 10, "{:?}", report.changes);
        assert!(report.changes.is_sorted_by_key(|change| change.at_ms));
        // The result does not depend on when it is simulated.
        let later = simulated(
            &policy,
            "--requests 5000 --rps 50 --fail a=timeout:100%@10-50 --sessions 5 --at 2031-05-06T07:08:09Z",
        );
        assert_eq!(report, later);
    }
}
