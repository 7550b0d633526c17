//! `beamline-sidecar inject`.

use std::{fs, io::Read, path::PathBuf, process::ExitCode};

use clap::Args;
use serde_json::Value;

use super::output::{EXIT_USAGE, counted, print_err, print_text};
use crate::{
    inject::{Found, Fragment, State, inject_manifest},
    yaml,
};

#[derive(Debug, Args)]
#[command(
    after_help = "Pods and the templates of Deployments, StatefulSets, DaemonSets, Jobs and CronJobs get the sidecar if they have the
label sidecar.beamline.dev/inject: enabled. Everything else is printed as it is. JSON stays JSON; of YAML, comments are lost.

Exits 0, or 64 if a pod cannot get the sidecar or the input cannot be read; with --check, 1 if a pod has none or an old one.

Examples:
  beamline-sidecar inject -f router.yaml | kubectl apply -f -
  helm template router ./router | beamline-sidecar inject -f - --fragment fragment.json
  beamline-sidecar inject --check -f rendered.yaml"
)]
pub(super) struct InjectArgs {
    /// The manifests, YAML or JSON; `-` for standard input.
    #[arg(short = 'f', long = "file", value_name = "FILE|-")]
    file: PathBuf,
    /// What is put into pods: a fragment, or the injector's ConfigMap, in JSON (`kubectl get configmap … -o json`). Unset: the
    /// one of the chart's default values.
    #[arg(long, value_name = "FILE")]
    fragment: Option<PathBuf>,
    /// Those without the label as well; `disabled` excepts one.
    #[arg(long)]
    all: bool,
    /// Print no manifests; say which pods have no sidecar, or the one of another fragment.
    #[arg(long)]
    check: bool,
}

/// Whether what was read is written as JSON again.
enum Form {
    Json,
    Yaml,
}

pub(super) fn run(args: &InjectArgs) -> ExitCode {
    match inject(args) {
        Ok(code) => code,
        Err(message) => {
            print_err(&message);
            ExitCode::from(EXIT_USAGE)
        }
    }
}

fn inject(args: &InjectArgs) -> Result<ExitCode, String> {
    let fragment = fragment(args)?;
    let (mut documents, form) = read(&args.file)?;
    let found: Vec<Found> = documents
        .iter_mut()
        .flat_map(|document| inject_manifest(document, &fragment, args.all))
        .collect();
    let mut refused = 0;
    for found in &found {
        match &found.result {
            Ok(said) => said
                .iter()
                .for_each(|said| print_err(&format!("{}: {said}", found.name))),
            Err(error) => {
                refused += 1;
                print_err(&format!("{}: {error}", found.name));
            }
        }
    }
    if refused > 0 {
        return Err(format!(
            "{} cannot get the sidecar",
            counted(refused, "pod", "pods")
        ));
    }
    if found.is_empty() {
        print_err(
            "No pod here has the label sidecar.beamline.dev/inject: enabled; --all takes those without it too.",
        );
    }
    if args.check {
        return Ok(check(&found));
    }
    for found in found.iter().filter(|found| found.state == State::Stale) {
        print_err(&format!(
            "{}: has the sidecar of another fragment, and is left as it is: inject the manifest that has none",
            found.name
        ));
    }
    print_text(&written(&documents, &form)?);
    Ok(ExitCode::SUCCESS)
}

fn check(found: &[Found]) -> ExitCode {
    let mut all_current = true;
    for found in found {
        let said = match found.state {
            State::Current => continue,
            State::Missing => "has no sidecar",
            State::Stale => "has the sidecar of another fragment",
        };
        all_current = false;
        print_err(&format!("{}: {said}", found.name));
    }
    if all_current {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn fragment(args: &InjectArgs) -> Result<Fragment, String> {
    let Some(file) = &args.fragment else {
        return Fragment::of_default_values().map_err(|error| error.to_string());
    };
    let said = |error: &dyn std::fmt::Display| format!("{}: {error}", file.display());
    let text = fs::read_to_string(file).map_err(|error| said(&error))?;
    Fragment::parse(&text).map_err(|error| said(&error))
}

fn read(file: &std::path::Path) -> Result<(Vec<Value>, Form), String> {
    let said = |error: &dyn std::fmt::Display| format!("{}: {error}", file.display());
    let mut text = String::new();
    if file.as_os_str() == "-" {
        std::io::stdin()
            .read_to_string(&mut text)
            .map_err(|error| said(&error))?;
    } else {
        text = fs::read_to_string(file).map_err(|error| said(&error))?;
    }
    if text.trim_start().starts_with('{') {
        let documents = serde_json::Deserializer::from_str(&text).into_iter().collect();
        let documents: Result<Vec<Value>, _> = documents;
        return Ok((documents.map_err(|error| said(&error))?, Form::Json));
    }
    let mut documents = yaml::read_manifests(&text).map_err(|error| said(&error))?;
    documents.retain(|document| !document.is_null());
    Ok((documents, Form::Yaml))
}

fn written(documents: &[Value], form: &Form) -> Result<String, String> {
    let mut text = String::new();
    for (place, document) in documents.iter().enumerate() {
        match form {
            Form::Json => {
                text.push_str(&serde_json::to_string_pretty(document).map_err(|error| error.to_string())?);
                text.push('\n');
            }
            Form::Yaml => {
                if place > 0 {
                    text.push_str("---\n");
                }
                text.push_str(&yaml::write(document).map_err(|error| error.to_string())?);
            }
        }
    }
    Ok(text)
}
