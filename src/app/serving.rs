//! The listeners: bound while the sidecar is built, served until it stops.

use std::{os::fd::AsFd, sync::Arc, time::Duration};

use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use super::{descriptors, error::BuildError, metrics::Metrics, own_runtime::OwnRuntime};
use crate::{
    admin::Admin,
    config::Config,
    listener::{Address, Bound, ConnectionLimits, InheritedSockets, ListenerMetrics, Stop, serve},
    parent::Parent,
    route::Router,
};

/// Connections of the admin listener: probes, a scraper, some operators.
const MAX_ADMIN_CONNECTIONS: usize = 256;

/// A probe and a scraper come back sooner, or connect anew.
const ADMIN_IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// How long the last answers of probes are waited for.
pub(super) const LAST_PROBES: Duration = Duration::from_millis(200);

/// What the process that started this one hands over.
#[derive(Debug, Default)]
pub struct Handover {
    /// That process itself.
    pub parent: Arc<Parent>,
    /// Sockets that listen already.
    pub sockets: InheritedSockets,
}

/// Sockets that are bound.
#[derive(Debug)]
pub(super) struct Listeners {
    data_runtime: OwnRuntime,
    data: Vec<(Bound, ListenerMetrics)>,
    admin: (Bound, ListenerMetrics),
    limits: ConnectionLimits,
}

/// Listeners that are served.
#[derive(Debug)]
pub(super) struct Serving {
    /// Ends with the value.
    _data_runtime: OwnRuntime,
    stop: Stop,
    connections: TaskTracker,
    admin_stop: Stop,
    admin_connections: TaskTracker,
}

impl Listeners {
    /// Binds every socket.
    pub(super) fn bind(
        data_runtime: OwnRuntime,
        config: &Config,
        metrics: &Metrics,
        Handover { parent, sockets }: Handover,
    ) -> Result<Self, BuildError> {
        let mut binding = Binding {
            config,
            parent: &parent,
            sockets,
        };
        let data = data_runtime.within(|| {
            let addresses = config.listen_addresses();
            let bind = |(number, address): (usize, &Address)| {
                let (name, label) = match address {
                    Address::Tcp(_) => (format!("data-{number}"), "data"),
                    Address::Unix(path) => (format!("unix{}", path.display()), "data_unix"),
                };
                Ok::<_, BuildError>((binding.bind(&name, address)?, metrics.listeners.listener(label)))
            };
            addresses
                .iter()
                .enumerate()
                .map(bind)
                .collect::<Result<Vec<_>, _>>()
        })?;
        let mut limits = config.limits.connection();
        limits.max_connections =
            descriptors::connections(limits.max_connections, data.len(), MAX_ADMIN_CONNECTIONS);
        let admin = binding.bind("admin", &config.admin.listen.parse()?)?;
        binding.finish();
        Ok(Self {
            data_runtime,
            data,
            admin: (admin, metrics.listeners.listener("admin")),
            limits,
        })
    }

    /// Where the Router reaches this sidecar; ports that were 0 are now what the kernel chose.
    pub(super) fn addresses(&self) -> Vec<Address> {
        self.data
            .iter()
            .map(|(bound, _)| bound.address().clone())
            .collect()
    }

    /// Where the admin listener is.
    pub(super) fn admin_address(&self) -> &Address {
        self.admin.0.address()
    }

    /// Begins to serve. Data connections run on threads of their own.
    pub(super) fn serve(self, router: &Arc<Router>, admin: &Arc<Admin>) -> Serving {
        let (stop, connections) = (Stop::default(), TaskTracker::new());
        for (bound, metrics) in self.data {
            let served = serve(
                bound,
                router.clone(),
                self.limits.clone(),
                metrics,
                stop.clone(),
                connections.clone(),
            );
            connections.spawn_on(served, self.data_runtime.handle());
        }
        let (admin_stop, admin_connections) = (Stop::default(), TaskTracker::new());
        let (bound, metrics) = self.admin;
        admin_connections.spawn(serve(
            bound,
            admin.clone(),
            ConnectionLimits {
                max_connections: MAX_ADMIN_CONNECTIONS,
                idle_timeout: self.limits.idle_timeout.min(ADMIN_IDLE_TIMEOUT),
                ..self.limits
            },
            metrics,
            admin_stop.clone(),
            admin_connections.clone(),
        ));
        Serving {
            _data_runtime: self.data_runtime,
            stop,
            connections,
            admin_stop,
            admin_connections,
        }
    }
}

struct Binding<'a> {
    config: &'a Config,
    parent: &'a Parent,
    sockets: InheritedSockets,
}

impl Binding<'_> {
    /// Takes the socket that the parent has for this address, or binds one and lets the parent keep it.
    fn bind(&mut self, name: &str, address: &Address) -> Result<Bound, BuildError> {
        let failed = |source| BuildError::Listen {
            address: address.clone(),
            source,
        };
        if let Some(bound) = Bound::inherit(&mut self.sockets, name, address).map_err(failed)? {
            return Ok(bound);
        }
        let config = self.config;
        let mut bound = Bound::bind(address, config.unix_mode_bits(), config.reuse_port).map_err(failed)?;
        if self.parent.is_supervisor() {
            self.parent.keep(name, bound.as_fd());
            bound.leave_file();
        }
        Ok(bound)
    }

    /// Gives up the sockets that the configuration does not name any more.
    fn finish(self) {
        for name in self.sockets.close_others() {
            tracing::warn!(
                name,
                "An inherited socket is at no address of the configuration; it is closed."
            );
            self.parent.forget(&name);
        }
    }
}

impl Serving {
    /// Tells clients with every answer to go elsewhere, while everything is still served.
    pub(super) fn drain(&self) {
        self.stop.draining.cancel();
    }

    /// Accepts no more data connections, and waits for the answers under way.
    pub(super) async fn close(&self, deadline: Instant) {
        self.stop.closing.cancel();
        self.connections.close();
        if tokio::time::timeout_at(deadline, self.connections.wait())
            .await
            .is_err()
        {
            tracing::warn!(
                connections = self.connections.len(),
                "Some clients did not finish in time."
            );
        }
    }

    /// Closes the admin listener. A probe that is still reading its answer gets it; nothing else is worth waiting for.
    pub(super) async fn close_admin(&self) {
        self.admin_stop.closing.cancel();
        self.admin_connections.close();
        let _late = tokio::time::timeout(LAST_PROBES, self.admin_connections.wait()).await;
    }
}
