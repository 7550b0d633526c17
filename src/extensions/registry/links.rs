//! Modules linked as extensions, once for each way in which manifests use them.

use std::sync::Arc;
use std::sync::{Mutex, MutexGuard, PoisonError};

use hashbrown::HashMap;

use crate::extensions::{
    component_cache::{Built, ComponentCache},
    manifest::ModuleDigest,
    revision::Revision,
    sandbox::{CallLimits, Capability, Kind, Prepared, Unusable},
};

/// Why a module is not run for a manifest.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) message: String,
    pub(super) remedy: &'static str,
}

/// What was linked, and how.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Linked {
    digest: ModuleDigest,
    kind: Kind,
    capabilities: Vec<Capability>,
    limits: CallLimits,
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

    /// Links a module, or finds the result of the last time.
    ///
    /// # Errors
    /// Why it cannot be used so.
    pub(super) fn link(
        &self,
        cache: &ComponentCache,
        built: &Built,
        kind: Kind,
        capabilities: &[Capability],
        limits: CallLimits,
    ) -> Result<Arc<Prepared>, Unusable> {
        let linked = Linked {
            digest: built.digest,
            kind,
            capabilities: capabilities.to_vec(),
            limits,
        };
        if let Some(link) = self.lock().get_mut(&linked) {
            link.used = true;
            return link.result.clone();
        }
        let result = cache.link_within(built, kind, capabilities, limits).map(Arc::new);
        if result.as_ref().err() == Some(&Unusable::NoInstance) {
            // Nothing is wrong with the module: the next registry tries it again.
            self.revision.advance();
        } else {
            let link = Link {
                result: result.clone(),
                used: true,
            };
            self.lock().insert(linked, link);
        }
        result
    }

    /// Another registry is begun.
    pub(super) fn begin(&self) {
        self.lock().values_mut().for_each(|link| link.used = false);
    }

    /// A registry is complete: forgets the links that were not used for it.
    pub(super) fn forget_unused(&self) {
        self.lock().retain(|_, link| link.used);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Linked, Link>> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
