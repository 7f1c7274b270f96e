//! A ledger in memory.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use super::{
    Hold,
    control::{Control, lock},
};
use crate::{
    ledger::{Entry, EntryId, Ledger, LedgerError, Stored},
    secret::Secret,
};

/// An operation of a [`MemoryLedger`], to aim faults at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LedgerOperation {
    /// [`Ledger::record`].
    Record,
    /// [`Ledger::read`].
    Read,
    /// [`Ledger::update`].
    Update,
    /// [`Ledger::list`].
    List,
    /// [`Ledger::forget`].
    Forget,
}

/// A [`Ledger`] that lives as long as its last clone. It keeps entries as the fields that KV v2 would hold, so that an entry
/// comes back from it as it would from Vault.
///
/// ```
/// # use vdbi_core::{ledger::{EntryId, Ledger, LedgerError}, memory::{LedgerOperation, MemoryLedger}};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let ledger = MemoryLedger::new();
/// ledger.fail_next(LedgerOperation::List, LedgerError::Unavailable("sealed".into()));
/// assert!(ledger.list().await.is_err());
/// assert!(ledger.list().await.unwrap().is_empty());
/// # }
/// ```
#[derive(Clone, Default)]
pub struct MemoryLedger {
    books: Arc<Mutex<Books>>,
    control: Arc<Control<LedgerOperation, LedgerError>>,
}

#[derive(Default)]
struct Books {
    entries: BTreeMap<String, Record>,
    /// Grows with every write to any key: a version never comes back, not even that of a forgotten entry.
    version: u64,
    /// How many of the next reads miss an entry that exists.
    misses: usize,
}

struct Record {
    fields: BTreeMap<String, Secret>,
    version: u64,
}

impl MemoryLedger {
    /// An empty ledger.
    pub fn new() -> Self {
        Self::default()
    }

    /// The entries that can be read, by id. It is not counted as a call.
    pub fn entries(&self) -> BTreeMap<EntryId, Entry> {
        let books = self.books();
        let entries = books.entries.iter().filter_map(|(key, record)| {
            Some((key.parse().ok()?, Entry::from_fields(record.fields.clone()).ok()?))
        });
        entries.collect()
    }

    /// Stores raw fields under any key, as another program would: an entry of the Go product, a corrupt one, a key that is no
    /// uuid.
    pub fn insert_fields(&self, key: impl Into<String>, fields: BTreeMap<String, Secret>) {
        self.books().put(key.into(), fields);
    }

    /// Fails the next such call with `error`, before it has any effect. Several faults for one operation come in order.
    pub fn fail_next(&self, operation: LedgerOperation, error: LedgerError) {
        self.control.refuse_next(operation, error);
    }

    /// Carries the next such call out and then answers with `error`: what a lost connection looks like.
    pub fn lose_next_answer(&self, operation: LedgerOperation, error: LedgerError) {
        self.control.lose_next_answer(operation, error);
    }

    /// Lets the next read of an entry that exists find nothing, as a standby server that lags behind does.
    pub fn miss_next_read(&self) {
        self.books().misses += 1;
    }

    /// While not available, every call fails with [`LedgerError::Unavailable`].
    pub fn set_available(&self, available: bool) {
        self.control.set_available(available);
    }

    /// How long every call takes, on tokio's clock.
    pub fn set_latency(&self, latency: Duration) {
        self.control.set_latency(latency);
    }

    /// Keeps such calls waiting, before they have any effect, until the [`Hold`] is dropped.
    pub fn hold(&self, operation: LedgerOperation) -> Hold {
        self.control.hold(operation)
    }

    /// How many such calls there were, failed ones included.
    pub fn calls(&self, operation: LedgerOperation) -> usize {
        self.control.calls(operation)
    }

    async fn enter(&self, operation: LedgerOperation) -> Result<(), LedgerError> {
        self.control.enter(operation, || LedgerError::Unavailable("the ledger is not available".into())).await
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        lock(&self.books)
    }
}

impl Books {
    fn put(&mut self, key: String, fields: BTreeMap<String, Secret>) {
        self.version += 1;
        self.entries.insert(key, Record { fields, version: self.version });
    }
}

impl Ledger for MemoryLedger {
    async fn record(&self, id: EntryId, entry: &Entry) -> Result<(), LedgerError> {
        self.enter(LedgerOperation::Record).await?;
        let mut books = self.books();
        if books.entries.contains_key(&id.to_string()) {
            return Err(LedgerError::Conflict(id));
        }
        books.put(id.to_string(), stored_fields(entry));
        self.control.answer(LedgerOperation::Record, ())
    }

