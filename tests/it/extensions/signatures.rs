//! Who has signed a module decides whether it is loaded, and for whom it is called.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};

use super::{
    compatibility::kept,
    hostile::{ask, problems, reason},
    place::{Place, merge},
};
use crate::{
    decide::{decide, outcome, request},
    support::{Ended, OciRegistry, Sidecar, eventually, program},
};

const WASM: &str = "application/wasm";

/// Keys, a registry and a sidecar's directories.
struct Desk {
    registry: OciRegistry,
    place: Place,
}

impl Desk {
    fn new() -> Self {
        let desk = Self {
            registry: OciRegistry::start(),
            place: Place::new(),
        };
        for (name, kind) in [
            ("ours", "ecdsa-p256"),
            ("theirs", "ecdsa-p256"),
            ("file", "ed25519"),
        ] {
            let key = desk.place.path(name);
            desk.ext(&["keygen", key.to_str().unwrap(), "--kind", kind]);
        }
        desk
    }

    fn ext(&self, arguments: &[&str]) -> String {
        let ended = Ended::of(program().arg("ext").args(arguments));
        assert_eq!(ended.code, 0, "{arguments:?}: {}{}", ended.out, ended.errors);
        ended.out
    }

    fn key(&self, name: &str) -> String {
        self.place.path(&format!("{name}.key")).display().to_string()
    }

    fn public(&self, name: &str) -> PathBuf {
        self.place.path(&format!("{name}.pub"))
    }

    /// Puts a module into a repository, which is like no other: a signature counts for the same artifact wherever it is.
    /// Returns its name.
    async fn push(&self, repository: &str) -> String {
        let name = repository.as_bytes();
        let length = u8::try_from(name.len()).unwrap();
        // A section of its own, whose name is its content.
        let module = [&kept("pii-guard")[..], &[0, length + 1, length], name].concat();
        let digest = self.registry.artifact(repository, &[(WASM, &module)]).await;
        format!("oci://{}/{repository}@{digest}", self.registry.address)
    }

    fn sign(&self, name: &str, key: &str, more: &[&str]) {
        let key = self.key(key);
        self.ext(&[&["sign", name, "--key", &key], more].concat());
    }

    /// A validator of this module, and a policy of the same name with it, of two tenants.
    fn guard(&self, id: &str, module: &str, more: Value) {
        let record = json!({"id": id, "type": "validator", "module": module});
        self.place.record(id, merge(record, more));
        for tenant in ["acme", "beta"] {
            let policy = json!({"validators": [{"id": id, "on_fail": "block"}]});
            self.place.policy_of(tenant, id, policy);
        }
    }

    /// What a configuration says of signatures, and of a registry.
    fn yaml(&self, signatures: &str) -> String {
        format!("extensions: {{module_hosts: ['127.0.0.1'], signatures: {{{signatures}}}}}")
    }

    fn requires(&self, keys: &[&str]) -> String {
        let keys: Vec<String> = keys
            .iter()
            .map(|name| self.public(name).display().to_string())
            .collect();
        self.yaml(&format!("required: true, keys: [{}]", keys.join(", ")))
    }
}

async fn passes(sidecar: &Sidecar, policy: &str) -> bool {
    outcome(&ask(&sidecar.client(), policy).await).starts_with("weighted ")
}

