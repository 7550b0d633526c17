//! `beamline-sidecar ext push`.

use std::{collections::BTreeMap, path::PathBuf, process::ExitCode};

use bytes::Bytes;
use clap::Args;
use serde_json::{Value, json};

use super::{
    component_info::ComponentInfo,
    registry::{Package, RegistryArgs},
    show::{Table, escaped},
    target::Target,
};
use crate::{
    cli::output::{EXIT_USAGE, print, print_err},
    extensions::oci::{Descriptor, ImageManifest, Layout, Reference, media},
};

#[derive(Debug, Args)]
#[command(
    after_help = "Prints the name with the digest, which is what a record has as its module. The same component is the same artifact,
whenever it is pushed.

Exits 0 if it is pushed, 64 if not.

Examples:
  beamline-sidecar ext push my-guard oci://registry.example/guards/my-guard:1.0
  beamline-sidecar ext push my-guard.wasm oci://localhost:5000/my-guard --json | jq -r .module
  beamline-sidecar ext push my-guard oci://registry.example/guards/my-guard:1.0 --username ci --password-file token"
)]
pub(super) struct PushArgs {
    /// A component, or a project that was built.
    #[arg(value_name = "FILE|DIR")]
    path: PathBuf,
    /// Where to: oci://HOST/REPOSITORY, with a :TAG for people.
    #[arg(value_name = "NAME")]
    to: Reference,
    /// How the artifact is laid out: as the CNCF's guidance has it, or as Kubewarden.
    #[arg(long, value_enum, default_value_t = Layout::Wasm)]
    layout: Layout,
    #[command(flatten)]
    registry: RegistryArgs,
    /// Print JSON, for machines.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &PushArgs) -> ExitCode {
    match push(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            print_err(&escaped(&reason));
            ExitCode::from(EXIT_USAGE)
        }
    }
}

fn push(args: &PushArgs) -> Result<(), String> {
    let target = Target::find(&args.path, None)?;
    if let Some(stale) = target.stale() {
        print_err(&stale);
    }
    if args.to.digest.is_some() {
        return Err(format!(
            "{}: the digest comes of what is pushed; leave it out",
            args.to
        ));
    }
    let module = Bytes::from(target.read()?);
    let named = |reason: String| format!("{}: {reason}", target.file.display());
    let info = ComponentInfo::of(&module).map_err(named)?;
    let package = package(&info, &target.name(), module, args.layout)?;
    let repository = &args.to.repository;
    args.registry.run(async |registry| {
        package
            .push(registry, repository, args.to.tag.as_deref())
            .await
            .map(drop)
    })?;
    let name = repository.artifact(package.digest).to_string();
    if args.json {
        print(
            &json!({
                "module": name,
                "tag": args.to.tag,
                "digest": format!("sha256:{}", package.digest),
                "sha256": info.sha256,
                "layout": args.layout,
            })
            .to_string(),
        );
    } else {
        let mut table = Table::default();
        table.row("pushed", args.to.to_string());
        table.row("module", name);
        table.row("sha256", info.sha256.to_string());
        print(&table.to_string());
    }
    Ok(())
}

/// An artifact of one component.
fn package(info: &ComponentInfo, name: &str, module: Bytes, layout: Layout) -> Result<Package, String> {
    let (module_type, config_type) = layout.media_types();
    let config = match layout {
        Layout::Kubewarden => json!({}),
        Layout::Wasm => json!({
            // When it was built is not known, and must not make another artifact of the same component.
            "created": "1970-01-01T00:00:00Z",
            "architecture": "wasm",
            "os": "wasip2",
            "layerDigests": [format!("sha256:{}", info.sha256)],
            "component": {
                "imports": info.imports,
                "exports": exports(info),
            },
        }),
    };
    let config = Bytes::from(config.to_string());
    let mut layer = Descriptor::of(module_type, &module);
    let title = "org.opencontainers.image.title".to_owned();
    layer.annotations.insert(title.clone(), format!("{name}.wasm"));
    let mut annotations = BTreeMap::from([(title, name.to_owned())]);
    if let Some(about) = &info.about {
        let version = "org.opencontainers.image.version".to_owned();
        annotations.insert(version, about.version.clone());
    }
    let manifest = ImageManifest {
        schema_version: 2,
        media_type: Some(media::MANIFEST.to_owned()),
        artifact_type: None,
        config: Descriptor::of(config_type, &config),
        layers: vec![layer],
        subject: None,
        annotations,
    };
    let manifest = serde_json::to_vec(&manifest).map_err(|error| error.to_string())?;
    Ok(Package::new(manifest.into(), vec![config, module]))
}

/// The names of the exports, without their types.
fn exports(info: &ComponentInfo) -> Vec<Value> {
    let name = |export: &String| {
        let end = export.find([':', '(']).unwrap_or(export.len());
        Value::from(export[..end].trim())
    };
    info.exports.iter().map(name).collect()
}
