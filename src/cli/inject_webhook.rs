//! `beamline-sidecar inject-webhook`.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use clap::Args;

use super::{
    output::{EXIT_USAGE, print_err},
    signals::{Signals, obeyed_during},
};
use crate::{
    app::raise_limit,
    config,
    injector::{Certificates, Injector, InjectorConfig, InjectorError, Lifetimes, SelfManaged},
    listener::{Address, ConnectionLimits, TlsFiles},
    telemetry::{LogConfig, LogFormat, Logs, chain},
};

/// Where the kubelet puts the token of the pod's service account.
const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

#[derive(Debug, Args)]
#[command(
    after_help = "The chart beamline-sidecar-injector runs it. The API server sends it each new pod with the label
sidecar.beamline.dev/inject: enabled, and gets the patch with the sidecar.

Examples:
  beamline-sidecar inject-webhook --fragment fragment.json --tls-cert tls.crt --tls-key tls.key
  beamline-sidecar inject-webhook --fragment fragment.json --self-managed-secret beamline/injector-cert \\
      --webhook-configuration injector --service injector"
)]
pub(super) struct InjectWebhookArgs {
    /// Where the API server reaches the webhook: IP:PORT.
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0:8443")]
    listen: Address,
    /// Where `/live`, `/ready` and `/metrics` are.
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0:9901")]
    admin_listen: Address,
    /// What is put into pods, in JSON; read again when it changes.
    #[arg(long, value_name = "FILE")]
    fragment: PathBuf,
    /// The certificate chain (PEM); read again when it changes, as the key.
    #[arg(
        long,
        value_name = "FILE",
        requires = "tls_key",
        required_unless_present = "self_managed_secret"
    )]
    tls_cert: Option<PathBuf>,
    /// The key of the certificate (PEM).
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Make and rotate certificates, and keep them in this Secret, which exists and may be empty.
    #[arg(long, value_name = "NAMESPACE/NAME", value_parser = namespaced, conflicts_with = "tls_cert",
        requires = "webhook_configuration", requires = "service")]
    self_managed_secret: Option<(String, String)>,
    /// The MutatingWebhookConfiguration in which the authorities are named then.
    #[arg(long, value_name = "NAME")]
    webhook_configuration: Option<String>,
    /// The Service through which the webhook is called, in the namespace of the Secret.
    #[arg(long, value_name = "NAME")]
    service: Option<String>,
    /// The API server. Unset: the one of the cluster that this process runs in.
    #[arg(long, value_name = "URL")]
    api_server: Option<String>,
    /// The directory with the token and ca.crt of the service account.
    #[arg(long, value_name = "DIR", default_value = SERVICE_ACCOUNT)]
    service_account: PathBuf,
    /// Seconds for which it serves on after SIGTERM, until no API server calls it any more.
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u64).range(..=600))]
    lame_duck_seconds: u64,
    /// How much is logged.
    #[arg(long, default_value = "info", value_parser = ["off", "error", "warn", "info", "debug", "trace"])]
    log_level: String,
    /// `json` for machines, `text` for people.
    #[arg(long, default_value = "json", value_parser = ["json", "text"])]
    log_format: String,
}

fn namespaced(text: &str) -> Result<(String, String), String> {
    let is_name = |name: &str| {
        let is_valid = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.".contains(&byte);
        !name.is_empty() && name.bytes().all(is_valid)
    };
    match text.split_once('/') {
        Some((namespace, name)) if is_name(namespace) && is_name(name) => {
            Ok((namespace.to_owned(), name.to_owned()))
        }
        _ => Err("write NAMESPACE/NAME".to_owned()),
    }
}

pub(super) fn run(args: &InjectWebhookArgs) -> ExitCode {
    let format = if args.log_format == "text" {
        LogFormat::Text
    } else {
        LogFormat::Json
    };
    let logs = match Logs::start(&LogConfig {
        format,
        filter: args.log_level.clone(),
    }) {
        Ok(logs) => logs,
        Err(error) => {
            print_err(&format!("The log cannot be started: {error}"));
            return ExitCode::FAILURE;
        }
    };
    super::run::log_panics();
    raise_limit();
    let config = match injector_config(args) {
        Ok(config) => config,
        Err(message) => {
            print_err(&message);
            return ExitCode::from(EXIT_USAGE);
        }
    };
    obeyed_during(move |signals, _reloads| control(config, &logs, &signals))
}

