//! The ledger in KV version 2.

use std::{
    fmt,
    sync::atomic::{AtomicBool, Ordering},
};

use tracing::warn;

use super::{
    access::Access,
    client::VaultClient,
    kv::{Folder, Written},
    login::Login,
};
use crate::{
    credential::SourceError,
    ledger::{Entry, EntryId, Ledger, LedgerError, Stored},
};

/// Ledger entries as secrets of a KV engine of version 2, at `<mount>/data/<prefix>/<id>`.
///
/// Writes are compare-and-swap: a new entry never replaces one, and an update replaces the version that was read. An
/// entry is removed with its metadata, so that its key disappears from the list.
pub struct VaultLedger {
    folder: Folder,
    strangers_reported: AtomicBool,
}

impl VaultLedger {
    /// The ledger at `prefix` of the KV engine at `mount`.
    pub fn new(client: VaultClient, login: Login, mount: &str, prefix: &str) -> Self {
        let access = Access { client, login };
        Self { folder: Folder::new(access, mount, prefix), strangers_reported: AtomicBool::new(false) }
    }

    async fn write(&self, id: EntryId, entry: &Entry, cas: u64) -> Result<(), LedgerError> {
        match self.folder.write(id, &entry.to_fields(), cas).await.map_err(error)? {
            Written::Yes => Ok(()),
            Written::Conflict => Err(LedgerError::Conflict(id)),
        }
    }

    /// Keys that are no ids are somebody else's, or were put there by hand. Said once, without the keys.
    fn report_strangers(&self, count: usize) {
        if count > 0 && !self.strangers_reported.swap(true, Ordering::Relaxed) {
            warn!(
                count,
                "the ledger's folder holds {count} keys that are no ledger entries; they are left alone"
            );
        }
    }
}

impl Ledger for VaultLedger {
    async fn record(&self, id: EntryId, entry: &Entry) -> Result<(), LedgerError> {
        self.write(id, entry, 0).await
    }

    async fn read(&self, id: EntryId) -> Result<Option<Stored>, LedgerError> {
        let Some((fields, version)) = self.folder.read(id).await.map_err(error)? else { return Ok(None) };
        let entry = Entry::from_fields(fields).map_err(|reason| LedgerError::Corrupt { id, reason })?;
        Ok(Some(Stored { entry, version }))
    }

    async fn update(&self, id: EntryId, entry: &Entry, expected: u64) -> Result<(), LedgerError> {
        // Version 0 would mean that there is none.
        if expected == 0 {
            return Err(LedgerError::Conflict(id));
        }
        self.write(id, entry, expected).await
    }

    async fn list(&self) -> Result<Vec<EntryId>, LedgerError> {
        let keys = self.folder.list().await.map_err(error)?;
        let ids: Vec<EntryId> = keys.iter().filter_map(|key| key.parse().ok()).collect();
        self.report_strangers(keys.len() - ids.len());
        Ok(ids)
    }

    async fn forget(&self, id: EntryId) -> Result<(), LedgerError> {
        self.folder.delete(id).await.map_err(error)
    }
}

impl fmt::Debug for VaultLedger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VaultLedger").field("folder", &self.folder).finish_non_exhaustive()
    }
}

fn error(error: SourceError) -> LedgerError {
    match error {
        SourceError::Denied(text) | SourceError::Invalid(text) | SourceError::Misconfigured(text) => {
            LedgerError::Denied(text)
        }
        SourceError::Gone(text) | SourceError::Unavailable(text) => LedgerError::Unavailable(text),
    }
}

#[cfg(test)]
mod tests;
