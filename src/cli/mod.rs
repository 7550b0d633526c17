//! The command line.

mod cache_dir;
mod check;
mod compile_extension;
mod demo;
mod diff;
mod explain;
#[cfg(feature = "compiler")]
mod ext;
mod http;
mod inject;
mod inject_webhook;
mod output;
mod policy_files;
mod probe;
mod read_config;
mod run;
mod schema;
mod signals;
mod simulate;
mod store;
mod test;
mod tried_extensions;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use self::cache_dir::cache_dir;
pub use self::output::EXIT_USAGE;

const VERSION: &str = concat!(
    env!("CARGO_PKG_VERSION"),
    " (commit ",
    env!("BEAMLINE_COMMIT"),
    ", rustls ",
    env!("BEAMLINE_RUSTLS_VERSION"),
    ", wasmtime ",
    env!("BEAMLINE_WASMTIME_VERSION"),
    ")"
);

/// Answers the Beamline Router's policy lookups from memory, whether HEIR is up or not.
#[derive(Debug, Parser)]
#[command(name = "beamline-sidecar", version = VERSION, propagate_version = true, max_term_width = 110)]
#[command(after_help = "Examples:
  beamline-sidecar demo                              see it work, on this machine, in half a minute
  beamline-sidecar run                               in front of a HEIR at 127.0.0.1:8090
  beamline-sidecar run --config sidecar.yaml
  beamline-sidecar check --config sidecar.yaml       every mistake at once
  beamline-sidecar store --db heir.db                a HEIR of your own")]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the sidecar: a caching proxy in front of HEIR that answers the Router.
    Run(run::RunArgs),
    /// Run a HEIR: a policy store on SQLite or Postgres.
    Store(store::StoreArgs),
    /// Show everything at work on this machine, in half a minute: a store, a sidecar, an outage, a recovery.
    Demo(demo::DemoArgs),
    /// Check policies, or a configuration and the policies it names; report every mistake.
    Check(check::CheckArgs),
    /// Explain what a policy decides about a request, and why.
    Explain(explain::ExplainArgs),
    /// Try a policy on many requests, with providers that fail: which provider gets which share.
    Simulate(simulate::SimulateArgs),
    /// Compare two versions of a policy: which decisions change.
    Diff(diff::DiffArgs),
    /// Run decision cases: policies, requests, and the results that are wanted.
    Test(test::TestArgs),
    /// Develop extensions: new, build, check, test, bench, inspect.
    #[cfg(feature = "compiler")]
    Ext(ext::ExtArgs),
    /// Put the sidecar into manifests of Kubernetes, as the injector does it in the cluster.
    Inject(inject::InjectArgs),
    /// Run the injector: the webhook of Kubernetes that puts the sidecar into pods while they are created.
    InjectWebhook(inject_webhook::InjectWebhookArgs),
    /// Print a JSON Schema, for editors: of the policy language, of registry records, or of the cases of extensions.
    Schema(schema::SchemaArgs),
    /// Ask a running sidecar whether it is live or ready, for containers without a shell.
    Probe(probe::ProbeArgs),
    /// Compile an extension from standard input to standard output. The sidecar calls it.
    #[command(hide = true)]
    CompileExtension(compile_extension::CompileArgs),
    /// Read the configuration, and write it as JSON. The sidecar calls it.
    #[command(hide = true)]
    ReadConfig(read_config::ReadConfigArgs),
}

/// Runs the command that the command line names.
pub fn main() -> ExitCode {
    // The worker parses the command line.
    if run::is_supervised(std::env::args_os().skip(1)) {
        return run::supervised();
    }
    match Cli::parse().command {
        Command::Run(args) => run::run(&args),
        Command::Store(args) => store::run(&args),
        Command::Demo(args) => demo::run(&args),
        Command::Check(args) => check::run(&args),
        Command::Explain(args) => explain::run(&args),
        Command::Simulate(args) => simulate::run(&args),
        Command::Diff(args) => diff::run(&args),
        Command::Test(args) => test::run(&args),
        #[cfg(feature = "compiler")]
        Command::Ext(args) => ext::run(&args),
        Command::Inject(args) => inject::run(&args),
        Command::InjectWebhook(args) => inject_webhook::run(&args),
        Command::Schema(args) => schema::run(&args),
        Command::Probe(args) => probe::run(&args),
        Command::CompileExtension(args) => compile_extension::run(&args),
        Command::ReadConfig(args) => read_config::run(&args),
    }
}
