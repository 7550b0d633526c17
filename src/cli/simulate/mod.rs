//! `beamline-sidecar simulate`.

mod report;

use std::{io, path::PathBuf, process::ExitCode};

use clap::Args;
use serde_json::{Map, Value};

use self::report::Report;
use super::{EXIT_USAGE, complain, policy_files, say};
use crate::{
    decide::{
        Circumstances, Context, Decision, DecisionId, Effects, How, Inquiry, Message, Moment, Refusal, Rules,
        Scripted, Seed, decide,
        memory::{Memory, MemoryLimits, classify},
    },
    policy::{PolicyId, ProviderId, RoutingPolicy, TenantId},
};

/// When the simulation begins: the first second of 2025.
const BEGIN_MS: u64 = 1_735_689_600_000;
/// A Router gives up after so many attempts at one request.
const ATTEMPTS: u32 = 20;

#[derive(Debug, Args)]
#[command(
    after_help = "Time is simulated, and the same seed gives the same run. A request that fails is asked about again with its
status, as a Router does, and waits its backoff; results feed the breakers.

Examples:
  beamline-sidecar simulate --policy chat.json --requests 10000
  beamline-sidecar simulate --policy chat.json --requests 10000 --fail openai=timeout:20%
  beamline-sidecar simulate --policy chat.json --requests 60000 --rps 100 --fail openai=503:100%@60-120 --sessions 50"
)]
pub(super) struct SimulateArgs {
    /// The policy.
    #[arg(long, value_name = "FILE")]
    policy: PathBuf,
    /// How many requests.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    requests: u32,
    /// A provider's failures: PROVIDER=STATUS:PERCENT%, between two seconds of the run with @FROM-TO.
    #[arg(long = "fail", value_name = "PROVIDER=STATUS:PERCENT%[@FROM-TO]")]
    failures: Vec<Failing>,
    /// Requests per second.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    rps: u32,
    /// Distinct sessions that the requests belong to; 0: none.
    #[arg(long, default_value_t = 0)]
    sessions: u32,
    /// 1 to 16 hex digits.
    #[arg(long, value_name = "HEX", default_value = "1")]
    seed: Seed,
    /// Print JSON, for machines.
    #[arg(long)]
    json: bool,
}

/// When and how often a provider fails, and with what.
#[derive(Debug, Clone)]
struct Failing {
    provider: String,
    status: String,
    share: f64,
    /// Seconds of the run.
    from: f64,
    to: f64,
}

impl std::str::FromStr for Failing {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not PROVIDER=STATUS:PERCENT%, such as openai=timeout:20%");
        let (provider, rest) = text.split_once('=').ok_or_else(wrong)?;
        let (rest, (from, to)) = match rest.split_once('@') {
            Some((rest, span)) => {
                let (from, to) = span.split_once('-').ok_or_else(wrong)?;
                (
                    rest,
                    (
                        from.parse().map_err(|_| wrong())?,
                        to.parse().map_err(|_| wrong())?,
                    ),
                )
            }
            None => (rest, (0.0, f64::INFINITY)),
        };
        let (status, percent) = rest.rsplit_once(':').ok_or_else(wrong)?;
        let percent: f64 = percent
            .strip_suffix('%')
            .unwrap_or(percent)
            .parse()
            .map_err(|_| wrong())?;
        if !(0.0..=100.0).contains(&percent) || provider.is_empty() || status.is_empty() {
            return Err(wrong());
        }
        Ok(Self {
            provider: provider.to_owned(),
            status: status.to_owned(),
            share: percent / 100.0,
            from,
            to,
        })
    }
}

struct Run<'a> {
    args: &'a SimulateArgs,
    policy: &'a RoutingPolicy,
    tenant: TenantId,
    policy_id: PolicyId,
    rules: Rules,
    memory: Memory,
    extensions: Scripted,
    chance: fastrand::Rng,
    /// Whether the policy has breakers.
    guarded: bool,
    report: Report,
}

pub(super) fn run(args: &SimulateArgs) -> ExitCode {
    match simulate(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error.to_string());
            ExitCode::from(EXIT_USAGE)
        }
    }
}

fn simulate(args: &SimulateArgs) -> io::Result<()> {
    let policy = policy_files::read(&args.policy)?;
    let mut run = Run {
        args,
        policy: &policy,
        tenant: TenantId::parse("simulated").map_err(io::Error::other)?,
        policy_id: PolicyId::parse("simulated").map_err(io::Error::other)?,
        rules: Rules::default(),
        memory: Memory::new(MemoryLimits {
            sessions: 1_000_000,
            buckets: 8,
            providers: 10_000,
        }),
        extensions: Scripted {
            others_succeed: true,
            ..Scripted::default()
        },
        chance: fastrand::Rng::with_seed(args.seed.0),
        guarded: policy
            .circuit_breaker
            .as_ref()
            .is_some_and(|settings| settings.enabled),
        report: Report::default(),
    };
    let mut sessions = vec![None; args.sessions as usize];
    for index in 0..args.requests {
        run.request(index, &mut sessions);
    }
    let seconds = f64::from(args.requests) / f64::from(args.rps);
    if args.json {
        say(&run.report.to_json(args).to_string());
    } else {
        run.report.show(args, seconds);
    }
    Ok(())
}

