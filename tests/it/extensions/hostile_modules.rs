//! Modules that want to do harm before they are called: to the compiler, to the disk, on the way here.

use std::{
    fs,
    net::SocketAddr,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use beamline_sidecar::extensions::{
    CallError, Compiler, ComponentCache, Engines, Kind, ModuleDigest, Profile,
};
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use serde_json::{Value, json};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_rustls::TlsAcceptor;

use super::{
    LIMITS, built,
    compatibility::kept,
    component_cache, guest,
    hostile::{ask, problems, reason},
    message,
    place::Place,
    record,
};
use crate::{
    decide::outcome,
    support::{Client, Process, Say, Scripted, eventually},
};

/// A number as WebAssembly writes it.
fn leb(mut number: usize, into: &mut Vec<u8>) {
    loop {
        let low = (number & 0x7f) as u8;
        number >>= 7;
        if number == 0 {
            return into.push(low);
        }
        into.push(low | 0x80);
    }
}

fn section(id: u8, content: &[u8], into: &mut Vec<u8>) {
    into.push(id);
    leb(content.len(), into);
    into.extend(content);
}

/// A component around a core module of so many functions with this body.
fn functions(count: usize, body: &[u8]) -> Vec<u8> {
    let mut module = b"\0asm\x01\0\0\0".to_vec();
    section(1, &[1, 0x60, 0, 0], &mut module);
    let mut types = Vec::new();
    leb(count, &mut types);
    types.resize(types.len() + count, 0);
    section(3, &types, &mut module);
    let mut code = Vec::new();
    leb(count, &mut code);
    let mut function = vec![0];
    function.extend(body);
    function.push(0x0b);
    for _ in 0..count {
        leb(function.len(), &mut code);
        code.extend(&function);
    }
    section(10, &code, &mut module);
    let mut component = b"\0asm\x0d\0\x01\0".to_vec();
    section(1, &module, &mut component);
    component
}

/// A component in a component, so many times.
fn nested(depth: usize) -> Vec<u8> {
    let mut component = b"\0asm\x0d\0\x01\0".to_vec();
    for _ in 0..depth {
        let mut outer = b"\0asm\x0d\0\x01\0".to_vec();
        section(4, &component, &mut outer);
        component = outer;
    }
    component
}

fn guard(place: &Place, id: &str, module: &str, more: Value) {
    let record = json!({"id": id, "type": "validator", "module": module});
    place.record(id, super::place::merge(record, more));
    place.policy(id, json!({"validators": [{"id": id, "on_fail": "block"}]}));
}

fn guard_of(place: &Place, id: &str, module: &[u8]) {
    place.bytes(module, &format!("{id}.wasm"));
    guard(place, id, &format!("file:{id}.wasm"), json!({}));
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_26_what_is_too_large_or_too_deep_is_refused_by_name() {
    let place = Place::new();
    // Fifty megabytes of functions; one function more than WebAssembly has room for; components in components.
    guard_of(&place, "large", &functions(250_000, &[0x01; 197]));
    guard_of(&place, "many", &functions(1_000_001, &[]));
    guard_of(&place, "deep", &nested(5_000));
    guard_of(&place, "good", &guest("pii-guard"));
    let sidecar = place.start("");
    let client = sidecar.client();
    for (id, says) in [
        ("large", "more than extensions.max_module_bytes (33554432)"),
        ("many", "functions"),
        ("deep", "does not export the function `validate`"),
    ] {
        let said = problems(&sidecar, id).await;
        assert!(said.contains(says), "{id}: {said}");
        assert_eq!(reason(&ask(&client, id).await), "extension_not_found");
    }
    assert!(outcome(&ask(&client, "good").await).starts_with("weighted "));
}

/// A million functions are a valid module of four megabytes.
#[tokio::test(flavor = "multi_thread")]
async fn hostile_26_a_compile_bomb_takes_its_time_and_nobody_elses() {
    let place = Place::new();
    guard_of(&place, "good", &guest("pii-guard"));
    let sidecar = place.start("extensions: {compile_timeout_ms: 1500}");
    assert!(outcome(&ask(&sidecar.client(), "good").await).starts_with("weighted "));
    guard_of(&place, "bomb", &functions(1_000_000, &[]));
    let over = Arc::new(AtomicBool::new(false));
    let decisions = {
        let (client, over) = (sidecar.client(), over.clone());
        tokio::spawn(async move {
            let mut answered = 0;
            while !over.load(SeqCst) {
                let answer = ask(&client, "good").await;
                assert!(outcome(&answer).starts_with("weighted "), "{}", answer.text());
                assert_eq!(client.policy("acme/good").await.status, 200);
                answered += 1;
            }
            answered
        })
    };
    let reloaded = sidecar.admin().post("/admin/extensions/reload", "").await;
    over.store(true, SeqCst);
    assert_eq!(reloaded.status, 200);
    assert!(decisions.await.unwrap() > 0, "decisions are made meanwhile");
    let said = problems(&sidecar, "bomb").await;
    assert!(said.contains("extensions.compile_timeout_ms (1500 ms)"), "{said}");
    assert_eq!(problems(&sidecar, "good").await, "null");
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_26_the_compilers_memory_is_limited() {
    let place = Place::new();
    guard_of(&place, "bomb", &functions(200_000, &[]));
    guard_of(&place, "good", &guest("pii-guard"));
    let sidecar = place.start("extensions: {max_compile_memory_bytes: 67108864, compile_timeout_ms: 600000}");
    let said = problems(&sidecar, "bomb").await;
    assert!(
        said.contains("extensions.max_compile_memory_bytes (67108864)"),
        "{said}"
    );
    assert!(outcome(&ask(&sidecar.client(), "good").await).starts_with("weighted "));
}

/// Waiting for the processor is not the module's fault, however often it happens.
#[test]
fn hostile_26_a_busy_machine_is_not_held_against_a_module() {
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("compiler");
    // It ends when its pipes are closed, and does nothing until then.
    fs::write(&program, "#!/bin/sh\nexec sleep 600\n").unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o700)).unwrap();
    let compiler = Compiler {
        program,
        timeout: Duration::from_millis(100),
        memory_bytes: 1 << 30,
        in_background: false,
    };
    let engines = Arc::new(Engines::new(4, 1 << 20).unwrap());
    let cache = ComponentCache::new(engines, compiler, None);
    let module = kept("validator");
    let digest = ModuleDigest::of(&module);
    for turn in 1..=5 {
        let refused = cache.build(&module).unwrap_err().to_string();
        assert!(refused.contains("waited for the processor"), "{refused}");
        assert!(
            cache.known(&digest, Profile::of(&module)).is_none(),
            "turn {turn}"
        );
    }
}

/// What takes a place of its own while it is looked at is looked at again when there is one.
#[test]
fn hostile_23_a_full_pool_is_not_held_against_a_module() {
    use beamline_sidecar::extensions::{CallEnv, Capability, Time, Unusable, Work};
    let engines = Arc::new(Engines::new(4, 16 << 20).unwrap());
    let compiled = Path::new(env!("CARGO_TARGET_TMPDIR")).join("compiled");
    let cache = ComponentCache::new(engines, super::compiler(), Some(&compiled));
    let (bad, good) = (
        cache.build(&guest("misbehaving-validator")).unwrap(),
        cache.build(&kept("validator")).unwrap(),
    );
    let looping = cache.link(&bad, Kind::Validator, &Capability::ALL).unwrap();
    let link = || cache.link(&good, Kind::Validator, &Capability::ALL).map(drop);
    let time = Time::of(Duration::from_secs(5));
    std::thread::scope(|threads| {
        let running: Vec<_> = (0..4)
            .map(|_| {
                threads.spawn(|| {
                    // Until it has a place: what looks at the other module may be in it.
                    loop {
                        let work = Work::Validator(message("1"));
                        let env = CallEnv { now_ms: 0, seed: 0 };
                        let ran = looping.call(record(r#"{"do":"loop"}"#), work, LIMITS, time, env);
                        if !matches!(ran.result, Err(CallError::NoInstance { .. })) {
                            return;
                        }
                    }
                })
            })
            .collect();
        let mut met = false;
        while !met && !running.iter().all(|running| running.is_finished()) {
            met = link() == Err(Unusable::NoInstance);
        }
        assert!(met, "there was always an instance left");
    });
    assert_eq!(link(), Ok(()));
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_26_what_is_no_file_is_not_read() {
    let place = Place::new();
    let dir = place.path("extensions");
    let elsewhere = place.path("elsewhere.wasm");
    fs::write(&elsewhere, guest("pii-guard")).unwrap();
    symlink(&elsewhere, dir.join("link.wasm")).unwrap();
    symlink("/dev/zero", dir.join("endless.wasm")).unwrap();
    symlink(dir.join("circle.wasm"), dir.join("circle.wasm")).unwrap();
    fs::create_dir(dir.join("folder.wasm")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        dir.join("pipe.wasm"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o600),
        0,
    )
    .unwrap();
    for id in ["link", "endless", "circle", "folder", "pipe"] {
        guard(&place, id, &format!("file:{id}.wasm"), json!({}));
    }
    // Nor is what lies there in a record's place.
    rustix::fs::mknodat(
        rustix::fs::CWD,
        dir.join("a-pipe.json"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o600),
        0,
    )
    .unwrap();
    symlink("/dev/zero", dir.join("a-device.json")).unwrap();
    let sidecar = place.start("");
    for (id, says) in [
        ("endless", "no regular file"),
        ("circle", "cannot be read"),
        ("folder", "no regular file"),
        ("pipe", "no regular file"),
        ("a-pipe", "no regular file"),
        ("a-device", "no regular file"),
    ] {
        let said = problems(&sidecar, id).await;
        assert!(said.contains(says), "{id}: {said}");
    }
    // A link leads where the operator says.
    assert!(outcome(&ask(&sidecar.client(), "link").await).starts_with("weighted "));
}

/// A module that changes all the time, half of the time to something that is none, beside its digest.
#[tokio::test(flavor = "multi_thread")]
async fn hostile_27_a_module_that_changes_between_two_reads_is_what_its_digest_says_or_nothing() {
    let place = Place::new();
    let module = kept("validator");
    let pinned = ModuleDigest::of(&module).to_string();
    place.bytes(&module, "m.wasm");
    let granted = json!({"capabilities": ["clock", "random", "metrics"]});
    guard(&place, "free", "file:m.wasm", granted.clone());
    guard(
        &place,
        "pinned",
        "file:m.wasm",
        super::place::merge(granted, json!({"sha256": pinned})),
    );
    let sidecar = place.start("");
    let client = sidecar.client();
    let expected = "validator_blocked";
    for turn in 0..40_u8 {
        let mut other = module.clone();
        match turn % 4 {
            0 => other.truncate(1_000),
            1 => other.extend([0, 2, 1, b'x']),
            2 => other[20] ^= 0xff,
            _ => {}
        }
        // Written in place: a reader may see any part of it.
        fs::write(place.path("extensions/m.wasm"), &other).unwrap();
        let reloaded = sidecar.admin().post("/admin/extensions/reload", "").await;
        assert_eq!(reloaded.status, 200);
        for id in ["free", "pinned"] {
            let answer = ask(&client, id).await;
            assert!(answer.text().contains(expected), "{turn} {id}: {}", answer.text());
            assert!(
                reason(&answer).starts_with("acme|"),
                "{turn} {id}: {}",
                answer.text()
            );
        }
        let page = sidecar.admin().get("/admin/extensions/pinned").await.json();
        assert_eq!(page["versions"][0]["sha256"], pinned, "{page}");
    }
}

/// What one has compiled is another's only with its key.
#[tokio::test(flavor = "multi_thread")]
async fn hostile_27_two_sidecars_share_nothing() {
    let (first, second) = (Place::cold(), Place::cold());
    for place in [&first, &second] {
        guard_of(place, "good", &guest("accepts"));
    }
    let yaml = "extensions: {compile_timeout_ms: 600000}";
    let compiled = "beamline_sidecar_extension_compile_seconds_count";
    let dir = |place: &Place| place.path("state/extensions/compiled");
    first.start(yaml).stop().await;
    fs::create_dir_all(dir(&second)).unwrap();
    for entry in fs::read_dir(dir(&first)).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "compiled") {
            fs::copy(&path, dir(&second).join(path.file_name().unwrap())).unwrap();
        }
    }
    let sidecar = second.start(yaml);
    assert!((sidecar.metric(compiled).await - 1.0).abs() < 1e-9);
    assert!(outcome(&ask(&sidecar.client(), "good").await).starts_with("weighted "));
    sidecar.stop().await;
    assert_ne!(
        fs::read(dir(&first).join("key")).unwrap(),
        fs::read(dir(&second).join("key")).unwrap()
    );
    // With the key they are one.
    fs::copy(dir(&first).join("key"), dir(&second).join("key")).unwrap();
    for entry in fs::read_dir(dir(&first)).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, dir(&second).join(path.file_name().unwrap())).unwrap();
    }
    let sidecar = second.start(yaml);
    assert!(sidecar.metric(compiled).await.abs() < 1e-9);
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_27_a_key_that_others_could_know_is_not_used() {
    let place = Place::cold();
    guard_of(&place, "good", &guest("accepts"));
    let yaml = "extensions: {compile_timeout_ms: 600000}";
    let compiled = "beamline_sidecar_extension_compile_seconds_count";
    place.start(yaml).stop().await;
    let dir = place.path("state/extensions/compiled");
    let key = dir.join("key");
    let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
    let chmod = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    assert_eq!((mode(&key), fs::read(&key).unwrap().len()), (0o600, 64));
    let turns: [(&str, &dyn Fn()); 6] = [
        ("readable", &|| chmod(&key, 0o644)),
        ("writable", &|| chmod(&key, 0o602)),
        ("empty", &|| fs::write(&key, "").unwrap()),
        ("short", &|| fs::write(&key, [7; 63]).unwrap()),
        ("long", &|| fs::write(&key, [7; 65]).unwrap()),
        ("gone", &|| fs::remove_file(&key).unwrap()),
    ];
    for (what, change) in turns {
        let before = fs::read(&key).unwrap();
        change();
        let sidecar = place.start(yaml);
        assert!(
            (sidecar.metric(compiled).await - 1.0).abs() < 1e-9,
            "{what}: it is compiled anew"
        );
        assert!(
            outcome(&ask(&sidecar.client(), "good").await).starts_with("weighted "),
            "{what}"
        );
        sidecar.stop().await;
        let after = fs::read(&key).unwrap();
        assert_eq!((mode(&key), after.len()), (0o600, 64), "{what}");
        assert_ne!(after, before, "{what}");
    }
    // Whatever is in a directory that others could write may be theirs.
    let before = fs::read(&key).unwrap();
    chmod(&dir, 0o777);
    let sidecar = place.start(yaml);
    assert!((sidecar.metric(compiled).await - 1.0).abs() < 1e-9);
    assert_eq!(mode(&dir), 0o700);
    assert_ne!(fs::read(&key).unwrap(), before);
}

/// A web server with a certificate, and the authority that signed it.
struct Web {
    server: Scripted,
    address: SocketAddr,
    authority: String,
    running: JoinHandle<()>,
}

impl Web {
    async fn start() -> Self {
        let server = Scripted::start().await;
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let authority = params.self_signed(&key).unwrap().pem();
        let issuer = Issuer::new(params, key);
        let mut params = CertificateParams::new(vec!["localhost".into(), "127.0.0.1".into()]).unwrap();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &issuer).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![CertificateDer::from_pem_slice(certificate.pem().as_bytes()).unwrap()],
                PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).unwrap(),
            )
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, behind) = (listener.local_addr().unwrap(), server.address);
        let running = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    let (inside, outside) = (acceptor.accept(stream).await, TcpStream::connect(behind).await);
                    if let (Ok(mut inside), Ok(mut outside)) = (inside, outside) {
                        let _ended = tokio::io::copy_bidirectional(&mut inside, &mut outside).await;
                    }
                });
            }
        });
        Self {
            server,
            address,
            authority,
            running,
        }
    }

    /// Serves bytes below this path.
    fn serves(&self, path: &str, bytes: &[u8]) {
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", bytes.len());
        self.server.on(
            &format!("GET {path} "),
            Say::Bytes([head.as_bytes(), bytes].concat()),
        );
    }
}