/// Everything but the signals.
fn control(config: InjectorConfig, logs: &Logs, signals: &Signals) -> ExitCode {
    let ended = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => {
            let ended = runtime.block_on(serve(config, logs.clone(), signals));
            // A disk may still block a thread; nothing waits for it.
            runtime.shutdown_background();
            ended
        }
        Err(error) => {
            tracing::error!(%error, "The runtime cannot be started.");
            ExitCode::FAILURE
        }
    };
    logs.finish();
    ended
}

fn injector_config(args: &InjectWebhookArgs) -> Result<InjectorConfig, String> {
    Ok(InjectorConfig {
        listen: args.listen.clone(),
        admin_listen: args.admin_listen.clone(),
        fragment: args.fragment.clone(),
        certificates: certificates(args)?,
        look: Duration::from_secs(10),
        lame_duck: Duration::from_secs(args.lame_duck_seconds),
        drain: Duration::from_secs(5),
        limits: ConnectionLimits {
            max_connections: 1024,
            max_header_bytes: 16 * 1024,
            header_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(120),
        },
    })
}

fn certificates(args: &InjectWebhookArgs) -> Result<Certificates, String> {
    if let (Some(cert), Some(key)) = (&args.tls_cert, &args.tls_key) {
        return Ok(Certificates::Files(TlsFiles {
            cert: cert.clone(),
            key: key.clone(),
            client_ca: None,
        }));
    }
    let (Some((namespace, secret)), Some(webhook_configuration), Some(service)) = (
        &args.self_managed_secret,
        &args.webhook_configuration,
        &args.service,
    ) else {
        return Err("--tls-cert and --tls-key are needed, or --self-managed-secret".to_owned());
    };
    let environment = config::environment();
    let api_server = args.api_server.clone().or_else(|| {
        let host = environment.get("KUBERNETES_SERVICE_HOST")?;
        let port = environment.get("KUBERNETES_SERVICE_PORT")?;
        // An IPv6 address stands in brackets in a URL.
        let host = if host.contains(':') {
            format!("[{host}]")
        } else {
            host.clone()
        };
        Some(format!("https://{host}:{port}"))
    });
    Ok(Certificates::SelfManaged(SelfManaged {
        api_server: api_server.ok_or(
            "this process runs in no cluster (KUBERNETES_SERVICE_HOST is unset): name its --api-server",
        )?,
        service_account: args.service_account.clone(),
        names: vec![
            format!("{service}.{namespace}.svc"),
            format!("{service}.{namespace}.svc.cluster.local"),
        ],
        namespace: namespace.clone(),
        secret: secret.clone(),
        webhook_configuration: webhook_configuration.clone(),
        lifetimes: Lifetimes::default(),
    }))
}

async fn serve(config: InjectorConfig, logs: Logs, signals: &Signals) -> ExitCode {
    let injector = match Injector::build(config) {
        Ok(injector) => injector,
        Err(error @ (InjectorError::Fragment(_) | InjectorError::Tls(_) | InjectorError::ApiServer(_))) => {
            print_err(&error.to_string());
            return ExitCode::from(EXIT_USAGE);
        }
        Err(error) => {
            tracing::error!(error = chain(&error), "The injector cannot start.");
            return ExitCode::FAILURE;
        }
    };
    let shutdown = signals.serving(injector.longest_stop(), logs);
    let version = env!("CARGO_PKG_VERSION");
    tracing::info!(listen = %injector.address(), admin = %injector.admin_address(), version, "The injector listens.");
    tokio::select! {
        () = injector.run(shutdown.gracefully.clone()) => ExitCode::SUCCESS,
        () = shutdown.at_once.cancelled() => ExitCode::FAILURE,
    }
}