impl Run<'_> {
    /// One request, from its first decision until it is served or given up.
    fn request(&mut self, index: u32, sessions: &mut [Option<ProviderId>]) {
        let begun = u64::from(index) * 1_000 / u64::from(self.args.rps);
        let mut now = BEGIN_MS + begun;
        let mut context: Context = Map::new();
        context.insert("tenant_id".into(), self.tenant.as_str().into());
        let session = (!sessions.is_empty()).then(|| self.chance.usize(..sessions.len()));
        if let (Some(session), Some(sticky)) = (session, &self.policy.sticky) {
            context.insert(
                sticky.session_key.to_string(),
                format!("session-{session}").into(),
            );
        }
        for attempt in 0..ATTEMPTS {
            let decision = match self.decide(&context, now) {
                Ok(decision) => decision,
                Err(refusal) => {
                    *self.report.refused.entry(refusal.error_type()).or_default() += 1;
                    return;
                }
            };
            let provider = decision.selection.provider.clone();
            let share = self.report.shares.entry(provider.to_string()).or_default();
            match &decision.selection.how {
                How::Sticky => share.sticky += 1,
                How::Weighted => share.first += 1,
                How::Retry { .. } => share.retries += 1,
                How::Fallback { .. } | How::LastResort | How::BreakerFallback { .. } => share.fallbacks += 1,
            }
            if let (Some(session), How::Sticky | How::Weighted) = (session, &decision.selection.how) {
                let before = sessions[session].replace(provider.clone());
                self.report.moved_sessions += u64::from(before.is_some_and(|before| before != provider));
            }
            if let How::Retry { backoff_ms, .. } = decision.selection.how {
                now += backoff_ms;
                self.report.waited_ms += backoff_ms;
            }
            let failure = self.failure(&provider, now);
            self.tell(&provider, failure.as_deref(), now);
            let share = self.report.shares.entry(provider.to_string()).or_default();
            let Some(status) = failure else {
                share.served += 1;
                return;
            };
            share.failures += 1;
            // A Router that has gone round all of it gives the request up.
            if attempt + 1 == ATTEMPTS {
                break;
            }
            context.insert(
                "status".into(),
                status
                    .parse::<u64>()
                    .map_or_else(|_| status.as_str().into(), Value::from),
            );
            context.insert("current_provider".into(), provider.as_str().into());
            if let How::Retry { rule_id, attempt, .. } = &decision.selection.how {
                context.insert(format!("retry_attempts_{rule_id}"), (*attempt).into());
            }
        }
        self.report.unserved += 1;
    }

    fn decide(&mut self, context: &Context, now: u64) -> Result<Decision, Refusal> {
        let now = Moment::from_unix_ms(now);
        let later = move || now;
        let at = Circumstances {
            id: DecisionId(0),
            seed: Seed(self.chance.u64(..)),
            now,
            later: &later,
            effects: Effects::Remembered,
        };
        let inquiry = Inquiry {
            tenant: &self.tenant,
            policy_id: &self.policy_id,
            context,
            message: Message::default(),
        };
        let deciding = std::pin::pin!(decide(
            self.policy,
            inquiry,
            &self.rules,
            &self.memory,
            &self.extensions,
            at
        ));
        let mut task = std::task::Context::from_waker(std::task::Waker::noop());
        match deciding.poll(&mut task) {
            std::task::Poll::Ready(outcome) => {
                self.report.note(outcome.transitions, now);
                outcome.result
            }
            // Scripted extensions never wait.
            std::task::Poll::Pending => Err(Refusal::NoProvider {
                tenant: self.tenant.clone(),
                policy_id: self.policy_id.clone(),
            }),
        }
    }

    /// The status that a call to the provider ends with, if it fails.
    fn failure(&mut self, provider: &ProviderId, now: u64) -> Option<String> {
        let second = (now - BEGIN_MS) as f64 / 1e3;
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

    fn tell(&mut self, provider: &ProviderId, failure: Option<&str>, now: u64) {
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
        // A policy without breakers does not look at them, so there is nothing to tell of them.
        if let Some(counted) = counted.filter(|_| self.guarded) {
            let now = Moment::from_unix_ms(now);
            let transition = self
                .memory
                .breakers
                .record(&self.tenant, provider, counted, None, now);
            self.report.note(transition, now);
        }
    }
}
