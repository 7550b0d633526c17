//! What an operator may do with a write that is stuck.

use super::{
    entry::{Entry, EntryId, JournalError},
    writer::Writer,
};

impl Writer {
    /// Gives a write up. Lookups see HEIR's version again.
    ///
    /// # Errors
    /// When there is no such write, or the journal cannot be written.
    pub async fn discard(&self, id: EntryId) -> Result<Entry, JournalError> {
        let entry = self.journal.find(id)?;
        let _one_at_a_time = self.lock(&entry.key).lock().await;
        let entry = self.journal.discard(id).await?;
        self.show_newest(&entry.key).await;
        self.metrics.write("discarded");
        self.count();
        tracing::info!(
            id = id.0,
            tenant = entry.key.0.as_str(),
            policy = entry.key.1.as_str(),
            "A write was discarded."
        );
        Ok(entry)
    }

    /// Puts a conflict back into the queue, to be made over whatever HEIR has.
    ///
    /// # Errors
    /// When there is no such write, it is in the queue already, or the journal cannot be written.
    pub async fn retry(&self, id: EntryId) -> Result<Entry, JournalError> {
        let entry = self.journal.find(id)?;
        let _one_at_a_time = self.lock(&entry.key).lock().await;
        let entry = self.journal.requeue(id).await?;
        self.show_newest(&entry.key).await;
        self.count();
        self.replay_wanted.notify_one();
        Ok(entry)
    }
}
