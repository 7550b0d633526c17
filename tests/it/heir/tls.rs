//! HEIR behind TLS with an authority of its own and client certificates; files that are exchanged while it runs.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests fail the test that called them"
)]

use std::{net::SocketAddr, path::Path, sync::Arc};

use beamline_sidecar::{app::ConfigSource, store::Level};
use http::StatusCode;
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_rustls::TlsAcceptor;

use crate::support::{Fault, Faulty, Heir, Process, Sidecar, eventually};

/// An authority that signs for both sides.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self {
            issuer: Issuer::new(params, key),
            pem,
        }
    }

    /// A certificate and its key, in PEM.
    fn sign(&self, purpose: ExtendedKeyUsagePurpose) -> (String, String) {
        let mut params = CertificateParams::new(vec!["localhost".into(), "127.0.0.1".into()]).unwrap();
        params.extended_key_usages = vec![purpose];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (certificate.pem(), key.serialize_pem())
    }
}

/// Ends TLS in front of a server, and lets in only who has a certificate of the authority.
struct Terminator {
    address: SocketAddr,
    running: JoinHandle<()>,
}

impl Terminator {
    async fn start(authority: &Authority, behind: SocketAddr) -> Self {
        let (certificate, key) = authority.sign(ExtendedKeyUsagePurpose::ServerAuth);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_slice(authority.pem.as_bytes()).unwrap())
            .unwrap();
        let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone())
            .build()
            .unwrap();
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(verifier)
            .with_single_cert(
                vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()],
                PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap(),
            )
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let running = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    // A client that is refused is what some tests are about.
                    let Ok(mut inside) = acceptor.accept(stream).await else {
                        return;
                    };
                    let Ok(mut outside) = TcpStream::connect(behind).await else {
                        return;
                    };
                    let _ended = tokio::io::copy_bidirectional(&mut inside, &mut outside).await;
                });
            }
        });
        Self { address, running }
    }

    fn url(&self) -> String {
        format!("https://{}", self.address)
    }
}

impl Drop for Terminator {
    fn drop(&mut self) {
        self.running.abort();
    }
}

fn write(folder: &Path, files: &[(&str, &str)]) {
    for (name, content) in files {
        std::fs::write(folder.join(name), content).unwrap();
    }
}

/// YAML with the TLS files of a folder; `heir` is a map, so the defaults of the other tests are repeated.
fn yaml(url: &str, folder: &Path) -> String {
    let folder = folder.display();
    format!(
        "listen: 127.0.0.1:0
admin: {{listen: '127.0.0.1:0'}}
shutdown: {{lame_duck_ms: 0}}
refresh: {{interval_ms: 50, long_poll_timeout_ms: 200}}
heir:
  url: '{url}'
  timeout_ms: 1000
  health_interval_ms: 100
  breaker: {{open_ms: 100}}
  pool: {{max_idle: 0}}
  token_file: {folder}/token
  tls: {{ca_file: {folder}/ca.pem, cert_file: {folder}/cert.pem, key_file: {folder}/key.pem}}"
    )
}

/// A folder with everything that a client of this authority needs.
fn client_files(authority: &Authority) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let (certificate, key) = authority.sign(ExtendedKeyUsagePurpose::ClientAuth);
    write(
        folder.path(),
        &[
            ("ca.pem", &authority.pem),
            ("cert.pem", &certificate),
            ("key.pem", &key),
            ("token", "s3cret-one\n"),
        ],
    );
    folder
}

#[tokio::test]
async fn heir_is_reached_over_tls_with_a_client_certificate_and_a_token() {
    let authority = Authority::new();
    let heir = Heir::start(Level::Changes).await;
    heir.client().put_policy("acme/a", "{\"v\":1}").await;
    let faulty = Faulty::start(heir.address()).await;
    let tls = Terminator::start(&authority, faulty.address).await;
    let files = client_files(&authority);
    let sidecar = Sidecar::try_start(&yaml(&tls.url(), files.path())).unwrap();
    sidecar.wait_for("live").await;
    assert_eq!(sidecar.client().policy("acme/a").await.text(), "{\"v\":1}");
    assert_eq!(
        sidecar.client().put_policy("acme/b", "{}").await.status,
        StatusCode::CREATED
    );
    let seen = faulty.seen();
    assert!(seen.len() > 2);
    for request in seen {
        assert_eq!(
            request.header("authorization"),
            "Bearer s3cret-one",
            "{}",
            request.path
        );
    }
    // What a client of the Router's side sends is not passed on in its place.
    let put = sidecar
        .client()
        .send(
            http::Method::PUT,
            "/api/v1/policies/acme/c",
            &[("authorization", "Bearer mine")],
            "{}",
        )
        .await
        .unwrap();
    assert_eq!(put.status, StatusCode::CREATED);
    assert!(
        faulty
            .seen()
            .iter()
            .all(|seen| seen.header("authorization") == "Bearer s3cret-one")
    );
    for page in ["/admin/snapshot", "/admin/writes", "/metrics", "/ready"] {
        assert!(
            !sidecar.admin().get(page).await.text().contains("s3cret"),
            "{page}"
        );
    }
    sidecar.stop().await;
}

