//! `inject-webhook`: over TLS, while certificates, authorities and the fragment change.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail the test that called them"
)]

use std::{
    collections::BTreeSet,
    fs,
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use beamline_sidecar::{
    injector::{Certificates, Injector, InjectorConfig, InjectorError, Lifetimes},
    listener::{Address, TlsFiles},
};
use rcgen::ExtendedKeyUsagePurpose;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinHandle,
};
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;

use super::cluster::{Cluster, limits};
use crate::support::{Authority, Client, Ended, eventually, program};

const FRAGMENT: &str = include_str!("../../../src/inject/default-fragment.json");

/// An injector in this process.
struct Running {
    webhook: SocketAddr,
    admin: Client,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

fn tcp(address: &Address) -> SocketAddr {
    match address {
        Address::Tcp(address) => *address,
        Address::Unix(_) => panic!("not TCP"),
    }
}

fn config(fragment: PathBuf, certificates: Certificates) -> InjectorConfig {
    let any = Address::Tcp(([127, 0, 0, 1], 0).into());
    InjectorConfig {
        listen: any.clone(),
        admin_listen: any,
        fragment,
        certificates,
        look: Duration::from_millis(50),
        lame_duck: Duration::ZERO,
        drain: Duration::from_secs(30),
        limits: limits(),
    }
}

fn start(config: InjectorConfig) -> Running {
    let injector = Injector::build(config).unwrap();
    let (webhook, admin) = (tcp(injector.address()), tcp(injector.admin_address()));
    let stop = CancellationToken::new();
    let task = tokio::spawn(injector.run(stop.clone()));
    Running {
        webhook,
        admin: Client::new(admin),
        stop,
        task,
    }
}

impl Running {
    async fn is_ready(&self) -> bool {
        self.admin.get("/ready").await.status == 200
    }

    async fn metric(&self, series: &str) -> f64 {
        let text = self.admin.get("/metrics").await.text().to_owned();
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(series)?.strip_prefix(' ').map(str::to_owned));
        line.map_or(0.0, |value| value.parse().unwrap())
    }

    async fn end(self) {
        self.stop.cancel();
        self.task.await.unwrap();
    }
}

fn review() -> Value {
    json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {
        "uid": "u", "kind": {"group": "", "version": "v1", "kind": "Pod"}, "operation": "CREATE", "namespace": "apps",
        "object": {"metadata": {"generateName": "router-"}, "spec": {"containers": [{"name": "router"}]}},
    }})
}

