//! The Router's own client, in Erlang, through the sidecar: while HEIR is there, while it is away, and after.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail the test that called them"
)]

use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc,
    time::Duration,
};

use beamline_sidecar::store::Level;
use sha2::{Digest, Sha256};

use crate::support::{Heir, Sidecar, eventually};

/// A `session` of the client: one line in, one line out.
struct Session {
    child: Child,
    input: ChildStdin,
    answers: mpsc::Receiver<String>,
}

impl Session {
    fn start(arguments: &[&str]) -> Self {
        let script = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/examples/erlang-router/router_client.escript"
        );
        let started = Command::new("escript")
            .arg(script)
            .args(arguments)
            .arg("session")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn();
        let mut child = started
            .unwrap_or_else(|error| panic!("escript cannot be run ({error}); tests/setup.sh installs it"));
        let (output, input) = (child.stdout.take().unwrap(), child.stdin.take().unwrap());
        let (sender, answers) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                // The test may have ended.
                let _heard = sender.send(line);
            }
        });
        Self {
            child,
            input,
            answers,
        }
    }

    fn ask(&mut self, line: &str) -> String {
        writeln!(self.input, "{line}").unwrap();
        tokio::task::block_in_place(|| self.answers.recv_timeout(Duration::from_secs(60)))
            .unwrap_or_else(|error| panic!("no answer to {line:?}: {error}"))
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

fn digest(text: &str) -> String {
    Sha256::digest(text)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

async fn through(sidecar: &Sidecar, heir: &mut Heir, mut router: Session, folder: &Path) {
    let file = |name: &str, text: &str| {
        let path = folder.join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (one, two) = ("{\"policy_id\":\"a\",\"v\":1}", "{\"policy_id\":\"a\",\"v\":2}");
    let (first, second) = (file("one.json", one), file("two.json", two));

    assert_eq!(router.ask("health"), "ok health 200");
    assert_eq!(router.ask("get acme a"), "not_found");
    assert_eq!(router.ask(&format!("put acme a {first}")), "ok put 201");
    assert_eq!(
        router.ask("get acme a"),
        format!("ok get 200 fresh heir {}", digest(one))
    );
    let list = format!("{{\"policies\":[{one}]}}");
    assert_eq!(
        router.ask("list acme"),
        format!("ok list 200 1 {}", digest(&list))
    );
    assert_eq!(heir.client().policy("acme/a").await.text(), one);
    // A policy that this client has never asked for.
    heir.client()
        .put_policy("acme/unseen", "{\"policy_id\":\"unseen\"}")
        .await;
    eventually("the sidecar has it", || async {
        sidecar.client().policy("acme/unseen").await.status == 200
    })
    .await;

    heir.gone().await;
    sidecar.wait_for("degraded").await;
    assert_eq!(router.ask("health"), "ok health 200");
    assert_eq!(
        router.ask("get acme a"),
        format!("ok get 200 fresh heir {}", digest(one))
    );
    let unseen = digest("{\"policy_id\":\"unseen\"}");
    assert_eq!(
        router.ask("get acme unseen"),
        format!("ok get 200 fresh heir {unseen}")
    );
    assert_eq!(router.ask("get acme none"), "not_found");
    assert_eq!(router.ask(&format!("put acme a {second}")), "ok put 200 queued");
    assert_eq!(
        router.ask("get acme a"),
        format!("ok get 200 fresh journal {}", digest(two))
    );
    assert_eq!(router.ask("delete acme unseen"), "ok delete 204 queued");
    assert_eq!(router.ask("get acme unseen"), "not_found");
    assert!(router.ask("list acme").starts_with("ok list 200 1 "));

    heir.back().await;
    eventually("HEIR has the queued writes", || async {
        sidecar.admin().get("/admin/writes").await.json()["queued"] == 0
    })
    .await;
    assert_eq!(heir.client().policy("acme/a").await.text(), two);
    assert_eq!(heir.client().policy("acme/unseen").await.status, 404);
    sidecar.wait_for("live").await;
    assert_eq!(
        router.ask("get acme a"),
        format!("ok get 200 fresh heir {}", digest(two))
    );
    assert_eq!(router.ask("delete acme a"), "ok delete 204");
    assert_eq!(router.ask("get acme a"), "not_found");
}

async fn session(unix: bool) {
    let mut heir = Heir::start(Level::Changes).await;
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("sidecar.sock");
    let yaml = format!(
        "listen: ['127.0.0.1:0', 'unix:{}']\nadmin: {{listen: '127.0.0.1:0'}}\nstate_dir: {}\nrefresh: {{interval_ms: 50}}",
        socket.display(),
        folder.path().join("state").display()
    );
    let sidecar = Sidecar::start(&heir.url(), &yaml);
    sidecar.wait_for("live").await;
    let url = format!("http://{}", sidecar.data);
    let router = if unix {
        Session::start(&["--unix", socket.to_str().unwrap()])
    } else {
        Session::start(&["--url", &url])
    };
    through(&sidecar, &mut heir, router, folder.path()).await;
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_router_does_not_notice_an_outage_over_tcp() {
    session(false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_router_does_not_notice_an_outage_over_a_unix_socket() {
    session(true).await;
}
