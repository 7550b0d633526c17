//! The writes that HEIR had acknowledged and has lost, because it was restored from a backup.

use futures_util::{StreamExt as _, stream};

use super::{ledger::Lost, writer::Writer};
use crate::{policy::ETag, refresh::Restored};

/// Files that are written at once: a disk takes about as long for several as for one.
const AT_ONCE: usize = 32;

impl Writer {
    /// Keeps, for the operator, the writes that HEIR had acknowledged and has lost.
    pub(super) async fn keep_lost(&self, restored: &Restored) {
        let after = self.store.load_full();
        let lost = self.ledger.lost(&restored.before, &after);
        let count = lost.len();
        stream::iter(lost)
            .for_each_concurrent(AT_ONCE, |lost| self.keep(restored, lost))
            .await;
        self.count();
        tracing::warn!(
            lost = count,
            "Looked for writes that HEIR lost when it was restored."
        );
    }

    async fn keep(&self, restored: &Restored, lost: Lost) {
        if self.journal.has_queued(&lost.key) {
            // The one that waits came later. What becomes of that one is what the client is told of.
            self.ledger.forget(&lost);
            return;
        }
        let known = restored.before.heir(lost.key.0.as_str(), lost.key.1.as_str());
        let document = match known {
            _ if lost.effect.is_none() => None,
            Some(policy) if Some(policy.document.etag()) == lost.effect.as_ref() => {
                Some(policy.document.clone())
            }
            _ => match self.ledger.document(&lost).await {
                Some(document) => Some(document),
                None => {
                    let (tenant, policy) = (lost.key.0.as_str(), lost.key.1.as_str());
                    let etag = lost.effect.as_ref().map(ETag::as_str);
                    tracing::error!(
                        tenant,
                        policy,
                        etag,
                        "HEIR has lost a write that it had acknowledged, and nothing here has its document."
                    );
                    self.ledger.forget(&lost);
                    return;
                }
            },
        };
        let detail = "HEIR was restored from a backup that is older than this write".to_owned();
        let entry = self.journal.append_lost(lost.key.clone(), document, detail).await;
        self.ledger.forget(&lost);
        self.metrics.write("conflict");
        let (tenant, policy) = (lost.key.0.as_str(), lost.key.1.as_str());
        tracing::error!(
            id = entry.id.0,
            tenant,
            policy,
            "HEIR has lost a write that it had acknowledged; see /admin/writes."
        );
    }
}
