//! Modules linked as extensions, once for each way in which manifests use them.

use std::sync::Arc;
use std::sync::{Mutex, MutexGuard, PoisonError};

use hashbrown::HashMap;

use crate::extensions::{
    component_cache::{Built, ComponentCache},
    digest::ModuleDigest,
    revision::Revision,
    sandbox::{CallLimits, Capability, Kind, Prepared, Unusable},
};

/// Of more links, those that the last registry did not use are forgotten.
const MAX_LINKS: usize = 1_024;

/// Why a module is not run for a manifest.
#[derive(Debug)]
pub struct Refusal {
    /// What is wrong.
    pub message: String,
    /// What would be right.
    pub remedy: &'static str,
}

/// What was linked, and how.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Linked {
    digest: ModuleDigest,
    kind: Kind,
    capabilities: Vec<Capability>,
    limits: CallLimits,
}

impl Linked {
    fn new(built: &Built, kind: Kind, capabilities: &[Capability], limits: CallLimits) -> Self {
        Self {
            digest: built.digest,
            kind,
            capabilities: capabilities.to_vec(),
            limits,
        }
    }
}

/// The result. Refusals are kept too: to look at a module that never ends takes time.
#[derive(Debug)]
struct Link {
    result: Result<Arc<Prepared>, Unusable>,
    /// Since the last registry was begun.
    used: bool,
}

/// All that was linked.
#[derive(Debug)]
pub(super) struct Links {
    links: Mutex<HashMap<Linked, Link>>,
    revision: Revision,
}

impl Links {
    pub(super) fn new(revision: Revision) -> Self {
        Self {
            links: Mutex::default(),
            revision,
        }
    }

    /// What came of linking a module so; `None`: it was not linked yet.
    pub(super) fn find(
        &self,
        built: &Built,
        kind: Kind,
        capabilities: &[Capability],
        limits: CallLimits,
    ) -> Option<Result<Arc<Prepared>, Unusable>> {
        let mut links = self.lock();
        let link = links.get_mut(&Linked::new(built, kind, capabilities, limits))?;
        link.used = true;
        Some(link.result.clone())
    }

    /// Links a module. The module is run for that, as far as it runs at its start: no request may wait for it.
    pub(super) fn link(
        &self,
        cache: &ComponentCache,
        built: &Built,
        kind: Kind,
        capabilities: &[Capability],
        limits: CallLimits,
    ) {
        let result = cache.link_within(built, kind, capabilities, limits).map(Arc::new);
        // Where there was no instance nothing is wrong with the module: it is tried again.
        if result.as_ref().err() != Some(&Unusable::NoInstance) {
            let linked = Linked::new(built, kind, capabilities, limits);
            self.lock().insert(linked, Link { result, used: true });
            self.revision.advance();
        }
    }

    /// Another registry is begun.
    pub(super) fn begin(&self) {
        self.lock().values_mut().for_each(|link| link.used = false);
    }

    /// A registry is complete: forgets the links that were not used for it, but for those of modules that are needed. An
    /// extension that is switched off may be switched on again.
    pub(super) fn forget_unused(&self, is_needed: impl Fn(&ModuleDigest) -> bool) {
        let mut links = self.lock();
        let is_room = links.len() <= MAX_LINKS;
        links.retain(|linked, link| link.used || (is_room && is_needed(&linked.digest)));
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Linked, Link>> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
