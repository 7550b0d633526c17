//! One refresh where HEIR lists the policies of a tenant, but gives no snapshot.

use std::time::Instant;

use super::{
    detected::{Detected, Pass},
    outcome::{Outcome, RefreshError},
    partly::Partly,
    refresher::Refresher,
};
use crate::{
    heir::{HeirError, Level},
    policy::TenantId,
    snapshot::{Coverage, Guarded, Unconfirmed},
};

/// How many tenants are asked for before a HEIR that answers each with 404 counts as one that cannot list.
const ASKED_TO_FIND_OUT: usize = 8;

impl Refresher {
    /// Takes every known tenant's list. What is gone from them is removed at the end and all at once, so that the
    /// shrink guard sees the whole of it, and only if HEIR has listed anything: a 404 for every tenant is an outage.
    pub(super) async fn pass_lists(
        &self,
        detected: &mut Detected,
        pass: Pass,
    ) -> Result<Outcome, RefreshError> {
        let began = Instant::now();
        let tenants = self.known_tenants();
        if tenants.is_empty() {
            // No tenant has been asked for yet, so nothing can be listed. Whether HEIR could is found out then.
            if detected.level.is_none() {
                self.client.check_health().await?;
                self.set_level(detected, Level::List);
            }
            self.store.confirm(Coverage::Tenants, began, &[]);
            return Ok(Outcome::Unchanged);
        }
        let mut outcome = Outcome::Unchanged;
        let mut witness = None;
        let (mut gone, mut absent, mut partly) =
            (Vec::new(), Vec::new(), Partly::of(tenants.len(), "tenants"));
        for tenant in &tenants {
            match self.take_list(detected, tenant, pass).await {
                Ok(listed) => {
                    partly.confirmed();
                    witness = Some(tenant);
                    gone.extend(listed.gone);
                    if listed.outcome == Outcome::Changed {
                        outcome = Outcome::Changed;
                    }
                    self.set_level(detected, Level::List);
                }
                Err(RefreshError::Heir(error)) if error.is_not_found() => {
                    absent.push(tenant);
                    if !detected.lists && absent.len() >= ASKED_TO_FIND_OUT {
                        return Err(error.into());
                    }
                }
                Err(RefreshError::Heir(error)) if error.is_unsupported() && !detected.lists => {
                    return Err(error.into());
                }
                Err(error) if error.is_away() => return Err(error),
                // That tenant's problem; the others go on.
                Err(error) => partly.failed(Unconfirmed::Tenant(tenant.clone()), tenant, error),
            }
        }
        if !partly.any_confirmed() {
            partly.take_error()?;
            // Not one of them was listed.
            if !pass.confirm || !detected.lists {
                let policies = self.store.load().tenants().map(|(_, tenant)| tenant.size).sum();
                return Err(if detected.lists {
                    HeirError::NothingKnown { policies }.into()
                } else {
                    HeirError::not_found().into()
                });
            }
        }
        // Where another tenant is listed, and still is, 404 is about the tenant and not about the call.
        if let Some(witness) = witness.filter(|_| !absent.is_empty()) {
            self.take_list(detected, witness, pass).await?;
        }
        for tenant in absent {
            gone.extend(self.all_gone(tenant));
            partly.confirmed();
        }
        let guarded = Guarded {
            confirmed: pass.confirm,
            ..self.config.load().guarded()
        };
        if self.store.remove(None, &gone, guarded)? > 0 {
            outcome = Outcome::Changed;
        }
        self.note_partial(partly.summary());
        self.store.confirm(Coverage::Tenants, began, partly.unconfirmed());
        Ok(outcome)
    }

    /// Takes one tenant's list, whatever becomes of the others.
    pub(super) async fn refresh_tenant(
        &self,
        detected: &mut Detected,
        tenant: &TenantId,
        pass: Pass,
    ) -> Result<Outcome, RefreshError> {
        let listed = match self.take_list(detected, tenant, pass).await {
            // Where other tenants are listed, this one has no policies. If memory has some, the refresh of all tenants
            // finds out whether it is only this one.
            Err(RefreshError::Heir(error)) if error.is_not_found() && detected.lists => {
                let policies = self.all_gone(tenant).len();
                if policies > 0 {
                    return Err(HeirError::NothingKnown { policies }.into());
                }
                return Ok(Outcome::Unchanged);
            }
            listed => listed?,
        };
        let removed = self
            .store
            .remove(Some(tenant), &listed.gone, self.config.load().guarded())?;
        Ok(if removed > 0 {
            Outcome::Changed
        } else {
            listed.outcome
        })
    }

    fn known_tenants(&self) -> Vec<TenantId> {
        let mut tenants = self.tenants.clone();
        let snapshot = self.store.load();
        tenants.extend(snapshot.tenants().map(|(tenant, _)| tenant.clone()));
        tenants.sort_unstable();
        tenants.dedup();
        tenants
    }
}
