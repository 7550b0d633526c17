//! The writes that HEIR had acknowledged and has lost, because it was restored from a backup.

use super::writer::Writer;
use crate::refresh::Restored;

impl Writer {
    /// Keeps, for the operator, the writes that HEIR had acknowledged and has lost.
    pub(super) async fn keep_lost(&self, restored: &Restored) {
        let after = self.store.load_full();
        let lost = self.ledger.lost(&restored.before, &after);
        let count = lost.len();
        for lost in lost {
            if self.journal.has_queued(&lost.key) {
                continue;
            }
            let known = restored.before.heir(lost.key.0.as_str(), lost.key.1.as_str());
            let document = known
                .filter(|_| lost.effect.is_some())
                .map(|policy| policy.document.clone());
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
        self.count();
        tracing::warn!(
            lost = count,
            "Looked for writes that HEIR lost when it was restored."
        );
    }
}
