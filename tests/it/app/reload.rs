//! Changes of the configuration and of the files it names, while requests are served.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests fail the test that called them"
)]

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use beamline_sidecar::{app::ConfigSource, store::Level};
use http::StatusCode;
use rustix::process::Signal;
use serde_json::Value;

use crate::support::{Client, Heir, Process, QUICK, Sidecar, eventually};

const APPLIED: &str = "beamline_sidecar_config_reloads_total{outcome=\"applied\"}";
const REFUSED: &str = "beamline_sidecar_config_reloads_total{outcome=\"refused\"}";

/// A sidecar in this process that was started from this file.
fn start(file: &Path) -> Sidecar {
    let source = ConfigSource {
        file: Some(file.to_owned()),
        ..ConfigSource::default()
    };
    Sidecar::start_from(&fs::read_to_string(file).unwrap(), source).unwrap()
}

async fn metric_is(sidecar: &Sidecar, series: &str, value: f64) {
    eventually(&format!("{series} is {value}"), || async {
        sidecar.metric(series).await >= value
    })
    .await;
    assert_eq!(sidecar.metric(series).await, value, "{series}");
}

async fn freshness(client: &Client) -> String {
    client
        .policy("acme/chat")
        .await
        .header("x-beamline-freshness")
        .to_owned()
}

#[tokio::test]
async fn a_good_change_is_taken_up_and_a_bad_one_changes_nothing() {
    let heir = Heir::start(Level::Changes).await;
    heir.client().put_policy("acme/chat", "{}").await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("sidecar.yaml");
    let write = |stale_after: &str, more: &str| {
        let url = heir.url();
        let yaml = format!(
            "{QUICK}heir: {{url: '{url}'}}\nrefresh: {{long_poll_timeout_ms: 10000, stale_after_ms: {stale_after}, expired_after_ms: 600000}}\n{more}"
        );
        fs::write(&file, yaml).unwrap();
    };
    write("600000", "");
    let sidecar = start(&file);
    sidecar.wait_for("live").await;
    let client = sidecar.client();
    assert_eq!(freshness(&client).await, "fresh");
    assert_eq!(sidecar.metric(APPLIED).await, 0.0);

    write("1", "");
    metric_is(&sidecar, APPLIED, 1.0).await;
    eventually("the new limit counts", || async {
        freshness(&client).await == "stale"
    })
    .await;

    write("600000", "no_such_key: 1");
    metric_is(&sidecar, REFUSED, 1.0).await;
    assert_eq!(
        freshness(&client).await,
        "stale",
        "nothing of a bad file is taken up"
    );
    // On a signal it is refused and reported again; on a mere change of a file it is not.
    sidecar.reload().await;
    metric_is(&sidecar, REFUSED, 2.0).await;
    fs::write(folder.path().join("neighbour"), "").unwrap();

    write("600000", "limits: {max_waiting_requests: 9}");
    metric_is(&sidecar, APPLIED, 2.0).await;
    assert_eq!(freshness(&client).await, "fresh");
    assert_eq!(sidecar.metric(REFUSED).await, 2.0);
    // Nothing has changed since, but a reload on request is reported as done.
    sidecar.reload().await;
    metric_is(&sidecar, APPLIED, 3.0).await;
    sidecar.stop().await;
}

#[tokio::test]
async fn what_becomes_of_writes_can_be_changed_while_heir_is_away() {
    let mut heir = Heir::start(Level::Changes).await;
    let folder = tempfile::tempdir().unwrap();
    let state = tempfile::tempdir().unwrap();
    let file = folder.path().join("sidecar.yaml");
    let write = |when: &str| {
        let yaml = format!(
            "{QUICK}heir: {{url: '{}', timeout_ms: 500}}\nstate_dir: {}\nwrites: {{when_heir_down: {when}}}",
            heir.url(),
            state.path().display()
        );
        fs::write(&file, yaml).unwrap();
    };
    write("reject");
    let sidecar = start(&file);
    sidecar.wait_for("live").await;
    write("queue");
    metric_is(&sidecar, APPLIED, 1.0).await;
    write("reject");
    metric_is(&sidecar, APPLIED, 2.0).await;
    let (url, state_dir) = (heir.url(), state.path().display().to_string());
    heir.gone().await;
    let refused = sidecar.client().put_policy("acme/chat", "{}").await;
    assert_eq!(
        (refused.status, refused.code().as_str()),
        (StatusCode::SERVICE_UNAVAILABLE, "heir_unavailable")
    );
    fs::write(
        &file,
        format!("{QUICK}heir: {{url: '{url}', timeout_ms: 500}}\nstate_dir: {state_dir}\nwrites: {{when_heir_down: queue}}"),
    )
    .unwrap();
    metric_is(&sidecar, APPLIED, 3.0).await;
    let queued = sidecar.client().put_policy("acme/chat", "{}").await;
    assert_eq!(queued.status, StatusCode::CREATED);
    assert_eq!(queued.header("x-beamline-write"), "queued");
    sidecar.stop().await;
}

