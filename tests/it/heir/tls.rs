//! HEIR behind TLS with an authority of its own and client certificates; files that are exchanged while it runs.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests fail the test that called them"
)]

use std::{
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex},
};

use beamline_sidecar::{app::ConfigSource, store::Level};
use http::StatusCode;
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_rustls::TlsAcceptor;

use crate::support::{Authority, Client, Fault, Faulty, Heir, Process, Sidecar, eventually};

/// What a peer does in place of a handshake.
#[derive(Debug, Clone)]
enum Ill {
    /// It reads the ClientHello and says nothing.
    Silent,
    /// These bytes, again and again, in place of a ServerHello, and it waits for the end.
    Says(&'static [u8]),
    /// These bytes, one at a time, as slowly as keeps a connection alive.
    Drips(&'static [u8]),
    /// A chain without a way to an authority, and with very many ways to look for one.
    HeavyChain(Arc<ServerConfig>),
}

/// What ill peers have seen.
#[derive(Debug, Default)]
struct Seen {
    client_hellos: Vec<Vec<u8>>,
    /// Connections that their client has ended.
    ended: usize,
}

/// Ends TLS in front of a server, and lets in only who has a certificate of the authority.
struct Terminator {
    address: SocketAddr,
    ill: Arc<Mutex<Option<Ill>>>,
    seen: Arc<Mutex<Seen>>,
    running: JoinHandle<()>,
}

/// Plays the ill peer on one connection, until the client ends it.
async fn play(mut stream: TcpStream, ill: Ill, seen: Arc<Mutex<Seen>>) {
    if let Ill::HeavyChain(config) = ill {
        let _refused = TlsAcceptor::from(config).accept(stream).await;
        seen.lock().unwrap().ended += 1;
        return;
    }
    let mut hello = vec![0; 5];
    if stream.read_exact(&mut hello).await.is_err() {
        return;
    }
    let length = usize::from(u16::from_be_bytes([hello[3], hello[4]]));
    hello.resize(5 + length, 0);
    if stream.read_exact(&mut hello[5..]).await.is_err() {
        return;
    }
    seen.lock().unwrap().client_hellos.push(hello);
    let (mut reads, mut writes) = stream.split();
    let saying = async {
        match ill {
            Ill::Says(bytes) => while writes.write_all(bytes).await.is_ok() {},
            Ill::Drips(bytes) => {
                for byte in bytes.iter().cycle() {
                    if writes.write_all(&[*byte]).await.is_err() {
                        break;
                    }
                    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
                }
            }
            Ill::Silent | Ill::HeavyChain(_) => {}
        }
        std::future::pending::<()>().await;
    };
    let ending = async {
        let mut bytes = [0; 1_024];
        while matches!(reads.read(&mut bytes).await, Ok(1..)) {}
    };
    tokio::select! {
        () = saying => {}
        () = ending => seen.lock().unwrap().ended += 1,
    }
}

impl Terminator {
    fn turns(&self, ill: Option<Ill>) {
        *self.ill.lock().unwrap() = ill;
        *self.seen.lock().unwrap() = Seen::default();
    }

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
        let (ill, seen) = <(Arc<Mutex<Option<Ill>>>, Arc<Mutex<Seen>>)>::default();
        let (wanted, record) = (ill.clone(), seen.clone());
        let running = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                if let Some(ill) = wanted.lock().unwrap().clone() {
                    tokio::spawn(play(stream, ill, record.clone()));
                    continue;
                }
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
        Self {
            address,
            ill,
            seen,
            running,
        }
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
    let admin = Client::new(sidecar.admin.unwrap());
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

/// Sixty certificates of one name, each signed by the one before, and a leaf of the last: whoever looks for the issuer
/// of one finds all others.
fn heavy_chain() -> Arc<ServerConfig> {
    let mut name = rcgen::DistinguishedName::new();
    name.push(rcgen::DnType::CommonName, "one of many");
    let authority = |name: &rcgen::DistinguishedName| {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name = name.clone();
        params
    };
    let mut key = KeyPair::generate().unwrap();
    let mut chain = vec![authority(&name).self_signed(&key).unwrap()];
    for _ in 0..60 {
        let next = KeyPair::generate().unwrap();
        let issuer = Issuer::new(authority(&name), key);
        chain.push(authority(&name).signed_by(&next, &issuer).unwrap());
        key = next;
    }
    let (leaf_key, issuer) = (KeyPair::generate().unwrap(), Issuer::new(authority(&name), key));
    let leaf = CertificateParams::new(vec!["localhost".into(), "127.0.0.1".into()]).unwrap();
    chain.push(leaf.signed_by(&leaf_key, &issuer).unwrap());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            chain
                .iter()
                .rev()
                .map(|certificate| certificate.der().clone())
                .collect(),
            PrivateKeyDer::from_pem_slice(leaf_key.serialize_pem().as_bytes()).unwrap(),
        )
        .unwrap();
    Arc::new(config)
}

/// The extensions of a ClientHello by their numbers (RFC 8446, 4.1.2).
fn extensions(hello: &[u8]) -> Vec<(u16, Vec<u8>)> {
    fn take<'b>(bytes: &mut &'b [u8], count: usize) -> &'b [u8] {
        let (taken, rest) = bytes.split_at(count);
        *bytes = rest;
        taken
    }
    let number = |bytes: &[u8]| {
        bytes
            .iter()
            .fold(0_usize, |number, byte| number << 8 | usize::from(*byte))
    };
    // Record, handshake header, version, random.
    let rest = &mut &hello[5 + 4 + 2 + 32..];
    for width in [1, 2, 1] {
        let length = number(take(rest, width));
        take(rest, length);
    }
    take(rest, 2);
    let mut found = Vec::new();
    while !rest.is_empty() {
        let kind = u16::try_from(number(take(rest, 2))).unwrap();
        let length = number(take(rest, 2));
        found.push((kind, take(rest, length).to_vec()));
    }
    found
}

