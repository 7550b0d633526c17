//! What goes wrong.

use std::{sync::atomic::Ordering::SeqCst, time::Duration};

use http::StatusCode;

use super::{plan::Fault, world::World};
use crate::support::{Copy, Proxy, SidecarProcess, StoreProcess, within};

/// Everything that runs.
pub(super) struct Stage {
    pub(super) store: StoreProcess,
    pub(super) proxy: Proxy,
    pub(super) sidecar: SidecarProcess,
    pub(super) copy: Copy,
    /// The sidecar was killed after the copy was made. What it had forwarded in between it does not know any
    /// more, and could not miss after a restore from that copy.
    pub(super) copy_is_too_old: bool,
    /// What sidecars that are gone have said.
    pub(super) earlier_log: Vec<String>,
}

async fn pause(milliseconds: u64) {
    tokio::time::sleep(Duration::from_millis(milliseconds)).await;
}

impl Stage {
    pub(super) async fn befall(&mut self, world: &World, fault: Fault, random: &mut fastrand::Rng) {
        let at = world.began.elapsed().as_secs_f64();
        println!("{at:8.3} s: {fault:?}");
        match fault {
            Fault::Errors(for_ms) => {
                self.proxy.answer_errors();
                world.interfere(&self.store.client(), random).await;
                pause(for_ms).await;
                self.proxy.pass();
                world.count("errors");
            }
            Fault::StoreKilled(for_ms) => {
                self.copy_store(for_ms).await;
                world.count("store kills");
            }
            Fault::StorePaused(for_ms) => {
                self.store.pause();
                pause(for_ms).await;
                self.store.resume();
                world.count("store pauses");
            }
            Fault::StoreRestored(for_ms) => {
                if self.copy_is_too_old {
                    self.copy_store(10).await;
                    pause(1_000).await;
                }
                world.restores.fetch_add(1, SeqCst);
                self.store.kill();
                pause(for_ms).await;
                self.store.put_back(&self.copy);
                self.back().await;
                world.restores.fetch_add(1, SeqCst);
                world.count("store restores");
            }
            Fault::SidecarKilled(for_ms) => {
                self.until_restores_are_noticed().await;
                self.kill_sidecar(world, for_ms).await;
            }
            Fault::SidecarKilledWithQueue(for_ms) => {
                self.until_restores_are_noticed().await;
                self.proxy.answer_errors();
                world.interfere(&self.store.client(), random).await;
                pause(for_ms).await;
                self.kill_sidecar(world, 10).await;
                pause(for_ms).await;
                self.proxy.pass();
            }
        }
    }

    async fn copy_store(&mut self, for_ms: u64) {
        self.store.kill();
        self.copy = self.store.copy();
        self.copy_is_too_old = false;
        pause(for_ms).await;
        self.back().await;
    }

    async fn back(&mut self) {
        self.store.up().await;
        self.proxy.lead_to(self.store.address());
    }

    /// What HEIR acknowledged to it a sidecar knows in memory only: one that is killed between a restore and the
    /// next refresh no longer knows what was lost.
    pub(super) async fn until_restores_are_noticed(&self) {
        let admin = self.sidecar.admin();
        within(300, "a refresh succeeds", || async {
            admin.post("/admin/refresh", "").await.status == StatusCode::OK
        })
        .await;
        let said = |what: &str| {
            let log = self.sidecar.process.log();
            log.iter().filter(|line| line.contains(what)).count()
        };
        within(300, "lost writes were looked for", || async {
            said("Looked for writes that HEIR lost") == said("HEIR's history went back")
        })
        .await;
    }

    async fn kill_sidecar(&mut self, world: &World, for_ms: u64) {
        world.sidecar_away.store(true, SeqCst);
        world.sidecar_kills.fetch_add(1, SeqCst);
        self.sidecar.process.kill();
        self.earlier_log.extend(self.sidecar.process.log());
        self.copy_is_too_old = true;
        pause(for_ms).await;
        self.sidecar.up().await;
        world.sidecar_is_at(self.sidecar.client());
        world.sidecar_away.store(false, SeqCst);
        world.count("sidecar kills");
    }
}
