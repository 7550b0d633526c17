//! The configuration as an operator meets it: mistakes, variables, and the reference.

use std::{fs, path::Path};

use beamline_sidecar::config::{self, Environment, Mistakes};

fn environment(variables: &[(&str, &str)]) -> Environment {
    variables
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

fn parse(yaml: &str, variables: &[(&str, &str)]) -> Result<config::Loaded, Mistakes> {
    config::parse(yaml, "test.yaml", &environment(variables))
}

/// The mistakes as `key: message | remedy`, in the order of the keys.
fn mistakes(yaml: &str, variables: &[(&str, &str)]) -> Vec<String> {
    let mut found: Vec<String> = match parse(yaml, variables) {
        Ok(_) => Vec::new(),
        Err(mistakes) => mistakes
            .list
            .into_iter()
            .map(|m| format!("{}: {} | {}", m.key, m.message, m.remedy))
            .collect(),
    };
    found.sort();
    found
}

/// The one mistake of this YAML.
fn mistake(yaml: &str) -> String {
    let mut found = mistakes(yaml, &[]);
    assert_eq!(found.len(), 1, "{yaml}: {found:?}");
    found.remove(0)
}

#[test]
fn every_mistake_is_told_at_once_with_its_key_and_remedy() {
    let yaml = "
lisen: 127.0.0.1:1
refresh: {intervall_ms: 5, interval_ms: 5, when_expired: later, max_removed_percent: 101, jitter_seed: -1}
heir: {timeout_ms: fast, pool: {max_requests: 1}, retry: {factor: 0.5}, zzzzzzzzz: 1}
limits: [1]
unix_mode: 660
listen: 5
log: {format: xml}
";
    assert_eq!(
        mistakes(yaml, &[]),
        [
            "heir.pool.max_requests: 1 is less than the minimum of 2 | integer from 2 to 10000",
            "heir.retry.factor: 0.5 is less than the minimum of 1.0 | number from 1.0 to 10.0",
            "heir.timeout_ms: \"fast\" is not of types \"null\", \"integer\" | integer from 1 to 600000",
            "heir.zzzzzzzzz: there is no such key | known here: breaker, health_interval_ms, max_answer_bytes, pool, \
             retry, tenants, timeout_ms, tls, token_file, url",
            "limits: [1] is not of type \"object\" | a section with the keys idle_timeout_ms, max_body_bytes, max_buffered_bytes, \
             max_connections, max_header_bytes, max_waiting_requests, read_timeout_ms",
            "lisen: there is no such key | did you mean `listen`?",
            "listen: 5 is not a value of this key | string or array",
            "log.format: \"xml\" is not a value of this key | one of json, text",
            "refresh.interval_ms: 5 is less than the minimum of 10 | integer from 10 to 3600000",
            "refresh.intervall_ms: there is no such key | did you mean `interval_ms`?",
            "refresh.jitter_seed: -1 is less than the minimum of 0 | integer of at least 0",
            "refresh.max_removed_percent: 101 is greater than the maximum of 100 | integer from 0 to 100",
            "refresh.when_expired: \"later\" is not a value of this key | one of serve, refuse",
            "unix_mode: 660 is not of type \"string\" | string matching ^0?[0-7]{3}$",
        ]
    );
    let text = parse(yaml, &[]).unwrap_err().to_string();
    assert!(text.starts_with("14 mistakes in test.yaml\n  "), "{text}");
    assert!(
        text.contains("\n  lisen: there is no such key\n    remedy: did you mean `listen`?"),
        "{text}"
    );
}

#[test]
fn a_key_of_an_earlier_version_is_an_error_that_names_the_new_one() {
    let yaml = "
ops: {listen: '127.0.0.1:1'}
limits: {body_bytes: 5, idle_timeout_ms: 5000}
heir: {pool: {max: 9}}
";
    let environment = [
        ("BEAMLINE_OPS_TOKEN_FILE", "/x"),
        ("BEAMLINE_SHARE_LISTEN", "true"),
        ("BEAMLINE_PORT", "tcp://10.0.0.1:80"),
    ];
    assert_eq!(
        mistakes(yaml, &environment),
        [
            "heir.pool.max: heir.pool.max is now called heir.pool.max_requests | rename it to heir.pool.max_requests",
            "limits.body_bytes: limits.body_bytes is now called limits.max_body_bytes | rename it to limits.max_body_bytes",
            "ops.token_file: BEAMLINE_OPS_TOKEN_FILE is now called BEAMLINE_ADMIN_TOKEN_FILE | rename it to BEAMLINE_ADMIN_TOKEN_FILE",
            "ops: ops is now called admin | rename it to admin",
            "share_listen: BEAMLINE_SHARE_LISTEN is now called BEAMLINE_REUSE_PORT | rename it to BEAMLINE_REUSE_PORT",
        ]
    );
}

#[test]
fn what_kubernetes_sets_for_a_service_of_that_name_is_no_setting() {
    let yaml = "{heir_policy_store_enabled: true, heir_policy_store_host: heir}";
    for link in ["tcp://10.0.0.1:8090", "udp://10.0.0.1:53", "sctp://[fd00::1]:1"] {
        let loaded = parse(yaml, &[("BEAMLINE_HEIR_POLICY_STORE_PORT", link)]).unwrap();
        assert_eq!(loaded.config.heir_url().as_deref(), Some("http://heir:8080"));
        let [warning] = &loaded.warnings[..] else {
            panic!("{:?}", loaded.warnings)
        };
        assert!(
            warning.contains(link) && warning.contains("BEAMLINE_HEIR_POLICY_STORE_PORT"),
            "{warning}"
        );
    }
    // What only looks like it is a mistake, and so is the same in the file.
    for port in ["tcp:8090", "http://10.0.0.1"] {
        let found = mistakes(yaml, &[("BEAMLINE_HEIR_POLICY_STORE_PORT", port)]);
        assert!(
            found[0].contains("(from BEAMLINE_HEIR_POLICY_STORE_PORT)"),
            "{found:?}"
        );
    }
    assert_eq!(
        mistakes("heir_policy_store_port: 'tcp://10.0.0.1:1'", &[]).len(),
        1
    );
}

#[test]
fn a_mistake_in_a_variable_is_told_of_the_variable() {
    let found = mistakes(
        "refresh: {stale_after_ms: 4}",
        &[
            ("BEAMLINE_REFRESH_INTERVAL_MS", "5"),
            ("BEAMLINE_POLICIES_DIR", "/nowhere/at/all"),
        ],
    );
    assert_eq!(
        found,
        [
            "refresh.interval_ms: 5 is less than the minimum of 10 (from BEAMLINE_REFRESH_INTERVAL_MS) | integer from 10 to 3600000"
        ]
    );
    let found = mistakes("", &[("BEAMLINE_POLICIES_DIR", "/nowhere/at/all")]);
    assert!(
        found[0].contains("is not a directory (from BEAMLINE_POLICIES_DIR)"),
        "{found:?}"
    );
}

#[test]
fn values_that_are_wrong_only_together_are_told_at_once_as_well() {
    let folder = tempfile::tempdir().unwrap();
    let empty = folder.path().join("empty");
    fs::write(&empty, " \n").unwrap();
    let yaml = format!(
        "
listen: [127.0.0.1:7000, nowhere]
admin: {{listen: 127.0.0.1:7000, token_file: {empty}}}
heir: {{url: 'http://localhost:7000', tenants: [good, 'bad tenant'], pool: {{max_requests: 3, max_idle: 4}}, tls: {{cert_file: /none}}}}
refresh: {{stale_after_ms: 10, expired_after_ms: 9}}
writes: {{when_heir_down: queue}}
log: {{filter: 'a=b=c'}}
policies_dir: /nowhere/at/all
heir_policy_store_enabled: false
",
        empty = empty.display()
    );
    let found = mistakes(&yaml, &[]);
    let keys: Vec<&str> = found.iter().map(|m| m.split(": ").next().unwrap()).collect();
    assert_eq!(
        keys,
        [
            "admin.listen",
            "admin.token_file",
            "heir.pool.max_idle",
            "heir.tenants",
            "heir.tls.cert_file",
            "heir.tls",
            "heir.tls",
            "heir.url",
            "heir_policy_store_enabled",
            "listen",
            "log.filter",
            "policies_dir",
            "refresh.expired_after_ms",
            "writes.when_heir_down",
        ],
        "{found:#?}"
    );
    assert!(
        found.iter().all(|m| !m.ends_with("| ")),
        "each has a remedy: {found:#?}"
    );
    assert!(
        found[7].contains("it would send requests to itself"),
        "{}",
        found[7]
    );
    assert!(
        found[1].contains("an empty secret protects nothing"),
        "{}",
        found[1]
    );
}

#[test]
fn the_routers_own_keys_work_and_contradictions_are_refused() {
    let enabled = parse("heir_policy_store_enabled: true\nlisten: 127.0.0.1:1", &[])
        .unwrap()
        .config;
    assert_eq!(enabled.heir_url().unwrap(), "http://localhost:8080");
    assert_eq!(enabled.heir_timeout_ms(), 5_000);
    let all = parse(
        "heir_policy_store_enabled: true\nheir_policy_store_host: heir\nheir_policy_store_port: 81\nheir_policy_store_timeout: 70",
        &[],
    )
    .unwrap()
    .config;
    assert_eq!(all.heir_url().unwrap(), "http://heir:81");
    assert_eq!(all.heir_timeout_ms(), 70);
    let own = parse("heir_policy_store_timeout: 70\nheir: {timeout_ms: 80}", &[])
        .unwrap()
        .config;
    assert_eq!(own.heir_timeout_ms(), 80);
    assert_eq!(own.heir_url().unwrap(), "http://127.0.0.1:8090");
    let off = parse("heir_policy_store_enabled: false", &[]).unwrap().config;
    assert_eq!(off.heir_url(), None);
    // The Router's defaults name the port that the sidecar listens at by default.
    assert_eq!(
        mistake("heir_policy_store_enabled: true"),
        "heir_policy_store_port: http://localhost:8080 is where the sidecar itself listens: it would send \
         requests to itself | set heir_policy_store_host and heir_policy_store_port to where HEIR itself is: the Router \
         keeps its own and so asks the sidecar"
    );
    // What the platform ships as its defaults.
    let shipped =
        "heir_policy_store_host: localhost\nheir_policy_store_port: 8080\nheir_policy_store_timeout: 5000\n";
    let off = parse(&format!("heir_policy_store_enabled: false\n{shipped}"), &[])
        .unwrap()
        .config;
    assert_eq!((off.heir_url(), off.heir_timeout_ms()), (None, 5_000));
    let variables = [
        ("BEAMLINE_HEIR_POLICY_STORE_ENABLED", "false"),
        ("BEAMLINE_HEIR_POLICY_STORE_HOST", "localhost"),
        ("BEAMLINE_HEIR_POLICY_STORE_PORT", "8080"),
        ("BEAMLINE_HEIR_POLICY_STORE_TIMEOUT", "5000"),
    ];
    assert_eq!(parse("", &variables).unwrap().config.heir_url(), None);
    let on = mistake(&format!("heir_policy_store_enabled: true\n{shipped}"));
    assert!(on.contains("to where HEIR itself is"), "{on}");
    for (yaml, expected) in [
        (
            "heir: {url: 'http://h'}\nheir_policy_store_enabled: false",
            "heir_policy_store_enabled: is false although heir.url is set | remove one of the two",
        ),
        (
            "heir: {url: 'http://h'}\nheir_policy_store_host: h",
            "heir_policy_store_host: is set although heir.url is | remove one of the two",
        ),
        (
            "heir_policy_store_host: h",
            "heir_policy_store_host: has no effect while heir_policy_store_enabled is unset | set \
             heir_policy_store_enabled: true, or remove this key",
        ),
        (
            "heir_policy_store_port: 65536",
            "heir_policy_store_port: 65536 is greater than the maximum of 65535 | integer from 1 to 65535",
        ),
        (
            "heir_policy_store_port: 0",
            "heir_policy_store_port: 0 is less than the minimum of 1 | integer from 1 to 65535",
        ),
        (
            "heir_policy_store_timeout: 0",
            "heir_policy_store_timeout: 0 is less than the minimum of 1 | integer from 1 to 600000",
        ),
        (
            "heir: {url: 'http://u:s3cret@h'}",
            "heir.url: the URL holds a user name or a password, which belong in heir.token_file | for example \
             http://heir.internal:8090",
        ),
    ] {
        assert_eq!(mistake(yaml), expected, "{yaml}");
    }
}

#[test]
fn hostile_41_a_secret_in_the_wrong_place_is_not_printed() {
    for url in [
        "http://u:s3cret@h",
        "ftp://u:s3cret@h",
        "http://u:s3cret@h?x",
        "http://u:s3cret@h:99999",
        "u:s3cret@h",
    ] {
        let told = mistake(&format!("heir: {{url: '{url}'}}"));
        assert!(!told.contains("s3cret"), "{told}");
    }
}

#[test]
fn a_sidecar_is_not_its_own_heir_by_any_name() {
    for (listen, url) in [
        ("127.0.0.1:7000", "http://127.0.0.1:7000"),
        ("127.0.0.1:7000", "http://localhost:7000/base"),
        ("0.0.0.0:7000", "http://127.0.0.1:7000"),
        ("0.0.0.0:7000", "http://[::1]:7000"),
        ("'[::]:7000'", "http://127.0.0.1:7000"),
        ("localhost:7000", "http://LOCALHOST:7000"),
        ("[127.0.0.1:1, 127.0.0.1:80]", "http://127.0.0.1"),
        ("127.0.0.1:7000", "http://0.0.0.0:7000"),
    ] {
        let told = mistake(&format!("listen: {listen}\nheir: {{url: '{url}'}}"));
        assert!(
            told.starts_with("heir.url: ") && told.contains("itself listens"),
            "{listen} {url} {told}"
        );
    }
    for (listen, url) in [
        ("127.0.0.1:7000", "http://127.0.0.1:7001"),
        ("127.0.0.1:7000", "http://heir:7000"),
        ("127.0.0.1:7000", "http://127.0.0.2:7000"),
        ("unix:/run/x", "http://127.0.0.1:8080"),
    ] {
        assert_eq!(
            mistakes(&format!("listen: {listen}\nheir: {{url: '{url}'}}"), &[]),
            [""; 0]
        );
    }
}

#[test]
fn variables_win_over_the_file_and_become_what_their_key_wants() {
    let loaded = parse(
        "listen: 127.0.0.1:1\nheir: {pool: {max_requests: 9}}\n",
        &[
            ("BEAMLINE_LISTEN", "127.0.0.1:2, unix:/run/s.sock"),
            ("BEAMLINE_HEIR_TENANTS", "acme,, other ,"),
            ("BEAMLINE_HEIR_POOL_MAX_IDLE", " 3 "),
            ("BEAMLINE_HEIR_RETRY_FACTOR", "1.5"),
            ("BEAMLINE_REUSE_PORT", "true"),
            ("BEAMLINE_UNIX_MODE", "600"),
            ("BEAMLINE_REFRESH_WHEN_EXPIRED", "refuse"),
            ("BEAMLINE_STATE_DIR", "/123"),
            // Kubernetes makes these of a service called `beamline`; they are not for the sidecar.
            ("BEAMLINE_SERVICE_HOST", "10.0.0.1"),
            ("BEAMLINE_PORT", "tcp://10.0.0.1:80"),
            ("BEAMLINE_HEIR", "{}"),
            ("HEIR_URL", "http://x"),
        ],
    )
    .unwrap()
    .config;
    assert_eq!(loaded.listen.as_slice(), ["127.0.0.1:2", "unix:/run/s.sock"]);
    assert_eq!(loaded.heir.tenants, ["acme", "other"]);
    assert_eq!((loaded.heir.pool.max_requests, loaded.heir.pool.max_idle), (9, 3));
    assert_eq!(loaded.heir.retry.factor.to_string(), "1.5");
    assert!(loaded.reuse_port);
    assert_eq!(loaded.unix_mode_bits(), 0o600);
    assert_eq!(loaded.state_dir, Path::new("/123"));
    assert_eq!(
        mistakes(
            "heir: 5",
            &[
                ("BEAMLINE_HEIR_URL", "http://x"),
                ("BEAMLINE_REFRESH_INTERVAL_MS", "soon"),
                ("BEAMLINE_REUSE_PORT", "yes"),
                ("BEAMLINE_REFRESH_MAX_REMOVED_PERCENT", "1000"),
                ("BEAMLINE_LOG_FILTER", "true"),
            ]
        ),
        [
            "heir.url: BEAMLINE_HEIR_URL is set, but the file has a value there that is not a section | make the \
             section a mapping in the file, or unset the variable",
            "heir: 5 is not of type \"object\" | a section with the keys breaker, health_interval_ms, \
             max_answer_bytes, pool, retry, tenants, timeout_ms, tls, token_file, url",
            "refresh.interval_ms: \"soon\" is not of type \"integer\" (from BEAMLINE_REFRESH_INTERVAL_MS) | integer from 10 to 3600000",
            "refresh.max_removed_percent: 1000 is greater than the maximum of 100 (from BEAMLINE_REFRESH_MAX_REMOVED_PERCENT) | integer from 0 to 100",
            "reuse_port: \"yes\" is not of type \"boolean\" (from BEAMLINE_REUSE_PORT) | boolean",
        ]
    );
}

#[test]
fn yaml_that_says_a_thing_twice_or_nothing_is_told_with_its_place() {
    for (yaml, part) in [
        ("state_dir: a\nstate_dir: b\n", "duplicate"),
        ("heir: {url: 'http://a'}\nheir: {url: 'http://b'}\n", "duplicate"),
        ("refresh:\n  interval_ms: 20\n  interval_ms: 30\n", "duplicate"),
        ("listen: [a\n", "line 1"),
    ] {
        let told = mistake(yaml).to_lowercase();
        assert!(told.contains(part), "{yaml:?}: {told}");
        assert!(
            told.ends_with("| fix the yaml at the line and column given"),
            "{told}"
        );
    }
    for (yaml, key) in [("- a\n", ""), ("text\n", ""), ("heir:\n", "heir")] {
        let told = mistake(yaml);
        assert!(told.starts_with(&format!("{key}: ")), "{yaml:?} {told}");
    }
    for nothing in ["", "\n\n", "# only words\n", "---\n", "{}\n"] {
        assert_eq!(mistakes(nothing, &[]), [""; 0], "{nothing:?}");
    }
}

#[test]
fn the_reference_is_up_to_date() {
    let committed =
        fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/configuration.md")).unwrap();
    assert!(
        committed == config::reference(),
        "run: cargo run -- check --reference > docs/configuration.md"
    );
}

/// The sidecar reads its configuration by a process of its own; it must not matter.
#[test]
fn a_process_of_its_own_reads_the_same_configuration() {
    let program = Path::new(env!("CARGO_BIN_EXE_beamline-sidecar"));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("sidecar.yaml");
    let variables = environment(&[
        ("BEAMLINE_HEIR_TIMEOUT_MS", "1234"),
        ("BEAMLINE_HEIR_POLICY_STORE_PORT", "tcp://10.0.0.1:80"),
    ]);
    let texts = [
        "",
        "log: {format: text}\nheir: {tenants: [a, b], retry: {factor: 1.5}}\nrefresh: {stale_after_ms: 1}",
        "lisen: 5\nlimits: [1]",
        "a: [",
    ];
    for text in texts {
        fs::write(&file, text).unwrap();
        let said = |loaded: Result<config::Loaded, Mistakes>| loaded.map(|l| (l.config, l.warnings));
        assert_eq!(
            said(config::load_apart(program, Some(&file), &variables)),
            said(config::load(Some(&file), &variables)),
            "{text}"
        );
    }
    let missing = folder.path().join("missing.yaml");
    let mistakes = config::load_apart(program, Some(&missing), &variables).unwrap_err();
    assert!(mistakes.to_string().contains("cannot be read"), "{mistakes}");
}
