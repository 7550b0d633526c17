//! A real registry: Debian's `docker-registry`, with its content in a directory of its own.

use std::{
    fs,
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use beamline_sidecar::extensions::ModuleDigest;
use http::Method;
use serde_json::{Value, json};

use super::Client;

/// `ann` with the password `geheim-7`, as `htpasswd -B` writes it.
const HTPASSWD: &str = "ann:$2b$04$Drklh9kIt3G5tJrf3wat1uSZhCq9XljerAs2g1/eWt0qE2C3ua4ua\n";

pub(crate) struct OciRegistry {
    dir: tempfile::TempDir,
    pub(crate) address: SocketAddr,
    child: Option<Child>,
}

impl OciRegistry {
    /// Fails the test where there is no registry: `tests/setup.sh` installs it.
    pub(crate) fn start() -> Self {
        Self::of("")
    }

    /// One that lets only `ann` in, with the password `geheim-7`.
    pub(crate) fn start_closed() -> Self {
        Self::of("auth: {htpasswd: {realm: basic-realm, path: htpasswd}}\n")
    }

    fn of(more: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("htpasswd"), HTPASSWD).unwrap();
        fs::write(dir.path().join("more"), more).unwrap();
        let (child, address) = run(&dir, "127.0.0.1:0");
        Self {
            dir,
            address,
            child: Some(child),
        }
    }

    /// Ends it; its content stays.
    pub(crate) fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ended = child.kill();
            child.wait().unwrap();
        }
    }

    /// Starts it again, at the same address.
    pub(crate) fn start_again(&mut self) {
        self.stop();
        let (child, _) = run(&self.dir, &self.address.to_string());
        self.child = Some(child);
    }

    pub(crate) fn client(&self) -> Client {
        Client::new(self.address)
    }

    /// Puts content into a repository.
    pub(crate) async fn blob(&self, repository: &str, content: &[u8]) -> Value {
        let digest = format!("sha256:{}", ModuleDigest::of(content));
        let client = self.client();
        let begun = client
            .send(Method::POST, &format!("/v2/{repository}/blobs/uploads/"), &[], "")
            .await
            .unwrap();
        assert_eq!(begun.status, 202, "{}", begun.text());
        let to = begun
            .header("location")
            .split_once(&self.address.to_string())
            .unwrap()
            .1
            .to_owned();
        let put = client
            .send(
                Method::PUT,
                &format!("{to}&digest={digest}"),
                &[],
                content.to_vec(),
            )
            .await
            .unwrap();
        assert_eq!(put.status, 201, "{}", put.text());
        json!({"digest": digest, "size": content.len()})
    }

    /// Puts a manifest into a repository, under its digest. Returns that.
    pub(crate) async fn manifest(&self, repository: &str, manifest: &Value) -> String {
        self.text(repository, &manifest.to_string(), None).await
    }

    /// Puts a manifest as it is written into a repository, under its digest or a tag. Returns the digest.
    pub(crate) async fn text(&self, repository: &str, text: &str, tag: Option<&str>) -> String {
        let digest = format!("sha256:{}", ModuleDigest::of(text.as_bytes()));
        let manifest: Value = serde_json::from_str(text).unwrap();
        let kind = manifest["mediaType"].as_str().unwrap();
        let put = self
            .client()
            .send(
                Method::PUT,
                &format!("/v2/{repository}/manifests/{}", tag.unwrap_or(&digest)),
                &[("content-type", kind)],
                text.to_owned(),
            )
            .await
            .unwrap();
        assert_eq!(put.status, 201, "{}", put.text());
        digest
    }

    /// Pushes an artifact with these layers, of types and contents. Returns its digest.
    pub(crate) async fn artifact(&self, repository: &str, layers: &[(&str, &[u8])]) -> String {
        let mut config = self.blob(repository, b"{}").await;
        config["mediaType"] = json!("application/vnd.oci.empty.v1+json");
        let mut described = Vec::new();
        for (kind, content) in layers {
            let mut layer = self.blob(repository, content).await;
            layer["mediaType"] = json!(kind);
            described.push(layer);
        }
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": config,
            "layers": described,
        });
        self.manifest(repository, &manifest).await
    }
}

impl Drop for OciRegistry {
    fn drop(&mut self) {
        self.stop();
    }
}

fn run(dir: &tempfile::TempDir, address: &str) -> (Child, SocketAddr) {
    let path = |name: &str| -> PathBuf { dir.path().join(name) };
    let more = fs::read_to_string(path("more")).unwrap();
    let config = format!(
        "version: 0.1\nlog: {{accesslog: {{disabled: true}}}}\nstorage: {{filesystem: {{rootdirectory: {}}}, delete: {{enabled: true}}}}\n\
         http: {{addr: '{address}', secret: a}}\n{more}",
        path("data").display()
    );
    fs::write(path("config.yml"), config).unwrap();
    let mut child = Command::new("docker-registry")
        .args(["serve", "config.yml"])
        .current_dir(dir.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("docker-registry: {error}: run tests/setup.sh, which installs it"));
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let listens = |line: &String| line.contains("listening on ");
    let line = lines
        .by_ref()
        .map_while(Result::ok)
        .find(listens)
        .unwrap_or_else(|| panic!("docker-registry does not listen at {address}"));
    // Its log is read as long as it runs, so that it never waits for a reader.
    std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
    let (_, rest) = line.split_once("listening on ").unwrap();
    (child, rest.split('"').next().unwrap().parse().unwrap())
}