#[tokio::test]
async fn hostile_17_a_tls_peer_that_means_ill_costs_an_attempt_and_nothing_else() {
    let authority = Authority::new();
    let heir = Heir::start(Level::Changes).await;
    heir.client().put_policy("acme/a", "{\"v\":0}").await;
    let tls = Terminator::start(&authority, heir.address()).await;
    let files = client_files(&authority);
    let yaml =
        yaml(&tls.url(), files.path()).replace("open_ms: 100", "open_ms: 100, failure_threshold: 1000");
    let sidecar = Sidecar::try_start(&yaml).unwrap();
    sidecar.wait_for("live").await;
    // A certificate of 16 MiB is announced; nothing is wrong with the header before it.
    const HUGE: &[u8] = &[0x16, 3, 3, 0, 4, 11, 0xff, 0xff, 0xff];
    const CLOSE_NOTIFY: &[u8] = &[0x15, 3, 3, 0, 2, 1, 0];
    // A warning that a peer may send as often as it likes.
    const WARNING: &[u8] = &[0x15, 3, 3, 0, 2, 1, 112];
    const EMPTY: &[u8] = &[0x16, 3, 3, 0, 0];
    for (version, ill) in (1..).zip([
        Ill::Silent,
        Ill::Says(CLOSE_NOTIFY),
        Ill::Says(WARNING),
        Ill::Says(EMPTY),
        Ill::Says(HUGE),
        Ill::Drips(CLOSE_NOTIFY),
        Ill::Drips(HUGE),
        Ill::HeavyChain(heavy_chain()),
    ]) {
        let what = format!("{ill:?}").chars().take(40).collect::<String>();
        let brings_a_hello = !matches!(ill, Ill::HeavyChain(_));
        tls.turns(Some(ill));
        // Connections to the good one are ended, so that the next attempt meets the ill one.
        eventually(&what, || async { tls.seen.lock().unwrap().ended >= 2 }).await;
        assert_eq!(
            sidecar.client().policy("acme/a").await.text(),
            format!("{{\"v\":{}}}", version - 1),
            "{what}"
        );
        assert_eq!(
            sidecar.admin().get("/live").await.status,
            StatusCode::OK,
            "{what}"
        );
        let page = sidecar.admin().get("/admin/snapshot").await.json();
        assert!(page["refresh"]["last_error"].is_string(), "{what}: {page}");
        if brings_a_hello {
            let hello = tls.seen.lock().unwrap().client_hellos[0].clone();
            let extensions = extensions(&hello);
            let compression = extensions.iter().find(|(kind, _)| *kind == 27);
            assert_eq!(compression, None, "no compressed certificate is asked for");
            let protocols = extensions.iter().find(|(kind, _)| *kind == 16);
            assert!(
                protocols.is_none_or(|(_, names)| names.ends_with(b"\x08http/1.1") && names.len() == 11),
                "{protocols:?}"
            );
        }
        tls.turns(None);
        let text = format!("{{\"v\":{version}}}");
        heir.client().put_policy("acme/a", text.clone()).await;
        eventually("the good one is met again", || async {
            sidecar.client().policy("acme/a").await.text() == text
        })
        .await;
    }
    sidecar.stop().await;
}
