//! How modules come: in the background, so that nothing waits for them, and what becomes of those that do not.

use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::fs::{PermissionsExt, symlink},
    process::{Command, Stdio},
};

use beamline_sidecar::extensions::ModuleDigest;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use super::{
    compatibility::kept,
    guest,
    hostile::{ask, problems, reason},
    place::{Place, merge},
};
use crate::{
    decide::outcome,
    support::{Ended, Sidecar, eventually, program},
};

/// A validator of a file, and a policy of the same name with it.
fn guard(place: &Place, id: &str, module: &[u8]) {
    let file = format!("{id}.wasm");
    place.bytes(module, &file);
    let granted = json!(["clock", "random", "metrics"]);
    place.record(
        id,
        json!({"id": id, "type": "validator", "module": format!("file:{file}"), "capabilities": granted}),
    );
    place.policy(id, json!({"validators": [{"id": id, "on_fail": "block"}]}));
}

/// A component that is valid and not like any other.
fn component(number: usize) -> Vec<u8> {
    let mut bytes = guest("pii-guard");
    let name = format!("n{number}");
    // A section of its own, whose name is its content.
    bytes.extend([
        0,
        u8::try_from(name.len() + 1).unwrap(),
        u8::try_from(name.len()).unwrap(),
    ]);
    bytes.extend(name.bytes());
    bytes
}

/// Lets the compiler wait until this file exists.
fn gate(place: &Place) -> String {
    format!(
        "while [ ! -e {} ]; do sleep 0.05; done",
        place.path("gate").display()
    )
}

fn open_gate(place: &Place) {
    fs::write(place.path("gate"), "").unwrap();
}

async fn page(sidecar: &Sidecar) -> Value {
    sidecar.admin().get("/admin/extensions").await.json()
}