async fn is_refused(sidecar: &Sidecar, id: &str, says: &str) {
    eventually("it is refused", || async {
        problems(sidecar, id).await.contains(says)
    })
    .await;
    assert_eq!(
        reason(&ask(&sidecar.client(), id).await),
        "extension_not_found",
        "{id}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_artifact_runs_only_if_a_key_signed_it_that_counts() {
    let mut desk = Desk::new();
    let signed = [("bundle", "bundle"), ("tag", "tag"), ("both", "both")];
    for (id, format) in signed {
        let name = desk.push(id).await;
        desk.sign(&name, "theirs", &["--format", format]);
        desk.sign(&name, "ours", &["--format", format]);
        desk.guard(id, &name, json!({}));
    }
    let name = desk.push("foreign").await;
    desk.sign(&name, "theirs", &["--format", "both"]);
    desk.guard("foreign", &name, json!({}));
    let unsigned = desk.push("unsigned").await;
    desk.guard("unsigned", &unsigned, json!({}));
    // A signature of another artifact that lies beside this one is none of it.
    let moved = desk.push("moved").await;
    move_signature(&desk, "bundle", &moved).await;
    desk.guard("moved", &moved, json!({}));
    let yaml = desk.requires(&["ours"]);
    let sidecar = desk.place.start(&yaml);
    for (id, _) in signed {
        eventually("it is signed", || passes(&sidecar, id)).await;
    }
    is_refused(&sidecar, "foreign", "not by a key of extensions.signatures").await;
    is_refused(&sidecar, "moved", "not by a key of extensions.signatures").await;
    is_refused(&sidecar, "unsigned", "it is not signed").await;
    // It is signed now, and an operator asks.
    desk.sign(&unsigned, "ours", &[]);
    sidecar.admin().post("/admin/extensions/reload", "").await;
    eventually("it is signed as well", || passes(&sidecar, "unsigned")).await;
    sidecar.stop().await;
    // The signatures were kept, and are verified again.
    desk.registry.stop();
    let sidecar = desk.place.start(&yaml);
    for (id, _) in signed {
        eventually("it is still signed", || passes(&sidecar, id)).await;
    }
    sidecar.stop().await;
    // A key that does not count any more: what was compiled is on disk, and is not loaded.
    let sidecar = desk.place.start(&desk.requires(&["file"]));
    for (id, _) in signed {
        eventually("it is refused", || async {
            !problems(&sidecar, id).await.contains("null")
        })
        .await;
        assert_eq!(
            reason(&ask(&sidecar.client(), id).await),
            "extension_not_found",
            "{id}"
        );
    }
}

/// Puts the signature of what is in a repository beside another artifact, as every client that may push there can.
async fn move_signature(desk: &Desk, from: &str, to: &str) {
    let client = desk.registry.client();
    let record: Value =
        serde_json::from_slice(&fs::read(desk.place.path(&format!("extensions/{from}.json"))).unwrap())
            .unwrap();
    let of = record["module"]
        .as_str()
        .unwrap()
        .rsplit("sha256:")
        .next()
        .unwrap()
        .to_owned();
    let list = [("accept", "application/vnd.oci.image.index.v1+json")];
    let path = format!("/v2/{from}/manifests/sha256-{of}");
    let index = client
        .send(http::Method::GET, &path, &list, "")
        .await
        .unwrap()
        .json();
    let (repository, digest) = to.rsplit_once('/').unwrap().1.split_once("@sha256:").unwrap();
    let mut moved = Vec::new();
    for listed in index["manifests"].as_array().unwrap() {
        let path = format!("/v2/{from}/manifests/{}", listed["digest"].as_str().unwrap());
        let accept = [("accept", "application/vnd.oci.image.manifest.v1+json")];
        let manifest = client
            .send(http::Method::GET, &path, &accept, "")
            .await
            .unwrap()
            .json();
        let bundle = manifest["layers"][0]["digest"].as_str().unwrap();
        let bundle = client.get(&format!("/v2/{from}/blobs/{bundle}")).await;
        desk.registry.blob(repository, &bundle.body).await;
        desk.registry.blob(repository, b"{}").await;
        let mut entry = listed.clone();
        entry["digest"] = json!(desk.registry.manifest(repository, &manifest).await);
        entry["size"] = json!(manifest.to_string().len());
        moved.push(entry);
    }
    let list = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": moved,
    });
    let put = client
        .send(
            http::Method::PUT,
            &format!("/v2/{repository}/manifests/sha256-{digest}"),
            &[("content-type", "application/vnd.oci.image.index.v1+json")],
            list.to_string(),
        )
        .await
        .unwrap();
    assert_eq!(put.status, 201, "{}", put.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_signature_of_a_record_is_of_its_module_or_nothing_is_loaded() {
    let desk = Desk::new();
    desk.place.bytes(&kept("pii-guard"), "guard.wasm");
    desk.place
        .bytes(&[&kept("pii-guard")[..], &[0, 2, 1, b'x']].concat(), "other.wasm");
    let signed = |id: &str, key: &str| -> String {
        desk.guard(id, "file:guard.wasm", json!({}));
        let record = desk.place.path(&format!("extensions/{id}.json"));
        let module = desk.place.path("extensions/guard.wasm");
        let out = desk.ext(&[
            "sign",
            module.to_str().unwrap(),
            "--record",
            record.to_str().unwrap(),
            "--key",
            &desk.key(key),
            "--json",
        ]);
        let printed: Value = serde_json::from_str(&out).unwrap();
        printed["signature"].as_str().unwrap().to_owned()
    };
    signed("ed25519", "file");
    signed("p256", "ours");
    signed("foreign", "theirs");
    let signature = signed("versions", "file");
    desk.guard("unsigned", "file:guard.wasm", json!({}));
    desk.guard("other", "file:other.wasm", json!({"signature": signature}));
    // The module of a version has a signature of its own.
    let version = json!({"version": "v2", "module": "file:other.wasm", "created_at": "2030-01-01T00:00:00Z"});
    desk.guard(
        "versions",
        "file:guard.wasm",
        json!({"signature": signature, "versions": [version]}),
    );
    desk.guard("garbage", "file:guard.wasm", json!({"signature": "not base64"}));
    let wrong = "is not of this module by a key of extensions.signatures";
    let sidecar = desk.place.start(&desk.requires(&["file", "ours"]));
    for id in ["ed25519", "p256"] {
        eventually("it is signed", || passes(&sidecar, id)).await;
    }
    is_refused(&sidecar, "foreign", wrong).await;
    is_refused(&sidecar, "other", wrong).await;
    is_refused(&sidecar, "unsigned", "it is not signed").await;
    is_refused(&sidecar, "versions", "it is not signed").await;
    is_refused(&sidecar, "garbage", "no signature in base64").await;
    sidecar.stop().await;
    // Where none is required, one that is there counts all the same.
    let keys = format!("keys: [{}]", desk.public("file").display());
    let sidecar = desk.place.start(&desk.yaml(&keys));
    for id in ["ed25519", "unsigned"] {
        eventually("it runs", || passes(&sidecar, id)).await;
    }
    is_refused(&sidecar, "p256", wrong).await;
    is_refused(&sidecar, "other", wrong).await;
    sidecar.stop().await;
    let sidecar = desk.place.start("");
    is_refused(&sidecar, "ed25519", "extensions.signatures.keys names no key").await;
    eventually("what asks for none runs", || passes(&sidecar, "unsigned")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_may_demand_more_or_less_than_all() {
    let desk = Desk::new();
    let name = desk.push("ours").await;
    desk.sign(&name, "ours", &[]);
    desk.guard("ours", &name, json!({}));
    let name = desk.push("theirs").await;
    desk.sign(&name, "theirs", &[]);
    desk.guard("theirs", &name, json!({}));
    let unsigned = desk.push("unsigned").await;
    desk.guard("unsigned", &unsigned, json!({}));
    let calls = async |sidecar: &Sidecar, tenant: &str, policy: &str| {
        let answer = decide(&sidecar.client(), &request(tenant, policy, json!({})), &[]).await;
        if outcome(&answer).starts_with("weighted ") {
            "runs".to_owned()
        } else {
            reason(&answer)
        }
    };
    let (ours, theirs) = (desk.public("ours"), desk.public("theirs"));
    // All run what they want; acme has a key of its own.
    let more = format!(
        "keys: [{}], tenants: {{acme: {{keys: [{}]}}}}",
        ours.display(),
        theirs.display()
    );
    let sidecar = desk.place.start(&desk.yaml(&more));
    for (tenant, policy, wanted) in [
        ("beta", "ours", "runs"),
        ("beta", "theirs", "runs"),
        ("beta", "unsigned", "runs"),
        ("acme", "theirs", "runs"),
        ("acme", "ours", "extension_not_found"),
        ("acme", "unsigned", "extension_not_found"),
    ] {
        eventually("as the tenant demands", || async {
            calls(&sidecar, tenant, policy).await == wanted
        })
        .await;
    }
    // Its policies are told.
    let page = sidecar.admin().get("/admin/snapshot").await.text().to_owned();
    assert!(page.contains("extensions.signatures.tenants demands"), "{page}");
    sidecar.stop().await;
    // All need our signature, but for acme.
    let less = format!(
        "required: true, keys: [{}], tenants: {{acme: {{required: false}}}}",
        ours.display()
    );
    let sidecar = desk.place.start(&desk.yaml(&less));
    for (tenant, policy, wanted) in [
        ("acme", "unsigned", "runs"),
        ("acme", "theirs", "runs"),
        ("beta", "ours", "runs"),
        ("beta", "theirs", "extension_not_found"),
        ("beta", "unsigned", "extension_not_found"),
    ] {
        eventually("as the tenant demands", || async {
            calls(&sidecar, tenant, policy).await == wanted
        })
        .await;
    }
}

#[test]
fn keys_that_cannot_be_read_keep_a_sidecar_from_starting() {
    let place = Place::new();
    let file = place.path("sidecar.yaml");
    for (signatures, says) in [
        ("keys: [/nowhere/a.pub]", "/nowhere/a.pub"),
        ("required: true", "no key is named"),
        ("tenants: {acme: {required: true}}", "tenants.acme.keys"),
    ] {
        fs::write(
            &file,
            place.yaml(&format!("extensions: {{signatures: {{{signatures}}}}}")),
        )
        .unwrap();
        for command in ["run", "check"] {
            let ended = Ended::of(program().args([command, "--config", file.to_str().unwrap()]));
            let said = format!("{}{}", ended.out, ended.errors);
            assert!(ended.code != 0 && said.contains(says), "{command}: {said}");
        }
    }
}

/// What cosign 3.1.3 put beside an artifact, both kinds: `tests/golden/signatures/cosign/README.md` says how.
#[tokio::test(flavor = "multi_thread")]
async fn what_cosign_signed_is_verified() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/signatures/cosign");
    let desk = Desk::new();
    let blobs = [kept("validator"), fs::read(dir.join("config.json")).unwrap()];
    for kind in ["bundle", "tag"] {
        for blob in &blobs {
            desk.registry.blob(kind, blob).await;
        }
        let read =
            |name: &str| -> Value { serde_json::from_slice(&fs::read(dir.join(name)).unwrap()).unwrap() };
        let text = fs::read_to_string(dir.join("artifact.json")).unwrap();
        let digest = desk.registry.text(kind, &text, None).await;
        let hex = digest.trim_start_matches("sha256:");
        for name in read(&format!("{kind}.files.json")).as_array().unwrap() {
            let content = fs::read(dir.join(name.as_str().unwrap())).unwrap();
            desk.registry.blob(kind, &content).await;
        }
        if kind == "bundle" {
            let manifest = fs::read_to_string(dir.join("bundle.manifest.json")).unwrap();
            desk.registry.text(kind, &manifest, None).await;
            let index = fs::read_to_string(dir.join("bundle.index.json")).unwrap();
            desk.registry
                .text(kind, &index, Some(&format!("sha256-{hex}")))
                .await;
        } else {
            let manifest = fs::read_to_string(dir.join("tag.manifest.json")).unwrap();
            desk.registry
                .text(kind, &manifest, Some(&format!("sha256-{hex}.sig")))
                .await;
        }
        let name = format!("oci://{}/{kind}@{digest}", desk.registry.address);
        let key = dir.join("cosign.pub").display().to_string();
        let verified = Ended::of(program().args(["ext", "verify", &name, "--key", &key, "--json"]));
        assert_eq!(
            (verified.code, &verified.report()["signatures"]),
            (0, &json!(1)),
            "{}",
            verified.out
        );
        // Elsewhere too.
        let copy = format!("oci://{}/copies/{kind}", desk.registry.address);
        desk.ext(&["copy", &name, &copy]);
        desk.ext(&["verify", &format!("{copy}@{digest}"), "--key", &key]);
        let ours = desk.public("ours").display().to_string();
        let other = Ended::of(program().args(["ext", "verify", &name, "--key", &ours]));
        assert_eq!(other.code, 1, "{}", other.out);
        desk.guard(
            kind,
            &name,
            json!({"capabilities": ["clock", "random", "metrics"]}),
        );
    }
    let signatures = format!("required: true, keys: [{}]", dir.join("cosign.pub").display());
    let sidecar = desk.place.start(&desk.yaml(&signatures));
    for kind in ["bundle", "tag"] {
        eventually("cosign's signature counts", || async {
            let page = sidecar.admin().get("/admin/extensions").await.json();
            page["extensions"]
                .as_array()
                .unwrap()
                .iter()
                .any(|it| it["id"] == kind)
        })
        .await;
    }
}
