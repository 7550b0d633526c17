//! Modules of registries: pulled from a real one, through a proxy that does to it what a test says.

use std::fs;

use beamline_sidecar::extensions::ModuleDigest;
use serde_json::{Value, json};

use super::{
    compatibility::kept,
    hostile::{ask, problems, reason},
    place::{Place, merge},
};
use crate::{
    decide::outcome,
    support::{Fault, Faulty, OciRegistry, Seen, Sidecar, eventually},
};

const WASM: &str = "application/wasm";
const KUBEWARDEN: &str = "application/vnd.wasm.content.layer.v1+wasm";
const YAML: &str = "extensions: {module_hosts: ['127.0.0.1'], max_module_bytes: 1000000}";

/// A registry, and what stands before it.
struct Rig {
    registry: OciRegistry,
    proxy: Faulty,
    place: Place,
}

impl Rig {
    async fn start() -> Self {
        Self::before(OciRegistry::start()).await
    }

    async fn before(registry: OciRegistry) -> Self {
        Self {
            proxy: Faulty::start(registry.address).await,
            registry,
            place: Place::new(),
        }
    }

    fn name(&self, repository: &str, digest: &str) -> String {
        format!("oci://{}/{repository}@{digest}", self.proxy.address)
    }

    /// A validator of this module, and a policy of the same name with it.
    fn guard(&self, id: &str, module: &str, more: Value) {
        let record = json!({"id": id, "type": "validator", "module": module});
        self.place.record(id, merge(record, more));
        self.place
            .policy(id, json!({"validators": [{"id": id, "on_fail": "block"}]}));
    }

    fn blobs(&self) -> usize {
        let is_blob = |seen: &Seen| seen.is("GET ") && seen.path.contains("/blobs/");
        self.proxy.seen().iter().filter(|seen| is_blob(seen)).count()
    }
}

async fn passes(sidecar: &Sidecar, policy: &str) -> bool {
    outcome(&ask(&sidecar.client(), policy).await).starts_with("weighted ")
}