impl Drop for Web {
    fn drop(&mut self) {
        self.running.abort();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_25_modules_come_from_the_servers_that_are_named_and_are_what_was_asked_for() {
    let web = Web::start().await;
    let (module, other) = (kept("pii-guard"), kept("validator"));
    let port = web.address.port();
    web.serves("/good.wasm", &module);
    web.serves("/other.wasm", &other);
    web.serves("/cut.wasm", &[]);
    let cut = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", module.len());
    web.server.on(
        "GET /cut.wasm ",
        Say::Bytes([cut.as_bytes(), &module[..1_000]].concat()),
    );
    let to = format!(
        "HTTP/1.1 302 Found\r\nlocation: https://127.0.0.1:{port}/hidden.wasm\r\ncontent-length: 0\r\n\r\n"
    );
    web.server.on("GET /moved.wasm ", Say::Bytes(to.into_bytes()));
    web.serves("/hidden.wasm", &module);
    let endless = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
    let chunk = [b"10000\r\n".to_vec(), vec![0; 65_536], b"\r\n".to_vec()].concat();
    web.server.on("GET /endless.wasm ", Say::Endless(endless, chunk));
    web.serves("/large.wasm", &vec![0; 2_000_000]);

    let place = Place::new();
    let sha256 = ModuleDigest::of(&module).to_string();
    let url = |host: &str, path: &str| format!("https://{host}:{port}/{path}.wasm");
    let long = format!("https://127.0.0.1:{port}/{}", "x".repeat(70_000));
    let cases = [
        ("good", url("127.0.0.1", "good"), ""),
        ("other", url("127.0.0.1", "other"), "its SHA-256 is"),
        ("cut", url("127.0.0.1", "cut"), "cannot be fetched"),
        ("moved", url("127.0.0.1", "moved"), "the server answers 302"),
        ("endless", url("127.0.0.1", "endless"), "cannot be fetched"),
        ("large", url("127.0.0.1", "large"), "cannot be fetched"),
        ("missing", url("127.0.0.1", "missing"), "the server answers 404"),
        ("name", url("localhost", "good"), "localhost is not one of"),
        (
            "user",
            url("127.0.0.1@localhost", "good"),
            "localhost is not one of",
        ),
        (
            "plain",
            format!("http://127.0.0.1:{port}/good.wasm"),
            "no scheme that is known",
        ),
        ("long", long, "not a URL"),
    ];
    // What is known by its digest is not fetched again, from anywhere: the others ask for modules that do not exist.
    let unknown = ModuleDigest::of(b"unknown").to_string();
    for (id, url, says) in &cases {
        let wanted = if says.is_empty() { &sha256 } else { &unknown };
        guard(&place, id, url, json!({"sha256": wanted}));
    }
    guard(&place, "free", &url("127.0.0.1", "good"), json!({}));
    guard_of(&place, "here", &module);
    let authority = place.path("authority.pem");
    fs::write(&authority, &web.authority).unwrap();
    let config = place.path("sidecar.yaml");
    let yaml = "log: {format: json}\nextensions: {module_hosts: ['127.0.0.1'], max_module_bytes: 1000000, compile_timeout_ms: 600000}";
    fs::write(&config, place.yaml(yaml)).unwrap();
    let environment = [("SSL_CERT_FILE", authority.to_str().unwrap())];
    let process = Process::start(&["run", "--config", config.to_str().unwrap()], &environment);
    let (client, admin) = (
        Client::new(&process.listen[0]),
        Client::new(process.admin.unwrap()),
    );
    eventually("what is here is there", || async {
        outcome(&ask(&client, "here").await).starts_with("weighted ")
    })
    .await;
    eventually("all were tried", || async {
        admin.get("/admin/extensions").await.json()["pending"] == json!([])
    })
    .await;
    eventually("the good one is fetched", || async {
        outcome(&ask(&client, "good").await).starts_with("weighted ")
    })
    .await;
    let page = admin.get("/admin/extensions").await.json();
    for (id, _, says) in &cases[1..] {
        let said = page["problems"][id].to_string();
        assert!(said.contains(says), "{id}: {said}");
        assert_eq!(reason(&ask(&client, id).await), "extension_not_found", "{id}");
    }
    let said = page["problems"]["free"].to_string();
    assert!(said.contains("needs its digest"), "{said}");
    for unasked in ["GET /hidden", "GET /xxxx"] {
        assert_eq!(web.server.count(unasked), 0);
    }
    // It is kept, and asked for once.
    assert_eq!(web.server.count("GET /good.wasm"), 1);
    drop(process);
    web.server.on("GET /good.wasm ", Say::Bytes(Vec::new()));
    let process = Process::start(&["run", "--config", config.to_str().unwrap()], &environment);
    let client = Client::new(&process.listen[0]);
    eventually("it was kept", || async {
        outcome(&ask(&client, "good").await).starts_with("weighted ")
    })
    .await;
}

/// What is another module than the record names is not fetched again and again: each time costs all of it.
#[tokio::test(flavor = "multi_thread")]
async fn hostile_25_a_module_with_a_wrong_digest_is_fetched_more_rarely_than_one_that_is_missing() {
    let web = Web::start().await;
    let port = web.address.port();
    web.serves("/other.wasm", &kept("validator"));
    let place = Place::new();
    let unknown = ModuleDigest::of(b"unknown").to_string();
    for id in ["other", "missing"] {
        let url = format!("https://127.0.0.1:{port}/{id}.wasm");
        guard(&place, id, &url, json!({"sha256": unknown}));
    }
    let authority = place.path("authority.pem");
    fs::write(&authority, &web.authority).unwrap();
    let config = place.path("sidecar.yaml");
    let yaml = "log: {format: json}\nextensions: {module_hosts: ['127.0.0.1']}";
    fs::write(&config, place.yaml(yaml)).unwrap();
    let environment = [("SSL_CERT_FILE", authority.to_str().unwrap())];
    let process = Process::start(&["run", "--config", config.to_str().unwrap()], &environment);
    let admin = Client::new(process.admin.unwrap());
    // It is there, and its next try is not far: five seconds, then ten.
    eventually("the missing one was tried three times", || async {
        web.server.count("GET /missing.wasm") >= 3
    })
    .await;
    assert_eq!(web.server.count("GET /other.wasm"), 1);
    let page = admin.get("/admin/extensions").await.json();
    assert!(
        page["problems"]["other"].to_string().contains("its SHA-256 is"),
        "{page}"
    );
    // An operator who asks for it gets it fetched.
    let reloaded = admin.post("/admin/extensions/reload", "").await.json();
    assert_eq!(reloaded["ok"], false);
    assert_eq!(web.server.count("GET /other.wasm"), 2);
}

/// Without the authority there is no module, whatever its host.
#[tokio::test(flavor = "multi_thread")]
async fn hostile_25_a_server_nobody_vouches_for_gives_no_module() {
    let web = Web::start().await;
    let module = kept("pii-guard");
    web.serves("/good.wasm", &module);
    let place = Place::new();
    let url = format!("https://127.0.0.1:{}/good.wasm", web.address.port());
    guard(
        &place,
        "good",
        &url,
        json!({"sha256": ModuleDigest::of(&module).to_string()}),
    );
    let sidecar = place.start("extensions: {module_hosts: ['127.0.0.1']}");
    eventually("it was tried", || async {
        problems(&sidecar, "good").await.contains("cannot be fetched")
    })
    .await;
    assert_eq!(web.server.requests(), Vec::<String>::new());
    assert_eq!(
        reason(&ask(&sidecar.client(), "good").await),
        "extension_not_found"
    );
}

/// What an extension says of a configuration reaches logs and pages: one line, and no more than a line.
#[tokio::test(flavor = "multi_thread")]
async fn hostile_24_what_is_said_of_a_configuration_is_bounded() {
    let place = Place::new();
    place.bytes(&kept("validator"), "v.wasm");
    let config = json!({"a": "x\n".repeat(20_000)});
    let more = json!({"capabilities": ["clock", "random", "metrics"], "config": config});
    guard(&place, "says", "file:v.wasm", more);
    let sidecar = place.start("");
    let page = sidecar.admin().get("/admin/extensions").await.json();
    let said = page["problems"]["says"][0]["message"].as_str().unwrap();
    assert_eq!(said.chars().count(), 512, "{said}");
    assert!(!said.contains('\n'));
    let _same_workshop = built("pii-guard");
    assert!(
        component_cache()
            .known(&ModuleDigest::of(&guest("pii-guard")), Profile::Compact)
            .is_some()
    );
}