async fn passes(sidecar: &Sidecar, policy: &str) -> bool {
    outcome(&ask(&sidecar.client(), policy).await).starts_with("weighted ")
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_26_neither_the_start_nor_a_policy_waits_for_a_compiler() {
    let place = Place::cold();
    guard(&place, "guard", &guest("pii-guard"));
    place.policy("plain", json!({}));
    let compiler = place.compiler(&gate(&place));
    let sidecar = place.start_with(&compiler, "extensions: {required_at_start: [guard]}");
    let (client, admin) = (sidecar.client(), sidecar.admin());
    assert!(passes(&sidecar, "plain").await);
    assert_eq!(client.policy("acme/guard").await.status, 200);
    assert_eq!(reason(&ask(&client, "guard").await), "extension_unavailable");
    assert_eq!(page(&sidecar).await["pending"], json!(["guard"]));
    let one = admin.get("/admin/extensions/guard").await.json();
    assert_eq!(one["pending"], true, "{one}");
    // Ready it is not, because it was told to wait; lookups are answered all the same.
    let ready = admin.get("/ready").await;
    assert_eq!(
        (ready.status.as_u16(), ready.json()["state"].clone()),
        (503, json!("not_ready"))
    );
    assert!(
        ready.text().contains("extensions.required_at_start"),
        "{}",
        ready.text()
    );
    assert!(ready.text().contains("missing: guard"), "{}", ready.text());
    assert_eq!(client.get("/health").await.status, 200);
    // A policy changes while the compiler runs.
    place.policy("plain", json!({"providers": [{"name": "gamma", "weight": 100}]}));
    eventually("the policy is another", || async {
        outcome(&ask(&client, "plain").await) == "weighted gamma"
    })
    .await;
    assert_eq!(page(&sidecar).await["pending"], json!(["guard"]));
    open_gate(&place);
    eventually("it is compiled", || passes(&sidecar, "guard")).await;
    assert_eq!(page(&sidecar).await["pending"], json!([]));
    sidecar.wait_for("live").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_26_while_another_version_is_compiled_the_last_good_one_is_called() {
    let place = Place::cold();
    guard(&place, "guard", &guest("pii-guard"));
    let compiler = place.compiler(&gate(&place));
    open_gate(&place);
    let sidecar = place.start_with(&compiler, "");
    eventually("it is compiled", || passes(&sidecar, "guard")).await;
    fs::remove_file(place.path("gate")).unwrap();
    // It refuses everything.
    let other = kept("validator");
    place.bytes(&other, "guard.wasm");
    eventually("the other one is compiled", || async {
        page(&sidecar).await["pending"] == json!([]) && place.compilers() > 1
    })
    .await;
    place.record(
        "new",
        json!({"id": "new", "type": "validator", "module": "file:guard.wasm"}),
    );
    for _ in 0..20 {
        assert!(passes(&sidecar, "guard").await);
    }
    open_gate(&place);
    let digest = ModuleDigest::of(&other).to_string();
    eventually("the other one is called", || async {
        let page = sidecar.admin().get("/admin/extensions/guard").await.json();
        page["versions"][0]["sha256"] == digest.as_str()
    })
    .await;
    assert_eq!(
        outcome(&ask(&sidecar.client(), "guard").await),
        "403 validator_blocked"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compiler_that_somebody_kills_is_started_again() {
    let place = Place::cold();
    guard(&place, "guard", &guest("pii-guard"));
    let killed = format!("[ -e {} ] || kill -KILL $$", place.path("gate").display());
    let sidecar = place.start_with(&place.compiler(&killed), "");
    eventually("it is told what happened", || async {
        let said = problems(&sidecar, "guard").await;
        said.contains("ended from outside by signal 9") && said.contains("tried again")
    })
    .await;
    assert!(
        !problems(&sidecar, "guard")
            .await
            .contains("max_compile_memory_bytes")
    );
    // An operator who asks need not wait for the next try.
    for _ in 0..3 {
        let before = place.compilers();
        let reloaded = sidecar.admin().post("/admin/extensions/reload", "").await.json();
        assert_eq!(reloaded["ok"], false, "{reloaded}");
        assert!(place.compilers() > before, "the compiler was not started");
    }
    // Nor is anybody needed.
    open_gate(&place);
    eventually("it is compiled", || passes(&sidecar, "guard")).await;
    assert_eq!(problems(&sidecar, "guard").await, "null");
    let reloaded = sidecar.admin().post("/admin/extensions/reload", "").await.json();
    assert_eq!(reloaded["ok"], true, "{reloaded}");
}

/// What a module costs that is refused for what it costs, it costs once.
const TOO_LARGE: &str = "cat > /dev/null; echo memory allocation of 7 bytes failed >&2; kill -ABRT $$";

#[tokio::test(flavor = "multi_thread")]
async fn hostile_26_a_refusal_outlives_a_restart_and_is_looked_at_again_when_asked_for() {
    let place = Place::cold();
    guard(&place, "bomb", &guest("pii-guard"));
    let compiler = place.compiler(TOO_LARGE);
    let mut first = None;
    for turn in 0..3 {
        let sidecar = place.start_with(&compiler, "");
        eventually("it is refused", || async {
            let said = problems(&sidecar, "bomb").await;
            said.contains("extensions.max_compile_memory_bytes")
        })
        .await;
        // On a busy machine it may have had more than one turn.
        let first = *first.get_or_insert(place.compilers());
        assert_eq!(place.compilers(), first, "turn {turn}");
        sidecar.stop().await;
    }
    // Something else is allowed, so it is tried.
    let sidecar = place.start_with(&compiler, "extensions: {max_compile_memory_bytes: 4294967296}");
    eventually("it is refused again", || async {
        problems(&sidecar, "bomb").await.contains("(4294967296)")
    })
    .await;
    assert!(Some(place.compilers()) > first);
    place.compiler("");
    let reloaded = sidecar.admin().post("/admin/extensions/reload", "").await.json();
    assert_eq!(reloaded["ok"], true, "{reloaded}");
    assert!(passes(&sidecar, "bomb").await);
}

/// A record that cannot be used anyway is not compiled to its end.
#[tokio::test(flavor = "multi_thread")]
async fn hostile_26_one_record_costs_what_one_module_may() {
    let place = Place::cold();
    let modules = 40;
    let instances: Vec<Value> = (0..modules)
        .map(|number| {
            place.bytes(&component(number), &format!("bomb{number}.wasm"));
            json!({"instance_id": format!("i{number}"), "module": format!("file:bomb{number}.wasm")})
        })
        .collect();
    place.record(
        "bomb",
        json!({"id": "bomb", "type": "validator", "module": "file:bomb0.wasm", "instances": instances}),
    );
    guard(&place, "good", &kept("pii-guard"));
    let real = env!("CARGO_BIN_EXE_beamline-sidecar");
    // The good one is the one that is not as long as the others.
    let good = kept("pii-guard").len();
    let by_size = format!(
        "module={}/module.$$; cat > $module; [ $(wc -c < $module) -eq {good} ] && exec {real} \"$@\" < $module; \
         echo memory allocation failed >&2; kill -ABRT $$",
        place.path("state").display()
    );
    let sidecar = place.start_with(&place.compiler(&by_size), "");
    eventually("the good one is compiled", || passes(&sidecar, "good")).await;
    eventually("the bomb is refused", || async {
        let page = page(&sidecar).await;
        page["pending"] == json!([])
            && page["problems"]["bomb"]
                .as_array()
                .is_some_and(|all| all.len() == modules)
    })
    .await;
    // As many as processors have begun before the first was refused.
    let compilers = place.compilers();
    assert!(compilers < modules / 2, "{compilers} compilers");
    let said = problems(&sidecar, "bomb").await;
    assert!(
        said.contains("another module of its record was refused"),
        "{said}"
    );
}

/// Several are compiled at the same time before the first start is over.
#[tokio::test(flavor = "multi_thread")]
async fn all_processors_compile_until_all_is_there() {
    let place = Place::cold();
    let processors = std::thread::available_parallelism().unwrap().get().min(8);
    for number in 0..processors {
        guard(&place, &format!("g{number}"), &component(number));
    }
    // Each waits for all the others, whatever turn of theirs it is.
    let met = place.path("met");
    fs::create_dir(&met).unwrap();
    let meet = format!(
        "touch {0}/$$; while [ $(ls {0} | wc -l) -lt {processors} ]; do sleep 0.02; done",
        met.display()
    );
    let sidecar = place.start_with(&place.compiler(&meet), "");
    for number in 0..processors {
        let id = format!("g{number}");
        eventually("all are compiled", || passes(&sidecar, &id)).await;
    }
}

#[tokio::test]
async fn a_compiler_ends_with_the_process_that_started_it() {
    let real = env!("CARGO_BIN_EXE_beamline-sidecar");
    let script = format!(
        "{real} compile-extension --profile compact --memory-bytes 1000000000 --seconds 600 --parent $$ <&3 & echo $!; wait"
    );
    // A pipe from which nothing comes, and which stays open.
    let (input, hold) = std::io::pipe().unwrap();
    let mut parent = Command::new("sh")
        .args(["-c", &format!("exec 3<&0; {script}")])
        .stdin(input)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(parent.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    let child: u32 = line.trim().parse().unwrap();
    let state = || {
        let stat = fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
        stat.rsplit(") ").next().unwrap_or_default().chars().next()
    };
    let command = || fs::read_to_string(format!("/proc/{child}/cmdline")).unwrap_or_default();
    let limited = || {
        let limits = fs::read_to_string(format!("/proc/{child}/limits")).unwrap_or_default();
        limits.contains("600                  605")
    };
    eventually("it compiles", || async {
        command().contains("compile-extension") && limited()
    })
    .await;
    kill_process(Pid::from_child(&parent), Signal::KILL).unwrap();
    parent.wait().unwrap();
    eventually("it is gone", || async { matches!(state(), None | Some('Z')) }).await;
    drop(hold);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_is_broken_at_a_restart_has_its_last_good_state() {
    let place = Place::cold();
    let good = json!({"config": {"kinds": ["card"]}});
    place.extension("guard", "validator", "pii-guard", good);
    place.policy(
        "guard",
        json!({"validators": [{"id": "guard", "on_fail": "block"}]}),
    );
    let card = || json!({"text": "4111 1111 1111 1111"});
    let blocks = async |sidecar: &Sidecar| {
        let mut asked = crate::decide::request("acme", "guard", json!({}));
        asked["task"]["payload"] = card();
        outcome(&crate::decide::decide(&sidecar.client(), &asked, &[]).await)
    };
    let sidecar = place.start("");
    assert_eq!(blocks(&sidecar).await, "403 validator_blocked");
    eventually("it is written down", || async {
        place.path("state/extensions/last-good").exists()
    })
    .await;
    sidecar.stop().await;
    let wasm = place.path("extensions/pii-guard.wasm");
    let module = fs::read(&wasm).unwrap();
    let record = place.path("extensions/guard.json");
    let text = fs::read(&record).unwrap();
    let turns: [(&str, &dyn Fn()); 3] = [
        ("not JSON", &|| fs::write(&record, "{broken").unwrap()),
        ("no module", &|| fs::remove_file(&wasm).unwrap()),
        ("another module", &|| {
            fs::write(&wasm, guest("no-component")).unwrap()
        }),
    ];
    for (what, break_it) in turns {
        break_it();
        let sidecar = place.start("");
        eventually(what, || async {
            blocks(&sidecar).await == "403 validator_blocked"
        })
        .await;
        assert_ne!(problems(&sidecar, "guard").await, "null", "{what}");
        sidecar.stop().await;
        fs::write(&record, &text).unwrap();
        fs::write(&wasm, &module).unwrap();
    }
    // What is not registered any more is not called, and stays so.
    fs::remove_file(&record).unwrap();
    let gone = async |sidecar: &Sidecar| reason(&ask(&sidecar.client(), "guard").await);
    let sidecar = place.start("");
    assert_eq!(gone(&sidecar).await, "extension_not_found");
    eventually("it is forgotten", || async {
        let kept = fs::read_to_string(place.path("state/extensions/last-good")).unwrap();
        !kept.contains("guard")
    })
    .await;
    sidecar.stop().await;
    fs::write(&record, "{broken").unwrap();
    let sidecar = place.start("");
    assert_eq!(gone(&sidecar).await, "extension_not_found");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_others_could_write_is_begun_anew() {
    let place = Place::cold();
    guard(&place, "guard", &guest("accepts"));
    let compiler = place.compiler("");
    let dir = place.path("state/extensions/compiled");
    let key = dir.join("key");
    let start = async || {
        let sidecar = place.start_with(&compiler, "");
        eventually("it is compiled", || passes(&sidecar, "guard")).await;
        let compiled = sidecar
            .metric("beamline_sidecar_extension_compile_seconds_count")
            .await;
        sidecar.stop().await;
        (fs::read(&key).unwrap(), compiled > 0.0)
    };
    let chmod = |path: &std::path::Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    let (first, _) = start().await;
    assert_eq!(start().await, (first.clone(), false));
    chmod(&dir, 0o777);
    fs::write(dir.join("planted"), "by somebody else").unwrap();
    let (second, is_anew) = start().await;
    assert_ne!(second, first, "a key that others may know");
    assert!(is_anew && !dir.join("planted").exists());
    let mode = || fs::metadata(&dir).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(), 0o700);
    // One that others could only look into is closed.
    chmod(&dir, 0o755);
    assert_eq!((start().await, mode()), ((second.clone(), false), 0o700));
    // A link to a key is no key, and what it leads to is not written.
    let elsewhere = place.path("elsewhere");
    fs::rename(&key, &elsewhere).unwrap();
    symlink(&elsewhere, &key).unwrap();
    let (third, is_anew) = start().await;
    assert!(is_anew && third != second);
    assert_eq!(fs::read(&elsewhere).unwrap(), second);
    assert!(!fs::symlink_metadata(&key).unwrap().is_symlink());
    // Nor a pipe, at which reading would wait.
    fs::remove_file(&key).unwrap();
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(rustix::fs::CWD, &key, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    assert_ne!(start().await.0, third);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_compiled_ahead_is_there_when_the_sidecar_listens() {
    let place = Place::cold();
    guard(&place, "guard", &guest("pii-guard"));
    place.module("no-component", "broken.wasm");
    let path = |name: &str| place.path(name).display().to_string();
    let config = place.path("limits.yaml");
    fs::write(&config, "extensions: {compile_timeout_ms: 600000}").unwrap();
    let precompile = || {
        let mut command = program();
        command.args([
            "ext",
            "precompile",
            &path("extensions"),
            "--out",
            &path("state"),
            "--json",
        ]);
        command.args(["--config", &path("limits.yaml")]);
        Ended::of(&mut command)
    };
    let ended = precompile();
    assert_eq!(ended.code, 0, "{}{}", ended.out, ended.errors);
    assert_eq!(ended.report()["modules"][0]["module"], "file:guard.wasm");
    assert!(ended.report()["modules"][0]["compile_ms"].is_number());
    assert!(precompile().report()["modules"][0]["compile_ms"].is_null());
    let compiler = place.compiler("kill -KILL $$");
    let sidecar = place.start_with(&compiler, "");
    eventually("it is called", || passes(&sidecar, "guard")).await;
    assert_eq!(place.compilers(), 0);
    sidecar.stop().await;
    place.record(
        "broken",
        json!({"id": "broken", "type": "validator", "module": "file:broken.wasm"}),
    );
    let ended = precompile();
    assert_eq!(ended.code, 1);
    assert!(ended.errors.contains("core module"), "{}", ended.errors);
    assert!(
        ended.report()["modules"][0]["problem"]
            .as_str()
            .unwrap()
            .contains("core module")
    );
    // Nor where others could exchange what is compiled.
    let other = place.path("open");
    fs::create_dir_all(other.join("extensions")).unwrap();
    let real = place.path("real");
    fs::create_dir(&real).unwrap();
    fs::set_permissions(&real, fs::Permissions::from_mode(0o777)).unwrap();
    symlink(&real, other.join("extensions/compiled")).unwrap();
    let mut command = program();
    command.args(["ext", "precompile", &path("extensions"), "--out", &path("open")]);
    let ended = Ended::of(&mut command);
    assert_eq!(ended.code, 64, "{}", ended.errors);
    assert!(ended.errors.contains("by this user alone"), "{}", ended.errors);
}

/// The digest of a version or an instance that names no module is that of the one it inherits.
#[tokio::test(flavor = "multi_thread")]
async fn a_digest_without_a_module_counts_for_the_one_that_is_inherited() {
    let place = Place::cold();
    let right = ModuleDigest::of(&guest("pii-guard")).to_string();
    let wrong = "0".repeat(64);
    let add = |id: &str, more: Value| {
        place.extension(id, "validator", "pii-guard", more);
        place.policy(id, json!({"validators": [{"id": id, "on_fail": "block"}]}));
    };
    for (id, digest) in [("right", &right), ("wrong", &wrong)] {
        add(
            &format!("version-{id}"),
            json!({"versions": [{"version": "v1", "sha256": digest}]}),
        );
        add(
            &format!("instance-{id}"),
            json!({"instances": [{"instance_id": "main", "weight": 100, "sha256": digest}]}),
        );
    }
    add(
        "over",
        json!({"sha256": wrong, "versions": [{"version": "v1", "sha256": right}]}),
    );
    place.record(
        "no-module",
        json!({"id": "no-module", "type": "validator", "sha256": right, "versions": [{"version": "v1", "module": "file:pii-guard.wasm"}]}),
    );
    place.module("latency-scorer", "other.wasm");
    place.record(
        "which",
        json!({
            "id": "which", "type": "validator", "module": "file:pii-guard.wasm",
            "versions": [{"version": "v1"}, {"version": "v2", "module": "file:other.wasm"}],
            "instances": [{"instance_id": "main", "sha256": right}],
        }),
    );
    let sidecar = place.start("");
    for id in ["version-right", "instance-right", "over"] {
        assert!(
            passes(&sidecar, id).await,
            "{id}: {}",
            problems(&sidecar, id).await
        );
    }
    for id in ["version-wrong", "instance-wrong"] {
        let said = problems(&sidecar, id).await;
        assert!(said.contains("its SHA-256 is"), "{id}: {said}");
        assert_eq!(reason(&ask(&sidecar.client(), id).await), "extension_not_found");
    }
    for (id, at) in [("no-module", "$.sha256"), ("which", "$.instances[0].sha256")] {
        let said = problems(&sidecar, id).await;
        assert!(
            said.contains(at) && said.contains("no one module"),
            "{id}: {said}"
        );
    }
}

/// A version that was made later comes first, wherever it was written down.
#[tokio::test(flavor = "multi_thread")]
async fn versions_are_sorted_by_the_moment_and_not_by_its_text() {
    let place = Place::cold();
    place.extension(
        "guard",
        "validator",
        "pii-guard",
        json!({"versions": [
            {"version": "old", "created_at": "2025-01-01T09:00:00+09:00"},
            {"version": "new", "created_at": "2025-01-01T01:00:00Z"},
        ]}),
    );
    let sidecar = place.start("");
    let page = sidecar.admin().get("/admin/extensions/guard").await.json();
    assert_eq!(page["versions"][0]["version"], "new", "{page}");
}

/// Not even its record is there when the policy comes.
#[tokio::test(flavor = "multi_thread")]
async fn an_extension_that_nothing_was_known_of_still_finds_the_last_good_version_of_a_policy() {
    let place = Place::new();
    place.policy("chat", json!({"providers": [{"name": "gamma", "weight": 100}]}));
    let sidecar = place.start("");
    let client = sidecar.client();
    let asked = || async { outcome(&ask(&client, "chat").await) };
    assert_eq!(asked().await, "weighted gamma");
    let wrong = json!({"kinds": ["cards"]});
    place.policy(
        "chat",
        json!({"validators": [{"id": "guard", "config": wrong, "on_fail": "block"}]}),
    );
    eventually("the policy is there", || async {
        asked().await == "403 validator_blocked"
    })
    .await;
    place.extension("guard", "validator", "pii-guard", json!({}));
    eventually("the version before is decided by", || async {
        asked().await == "weighted gamma"
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_extension_that_comes_after_a_policy_still_finds_its_last_good_version() {
    let place = Place::cold();
    place.policy("chat", json!({"providers": [{"name": "gamma", "weight": 100}]}));
    let sidecar = place.start_with(&place.compiler(&gate(&place)), "");
    let client = sidecar.client();
    let asked = || async { outcome(&ask(&client, "chat").await) };
    assert_eq!(asked().await, "weighted gamma");
    // The extension, and a policy with a configuration that it is going to refuse.
    place.extension("guard", "validator", "pii-guard", json!({}));
    let wrong = json!({"kinds": ["cards"]});
    place.policy(
        "chat",
        json!({"validators": [{"id": "guard", "config": wrong, "on_fail": "block"}]}),
    );
    eventually("both are there", || async {
        page(&sidecar).await["pending"] == json!(["guard"]) && asked().await == "403 validator_blocked"
    })
    .await;
    open_gate(&place);
    let admin = sidecar.admin();
    eventually("it is a problem of the policy", || async {
        let page = admin.get("/admin/snapshot").await.json();
        page["problems"]
            .to_string()
            .contains("$.validators[0].config.kinds")
    })
    .await;
    assert_eq!(asked().await, "weighted gamma", "by the last good version");
    // So it is where the extension is there before the policy.
    let good = json!({"providers": [{"name": "delta", "weight": 100}], "validators": [{"id": "guard"}]});
    place.policy("chat", good.clone());
    eventually("it is well", || async { asked().await == "weighted delta" }).await;
    place.policy(
        "chat",
        merge(
            good,
            json!({"validators": [{"id": "guard", "config": {"kinds": 7}}]}),
        ),
    );
    eventually("it is broken", || async {
        admin.get("/admin/snapshot").await.json()["problem_count"] == 1
    })
    .await;
    assert_eq!(asked().await, "weighted delta");
}

#[test]
fn the_configuration_is_checked_with_its_extensions() {
    let place = Place::cold();
    place.extension("good", "validator", "pii-guard", json!({}));
    place.extension("world", "scorer", "pii-guard", json!({}));
    place.extension("wasi", "validator", "asks-for-wasi", json!({}));
    place.extension(
        "pinned",
        "validator",
        "pii-guard",
        json!({"sha256": "0".repeat(64)}),
    );
    place.extension(
        "greedy",
        "validator",
        "pii-guard",
        json!({"limits": {"memory_bytes": 268_435_456}}),
    );
    place.record(
        "gone",
        json!({"id": "gone", "type": "validator", "module": "file:gone.wasm"}),
    );
    place.record(
        "typo",
        json!({"id": "typo", "type": "validatr", "module": "file:pii-guard.wasm"}),
    );
    let config = place.path("sidecar.yaml");
    fs::write(&config, place.yaml("")).unwrap();
    let check = || {
        let mut command = program();
        command.args(["check", "--json", "--config", config.to_str().unwrap()]);
        Ended::of(&mut command)
    };
    let ended = check();
    assert_eq!(ended.code, 64);
    for (id, says) in [
        ("world", "the component is a validator"),
        ("wasi", "WASI"),
        ("pinned", "its SHA-256 is"),
        ("greedy", "extensions.max_memory_bytes"),
        ("gone", "cannot be read"),
        ("typo", "there is no such type"),
    ] {
        let mistakes = ended.report()["mistakes"].clone();
        let of_id = |mistake: &&Value| mistake["key"].as_str().unwrap().contains(&format!("\"{id}\""));
        let found: Vec<&Value> = mistakes.as_array().unwrap().iter().filter(of_id).collect();
        assert!(
            found.iter().any(|mistake| mistake.to_string().contains(says)),
            "{id}: {mistakes}"
        );
        fs::remove_file(place.path("extensions").join(format!("{id}.json"))).unwrap();
    }
    let ended = check();
    assert_eq!(ended.code, 0, "{}{}", ended.out, ended.errors);
}

/// A component that was built against another patch version of the interfaces.
#[tokio::test(flavor = "multi_thread")]
async fn the_check_of_authors_and_the_sidecar_agree_about_imports() {
    let place = Place::cold();
    let (old, new) = (b"@0.1.0".as_slice(), b"@0.1.7".as_slice());
    for (id, version, is_taken) in [("patch", new, true), ("minor", b"@0.2.0".as_slice(), false)] {
        let mut module = guest("misbehaving-validator");
        let places: Vec<usize> = module
            .windows(old.len())
            .enumerate()
            .filter_map(|(at, window)| (window == old).then_some(at))
            .collect();
        assert!(!places.is_empty());
        for at in places {
            module[at..at + old.len()].copy_from_slice(version);
        }
        guard(&place, id, &module);
        let mut command = program();
        command.args(["ext", "check", "--json"]);
        command.arg(place.path("extensions").join(format!("{id}.wasm")));
        let record = place.path("extensions").join(format!("{id}.json"));
        command.arg("--record").arg(record);
        let checked = Ended::of(&mut command).report();
        assert_eq!(checked["ok"], is_taken, "{id}: {checked}");
    }
    let sidecar = place.start("");
    assert_eq!(problems(&sidecar, "patch").await, "null");
    assert!(problems(&sidecar, "minor").await.contains("@0.2.0"));
}

/// What a stranger wrote into a component is not said to the terminal.
#[test]
fn what_is_printed_of_a_component_is_no_command_to_the_terminal() {
    let place = Place::cold();
    let mut module = guest("pii-guard");
    let text = |text: &str, into: &mut Vec<u8>| {
        into.push(u8::try_from(text.len()).unwrap());
        into.extend(text.bytes());
    };
    let mut content = Vec::new();
    text("producers", &mut content);
    content.push(1);
    text("language", &mut content);
    content.push(1);
    text("\u{1b}[2J\r\nsha256  forged", &mut content);
    text("1\u{202e}", &mut content);
    module.extend([0, u8::try_from(content.len()).unwrap()]);
    module.extend(content);
    place.bytes(&module, "forged.wasm");
    for command in ["inspect", "check"] {
        let mut run = program();
        run.args(["ext", command])
            .arg(place.path("extensions/forged.wasm"));
        let ended = Ended::of(&mut run);
        let lines = ended
            .out
            .lines()
            .filter(|line| line.starts_with("sha256"))
            .count();
        assert!(lines <= 1, "{}", ended.out);
        for forbidden in ['\u{1b}', '\r', '\u{202e}'] {
            assert!(!ended.out.contains(forbidden), "{command}: {:?}", ended.out);
        }
        assert!(
            command == "check" || ended.out.contains("forged"),
            "{}",
            ended.out
        );
    }
}

/// Nothing that the sidecar was started with reaches the process in which a stranger's module is compiled.
#[tokio::test(flavor = "multi_thread")]
async fn a_compiler_sees_nothing_of_the_sidecar() {
    let place = Place::cold();
    guard(&place, "guard", &guest("pii-guard"));
    let seen = place.path("seen");
    let look = format!("tr '\\0' '\\n' < /proc/$$/environ > {}", seen.display());
    let sidecar = place.start_with(&place.compiler(&look), "");
    eventually("it is compiled", || passes(&sidecar, "guard")).await;
    let seen = fs::read_to_string(seen).unwrap();
    let names: Vec<&str> = seen.lines().filter_map(|line| line.split('=').next()).collect();
    assert_eq!(names, ["MIMALLOC_ARENA_RESERVE"], "{seen}");
}

/// The names of all tests, of this repository's sources and of its integration tests.
fn names_of_tests(dir: &std::path::Path, names: &mut Vec<String>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            names_of_tests(&path, names);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            let functions = text
                .lines()
                .filter_map(|line| line.trim().split_once("fn ")?.1.split_once('('));
            names.extend(functions.map(|(name, _)| name.to_owned()));
        }
    }
}

#[test]
fn the_threat_model_names_a_test_for_each_mechanism() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut names = Vec::new();
    for dir in ["src", "tests/it"] {
        names_of_tests(&root.join(dir), &mut names);
    }
    let page = fs::read_to_string(root.join("docs/threat-model.md")).unwrap();
    let mechanisms = page.split("## Mechanisms").nth(1).unwrap();
    let mechanisms = mechanisms.split("\n## ").next().unwrap();
    let rows = mechanisms.lines().filter(|line| line.starts_with("| ")).skip(1);
    let mut count = 0;
    for row in rows {
        let shown = row.trim_end_matches(" |").rsplit(" | ").next().unwrap();
        let named: Vec<&str> = shown
            .split('`')
            .skip(1)
            .step_by(2)
            .filter(|name| name.matches('_').count() > 1 && !name.contains('.'))
            .collect();
        assert!(
            !named.is_empty() || shown.contains("the compiler") || shown.contains("all"),
            "{row}"
        );
        for name in named {
            assert!(
                names.iter().any(|known| known == name),
                "there is no test {name}: {row}"
            );
        }
        count += 1;
    }
    assert!(count > 20, "{count} mechanisms");
}