fn is_blob(seen: &Seen) -> bool {
    seen.path.contains("/blobs/")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_module_of_a_registry_is_pulled_once_and_runs_without_it_after_a_restart() {
    let mut rig = Rig::start().await;
    let module = kept("pii-guard");
    for (id, kind) in [("cncf", WASM), ("kubewarden", KUBEWARDEN)] {
        let repository = format!("guards/{id}");
        let digest = rig.registry.artifact(&repository, &[(kind, &module)]).await;
        rig.guard(id, &rig.name(&repository, &digest), json!({}));
    }
    let digest = rig.registry.artifact("guards/pinned", &[(WASM, &module)]).await;
    let sha256 = ModuleDigest::of(&module).to_string();
    // A tag beside the digest is for people.
    let name = format!("oci://{}/guards/pinned:v1@{digest}", rig.proxy.address);
    rig.guard("pinned", &name, json!({"sha256": sha256}));
    let sidecar = rig.place.start(YAML);
    for id in ["cncf", "kubewarden", "pinned"] {
        eventually("it is pulled and runs", || passes(&sidecar, id)).await;
    }
    let asked = rig.proxy.seen().len();
    let page = sidecar.admin().get("/admin/extensions/cncf").await.json();
    assert!(page.to_string().contains("oci://127.0.0.1"), "{page}");
    sidecar.stop().await;
    rig.registry.stop();
    let sidecar = rig.place.start(YAML);
    for id in ["cncf", "kubewarden", "pinned"] {
        eventually("it is still here", || passes(&sidecar, id)).await;
    }
    assert_eq!(rig.proxy.seen().len(), asked, "nothing was asked for again");
    // Three artifacts with one module.
    assert!(rig.blobs() <= 3, "{}", rig.blobs());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_pinned_module_of_a_named_registry_is_refused_with_its_remedy() {
    let rig = Rig::start().await;
    let module = kept("pii-guard");
    let good = rig.registry.artifact("good", &[(WASM, &module)]).await;
    let text = rig
        .registry
        .artifact("text", &[("text/plain", b"no module")])
        .await;
    let two = rig
        .registry
        .artifact("two", &[(WASM, &module), (KUBEWARDEN, &module)])
        .await;
    let large = rig
        .registry
        .artifact("large", &[(WASM, &vec![0; 1_000_001])])
        .await;
    let other = rig.registry.artifact("other", &[(WASM, b"other")]).await;
    let index = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [{
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": good,
            "size": 1,
        }],
    });
    let index = rig.registry.manifest("good", &index).await;
    let at = rig.proxy.address;
    let missing = format!("sha256:{}", ModuleDigest::of(b"missing"));
    let cases = [
        ("tag", format!("oci://{at}/good:v1"), "@sha256:"),
        ("bare", format!("oci://{at}/good"), "@sha256:"),
        ("wrong", format!("oci://{at}/Good@{good}"), "names no repository"),
        (
            "far",
            format!("oci://registry.example/good@{good}"),
            "registry.example is not one of extensions.module_hosts",
        ),
        ("text", rig.name("text", &text), "does not hold one module"),
        ("two", rig.name("two", &two), "does not hold one module"),
        (
            "large",
            rig.name("large", &large),
            "more than extensions.max_module_bytes",
        ),
        ("index", rig.name("good", &index), "index of several artifacts"),
        ("other", rig.name("other", &other), "it is not WebAssembly"),
        ("missing", rig.name("good", &missing), "no such artifact"),
        ("pinned", rig.name("good", &good), "not 0000"),
    ];
    for (id, module, _) in &cases {
        let sha256 = (*id == "pinned").then(|| "0".repeat(64));
        rig.guard(id, module, json!({"sha256": sha256}));
    }
    let sidecar = rig.place.start(YAML);
    for (id, _, says) in &cases {
        eventually("it was tried", || async {
            problems(&sidecar, id).await.contains(says)
        })
        .await;
        assert_eq!(
            reason(&ask(&sidecar.client(), id).await),
            "extension_not_found",
            "{id}"
        );
    }
    // Of what is too large, or is another module than the record says, nothing was pulled.
    assert_eq!(rig.blobs(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_is_down_is_asked_again_until_it_is_back() {
    let mut rig = Rig::start().await;
    let digest = rig
        .registry
        .artifact("guard", &[(WASM, &kept("pii-guard"))])
        .await;
    rig.guard("guard", &rig.name("guard", &digest), json!({}));
    rig.place.extension("near", "validator", "pii-guard", json!({}));
    rig.place.policy(
        "near",
        json!({"validators": [{"id": "near", "on_fail": "block"}]}),
    );
    rig.registry.stop();
    let sidecar = rig.place.start(YAML);
    eventually("it was tried", || async {
        problems(&sidecar, "guard").await.contains("cannot be fetched")
    })
    .await;
    assert!(passes(&sidecar, "near").await);
    rig.registry.start_again();
    // Without anybody's asking for it.
    eventually("it is back", || passes(&sidecar, "guard")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_lies_about_digests_is_believed_in_nothing_and_asked_rarely() {
    let rig = Rig::start().await;
    let (module, other) = (kept("pii-guard"), kept("validator"));
    let digest = rig.registry.artifact("blob", &[(WASM, &module)]).await;
    rig.guard("blob", &rig.name("blob", &digest), json!({}));
    let of_other = rig.registry.artifact("manifest", &[(WASM, &other)]).await;
    let wanted = format!("sha256:{}", ModuleDigest::of(b"wanted"));
    rig.guard("manifest", &rig.name("manifest", &wanted), json!({}));
    rig.guard("missing", &rig.name("missing", &wanted), json!({}));
    let client = rig.registry.client();
    let lie = client
        .get(&format!("/v2/manifest/manifests/{of_other}"))
        .await
        .text()
        .to_owned();
    rig.proxy.rule(move |seen| {
        if is_blob(seen) {
            return Fault::Say(200, &[], "another module".into());
        }
        if seen.path.starts_with("/v2/manifest/") {
            let kind = &[("content-type", "application/vnd.oci.image.manifest.v1+json")];
            return Fault::Say(200, kind, lie.clone());
        }
        Fault::None
    });
    let sidecar = rig.place.start(YAML);
    for id in ["blob", "manifest"] {
        eventually("the lie was seen", || async {
            problems(&sidecar, id)
                .await
                .contains("that the registry gives is")
        })
        .await;
        assert_eq!(
            reason(&ask(&sidecar.client(), id).await),
            "extension_not_found",
            "{id}"
        );
    }
    let tried = |id: &str| rig.proxy.count(&format!("GET /v2/{id}/"));
    // Five seconds, then ten.
    eventually("the missing one was tried three times", || async {
        tried("missing") >= 3
    })
    .await;
    assert_eq!((tried("manifest"), rig.blobs()), (1, 1));
    // It tells the truth again, and an operator asks.
    rig.proxy.rule(|_| Fault::None);
    sidecar.admin().post("/admin/extensions/reload", "").await;
    assert!(passes(&sidecar, "blob").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_is_slow_or_never_ends_keeps_nothing_else_waiting() {
    let rig = Rig::start().await;
    for id in ["slow", "endless"] {
        let digest = rig.registry.artifact(id, &[(WASM, &kept("pii-guard"))]).await;
        rig.guard(id, &rig.name(id, &digest), json!({}));
    }
    rig.place.extension("near", "validator", "pii-guard", json!({}));
    rig.place.policy(
        "near",
        json!({"validators": [{"id": "near", "on_fail": "block"}]}),
    );
    rig.proxy.rule(|seen| {
        const PIECE: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
        if !is_blob(seen) {
            Fault::None
        } else if seen.path.starts_with("/v2/slow") {
            Fault::Silence
        } else {
            Fault::Drip(PIECE, std::time::Duration::ZERO)
        }
    });
    let yaml = "extensions: {module_hosts: ['127.0.0.1'], max_module_bytes: 300000}";
    fs::write(rig.place.path("sidecar.yaml"), rig.place.yaml(yaml)).unwrap();
    let sidecar = Sidecar::try_start(&rig.place.yaml(yaml)).unwrap();
    eventually("what is near runs", || passes(&sidecar, "near")).await;
    eventually("what does not end is given up", || async {
        let said = problems(&sidecar, "endless").await;
        said.contains("more than 300000 bytes")
    })
    .await;
    assert_eq!(
        reason(&ask(&sidecar.client(), "slow").await),
        "extension_unavailable"
    );
    rig.proxy.rule(|_| Fault::None);
    rig.proxy.cut();
    eventually("it comes in time", || passes(&sidecar, "slow")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_is_shown_credentials_that_are_nowhere_else() {
    let closed = OciRegistry::start_closed();
    let open = Rig::before(OciRegistry::start()).await;
    let digest = open
        .registry
        .artifact("token", &[(WASM, &kept("pii-guard"))])
        .await;
    let address = open.proxy.address;
    // A server of tokens: it wants the password, and gives a token that the registry behind it wants.
    let challenge: &'static str =
        format!("Bearer realm=\"http://{address}/token\",service=\"rig\",scope=\"repository:token:pull\"")
            .leak();
    let headers: &'static [(&str, &str)] = vec![("www-authenticate", challenge)].leak();
    open.proxy.rule(move |seen| {
        let shown = seen.header("authorization");
        if seen.path.starts_with("/token") {
            // ann:geheim-7
            return if shown == "Basic YW5uOmdlaGVpbS03"
                && seen.path.contains("scope=repository%3Atoken%3Apull")
            {
                Fault::Say(200, &[], r#"{"token": "t-geheim"}"#.into())
            } else {
                Fault::Say(401, &[], String::new())
            };
        }
        if shown == "Bearer t-geheim" {
            Fault::None
        } else {
            Fault::Say(401, headers, String::new())
        }
    });
    open.guard("token", &open.name("token", &digest), json!({}));
    let missing = format!("sha256:{}", ModuleDigest::of(b"missing"));
    let basic = format!("oci://{}/basic@{missing}", closed.address);
    open.guard("basic", &basic, json!({}));
    let file = open.place.path("config.json");
    let auths = |password: &str| {
        json!({"auths": {
            address.to_string(): {"username": "ann", "password": password},
            closed.address.to_string(): {"username": "ann", "password": password},
        }})
        .to_string()
    };
    fs::write(&file, auths("falsch-8")).unwrap();
    let yaml = format!(
        "log: {{format: json, filter: trace}}\nextensions: {{module_hosts: ['127.0.0.1'], registries: {{credentials_file: {}}}}}",
        file.display()
    );
    let process = open.place.process(&yaml);
    let (client, admin) = (
        crate::support::Client::new(&process.listen[0]),
        crate::support::Client::new(process.admin.unwrap()),
    );
    let said = |id: &'static str| {
        let admin = admin.clone();
        async move { admin.get("/admin/extensions").await.json()["problems"][id].to_string() }
    };
    eventually("the wrong password is refused", || async {
        said("token").await.contains("gives no token") && said("basic").await.contains("answers 401")
    })
    .await;
    // It is read anew each time.
    fs::write(&file, auths("geheim-7")).unwrap();
    eventually("the password is taken", || async {
        outcome(&ask(&client, "token").await).starts_with("weighted ")
    })
    .await;
    eventually("there too, and it has no such artifact", || async {
        said("basic").await.contains("no such artifact")
    })
    .await;
    let page = admin.get("/admin/extensions").await.text().to_owned();
    let config = admin.get("/admin/config").await.text().to_owned();
    let log = process.log().join("\n");
    for secret in ["geheim", "falsch-8", "YW5uOmdlaGVpbS03"] {
        for text in [&page, &config, &log] {
            assert!(!text.contains(secret), "{text}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_leads_to_named_hosts_only_and_shows_them_no_credentials() {
    let rig = Rig::start().await;
    let module = kept("pii-guard");
    // What is here under its digest already is fetched from nowhere.
    for (id, module) in [("far", b"another".as_slice()), ("near", &module)] {
        let digest = rig.registry.artifact(id, &[(WASM, module)]).await;
        rig.guard(id, &rig.name(id, &digest), json!({}));
    }
    let elsewhere = Faulty::start(rig.registry.address).await;
    let path = format!("/v2/near/blobs/sha256:{}", ModuleDigest::of(&module));
    let near: &'static str = format!("http://{}{path}", elsewhere.address).leak();
    let to_near: &'static [(&str, &str)] = vec![("location", near)].leak();
    rig.proxy.rule(move |seen| {
        let far = &[("location", "https://content.example/module")];
        if !is_blob(seen) {
            Fault::None
        } else if seen.path.starts_with("/v2/far/") {
            Fault::Say(307, far, String::new())
        } else {
            Fault::Say(307, to_near, String::new())
        }
    });
    let auths =
        json!({"auths": {rig.proxy.address.to_string(): {"username": "ann", "password": "geheim-7"}}});
    let file = rig.place.path("config.json");
    fs::write(&file, auths.to_string()).unwrap();
    let sidecar = rig.place.start(YAML);
    eventually("it was tried", || async {
        problems(&sidecar, "far")
            .await
            .contains("content.example is not one of extensions.module_hosts")
    })
    .await;
    eventually("what is on a named host is followed to", || {
        passes(&sidecar, "near")
    })
    .await;
    assert!(
        elsewhere
            .seen()
            .iter()
            .all(|seen| seen.header("authorization").is_empty())
    );
}