    async fn read(&self, id: EntryId) -> Result<Option<Stored>, LedgerError> {
        self.enter(LedgerOperation::Read).await?;
        let mut books = self.books();
        let found = books.entries.get(&id.to_string()).map(|record| (record.fields.clone(), record.version));
        let stored = match found {
            Some(_) if books.misses > 0 => {
                books.misses -= 1;
                None
            }
            Some((fields, version)) => {
                let entry =
                    Entry::from_fields(fields).map_err(|reason| LedgerError::Corrupt { id, reason })?;
                Some(Stored { entry, version })
            }
            None => None,
        };
        self.control.answer(LedgerOperation::Read, stored)
    }

    async fn update(&self, id: EntryId, entry: &Entry, expected: u64) -> Result<(), LedgerError> {
        self.enter(LedgerOperation::Update).await?;
        let mut books = self.books();
        let current = books.entries.get(&id.to_string()).map(|record| record.version);
        if current != Some(expected) {
            return Err(LedgerError::Conflict(id));
        }
        books.put(id.to_string(), stored_fields(entry));
        self.control.answer(LedgerOperation::Update, ())
    }

    async fn list(&self) -> Result<Vec<EntryId>, LedgerError> {
        self.enter(LedgerOperation::List).await?;
        let ids = self.books().entries.keys().filter_map(|key| key.parse().ok()).collect();
        self.control.answer(LedgerOperation::List, ids)
    }

    async fn forget(&self, id: EntryId) -> Result<(), LedgerError> {
        self.enter(LedgerOperation::Forget).await?;
        self.books().entries.remove(&id.to_string());
        self.control.answer(LedgerOperation::Forget, ())
    }
}

impl fmt::Debug for MemoryLedger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryLedger").field("entries", &self.books().entries.len()).finish_non_exhaustive()
    }
}

fn stored_fields(entry: &Entry) -> BTreeMap<String, Secret> {
    entry.to_fields().into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        credential::{Lease, TokenHandle},
        pod::PodRef,
    };

    fn entry() -> Entry {
        Entry {
            lease: Lease {
                id: "databases/creds/app/1".into(),
                token: TokenHandle::Accessor("accessor".into()),
            },
            owner: None,
            pod: PodRef { namespace: "shop".into(), ..PodRef::default() },
            database: "main".into(),
            role: "app".into(),
            issued_at: None,
            ttl: None,
            raw_token: None,
        }
    }

    #[tokio::test]
    async fn a_lost_answer_leaves_the_entry_behind() {
        let ledger = MemoryLedger::new();
        let id = EntryId::random();
        ledger.lose_next_answer(LedgerOperation::Record, LedgerError::Unavailable("reset by peer".into()));
        assert!(matches!(ledger.record(id, &entry()).await, Err(LedgerError::Unavailable(_))));
        assert!(
            matches!(ledger.record(id, &entry()).await, Err(LedgerError::Conflict(taken)) if taken == id)
        );
        assert_eq!(ledger.calls(LedgerOperation::Record), 2);
    }

    #[tokio::test]
    async fn the_version_of_a_forgotten_entry_never_comes_back() {
        let ledger = MemoryLedger::new();
        let id = EntryId::random();
        ledger.record(id, &entry()).await.unwrap();
        let version = ledger.read(id).await.unwrap().unwrap().version;
        ledger.forget(id).await.unwrap();
        ledger.record(id, &entry()).await.unwrap();
        assert!(matches!(ledger.update(id, &entry(), version).await, Err(LedgerError::Conflict(_))));
    }

    #[tokio::test]
    async fn a_lagging_read_misses_an_entry_once() {
        let ledger = MemoryLedger::new();
        let id = EntryId::random();
        ledger.record(id, &entry()).await.unwrap();
        ledger.miss_next_read();
        assert!(ledger.read(id).await.unwrap().is_none());
        assert!(ledger.read(id).await.unwrap().is_some());
    }

    #[tokio::test]
    async fn foreign_keys_are_not_listed_and_corrupt_entries_are_reported() {
        let ledger = MemoryLedger::new();
        let id = EntryId::random();
        ledger.insert_fields("notes", BTreeMap::new());
        ledger.insert_fields(id.to_string(), BTreeMap::new());
        assert_eq!(ledger.list().await.unwrap(), [id]);
        assert!(matches!(ledger.read(id).await, Err(LedgerError::Corrupt { .. })));
    }

    #[tokio::test]
    async fn a_held_call_has_no_effect_until_it_is_let_go() {
        let ledger = MemoryLedger::new();
        let mut hold = ledger.hold(LedgerOperation::Record);
        let id = EntryId::random();
        let entry = entry();
        let record = ledger.record(id, &entry);
        tokio::pin!(record);
        tokio::select! {
            _ = &mut record => panic!("the call was not held"),
            () = hold.arrived(1) => {}
        }
        assert!(ledger.entries().is_empty());
        hold.release();
        record.await.unwrap();
        assert!(ledger.entries().contains_key(&id));
    }
}
