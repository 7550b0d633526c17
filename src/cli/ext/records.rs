//! The records of a directory, checked as far as that can be done without compiling anything.

use std::{collections::BTreeMap, io, path::Path};

use super::component_info::ComponentInfo;
use crate::{
    extensions::{
        ExtensionsConfig, Manifest, Module, ModuleSource, Profile, call_limits, check_import, oci::Access,
        read_module_file, read_records,
    },
    policy::Problem,
};

/// What a sidecar with this configuration would say of the records in a directory, by their ids.
///
/// # Errors
/// When the directory cannot be read.
pub(crate) fn check_records(
    config: &ExtensionsConfig,
    dir: &Path,
) -> io::Result<BTreeMap<String, Vec<Problem>>> {
    let (records, mut problems) = read_records(dir)?;
    for (id, text) in &records {
        let found = match Manifest::read(text) {
            Ok((manifest, mut warnings)) => {
                if manifest.enabled {
                    warnings.extend(check_modules(config, dir, &manifest));
                }
                warnings
            }
            Err(found) => found,
        };
        if !found.is_empty() {
            problems.entry(id.clone()).or_default().extend(found);
        }
    }
    Ok(problems)
}

fn check_modules(config: &ExtensionsConfig, dir: &Path, manifest: &Manifest) -> Vec<Problem> {
    let mut modules: Vec<&Module> = manifest.modules().collect();
    modules.sort_unstable();
    modules.dedup();
    let mut problems = Vec::new();
    for module in modules {
        let wrong = |reason: String| {
            let message = format!("{}: {reason}", module.source);
            Problem::error("$.module", message, "correct the module or the record")
        };
        match read_module_file(config, dir, module) {
            Some(Ok(bytes)) => {
                problems.extend(check_component(&bytes, manifest).err().map(wrong));
                if let Err(refusal) = call_limits(&manifest.limits, Profile::of(&bytes), config) {
                    problems.push(Problem::error("$.limits", refusal.message, refusal.remedy));
                }
            }
            Some(Err(reason)) => problems.push(wrong(reason)),
            None => problems.extend(check_host(config, module).err().map(wrong)),
        }
    }
    problems
}

/// Whether a module may come from where its record says.
fn check_host(config: &ExtensionsConfig, module: &Module) -> Result<(), String> {
    let uri: http::Uri;
    let host = match &module.source {
        ModuleSource::Https(url) => {
            uri = url.parse().map_err(|error| format!("not a URL: {error}"))?;
            uri.host().unwrap_or_default()
        }
        ModuleSource::Oci(artifact) => artifact.repository.host(),
        _ => return Ok(()),
    };
    let access = Access::new(&config.registries, &config.module_hosts);
    access.allows(host).map_err(|error| error.reason)
}

/// Whether a component is of the kind that its record says, and imports what it may.
fn check_component(bytes: &[u8], manifest: &Manifest) -> Result<(), String> {
    let info = ComponentInfo::of(bytes)?;
    for import in &info.imports {
        check_import(import, &manifest.capabilities).map_err(|error| error.to_string())?;
    }
    match (info.kind, manifest.runs()) {
        (Some(is), Some(said)) if is != said => Err(format!(
            "the record says {}, and the component is a {}",
            said.as_str(),
            is.as_str()
        )),
        (None, Some(said)) => Err(format!(
            "it is of no world that is known, and no {}",
            said.as_str()
        )),
        _ => Ok(()),
    }
}

/// The modules that are files, of all records that are valid and enabled, each once.
///
/// # Errors
/// When the directory cannot be read.
pub(super) fn file_modules(dir: &Path) -> io::Result<Vec<Module>> {
    let (records, _) = read_records(dir)?;
    let mut modules = Vec::new();
    for text in records.values() {
        if let Ok((manifest, _)) = Manifest::read(text)
            && manifest.enabled
        {
            let files = manifest
                .modules()
                .filter(|module| matches!(module.source, ModuleSource::File(_)));
            modules.extend(files.cloned());
        }
    }
    modules.sort_unstable();
    modules.dedup();
    Ok(modules)
}
