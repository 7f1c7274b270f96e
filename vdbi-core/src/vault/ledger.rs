//! The ledger in KV version 2.

use std::{
    fmt,
    sync::atomic::{AtomicBool, Ordering},
};

use tracing::warn;

use super::{
    endpoint::{Detail, NOTED_VERSION},
    kv::{Folder, Written},
    login::Login,
};
use crate::{
    credential::SourceError,
    ledger::{Entry, EntryId, Ledger, LedgerError, Stored},
    secret::Secret,
};

/// Where a ledger is kept.
///
/// It is written as a literal, on purpose: a constructor would take two texts that could be swapped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KvFolder {
    /// Where the KV engine, of version 2, is mounted: `vaultSecretName`.
    pub mount: String,
    /// The folder in it: `vaultSecretPrefix`.
    pub prefix: String,
}

/// Ledger entries as secrets of a KV engine of version 2, at `<mount>/data/<prefix>/<id>`.
///
/// Writes are compare-and-swap: a new entry never replaces one, and an update replaces the version that was read. An
/// entry is removed with its metadata, so that its key disappears from the list.
///
/// An update also notes the entry, without secrets, in its key's custom metadata. OpenBao tells the notes of all keys in one
/// answer, which is what [`survey`](Ledger::survey) asks for; notes of another version than the stored one are not believed. On HashiCorp
/// Vault, which has no such answer, a survey is a list.
pub struct VaultLedger {
    folder: Folder,
    strangers_reported: AtomicBool,
    /// The server tells no notes.
    untold: AtomicBool,
    notes_reported: AtomicBool,
}

impl VaultLedger {
    /// The ledger in a folder of the session's server. Nothing is sent yet; a folder that cannot be one is an error of each call.
    pub fn new(login: Login, folder: KvFolder) -> Self {
        let KvFolder { mount, prefix } = folder;
        Self {
            folder: Folder::new(login.into(), &mount, &prefix),
            strangers_reported: AtomicBool::new(false),
            untold: AtomicBool::new(false),
            notes_reported: AtomicBool::new(false),
        }
    }

    /// Returns the version under which the entry is stored.
    async fn write(&self, id: EntryId, entry: &Entry, cas: u64) -> Result<u64, LedgerError> {
        match self.folder.write(id, &entry.to_fields(), cas).await.map_err(error)? {
            Written::Version(version) => Ok(version),
            Written::Conflict => Err(LedgerError::Conflict(id)),
        }
    }

    /// Notes the entry beside its key. Nothing but the speed of a start depends on it.
    async fn note(&self, id: EntryId, entry: &Entry, version: u64) {
        let Some(mut notes) = entry.to_notes().filter(|_| !self.untold.load(Ordering::Relaxed)) else {
            return;
        };
        notes.insert(NOTED_VERSION, Secret::new(version.to_string()));
        if let Err(error) = self.folder.describe(id, &notes).await {
            self.report_notes(&error);
        }
    }

    /// The fast start is lost, no more.
    fn report_notes(&self, error: &SourceError) {
        if !self.notes_reported.swap(true, Ordering::Relaxed) {
            warn!(%error, "a new leader will read every ledger entry by itself: {error}");
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
        self.write(id, entry, 0).await.map(drop)
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
        let version = self.write(id, entry, expected).await?;
        self.note(id, entry, version).await;
        Ok(())
    }

    async fn list(&self) -> Result<Vec<EntryId>, LedgerError> {
        let keys = self.folder.list().await.map_err(error)?;
        let ids: Vec<EntryId> = keys.iter().filter_map(|key| key.parse().ok()).collect();
        self.report_strangers(keys.len() - ids.len());
        Ok(ids)
    }

    async fn survey(&self) -> Result<Vec<(EntryId, Option<Stored>)>, LedgerError> {
        let details = self.folder.details().await;
        if let Ok(Some(details)) = details {
            let count = details.len();
            let entry = |(key, Detail(noted)): (String, Detail)| {
                Some((key.parse().ok()?, noted.map(|stored| *stored)))
            };
            let entries: Vec<(EntryId, Option<Stored>)> = details.into_iter().filter_map(entry).collect();
            self.report_strangers(count - entries.len());
            return Ok(entries);
        }
        let ids = self.list().await?;
        match details {
            Err(error) => self.report_notes(&error),
            Ok(_) => self.untold.store(!ids.is_empty(), Ordering::Relaxed),
        }
        Ok(ids.into_iter().map(|id| (id, None)).collect())
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
