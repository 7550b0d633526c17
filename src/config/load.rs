//! Reads the file, applies the environment to it, and checks the whole before anything is started.

use std::{fs, path::Path};

use serde_json::{Map, Value};

use super::{
    check::Keys,
    env::{self, Environment},
    mistake::{Mistake, Mistakes},
    renamed,
    sections::Config,
};
use crate::{listener::Address, plain_file, policy::TenantId, yaml};

/// A configuration without a mistake.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub struct Loaded {
    /// The configuration, checked as a whole.
    pub config: Config,
    /// Settings that are allowed and yet deserve a warning in the log.
    pub warnings: Vec<String>,
}

/// The keys whose values are the environment's, and the variables that they are from.
type Variables = std::collections::BTreeMap<String, String>;

/// Reads and checks the configuration. Without a file the defaults and the environment are used.
pub fn load(file: Option<&Path>, environment: &Environment) -> Result<Loaded, Mistakes> {
    let Some(file) = file else {
        return parse("", "the environment", environment);
    };
    let origin = file.display().to_string();
    let read = if plain_file::is_handed_over(file) {
        fs::read_to_string(file)
    } else {
        plain_file::read_to_string(file)
    };
    match read {
        Ok(text) => parse(&text, &origin, environment),
        Err(error) => Err(Mistakes {
            origin,
            list: vec![Mistake::new(
                "",
                format!("cannot be read: {error}"),
                "check the path and its permissions",
            )],
        }),
    }
}

/// As [`load`], from a text.
pub fn parse(text: &str, origin: &str, environment: &Environment) -> Result<Loaded, Mistakes> {
    let fail = |list| {
        Err(Mistakes {
            origin: origin.to_owned(),
            list,
        })
    };
    // Who looks for a mistake in the file must be told where it is not.
    let of_variables = |variables: &Variables, mut list: Vec<Mistake>| {
        for mistake in &mut list {
            if let Some(variable) = variables.get(&mistake.key)
                && !mistake.message.contains(variable)
            {
                mistake.message.push_str(&format!(" (from {variable})"));
            }
        }
        fail(list)
    };
    let mut document = match read_yaml(text) {
        Ok(document) => document,
        Err(message) => {
            return fail(vec![Mistake::new(
                "",
                message,
                "fix the YAML at the line and column given",
            )]);
        }
    };
    let keys = Keys::of::<Config>();
    let mut mistakes = renamed::in_file(&document);
    mistakes.extend(env::old_variables(environment, &keys));
    let overlaid = env::overlay(&mut document, environment, &keys);
    mistakes.extend(overlaid.mistakes);
    mistakes.extend(keys.check(&document));
    let variables = &overlaid.variables;
    if !mistakes.is_empty() {
        return of_variables(variables, mistakes);
    }
    let config: Config = match serde_json::from_value(document) {
        Ok(config) => config,
        Err(error) => {
            return fail(vec![Mistake::new(
                "",
                error.to_string(),
                "see docs/configuration.md",
            )]);
        }
    };
    let mut warnings = overlaid.warnings;
    cross_check(&config, &mut mistakes, &mut warnings);
    if mistakes.is_empty() {
        Ok(Loaded { config, warnings })
    } else {
        of_variables(variables, mistakes)
    }
}

fn read_yaml(text: &str) -> Result<Value, String> {
    if text
        .lines()
        .all(|line| line.trim().is_empty() || line.trim_start().starts_with('#'))
    {
        return Ok(Value::Object(Map::new()));
    }
    match yaml::read_config::<Value>(text) {
        Ok(Value::Null) => Ok(Value::Object(Map::new())),
        Ok(value) => Ok(value),
        Err(error) => Err(error.to_string()),
    }
}

/// Checks that no schema can express: values that are wrong only in combination.
fn cross_check(config: &Config, mistakes: &mut Vec<Mistake>, warnings: &mut Vec<String>) {
    check_listeners(config, mistakes);
    check_heir(config, mistakes);
    check_files(config, mistakes);
    let refresh = &config.refresh;
    if refresh.expired_after_ms < refresh.stale_after_ms {
        mistakes.push(Mistake::new(
            "refresh.expired_after_ms",
            "is less than refresh.stale_after_ms",
            "a snapshot is stale before it is expired: raise it, or lower refresh.stale_after_ms",
        ));
    }
    if config.heir_url().is_some() && refresh.stale_after_ms < refresh.interval_ms {
        warnings.push(format!(
            "refresh.stale_after_ms ({}) is less than refresh.interval_ms ({}): between two polls every answer will \
             be marked stale",
            refresh.stale_after_ms, refresh.interval_ms
        ));
    }
    if let Err(error) = crate::telemetry::parse_filter(&config.log.filter) {
        mistakes.push(Mistake::new(
            "log.filter",
            error,
            "for example `info` or `warn,beamline_sidecar=debug`",
        ));
    }
}