#[tokio::test]
async fn a_heir_of_another_authority_is_refused_and_so_is_a_client_of_another() {
    let (authority, other) = (Authority::new(), Authority::new());
    let heir = Heir::start(Level::Changes).await;
    heir.client().put_policy("acme/a", "{}").await;
    let faulty = Faulty::start(heir.address()).await;
    let tls = Terminator::start(&authority, faulty.address).await;
    let (certificate, key) = other.sign(ExtendedKeyUsagePurpose::ClientAuth);
    let wrong_ca = client_files(&authority);
    write(wrong_ca.path(), &[("ca.pem", &other.pem)]);
    let wrong_client = client_files(&authority);
    write(
        wrong_client.path(),
        &[("cert.pem", &certificate), ("key.pem", &key)],
    );
    for folder in [&wrong_ca, &wrong_client] {
        let sidecar = Sidecar::try_start(&yaml(&tls.url(), folder.path())).unwrap();
        eventually("it fails", || async {
            sidecar.admin().get("/admin/snapshot").await.json()["refresh"]["last_error"].is_string()
        })
        .await;
        assert_eq!(
            sidecar.admin().get("/ready").await.status,
            StatusCode::SERVICE_UNAVAILABLE
        );
        assert_eq!(
            sidecar.client().policy("acme/a").await.status,
            StatusCode::SERVICE_UNAVAILABLE
        );
        sidecar.stop().await;
    }
    assert_eq!(faulty.seen().len(), 0, "nothing came through, no token either");
}

#[tokio::test]
async fn hostile_49_a_malformed_file_changes_nothing_until_it_is_mended() {
    let authority = Authority::new();
    let heir = Heir::start(Level::Snapshot).await;
    heir.client().put_policy("acme/a", "{\"v\":0}").await;
    let faulty = Faulty::start(heir.address()).await;
    let tls = Terminator::start(&authority, faulty.address).await;
    let files = client_files(&authority);
    // A change of a file makes the configuration be read again, so there must be one to read.
    let text = yaml(&tls.url(), files.path());
    let file = files.path().join("sidecar.yaml");
    std::fs::write(&file, &text).unwrap();
    let source = ConfigSource {
        file: Some(file),
        ..ConfigSource::default()
    };
    let sidecar = Sidecar::start_from(&text, source).unwrap();
    sidecar.wait_for("live").await;
    let mut version = 0;
    let mut still_works = async |what: &str| {
        version += 1;
        let text = format!("{{\"v\":{version}}}");
        heir.client().put_policy("acme/a", text.clone()).await;
        // Without idle connections every poll is a new handshake.
        eventually(what, || async {
            sidecar.client().policy("acme/a").await.text() == text
        })
        .await;
    };
    for file in ["ca.pem", "cert.pem", "key.pem", "token"] {
        let good = std::fs::read_to_string(files.path().join(file)).unwrap();
        for bad in [
            "",
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            "\u{1}\n",
        ] {
            if file == "token" && bad.starts_with('-') {
                continue;
            }
            write(files.path(), &[(file, bad)]);
            let polls = faulty.seen().len();
            eventually("some health checks later", || async {
                faulty.seen().len() > polls + 8
            })
            .await;
            still_works(&format!("{file} is {bad:?}")).await;
        }
        write(files.path(), &[(file, &good)]);
        still_works(&format!("{file} is mended")).await;
    }
    assert!(
        faulty
            .seen()
            .iter()
            .all(|seen| seen.header("authorization") == "Bearer s3cret-one")
    );
    // New valid ones are applied: the authority of another HEIR at another address is what proves it.
    let (certificate, key) = authority.sign(ExtendedKeyUsagePurpose::ClientAuth);
    write(
        files.path(),
        &[
            ("cert.pem", &certificate),
            ("key.pem", &key),
            ("token", "s3cret-two"),
        ],
    );
    eventually("the new token is sent", || async {
        faulty
            .seen()
            .last()
            .is_some_and(|seen| seen.header("authorization") == "Bearer s3cret-two")
    })
    .await;
    still_works("the new pair").await;
    let other = Authority::new();
    write(files.path(), &[("ca.pem", &other.pem)]);
    sidecar.wait_for("degraded").await;
    write(files.path(), &[("ca.pem", &authority.pem)]);
    sidecar.wait_for("live").await;
    still_works("the authority again").await;
    sidecar.stop().await;
}

#[tokio::test]
async fn hostile_41_the_token_is_in_no_log() {
    let heir = Heir::start(Level::Changes).await;
    let faulty = Faulty::start(heir.address()).await;
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), &[("token", "s3cret-one")]);
    let token = folder.path().join("token");
    let sidecar = Process::start(
        &["run"],
        &[
            ("BEAMLINE_LISTEN", "127.0.0.1:0"),
            ("BEAMLINE_ADMIN_LISTEN", "127.0.0.1:0"),
            ("BEAMLINE_HEIR_URL", &faulty.url()),
            ("BEAMLINE_HEIR_TOKEN_FILE", token.to_str().unwrap()),
            ("BEAMLINE_HEIR_HEALTH_INTERVAL_MS", "100"),
            ("BEAMLINE_LOG_FORMAT", "json"),
            ("BEAMLINE_LOG_FILTER", "trace"),
        ],
    );
    let admin = crate::support::Client::new(sidecar.admin.unwrap());
    eventually("live", || async {
        admin.get("/ready").await.json()["state"] == "live"
    })
    .await;
    // Failures are where headers get logged.
    faulty.rule(|_| Fault::Say(500, &[], "{}".into()));
    write(folder.path(), &[("token", "s3cret-two")]);
    eventually("failures with the new token", || async {
        faulty
            .seen()
            .iter()
            .filter(|seen| seen.header("authorization") == "Bearer s3cret-two")
            .count()
            > 3
    })
    .await;
    let log = sidecar.log();
    assert!(
        log.iter().any(|line| line.contains("Applied the changed token")),
        "{} lines",
        log.len()
    );
    let telling: Vec<_> = log.iter().filter(|line| line.contains("s3cret")).collect();
    assert!(telling.is_empty(), "{telling:?}");
}
