//! A sidecar in this process.

use std::net::SocketAddr;

use beamline_sidecar::{
    app::{App, ConfigSource, Handover, Shutdown},
    config::{self, Environment},
    listener::Address,
    telemetry::Logs,
};
use tokio::{sync::mpsc, task::JoinHandle};

use super::{Client, eventually, within};

pub(crate) struct Sidecar {
    pub(crate) data: SocketAddr,
    pub(crate) admin: SocketAddr,
    shutdown: Shutdown,
    reload: mpsc::Sender<()>,
    running: JoinHandle<()>,
}

fn tcp(address: &Address) -> SocketAddr {
    match address {
        Address::Tcp(address) => *address,
        Address::Unix(_) => panic!("not a TCP address"),
    }
}

/// Keys that make everything happen soon: a test that waits for a default waits for long.
pub(crate) const QUICK: &str = "
listen: 127.0.0.1:0
admin: {listen: '127.0.0.1:0'}
shutdown: {lame_duck_ms: 50, drain_timeout_ms: 2000}
";

impl Sidecar {
    /// Starts one for this HEIR, with more YAML. Ports are the kernel's choice unless the YAML names them.
    pub(crate) fn start(heir: &str, yaml: &str) -> Self {
        Self::try_start(&format!(
            "{}\nheir: {{url: '{heir}', timeout_ms: 3000, health_interval_ms: 200, breaker: {{open_ms: 200}}, retry: {{initial_ms: 10}}}}\n{yaml}",
            if yaml.contains("listen:") { "shutdown: {lame_duck_ms: 50, drain_timeout_ms: 2000}" } else { QUICK },
        ))
        .unwrap_or_else(|error| panic!("{error}"))
    }

    /// Starts one from exactly this YAML.
    pub(crate) fn try_start(yaml: &str) -> Result<Self, String> {
        Self::start_from(yaml, ConfigSource::default())
    }

    pub(crate) fn start_from(yaml: &str, mut source: ConfigSource) -> Result<Self, String> {
        // Most tests are about bytes that arrive as they were sent, whatever they mean.
        let mut environment = Environment::new();
        if !yaml.contains("validate:") {
            environment.insert("BEAMLINE_WRITES_VALIDATE".into(), "lenient".into());
        }
        // Compiling without optimisations, beside other tests, takes longer than a sidecar has.
        if !yaml.contains("compile_timeout_ms:") {
            environment.insert("BEAMLINE_EXTENSIONS_COMPILE_TIMEOUT_MS".into(), "600000".into());
        }
        source.environment.extend(environment.clone());
        if source.program.as_os_str().is_empty() {
            source.program = env!("CARGO_BIN_EXE_beamline-sidecar").into();
        }
        let loaded = config::parse(yaml, "a test", &environment).map_err(|error| error.to_string())?;
        let app = App::build(loaded.config, source, Logs::detached(), Handover::default())
            .map_err(|error| format!("{error:?}"))?;
        let data = app.addresses().iter().find_map(|address| match address {
            Address::Tcp(address) => Some(*address),
            Address::Unix(_) => None,
        });
        let admin = tcp(app.admin_address());
        let shutdown = Shutdown::default();
        let (reload, reloads) = mpsc::channel(1);
        let running = tokio::spawn(app.run(shutdown.clone(), reloads));
        Ok(Self {
            data: data.unwrap_or(admin),
            admin,
            shutdown,
            reload,
            running,
        })
    }

    /// A client of the data plane.
    pub(crate) fn client(&self) -> Client {
        Client::new(self.data)
    }

    /// A client of the admin listener.
    pub(crate) fn admin(&self) -> Client {
        Client::new(self.admin)
    }

    /// Waits until `/ready` says this state: `live`, `starting`, `degraded` or `not_ready`.
    pub(crate) async fn wait_for(&self, state: &str) {
        let admin = self.admin();
        eventually(&format!("the sidecar is {state}"), || async {
            admin.get("/ready").await.json()["state"] == state
        })
        .await;
    }

    /// Waits until no module is fetched or compiled any more.
    pub(crate) async fn wait_for_modules(&self) {
        let admin = self.admin();
        within(600, "all modules are there", || async {
            let page = admin.get("/admin/extensions").await;
            // Where extensions are switched off there is no such page.
            page.status == 404 || page.json()["pending"] == serde_json::json!([])
        })
        .await;
    }

    /// The value of a metric with these labels, such as `name{a="b"}`; zero if it is not there.
    pub(crate) async fn metric(&self, series: &str) -> f64 {
        let scrape = self.admin().get("/metrics").await;
        let line = scrape
            .text()
            .lines()
            .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.map_or(0.0, |value| value.parse().unwrap())
    }

    /// As SIGHUP does.
    pub(crate) async fn reload(&self) {
        self.reload.send(()).await.unwrap();
    }

    /// As SIGTERM does, without waiting for the end.
    pub(crate) fn begin_stop(&self) {
        self.shutdown.gracefully.cancel();
    }

    pub(crate) async fn stop(self) {
        self.begin_stop();
        self.running.await.unwrap();
    }

    /// Ends it the way a crash does, as far as one process can.
    pub(crate) async fn abort(self) {
        self.shutdown.gracefully.cancel();
        self.shutdown.at_once.cancel();
        self.running.await.unwrap();
    }
}
