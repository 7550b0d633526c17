//! The arguments of `simulate`.

use std::path::PathBuf;

use clap::Args;

use crate::decide::{Seed, Timestamp};

#[derive(Debug, Args)]
#[command(
    after_help = "Time is simulated, and the same seed gives the same run. A request that fails is decided again with its
status, a text as the platform's are, and as a Router does after its backoff; results feed the breakers. It is given up once a fallback leads to a
provider at which it has failed already, or after 20 attempts.

Exits 0, or 64 if an input cannot be read.

Examples:
  beamline-sidecar simulate --policy chat.json --requests 10000
  beamline-sidecar simulate --policy chat.json --requests 10000 --fail openai=timeout:20%
  beamline-sidecar simulate --policy chat.json --requests 60000 --rps 100 --fail openai=503:100%@60-120 --sessions 50
  beamline-sidecar simulate --policy chat.json --requests 1000 --request request.json --extensions extensions"
)]
pub(crate) struct SimulateArgs {
    /// The policy.
    #[arg(long, value_name = "FILE")]
    pub(super) policy: PathBuf,
    /// How many requests.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub(super) requests: u32,
    /// A provider's failures: PROVIDER=STATUS:PERCENT%; with @FROM-TO only between two seconds of the run.
    #[arg(long = "fail", value_name = "PROVIDER=STATUS:PERCENT%[@FROM-TO]")]
    pub(super) failures: Vec<Failing>,
    /// Requests per second.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(super) rps: u32,
    /// Distinct sessions that the requests belong to; 0: none.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    pub(super) sessions: u32,
    /// When the run begins: Unix milliseconds, or a time such as 2025-01-31T08:30:00Z.
    #[arg(long, value_name = "TIME", default_value = "2025-01-01T00:00:00Z")]
    pub(super) at: Timestamp,
    /// 1 to 16 hex digits.
    #[arg(long, value_name = "HEX", default_value = "1")]
    pub(super) seed: Seed,
    /// Call the real extensions of a directory, as `extensions_dir` has one. Unset: all extensions succeed.
    #[arg(long, value_name = "DIR")]
    pub(super) extensions: Option<PathBuf>,
    /// A request whose message and context each request has, for extensions that look at them.
    #[arg(long, value_name = "FILE")]
    pub(super) request: Option<PathBuf>,
    /// Print JSON, for machines.
    #[arg(long)]
    pub(super) json: bool,
}

/// When and how often a provider fails, and with which status.
#[derive(Debug, Clone)]
pub(super) struct Failing {
    pub(super) provider: String,
    pub(super) status: String,
    pub(super) share: f64,
    /// Seconds of the run.
    pub(super) from: f64,
    pub(super) to: f64,
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
        let senseless = !(0.0..=100.0).contains(&percent) || !(0.0..to).contains(&from);
        if senseless || provider.is_empty() || status.is_empty() {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_read_or_refused() {
        let read = |text: &str| text.parse::<Failing>().ok();
        let failing = read("openai:gpt-4o=503:2.5%@10-20.5").unwrap();
        assert_eq!(
            (failing.provider.as_str(), failing.status.as_str()),
            ("openai:gpt-4o", "503")
        );
        assert_eq!((failing.share, failing.from, failing.to), (0.025, 10.0, 20.5));
        assert_eq!(
            read("a=timeout:100").map(|failing| failing.to),
            Some(f64::INFINITY)
        );
        for wrong in [
            "",
            "a",
            "a=timeout",
            "=timeout:1%",
            "a=:1%",
            "a=timeout:101%",
            "a=timeout:-1%",
            "a=timeout:x%",
            "a=timeout:NaN%",
            "a=timeout:1%@5",
            "a=timeout:1%@9-5",
            "a=timeout:1%@5-5",
            "a=timeout:1%@NaN-5",
        ] {
            assert!(read(wrong).is_none(), "{wrong}");
        }
    }
}