/// Asks as an API server does that trusts these authorities, on a connection of its own.
async fn ask(address: SocketAddr, bundle: &str, name: &str, body: &Value) -> Result<(u16, Value), String> {
    let mut roots = RootCertStore::empty();
    for authority in CertificateDer::pem_slice_iter(bundle.as_bytes()) {
        roots.add(authority.unwrap()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let tcp = TcpStream::connect(address)
        .await
        .map_err(|error| error.to_string())?;
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let connector = TlsConnector::from(Arc::new(client));
    let mut stream = connector
        .connect(name, tcp)
        .await
        .map_err(|error| error.to_string())?;
    let body = body.to_string();
    let head = format!(
        "POST /inject?timeout=5s HTTP/1.1\r\nhost: injector\r\ncontent-type: application/json\r\nconnection: close\r\n\
         content-length: {}\r\n\r\n",
        body.len()
    );
    stream
        .write_all(head.as_bytes())
        .await
        .map_err(|error| error.to_string())?;
    stream
        .write_all(body.as_bytes())
        .await
        .map_err(|error| error.to_string())?;
    let mut answer = Vec::new();
    // The end may come without a farewell; what came before counts.
    let _end = stream.read_to_end(&mut answer).await;
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").ok_or("no answer")?;
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Ok((status, serde_json::from_str(body).unwrap_or_default()))
}

/// The image in the patch of an answer.
fn image(answer: &Value) -> String {
    let patch = STANDARD
        .decode(answer["response"]["patch"].as_str().unwrap())
        .unwrap();
    let patch: Value = serde_json::from_slice(&patch).unwrap();
    let sidecar = patch
        .as_array()
        .unwrap()
        .iter()
        .find(|add| add["path"] == "/spec/initContainers");
    sidecar.unwrap()["value"][0]["image"].as_str().unwrap().to_owned()
}

struct Files {
    folder: TempDir,
}

impl Files {
    fn new(authority: &Authority) -> Self {
        let files = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        files.write("fragment.json", FRAGMENT);
        files.sign(authority);
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// As the kubelet does it: another file in the same place.
    fn write(&self, name: &str, text: &str) {
        fs::write(self.path("new"), text).unwrap();
        fs::rename(self.path("new"), self.path(name)).unwrap();
    }

    fn sign(&self, authority: &Authority) {
        let (cert, key) = authority.sign(ExtendedKeyUsagePurpose::ServerAuth);
        self.write("tls.key", &key);
        self.write("tls.crt", &cert);
    }

    fn certificates(&self) -> Certificates {
        Certificates::Files(TlsFiles {
            cert: self.path("tls.crt"),
            key: self.path("tls.key"),
            client_ca: None,
        })
    }
}

#[tokio::test]
async fn a_pod_is_patched_over_tls_and_files_that_change_are_taken() {
    let (old, new) = (Authority::new(), Authority::new());
    let files = Files::new(&old);
    let injector = start(config(files.path("fragment.json"), files.certificates()));
    assert!(injector.is_ready().await);
    let (status, answer) = ask(injector.webhook, &old.pem, "localhost", &review())
        .await
        .unwrap();
    assert_eq!((status, &answer["response"]["allowed"]), (200, &true.into()));
    assert_eq!(image(&answer), "beamline-sidecar:0.1.0");

    files.sign(&new);
    files.write(
        "fragment.json",
        &FRAGMENT.replace("beamline-sidecar:0.1.0", "beamline-sidecar:next"),
    );
    eventually("the new certificate and the new fragment are in use", || async {
        let asked = ask(injector.webhook, &new.pem, "localhost", &review()).await;
        asked.is_ok_and(|(_, answer)| image(&answer) == "beamline-sidecar:next")
    })
    .await;
    // What cannot be used changes nothing.
    files.write(
        "fragment.json",
        "{\"apiVersion\": \"sidecar.beamline.dev/fragment.v9\"}",
    );
    files.write("tls.crt", "torn");
    tokio::time::sleep(Duration::from_millis(300)).await;
    let (_, answer) = ask(injector.webhook, &new.pem, "localhost", &review())
        .await
        .unwrap();
    assert_eq!(image(&answer), "beamline-sidecar:next");
    injector.end().await;
}

#[tokio::test]
async fn replicas_that_start_at_once_agree_on_one_authority_and_name_it_everywhere() {
    let cluster = Cluster::start();
    let files = Files::new(&Authority::new());
    let injectors: Vec<Running> = (0..4)
        .map(|_| {
            start(config(
                files.path("fragment.json"),
                cluster.certificates(Lifetimes::default()),
            ))
        })
        .collect();
    for injector in &injectors {
        eventually("the injector is ready", || injector.is_ready()).await;
        // Ready means: trusted by what the configuration says.
        let asked = ask(
            injector.webhook,
            &cluster.bundle(),
            "injector.apps.svc",
            &review(),
        )
        .await;
        assert_eq!(asked.unwrap().0, 200);
    }
    let bundles = cluster.webhook()["webhooks"].as_array().unwrap().clone();
    let bundles: BTreeSet<String> = bundles
        .iter()
        .map(|webhook| webhook["clientConfig"]["caBundle"].to_string())
        .collect();
    assert_eq!(bundles, [cluster.secret()["data"]["ca.crt"].to_string()].into());
    assert_eq!(cluster.bundle().matches("BEGIN CERTIFICATE").count(), 1);
    // What others wrote into the objects is kept.
    assert_eq!(cluster.secret()["metadata"]["labels"]["of"], "the chart");
    assert_eq!(cluster.webhook()["webhooks"][1]["later"], "field");
    assert_eq!(cluster.unauthorized(), 0);
    let (secret, conflicts) = (cluster.secret(), cluster.conflicts());
    let expires = injectors[0]
        .metric("beamline_sidecar_inject_cert_expiry_timestamp_seconds")
        .await;
    assert!(expires > 1_700_000_000.0, "{expires}");
    // And then nothing is written any more.
    let looks = "beamline_sidecar_inject_rotations_total{outcome=\"unchanged\"}";
    let before = injectors[0].metric(looks).await;
    eventually("it looked again", || async {
        injectors[0].metric(looks).await > before + 3.0
    })
    .await;
    assert_eq!((cluster.secret(), cluster.conflicts()), (secret, conflicts));
    for injector in injectors {
        injector.end().await;
    }
}

#[tokio::test]
async fn authorities_rotate_while_pods_are_created_and_no_review_fails() {
    let cluster = Cluster::start();
    let files = Files::new(&Authority::new());
    let hours = |hours: u64| Duration::from_secs(hours * 60 * 60);
    let short = Lifetimes {
        authority: hours(2),
        leaf: Duration::from_secs(20 * 60),
        overlap: Duration::from_secs(2),
    };
    // For this one, what the one above has made is due to be replaced at once.
    let long = Lifetimes {
        authority: hours(24),
        leaf: Duration::from_secs(30 * 60),
        ..short
    };
    let first = start(config(files.path("fragment.json"), cluster.certificates(short)));
    eventually("the first injector is ready", || first.is_ready()).await;
    first.end().await;
    let old = cluster.bundle();

    let replicas: Vec<Running> = (0..2)
        .map(|_| start(config(files.path("fragment.json"), cluster.certificates(long))))
        .collect();
    for replica in &replicas {
        eventually("the replica is ready", || replica.is_ready()).await;
    }
    let (failed, asked, done) = (
        Arc::new(AtomicUsize::new(0)),
        Arc::new(AtomicUsize::new(0)),
        Arc::new(AtomicBool::new(false)),
    );
    let addresses: Vec<SocketAddr> = replicas.iter().map(|replica| replica.webhook).collect();
    let objects = Arc::new(cluster);
    let creating = tokio::spawn({
        let (failed, asked, done, objects) = (failed.clone(), asked.clone(), done.clone(), objects.clone());
        async move {
            while !done.load(SeqCst) {
                // An API server hears of a change a moment later.
                let (bundle, read) = (objects.bundle(), Instant::now());
                tokio::time::sleep(Duration::from_millis(200)).await;
                for address in &addresses {
                    let answer = ask(*address, &bundle, "injector.apps.svc", &review()).await;
                    // It does not hear of it for so long that the overlap is over.
                    if read.elapsed() >= long.overlap {
                        continue;
                    }
                    asked.fetch_add(1, SeqCst);
                    if !answer.is_ok_and(|(status, _)| status == 200) {
                        failed.fetch_add(1, SeqCst);
                    }
                }
            }
        }
    });
    eventually("there are two authorities", || async {
        let bundle = objects.bundle();
        bundle.ends_with(&old) && bundle.len() > old.len()
    })
    .await;
    eventually("the old authority is gone", || async {
        let bundle = objects.bundle();
        !bundle.contains(&old) && bundle.matches("BEGIN CERTIFICATE").count() == 1
    })
    .await;
    done.store(true, SeqCst);
    creating.await.unwrap();
    assert!(asked.load(SeqCst) > 10, "{}", asked.load(SeqCst));
    assert_eq!(failed.load(SeqCst), 0);

    objects.tear_secret();
    eventually("a torn secret is made anew", || async {
        let bundle = objects.bundle();
        let answer = ask(replicas[0].webhook, &bundle, "injector.apps.svc", &review()).await;
        answer.is_ok() && objects.secret()["data"]["ca.key"] != STANDARD.encode("torn").as_str()
    })
    .await;
    for replica in replicas {
        replica.end().await;
    }
}

#[tokio::test]
async fn an_injector_that_stops_is_not_ready_but_answers_until_no_api_server_calls() {
    let authority = Authority::new();
    let files = Files::new(&authority);
    // On a machine that stands still for as long as it takes to stop there is nothing to see: then it takes longer.
    for seconds in [5, 20, 60] {
        let lame_duck = Duration::from_secs(seconds);
        let mut config = config(files.path("fragment.json"), files.certificates());
        config.lame_duck = lame_duck;
        let injector = start(config);
        let begun = Instant::now();
        injector.stop.cancel();
        eventually("it is not ready", || async { !injector.is_ready().await }).await;
        let answer = ask(injector.webhook, &authority.pem, "localhost", &review()).await;
        let is_seen = begun.elapsed() < lame_duck * 4 / 5;
        injector.task.await.unwrap();
        if is_seen {
            assert_eq!(answer.unwrap().0, 200);
            assert!(begun.elapsed() >= lame_duck);
            assert!(
                ask(injector.webhook, &authority.pem, "localhost", &review())
                    .await
                    .is_err()
            );
            return;
        }
    }
    panic!("the machine stood still three times");
}

#[tokio::test]
async fn what_is_no_review_is_answered_with_what_is_wrong_and_counted() {
    let authority = Authority::new();
    let files = Files::new(&authority);
    let injector = start(config(files.path("fragment.json"), files.certificates()));
    let (status, _) = ask(injector.webhook, &authority.pem, "localhost", &json!({}))
        .await
        .unwrap();
    assert_eq!(status, 400);
    let mut bad = review();
    bad["request"]["object"]["spec"]["hostNetwork"] = true.into();
    let (status, answer) = ask(injector.webhook, &authority.pem, "localhost", &bad)
        .await
        .unwrap();
    assert_eq!((status, &answer["response"]["allowed"]), (200, &false.into()));
    ask(injector.webhook, &authority.pem, "localhost", &review())
        .await
        .unwrap();
    for (outcome, count) in [("malformed", 1.0), ("refused", 1.0), ("injected", 1.0)] {
        let series = format!("beamline_sidecar_inject_reviews_total{{outcome=\"{outcome}\"}}");
        assert_eq!(injector.metric(&series).await, count, "{outcome}");
    }
    assert_eq!(injector.admin.get("/live").await.status, 200);
    assert_eq!(injector.admin.get("/other").await.status, 404);
    assert_eq!(injector.admin.post("/ready", "").await.status, 405);
    injector.end().await;
}

#[tokio::test]
async fn what_can_never_serve_does_not_start() {
    let authority = Authority::new();
    let files = Files::new(&authority);
    files.write(
        "old.json",
        "{\"apiVersion\": \"sidecar.beamline.dev/fragment.v0\"}",
    );
    let built = Injector::build(config(files.path("old.json"), files.certificates()));
    assert!(matches!(built, Err(InjectorError::Fragment(message)) if message.contains("fragment.v0")));
    files.write("tls.crt", "torn");
    let built = Injector::build(config(files.path("fragment.json"), files.certificates()));
    assert!(matches!(built, Err(InjectorError::Tls(message)) if message.contains("tls.crt")));
    let run = |arguments: &[&str]| {
        Ended::of(
            program()
                .arg("inject-webhook")
                .args(arguments)
                .env_remove("KUBERNETES_SERVICE_HOST"),
        )
    };
    let fragment = files.path("fragment.json");
    let fragment = fragment.to_str().unwrap();
    let ended = run(&[
        "--fragment",
        fragment,
        "--tls-cert",
        "/missing",
        "--tls-key",
        "/missing",
    ]);
    assert!(
        ended.code == 64 && ended.errors.contains("/missing"),
        "{}",
        ended.errors
    );
    let ended = run(&["--fragment", fragment]);
    assert!(
        ended.code == 2 && ended.errors.contains("--tls-cert"),
        "{}",
        ended.errors
    );
    let ended = run(&[
        "--fragment",
        fragment,
        "--self-managed-secret",
        "apps/cert",
        "--webhook-configuration",
        "w",
        "--service",
        "s",
    ]);
    assert!(
        ended.code == 64 && ended.errors.contains("--api-server"),
        "{}",
        ended.errors
    );
}

#[tokio::test]
async fn the_injectors_metrics_are_those_of_the_page() {
    let page = include_str!("../../../docs/metrics.md");
    let (_, page) = page.split_once("\n## The injector\n").unwrap();
    let told: BTreeSet<&str> = page
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once('`').map(|(name, _)| name))
        .collect();
    let cluster = Cluster::start();
    let files = Files::new(&Authority::new());
    let injector = start(config(
        files.path("fragment.json"),
        cluster.certificates(Lifetimes::default()),
    ));
    eventually("the injector is ready", || injector.is_ready()).await;
    ask(
        injector.webhook,
        &cluster.bundle(),
        "injector.apps.svc",
        &review(),
    )
    .await
    .unwrap();
    eventually("every metric of the page is in a scrape", || async {
        let text = injector.admin.get("/metrics").await.text().to_owned();
        let seen: BTreeSet<&str> = text
            .lines()
            .filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next())
            .collect();
        assert!(seen.is_subset(&told), "{seen:?}");
        seen == told
    })
    .await;
    injector.end().await;
}
