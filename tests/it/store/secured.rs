//! The token and the certificates, and files of them that are exchanged.

use std::{fs, net::SocketAddr, path::Path, sync::Arc};

use beamline_sidecar::store::{Store, StoreConfig, TlsFiles};
use http::Method;
use rcgen::ExtendedKeyUsagePurpose::{ClientAuth, ServerAuth};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;

use super::{
    SNAPSHOT,
    running::{Running, config},
};
use crate::support::{Authority, eventually};

#[tokio::test]
async fn the_token_is_another_as_soon_as_its_file_is() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    fs::write(&file, "first\n").unwrap();
    let store = Running::start(StoreConfig {
        token_file: Some(file.clone()),
        ..config()
    })
    .await;
    let admits = async |token: &str| {
        let header = format!("Bearer {token}");
        let got = store
            .request(Method::GET, SNAPSHOT, &[("authorization", &header)], "")
            .await;
        got.status == 200
    };
    assert!(admits("first").await && !admits("second").await);
    fs::write(&file, "second").unwrap();
    eventually("the second is the token", || admits("second")).await;
    assert!(!admits("first").await);
    // A file without a token opens nothing.
    fs::write(&file, "\n").unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(2_500)).await;
    assert!(admits("second").await && !admits("").await);
    fs::remove_file(&file).unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(1_500)).await;
    assert!(admits("second").await && !admits("first").await);
    store.stop().await;

    let empty = StoreConfig {
        token_file: Some(folder.path().join("none")),
        ..config()
    };
    assert!(Store::build(empty).await.is_err());
}

/// Asks over TLS, as a client that trusts one authority and may have a certificate of another.
async fn ask(address: SocketAddr, trusted: &Authority, own: Option<&Authority>) -> std::io::Result<String> {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(trusted.pem.as_bytes()).unwrap())
        .unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let config = match own {
        None => builder.with_no_client_auth(),
        Some(own) => {
            let (certificate, key) = own.sign(ClientAuth);
            let certificate = CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap();
            let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
            builder.with_client_auth_cert(vec![certificate], key).unwrap()
        }
    };
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::try_from("localhost").unwrap();
    let mut stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
    stream
        .write_all(b"GET /health HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
        .await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

fn write(folder: &Path, authority: &Authority, clients: &Authority) {
    let (certificate, key) = authority.sign(ServerAuth);
    for (name, text) in [("cert", &certificate), ("key", &key), ("clients", &clients.pem)] {
        fs::write(folder.join(name), text).unwrap();
    }
}

#[tokio::test]
async fn clients_are_known_by_their_certificates_which_may_be_exchanged() {
    let folder = tempfile::tempdir().unwrap();
    let (ours, theirs, other) = (Authority::new(), Authority::new(), Authority::new());
    write(folder.path(), &ours, &theirs);
    let store = Running::start(StoreConfig {
        tls: Some(TlsFiles {
            cert: folder.path().join("cert"),
            key: folder.path().join("key"),
            client_ca: Some(folder.path().join("clients")),
        }),
        ..config()
    })
    .await;
    let is_admitted = async |trusted: &Authority, own: Option<&Authority>| {
        ask(store.address, trusted, own)
            .await
            .is_ok_and(|answer| answer.starts_with("HTTP/1.1 200 "))
    };
    assert!(is_admitted(&ours, Some(&theirs)).await);
    assert!(!is_admitted(&ours, None).await);
    assert!(!is_admitted(&ours, Some(&other)).await);
    assert!(!is_admitted(&other, Some(&theirs)).await);
    // Without TLS there is no answer, and a client that says nothing holds nobody up.
    let mut plain = TcpStream::connect(store.address).await.unwrap();
    let _silent = TcpStream::connect(store.address).await.unwrap();
    plain
        .write_all(b"GET /health HTTP/1.1\r\nhost: a\r\n\r\n")
        .await
        .unwrap();
    let mut answer = Vec::new();
    let _reset = plain.read_to_end(&mut answer).await;
    assert!(!answer.starts_with(b"HTTP/1.1"));
    assert!(is_admitted(&ours, Some(&theirs)).await);

    write(folder.path(), &other, &ours);
    eventually("the new certificates are used", || {
        is_admitted(&other, Some(&ours))
    })
    .await;
    assert!(!is_admitted(&ours, Some(&theirs)).await);
    fs::write(folder.path().join("key"), "torn").unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(2_500)).await;
    assert!(is_admitted(&other, Some(&ours)).await);
    store.stop().await;
}

#[tokio::test]
async fn a_large_answer_and_a_large_body_go_through_tls() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    write(folder.path(), &authority, &authority);
    let store = Running::start(StoreConfig {
        tls: Some(TlsFiles {
            cert: folder.path().join("cert"),
            key: folder.path().join("key"),
            client_ca: None,
        }),
        ..config()
    })
    .await;
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(authority.pem.as_bytes()).unwrap())
        .unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(store.address).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let mut stream = TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
        .unwrap();
    let document = format!("{{\"a\":\"{}\"}}", "x".repeat(900_000));
    let head = format!(
        "PUT /api/v1/policies/acme/chat HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n",
        document.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(document.as_bytes()).await.unwrap();
    let get = "GET /api/v1/policies/acme/chat HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    stream.write_all(get.as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
    let mut answers = Vec::new();
    stream.read_to_end(&mut answers).await.unwrap();
    let answers = String::from_utf8(answers).unwrap();
    assert!(answers.starts_with("HTTP/1.1 201 "));
    assert!(answers.ends_with(&document));
    store.stop().await;
}
