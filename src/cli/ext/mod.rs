//! `beamline-sidecar ext`: what authors of extensions need, from an empty directory to a measured component.

mod about;
mod archive;
mod bench;
mod build;
mod call_report;
mod check;
mod compile;
mod component_info;
mod copy;
mod engine;
mod frames;
mod inspect;
mod keygen;
mod new;
mod precompile;
mod pull;
mod push;
mod record_text;
mod records;
mod registry;
mod replay;
mod run_once;
mod save;
mod sdk;
mod show;
mod sign;
mod signed;
mod source_lines;
mod target;
mod template;
mod test;
mod vendor;
mod verify;
mod watch;

use std::process::ExitCode;

pub(super) use self::records::check_records;

use clap::{Args, Subcommand};

#[derive(Debug, Args)]
#[command(
    after_help = "All of them exit 0 if everything is valid, 1 if something was found, and 64 if they cannot do their work.

Examples:
  beamline-sidecar ext inspect my-guard.wasm         what it is, and what it asks for"
)]
pub(super) struct ExtArgs {
    #[command(subcommand)]
    command: ExtCommand,
}

#[derive(Debug, Subcommand)]
enum ExtCommand {
    /// Write a project that builds and passes its tests.
    New(new::NewArgs),
    /// Build a project, and make a component of it.
    Build(build::BuildArgs),
    /// Check a component and its registry record as a sidecar does; report every mistake.
    Check(check::CheckArgs),
    /// Run cases: what the extension is given, and what must come of it.
    Test(test::TestArgs),
    /// Make one call, and show its answer, what it cost, and what was logged.
    Run(run_once::RunArgs),
    /// Make recorded calls again on another version: whose answers change, and what it costs.
    Replay(replay::ReplayArgs),
    /// Measure calls, and compare with the run before.
    Bench(bench::BenchArgs),
    /// Write this version's SDK and interface into a project, in place of those that are there.
    Vendor(vendor::VendorArgs),
    /// Say what a component is, without running any of it.
    Inspect(inspect::InspectArgs),
    /// Compile the modules of a directory ahead, for images and init containers.
    Precompile(precompile::PrecompileArgs),
    /// Make a key to sign with.
    Keygen(keygen::KeygenArgs),
    /// Put a component into an OCI registry.
    Push(push::PushArgs),
    /// Get a component from an OCI registry.
    Pull(pull::PullArgs),
    /// Copy an artifact and its signatures from one registry to another.
    Copy(copy::CopyArgs),
    /// Sign an artifact in a registry, or a component in its record.
    Sign(sign::SignArgs),
    /// Say whether one of some keys signed an artifact or a component.
    Verify(verify::VerifyArgs),
    /// Write an artifact and its signatures into a file, for places that reach no registry.
    Save(save::SaveArgs),
    /// Put what `ext save` wrote into a registry, or into a sidecar's state_dir.
    Load(save::LoadArgs),
}

pub(super) fn run(args: &ExtArgs) -> ExitCode {
    match &args.command {
        ExtCommand::New(args) => new::run(args),
        ExtCommand::Build(args) => build::run(args),
        ExtCommand::Check(args) => check::run(args),
        ExtCommand::Test(args) => test::run(args),
        ExtCommand::Run(args) => run_once::run(args),
        ExtCommand::Replay(args) => replay::run(args),
        ExtCommand::Bench(args) => bench::run(args),
        ExtCommand::Vendor(args) => vendor::run(args),
        ExtCommand::Inspect(args) => inspect::run(args),
        ExtCommand::Precompile(args) => precompile::run(args),
        ExtCommand::Keygen(args) => keygen::run(args),
        ExtCommand::Push(args) => push::run(args),
        ExtCommand::Pull(args) => pull::run(args),
        ExtCommand::Copy(args) => copy::run(args),
        ExtCommand::Sign(args) => sign::run(args),
        ExtCommand::Verify(args) => verify::run(args),
        ExtCommand::Save(args) => save::run_save(args),
        ExtCommand::Load(args) => save::run_load(args),
    }
}