/// The first line with this message, once it is there.
async fn line(process: &Process, message: &str) -> Value {
    let found = || {
        process
            .log()
            .iter()
            .map(|line| serde_json::from_str::<Value>(line).unwrap())
            .find(|line| line["message"] == message)
    };
    eventually(message, || async { found().is_some() }).await;
    found().unwrap()
}

#[tokio::test]
async fn a_signal_reloads_and_what_waits_for_a_restart_is_named_once() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("sidecar.yaml");
    let write = |more: &str| {
        let base = "listen: 127.0.0.1:0\nadmin: {listen: '127.0.0.1:0'}\nheir_policy_store_enabled: false\n";
        fs::write(&file, format!("{base}{more}")).unwrap();
    };
    write("");
    let process = Process::start(&["run", "--config", file.to_str().unwrap()], &[]);
    let data = Client::new(&process.listen[0]);
    write("limits: {max_waiting_requests: 9}\nunix_mode: '600'\n");
    let waiting = line(&process, "These keys have changed and wait for a restart.").await;
    assert_eq!(waiting["keys"], "limits.max_waiting_requests, unix_mode");
    assert_eq!(waiting["level"], "WARN");
    process.signal(Signal::HUP);
    let again = line(&process, "The configuration was read again.").await;
    assert_eq!(again["keys"], "");
    write("limits: {max_waiting_requests: 9}\nunix_mode: '600'\nlog: {filter: debug}\n");
    eventually("the filter is taken up", || async {
        process
            .log()
            .iter()
            .any(|line| line.contains("\"keys\":\"log.filter\""))
    })
    .await;
    write("limits: {max_waiting_requests: many}\nunix_mode: '600'\nlog: {filter: debug}\n");
    let refused = line(&process, "The changed configuration is not applied.").await;
    let mistakes = refused["mistakes"].as_str().unwrap();
    assert!(
        mistakes.contains("limits.max_waiting_requests: \"many\" is not of type \"integer\""),
        "{mistakes}"
    );
    assert_eq!(data.get("/health").await.status, StatusCode::OK);
    let named = process
        .log()
        .iter()
        .filter(|line| line.contains("wait for a restart"))
        .count();
    assert_eq!(named, 1);
}

/// A directory as Kubernetes mounts a ConfigMap: what is in it are links through `..data`, which is exchanged.
struct Mounted {
    path: PathBuf,
    generation: u32,
}

impl Mounted {
    fn new(path: &Path, files: &[(&str, &str)]) -> Self {
        fs::create_dir_all(path).unwrap();
        let mut mounted = Self {
            path: path.to_owned(),
            generation: 0,
        };
        mounted.exchange(files);
        for top in files.iter().map(|(name, _)| name.split('/').next().unwrap()) {
            let link = path.join(top);
            if !link.exists() {
                symlink(Path::new("..data").join(top), link).unwrap();
            }
        }
        mounted
    }

