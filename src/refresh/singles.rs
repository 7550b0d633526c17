//! One refresh where HEIR gives one policy at a time.

use std::time::Instant;

use super::{
    detected::Pass,
    fetch::{Asked, Retry, ask_for_policy},
    outcome::{Outcome, RefreshError},
    partly::Partly,
    refresher::Refresher,
};
use crate::{
    heir::HeirError,
    snapshot::{Coverage, Guarded, Key, Unconfirmed},
};

/// After so many 404 and nothing else, all the others are taken to be 404 as well.
const ASKED_TO_FIND_OUT: usize = 50;

impl Refresher {
    /// Asks for every known policy. What HEIR does not have any more is removed at the end and all at once, so that the
    /// shrink guard sees the whole of it, and only if HEIR has any other: a 404 for each is an outage.
    pub(super) async fn pass_single(&self, pass: Pass) -> Result<Outcome, RefreshError> {
        let began = Instant::now();
        let generation = self.store.load().generation();
        let keys = self.known_keys();
        if keys.is_empty() {
            self.client.check_health().await?;
        }
        let (mut gone, mut asked) = (Vec::new(), 0);
        let mut partly = Partly::of(keys.len(), "policies");
        let mut witness = None;
        for key in keys {
            asked += 1;
            match self.ask_for(&key, pass).await {
                Ok(Asked::Has) => {
                    partly.confirmed();
                    witness = Some(key);
                }
                // A local file answers for it, and HEIR has said that it still has none.
                Ok(Asked::HasNot(None)) => {}
                Ok(Asked::HasNot(Some(policy))) => gone.push(policy),
                Err(error) if error.is_away() => return Err(error.into()),
                Err(error) => {
                    let name = format!("{}/{}", key.0, key.1);
                    partly.failed(Unconfirmed::Policy(key), name, error.into());
                }
            }
            let is_hopeless = gone.len() >= ASKED_TO_FIND_OUT && !partly.any_confirmed();
            if is_hopeless && !pass.confirm {
                break;
            }
        }
        if !partly.any_confirmed() {
            partly.take_error()?;
            if !gone.is_empty() && !pass.confirm {
                return Err(HeirError::NothingKnown { policies: asked }.into());
            }
        }
        // Where another policy is found, and still is, 404 is about the policy and not about the call.
        if let Some(witness) = witness.filter(|_| !gone.is_empty())
            && let Asked::HasNot(_) = self.ask_for(&witness, pass).await?
        {
            return Err(HeirError::NothingKnown { policies: asked }.into());
        }
        let guarded = Guarded {
            confirmed: pass.confirm,
            ..self.config.load().guarded()
        };
        self.store.remove(None, &gone, guarded)?;
        self.note_partial(partly.summary());
        self.store.confirm(Coverage::Keys, began, partly.unconfirmed());
        let changed = self.store.load().generation() != generation;
        Ok(if changed {
            Outcome::Changed
        } else {
            Outcome::Unchanged
        })
    }

    async fn ask_for(&self, key: &Key, pass: Pass) -> Result<Asked, HeirError> {
        let (client, store) = (&self.client, &self.store);
        ask_for_policy(client, store, key, self.policy_bytes, Retry::No, pass.admission).await
    }

    /// In an order of their own each time: which are asked for first says nothing about the others.
    fn known_keys(&self) -> Vec<Key> {
        let snapshot = self.store.load();
        let known = snapshot.tenants().flat_map(|(tenant, t)| {
            t.policies
                .iter()
                // A local file answers only for what HEIR does not have, so HEIR is asked about it as well.
                .filter(|(_, entry)| entry.heir.is_some() || entry.file().is_some())
                .map(|(id, _)| (tenant.clone(), id.clone()))
        });
        let mut keys: Vec<Key> = known.collect();
        fastrand::shuffle(&mut keys);
        keys
    }
}
