//! Publishing, as processes, through real registries.
#![expect(clippy::panic, reason = "helpers of tests fail the test that called them")]

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use serde_json::{Value, json};

use super::ext::{ext_in, guest};
use crate::{
    decide::outcome,
    extensions::place::Place,
    support::{Ended, OciRegistry, eventually},
};

/// Runs a command that must succeed.
fn ok(dir: &Path, arguments: &[&str]) -> String {
    let ended = ext_in(dir, arguments);
    assert_eq!(ended.code, 0, "{arguments:?}: {}{}", ended.out, ended.errors);
    ended.out
}

/// Runs one that must not. Returns what it says.
fn refused(dir: &Path, arguments: &[&str]) -> String {
    let ended = ext_in(dir, arguments);
    assert_eq!(ended.code, 64, "{arguments:?}: {}{}", ended.out, ended.errors);
    ended.errors
}

fn json_of(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn what_is_pushed_is_what_is_pulled_and_always_the_same_artifact() {
    let (registry, dir) = (OciRegistry::start(), tempfile::tempdir().unwrap());
    let dir = dir.path();
    let module = guest("pii-guard");
    let mut names = Vec::new();
    for layout in ["wasm", "kubewarden"] {
        let to = format!("oci://{}/guards/{layout}:1.0", registry.address);
        let push = || json_of(&ok(dir, &["push", &module, &to, "--layout", layout, "--json"]));
        let first = push();
        assert_eq!(push(), first);
        ok(dir, &["pull", &to]);
        let pulled = fs::read(dir.join(format!("{layout}.wasm"))).unwrap();
        assert!(pulled == fs::read(&module).unwrap());
        let name = first["module"].as_str().unwrap().to_owned();
        ok(dir, &["pull", &name, "--out", "again.wasm"]);
        assert!(fs::read(dir.join("again.wasm")).unwrap() == pulled);
        names.push(name);
    }
    assert_ne!(
        names[0].split_once('@').unwrap().1,
        names[1].split_once('@').unwrap().1
    );
    let missing = format!("oci://{}/guards/missing:1", registry.address);
    let said = refused(dir, &["pull", &missing]);
    assert!(said.contains("no such artifact"), "{said}");
    let nameless = format!("oci://{}/guards/wasm", registry.address);
    let said = refused(dir, &["pull", &nameless]);
    assert!(said.contains("neither a tag nor a digest"), "{said}");
    let far = "oci://127.0.0.1:1/guards/wasm:1";
    let said = refused(dir, &["pull", far]);
    assert!(said.contains("cannot be fetched"), "{said}");
    // A registry elsewhere is spoken to with TLS, unless it is said.
    let said = refused(dir, &["pull", "oci://no-such-host.invalid/a:1"]);
    assert!(said.contains("cannot be fetched"), "{said}");
    fs::write(dir.join("no.wasm"), "no component").unwrap();
    let said = refused(dir, &["push", "no.wasm", &missing]);
    assert!(said.contains("no.wasm"), "{said}");
}

#[test]
fn a_closed_registry_takes_a_user_a_file_or_the_credentials_of_docker() {
    let (registry, dir) = (OciRegistry::start_closed(), tempfile::tempdir().unwrap());
    let dir = dir.path();
    let (module, to) = (guest("pii-guard"), format!("oci://{}/guard:1", registry.address));
    let said = refused(dir, &["push", &module, &to]);
    assert!(said.contains("answers 401"), "{said}");
    fs::write(dir.join("password"), "geheim-7\n").unwrap();
    fs::write(dir.join("wrong"), "falsch-8\n").unwrap();
    let with = |file: &str| {
        [
            &["push", &module, &to, "--username", "ann", "--password-file"][..],
            &[file],
        ]
        .concat()
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
    };
    let arguments = with("wrong");
    let said = refused(dir, &arguments.iter().map(String::as_str).collect::<Vec<_>>());
    assert!(said.contains("answers 401") && !said.contains("falsch"), "{said}");
    let arguments = with("password");
    ok(dir, &arguments.iter().map(String::as_str).collect::<Vec<_>>());
    let auths = json!({"auths": {registry.address.to_string(): {"username": "ann", "password": "geheim-7"}}});
    fs::write(dir.join("config.json"), auths.to_string()).unwrap();
    ok(dir, &["pull", &to, "--credentials", "config.json"]);
    let mut command = super::ext::command_in(dir, &["pull", &to]);
    let ended = Ended::of(command.env("DOCKER_CONFIG", dir));
    assert_eq!(ended.code, 0, "{}", ended.errors);
}

#[test]
fn an_artifact_moves_with_its_signatures_and_its_digest() {
    let (here, there, dir) = (
        OciRegistry::start(),
        OciRegistry::start(),
        tempfile::tempdir().unwrap(),
    );
    let dir = dir.path();
    ok(dir, &["keygen", "first"]);
    ok(dir, &["keygen", "second"]);
    let mode = fs::metadata(dir.join("first.key")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let said = refused(dir, &["keygen", "first"]);
    assert!(said.contains("is there already"), "{said}");
    let tag = format!("oci://{}/guard:1", here.address);
    let pushed = json_of(&ok(dir, &["push", &guest("pii-guard"), &tag, "--json"]));
    let name = pushed["module"].as_str().unwrap();
    let digest = name.split_once('@').unwrap().1;
    let verified = |name: &str, key: &str| {
        let ended = ext_in(dir, &["verify", name, "--key", key, "--json"]);
        (ended.code, ended.report()["signatures"].as_u64().unwrap())
    };
    assert_eq!(verified(name, "first.pub"), (1, 0));
    ok(dir, &["sign", name, "--key", "first.key", "--format", "both"]);
    ok(dir, &["sign", &tag, "--key", "second.key", "--format", "tag"]);
    assert_eq!(verified(name, "first.pub"), (0, 3));
    assert_eq!(verified(&tag, "second.pub"), (0, 3));
    let copied = format!("oci://{}/mirror/guard@{digest}", there.address);
    let to = format!("oci://{}/mirror/guard:1", there.address);
    let report = json_of(&ok(dir, &["copy", &tag, &to, "--json"]));
    assert_eq!(
        (&report["module"], &report["attached"]),
        (&json!(copied), &json!(2))
    );
    for key in ["first.pub", "second.pub"] {
        assert_eq!(verified(&copied, key), (0, 3));
    }
    // Twice is once.
    ok(dir, &["copy", &tag, &to]);
    assert_eq!(verified(&copied, "first.pub"), (0, 3));
    ok(dir, &["save", &tag, "--out", "guard.tar"]);
    let before = fs::read(dir.join("guard.tar")).unwrap();
    ok(dir, &["save", &tag, "--out", "guard.tar"]);
    assert!(
        fs::read(dir.join("guard.tar")).unwrap() == before,
        "the same artifact is the same file"
    );
    let loaded = format!("oci://{}/loaded", there.address);
    ok(dir, &["load", "guard.tar", "--to", &loaded]);
    for key in ["first.pub", "second.pub"] {
        assert_eq!(verified(&format!("{loaded}@{digest}"), key), (0, 3));
    }
    // One bit of it.
    let module = fs::read(guest("pii-guard")).unwrap();
    let at = before
        .windows(64)
        .position(|window| *window == module[1_024..1_088])
        .unwrap();
    let mut other = before;
    other[at] ^= 1;
    fs::write(dir.join("other.tar"), other).unwrap();
    let said = refused(dir, &["load", "other.tar", "--to", &loaded]);
    assert!(said.contains("the SHA-256 of blobs/sha256/"), "{said}");
    fs::write(dir.join("no.tar"), "no archive").unwrap();
    let said = refused(dir, &["load", "no.tar", "--to", &loaded]);
    assert!(said.contains("no.tar"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sidecar_without_any_registry_runs_what_was_loaded_into_its_state() {
    let (registry, place) = (OciRegistry::start(), Place::new());
    let dir = place.path("");
    ok(&dir, &["keygen", "release"]);
    ok(&dir, &["keygen", "other"]);
    for (id, key) in [("good", "release.key"), ("foreign", "other.key")] {
        let to = format!("oci://{}/{id}:1", registry.address);
        // Each is an artifact of its own.
        let module = [
            fs::read(guest("pii-guard")).unwrap(),
            vec![0, 2, 1, id.as_bytes()[0]],
        ]
        .concat();
        fs::write(dir.join(format!("{id}.wasm")), module).unwrap();
        let pushed = json_of(&ok(&dir, &["push", &format!("{id}.wasm"), &to, "--json"]));
        let name = pushed["module"].as_str().unwrap();
        ok(&dir, &["sign", name, "--key", key]);
        let archive = format!("{id}.tar");
        ok(&dir, &["save", name, "--out", &archive]);
        ok(&dir, &["load", &archive, "--state", "state"]);
        // By whatever name: no registry is asked.
        let name = name.replace(&registry.address.to_string(), "registry.example");
        place.record(id, json!({"id": id, "type": "validator", "module": name}));
        place.policy(id, json!({"validators": [{"id": id, "on_fail": "block"}]}));
    }
    drop(registry);
    let key = dir.join("release.pub");
    let yaml = format!(
        "extensions: {{signatures: {{required: true, keys: [{}]}}}}",
        key.display()
    );
    let sidecar = place.start(&yaml);
    eventually("it runs", || async {
        outcome(
            &crate::decide::decide(
                &sidecar.client(),
                &crate::decide::request("acme", "good", json!({})),
                &[],
            )
            .await,
        )
        .starts_with("weighted ")
    })
    .await;
    let page = sidecar.admin().get("/admin/extensions").await.json();
    let said = page["problems"]["foreign"].to_string();
    // Its signature is not enough, so it would be asked for again; and it may not be.
    assert!(
        said.contains("registry.example is not one of extensions.module_hosts"),
        "{page}"
    );
}