    fn exchange(&mut self, files: &[(&str, &str)]) {
        let old = self.path.join(format!("..{}", self.generation));
        self.generation += 1;
        let name = format!("..{}", self.generation);
        for (file, text) in files {
            let file = self.path.join(&name).join(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        }
        symlink(&name, self.path.join("..data_tmp")).unwrap();
        fs::rename(self.path.join("..data_tmp"), self.path.join("..data")).unwrap();
        if old.exists() {
            fs::remove_dir_all(old).unwrap();
        }
    }
}

#[tokio::test]
async fn hostile_35_an_exchanged_configmap_is_taken_up_every_time() {
    let heir = Heir::start(Level::Changes).await;
    heir.client().put_policy("acme/chat", "{}").await;
    let folder = tempfile::tempdir().unwrap();
    let yaml = |stale_after: u32| {
        let url = heir.url();
        format!(
            "{QUICK}heir: {{url: '{url}'}}\nrefresh: {{stale_after_ms: {stale_after}, expired_after_ms: 600000}}\n"
        )
    };
    let mut mounted = Mounted::new(folder.path(), &[("sidecar.yaml", &yaml(600_000))]);
    let file = folder.path().join("sidecar.yaml");
    let sidecar = start(&file);
    sidecar.wait_for("live").await;
    let mut applied = 0.0;
    for stale_after in [1, 600_000, 1, 600_000] {
        mounted.exchange(&[("sidecar.yaml", &yaml(stale_after))]);
        applied += 1.0;
        metric_is(&sidecar, APPLIED, applied).await;
        let expected = if stale_after == 1 { "stale" } else { "fresh" };
        eventually(expected, || async {
            freshness(&sidecar.client()).await == expected
        })
        .await;
    }
    // Removed, it is reported and changes nothing; restored, it is watched as before.
    fs::remove_file(&file).unwrap();
    metric_is(&sidecar, REFUSED, 1.0).await;
    assert_eq!(freshness(&sidecar.client()).await, "fresh");
    fs::write(&file, yaml(1)).unwrap();
    metric_is(&sidecar, APPLIED, applied + 1.0).await;
    fs::remove_dir_all(folder.path()).unwrap();
    metric_is(&sidecar, REFUSED, 2.0).await;
    fs::create_dir(folder.path()).unwrap();
    fs::write(&file, yaml(600_000)).unwrap();
    metric_is(&sidecar, APPLIED, applied + 2.0).await;
    fs::write(&file, yaml(1)).unwrap();
    metric_is(&sidecar, APPLIED, applied + 3.0).await;
    sidecar.stop().await;
}

#[tokio::test]
async fn hostile_35_exchanged_and_restored_policy_files_are_taken_up() {
    let folder = tempfile::tempdir().unwrap();
    let policies = folder.path().join("policies");
    let mut mounted = Mounted::new(&policies, &[("acme/chat.json", "{\"v\":0}")]);
    let config = tempfile::tempdir().unwrap();
    let file = config.path().join("sidecar.yaml");
    let yaml = format!(
        "{QUICK}heir_policy_store_enabled: false\npolicies_dir: {}",
        policies.display()
    );
    fs::write(&file, yaml).unwrap();
    let sidecar = start(&file);
    let client = sidecar.client();
    let becomes = |text: &'static str| {
        let client = client.clone();
        async move {
            eventually(text, || async { client.policy("acme/chat").await.text() == text }).await;
        }
    };
    becomes("{\"v\":0}").await;
    mounted.exchange(&[("acme/chat.json", "{\"v\":1}")]);
    becomes("{\"v\":1}").await;
    mounted.exchange(&[("acme/chat.json", "{\"v\":2}"), ("acme/new.json", "{}")]);
    becomes("{\"v\":2}").await;
    assert_eq!(client.policy("acme/new").await.status, StatusCode::OK);
    // A broken file keeps its last good version and does not hold up the others.
    mounted.exchange(&[
        ("acme/chat.json", "{\"v\":3,\"v\":3}"),
        ("acme/new.json", "{\"n\":1}"),
    ]);
    eventually("the good file is taken", || async {
        client.policy("acme/new").await.text() == "{\"n\":1}"
    })
    .await;
    becomes("{\"v\":2}").await;
    // A directory that is away is not a directory without policies.
    fs::rename(&policies, folder.path().join("aside")).unwrap();
    metric_is(&sidecar, REFUSED, 1.0).await;
    becomes("{\"v\":2}").await;
    fs::create_dir_all(policies.join("acme")).unwrap();
    fs::write(policies.join("acme/chat.json"), "{\"v\":4}").unwrap();
    becomes("{\"v\":4}").await;
    fs::write(policies.join("acme/chat.json"), "{\"v\":5}").unwrap();
    becomes("{\"v\":5}").await;
    fs::remove_file(policies.join("acme/chat.json")).unwrap();
    eventually("a removed file is a removed policy", || async {
        client.policy("acme/chat").await.status == StatusCode::NOT_FOUND
    })
    .await;
    sidecar.stop().await;
}

#[tokio::test]
async fn a_first_policy_file_makes_a_sidecar_ready_that_has_nothing_else() {
    let mut heir = Heir::start(Level::Changes).await;
    heir.gone().await;
    let folder = tempfile::tempdir().unwrap();
    let sidecar = Sidecar::start(&heir.url(), &format!("policies_dir: {}", folder.path().display()));
    sidecar.wait_for("not_ready").await;
    fs::create_dir(folder.path().join("acme")).unwrap();
    fs::write(folder.path().join("acme/chat.json"), "{}").unwrap();
    eventually("the file is served", || async {
        sidecar.client().policy("acme/chat").await.status == StatusCode::OK
    })
    .await;
    sidecar.wait_for("degraded").await;
    sidecar.stop().await;
}