fn check_listeners(config: &Config, mistakes: &mut Vec<Mistake>) {
    if config.listen.as_slice().is_empty() {
        mistakes.push(Mistake::new(
            "listen",
            "is an empty list",
            "name at least one address, such as 127.0.0.1:8080",
        ));
    }
    for text in config.listen.as_slice() {
        if let Err(error) = text.parse::<Address>() {
            mistakes.push(Mistake::new(
                "listen",
                error.to_string(),
                "IP:PORT or unix:/absolute/path",
            ));
        }
    }
    match config.admin.listen.parse::<Address>() {
        Err(error) => mistakes.push(Mistake::new(
            "admin.listen",
            error.to_string(),
            "IP:PORT or unix:/absolute/path",
        )),
        Ok(admin) => {
            let taken = config
                .listen_addresses()
                .into_iter()
                .any(|data| data == admin && !matches!(admin, Address::Tcp(address) if address.port() == 0));
            if taken {
                mistakes.push(Mistake::new(
                    "admin.listen",
                    "is the same as listen",
                    "give it a port of its own",
                ));
            }
        }
    }
}

fn check_heir(config: &Config, mistakes: &mut Vec<Mistake>) {
    if config.heir.url.is_some() && config.heir_policy_store_enabled == Some(false) {
        mistakes.push(Mistake::new(
            "heir_policy_store_enabled",
            "is false although heir.url is set",
            "remove one of the two",
        ));
    }
    for (key, set) in [
        ("heir_policy_store_host", config.heir_policy_store_host.is_some()),
        ("heir_policy_store_port", config.heir_policy_store_port.is_some()),
    ] {
        if set && config.heir.url.is_some() {
            mistakes.push(Mistake::new(
                key,
                "is set although heir.url is",
                "remove one of the two",
            ));
        } else if set && config.heir_policy_store_enabled.is_none() {
            // Beside `false` it says nothing that could be meant otherwise: the platform's own defaults are such a set.
            mistakes.push(Mistake::new(
                key,
                "has no effect while heir_policy_store_enabled is unset",
                "set heir_policy_store_enabled: true, or remove this key",
            ));
        }
    }
    for tenant in &config.heir.tenants {
        if let Err(error) = TenantId::parse(tenant) {
            mistakes.push(Mistake::new(
                "heir.tenants",
                format!("the tenant id {tenant:?} {error}"),
                "list tenant ids of 1 to 255 characters from A-Z a-z 0-9 _ . -",
            ));
        }
    }
    let Some(url) = config.heir_url() else { return };
    let (key, remedy) = if config.heir.url.is_some() {
        (
            "heir.url",
            "give HEIR another port, or the sidecar another `listen`",
        )
    } else {
        (
            "heir_policy_store_port",
            "set heir_policy_store_host and heir_policy_store_port to where HEIR itself is: the Router keeps its own \
             and so asks the sidecar",
        )
    };
    match crate::heir::BaseUrl::parse(&url) {
        Err(error) => mistakes.push(Mistake::new(
            key,
            error.to_string(),
            "for example http://heir.internal:8090",
        )),
        Ok(base) => {
            if config
                .listen_addresses()
                .iter()
                .any(|address| matches!(address, Address::Tcp(address) if base.is_at(*address)))
            {
                mistakes.push(Mistake::new(
                    key,
                    format!("{url} is where the sidecar itself listens: it would send requests to itself"),
                    remedy,
                ));
            }
            let tls = &config.heir.tls;
            let given = [&tls.ca_file, &tls.cert_file, &tls.key_file];
            if !base.is_tls() && given.iter().any(|file| !file.as_os_str().is_empty()) {
                mistakes.push(Mistake::new(
                    "heir.tls",
                    format!("is set, but {url} is not https"),
                    "use an https URL",
                ));
            }
            if tls.cert_file.as_os_str().is_empty() != tls.key_file.as_os_str().is_empty() {
                mistakes.push(Mistake::new(
                    "heir.tls",
                    "has one of cert_file and key_file",
                    "give both, or neither",
                ));
            }
        }
    }
    if config.heir.pool.max_idle > config.heir.pool.max_requests {
        mistakes.push(Mistake::new(
            "heir.pool.max_idle",
            "is more than heir.pool.max_requests",
            "lower it to at most heir.pool.max_requests",
        ));
    }
}

fn check_files(config: &Config, mistakes: &mut Vec<Mistake>) {
    let tls = &config.heir.tls;
    for (key, file) in [
        ("heir.token_file", &config.heir.token_file),
        ("heir.tls.ca_file", &tls.ca_file),
        ("heir.tls.cert_file", &tls.cert_file),
        ("heir.tls.key_file", &tls.key_file),
        ("admin.token_file", &config.admin.token_file),
    ] {
        if file.as_os_str().is_empty() {
            continue;
        }
        match plain_file::read(file) {
            Err(error) => mistakes.push(Mistake::new(
                key,
                format!("{} cannot be read: {error}", file.display()),
                "create the file, or correct the path and its permissions",
            )),
            Ok(content) if content.trim_ascii().is_empty() => mistakes.push(Mistake::new(
                key,
                format!("{} is empty", file.display()),
                "write the secret into it, or unset the key: an empty secret protects nothing",
            )),
            Ok(_) => {}
        }
    }
    if config.writes.when_heir_down == Some(crate::write::WhenHeirDown::Queue)
        && config.state_dir.as_os_str().is_empty()
    {
        mistakes.push(Mistake::new(
            "writes.when_heir_down",
            "is queue, but there is no state_dir to keep the journal in",
            "set state_dir, or use reject",
        ));
    }
    let dir = &config.policies_dir;
    if !dir.as_os_str().is_empty() && !dir.is_dir() {
        mistakes.push(Mistake::new(
            "policies_dir",
            format!("{} is not a directory", dir.display()),
            "create it with TENANT/POLICY.json files, or unset the key",
        ));
    }
}
