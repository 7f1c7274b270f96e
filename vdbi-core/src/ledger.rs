//! The bookkeeping: which credential belongs to which pod.

use std::{fmt, future::Future, str::FromStr, sync::Arc, time::Duration};

use jiff::Timestamp;
use thiserror::Error;
use uuid::Uuid;

use crate::{credential::Lease, pod::PodRef, secret::Secret};

mod fields;

pub use fields::FieldError;

/// The key of a ledger entry. It becomes part of a path in Vault and comes back in an annotation that anybody with edit
/// rights may change, so it is parsed, never passed on: `../other/..` and the like are no uuids.
///
/// ```
/// use vdbi_core::ledger::EntryId;
///
/// let id = EntryId::random();
/// assert_eq!(id.to_string().parse(), Ok(id));
/// assert!("../other".parse::<EntryId>().is_err());
/// assert_eq!(id.successor(), id.successor());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EntryId(Uuid);

impl EntryId {
    /// A new id, random (version 4), so that nobody can guess it.
    pub fn random() -> Self {
        Self(Uuid::new_v4())
    }

    /// The id of the entry that follows this one, where a pod gets another credential while it lives: the first one's is in the pod's
    /// annotation, and whoever knows an entry finds those after it. Always the same (version 5, RFC 9562).
    #[must_use]
    pub fn successor(&self) -> Self {
        Self(Uuid::new_v5(&self.0, b"successor"))
    }

    /// Its 128 bits as a number, the first digit the highest.
    pub fn as_u128(&self) -> u128 {
        self.0.as_u128()
    }
}

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_hyphenated().fmt(f)
    }
}

impl FromStr for EntryId {
    type Err = InvalidEntryId;

    /// Accepts the canonical form only: 36 characters, lower-case hexadecimal digits and hyphens.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let id = Uuid::try_parse(text).map(Self).map_err(|_| InvalidEntryId)?;
        if id.to_string() == text { Ok(id) } else { Err(InvalidEntryId) }
    }
}

/// A ledger key that is not a uuid in canonical form.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("not a uuid in its canonical, lower-case form")]
pub struct InvalidEntryId;

/// Who keeps the books: only the same cluster and release may renew or revoke an entry.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Owner {
    /// The cluster's identity: the uid of its namespace `kube-system` unless configured.
    pub cluster: String,
    /// The release's name.
    pub release: String,
}

/// One credential of one pod.
///
/// It is written as a literal, and taken apart without `..`, on purpose: a ledger that left out a field would give back another
/// entry than the one it was given, so that a new field has to break it loudly.
#[derive(Clone, Debug)]
pub struct Entry {
    /// What renews and revokes the credential.
    pub lease: Lease,
    /// Who wrote the entry; `None` in an entry of the Go product.
    pub owner: Option<Owner>,
    /// The pod, as far as it was known when the entry was written.
    pub pod: PodRef,
    /// The name that the pod's annotations give to the database.
    pub database: String,
    /// The role for which it was issued.
    pub role: String,
    /// When it was issued; `None` in an entry of the Go product.
    pub issued_at: Option<Timestamp>,
    /// How long it lived from then on without a renewal, in whole seconds once it is stored; `None` where nobody wrote it down, as the
    /// Go product does not.
    pub ttl: Option<Duration>,
    /// The raw token, stored only where a way back to the Go product is asked for.
    pub raw_token: Option<Secret>,
}

/// An entry with the version that a later [`Ledger::update`] has to name. Versions are only compared for being the same.
#[derive(Clone, Debug)]
pub struct Stored {
    /// The entry.
    pub entry: Entry,
    /// The version of this entry, for compare-and-swap.
    pub version: u64,
}

/// Remembers every credential from before its delivery until after its revocation.
///
/// # Guarantees
///
/// - [`record`](Self::record) creates: it never replaces an entry. Once it returned `Ok` the entry is found by
///   [`read`](Self::read) and [`list`](Self::list).
/// - [`update`](Self::update) replaces exactly the version that was read, or fails with [`LedgerError::Conflict`].
/// - [`forget`](Self::forget) is idempotent, and leaves no key behind in `list`.
///
/// # Assumptions
///
/// - One `None` from `read` does not prove that an entry is gone: a standby server may lag behind. Decide on what `list`
///   says twice, or on what you did yourself.
///
/// The suite `vdbi_core::testing::ledger` checks this contract over any implementation.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no ledger",
    note = "implement `vdbi_core::ledger::Ledger`: record, read, update, list and forget"
)]
pub trait Ledger: Send + Sync + 'static {
    /// Writes a new entry.
    ///
    /// # Errors
    ///
    /// [`LedgerError::Conflict`] when the id is taken.
    fn record(&self, id: EntryId, entry: &Entry) -> impl Future<Output = Result<(), LedgerError>> + Send;

    /// Reads one entry.
    ///
    /// # Errors
    ///
    /// [`LedgerError::Corrupt`] when there is something under this key that is no entry.
    fn read(&self, id: EntryId) -> impl Future<Output = Result<Option<Stored>, LedgerError>> + Send;

    /// Replaces the entry whose version is `expected`.
    ///
    /// # Errors
    ///
    /// [`LedgerError::Conflict`] when somebody else wrote in between, or it is gone.
    fn update(
        &self,
        id: EntryId,
        entry: &Entry,
        expected: u64,
    ) -> impl Future<Output = Result<(), LedgerError>> + Send;

    /// The ids of all entries, in no particular order. Keys that are no uuid are left out.
    ///
    /// # Errors
    ///
    /// Any but `Conflict` and `Corrupt`.
    fn list(&self) -> impl Future<Output = Result<Vec<EntryId>, LedgerError>> + Send;

    /// The ids of all entries, as [`list`](Self::list) gives them, and with each its entry where this ledger can tell it in the same
    /// request, exactly as [`read`](Self::read) would: what a component that knows nothing yet begins with. By default the ids alone.
    ///
    /// # Errors
    ///
    /// As those of `list`.
    fn survey(&self) -> impl Future<Output = Result<Vec<(EntryId, Option<Stored>)>, LedgerError>> + Send {
        async { Ok(self.list().await?.into_iter().map(|id| (id, None)).collect()) }
    }

    /// Removes an entry and its key.
    ///
    /// # Errors
    ///
    /// Any but `Conflict` and `Corrupt`.
    fn forget(&self, id: EntryId) -> impl Future<Output = Result<(), LedgerError>> + Send;
}

/// So that several components of one process share a ledger.
impl<L: Ledger> Ledger for Arc<L> {
    fn record(&self, id: EntryId, entry: &Entry) -> impl Future<Output = Result<(), LedgerError>> + Send {
        L::record(self, id, entry)
    }

    fn read(&self, id: EntryId) -> impl Future<Output = Result<Option<Stored>, LedgerError>> + Send {
        L::read(self, id)
    }

    fn update(
        &self,
        id: EntryId,
        entry: &Entry,
        expected: u64,
    ) -> impl Future<Output = Result<(), LedgerError>> + Send {
        L::update(self, id, entry, expected)
    }

    fn list(&self) -> impl Future<Output = Result<Vec<EntryId>, LedgerError>> + Send {
        L::list(self)
    }

    fn survey(&self) -> impl Future<Output = Result<Vec<(EntryId, Option<Stored>)>, LedgerError>> + Send {
        L::survey(self)
    }

    fn forget(&self, id: EntryId) -> impl Future<Output = Result<(), LedgerError>> + Send {
        L::forget(self, id)
    }
}

/// Why a [`Ledger`] did not do what it was asked.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LedgerError {
    /// The entry exists already, or is no longer at the expected version.
    #[error("ledger entry {0} was written by somebody else in the meantime")]
    Conflict(EntryId),
    /// What is stored under the key is no entry.
    #[error("ledger entry {id} cannot be read: {reason}")]
    Corrupt {
        /// The entry's id.
        id: EntryId,
        /// What is wrong with it, without its values.
        reason: FieldError,
    },
    /// The policy of this component does not allow it.
    #[error("{0}")]
    Denied(String),
    /// Worth another try.
    #[error("{0}")]
    Unavailable(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_no_entry_id() {
        for text in [
            "../other/0b6c3a5e-6f0e-4c1c-9d6b-2f8f7f1f0a11",
            "0b6c3a5e-6f0e-4c1c-9d6b-2f8f7f1f0a1",
            "0B6C3A5E-6F0E-4C1C-9D6B-2F8F7F1F0A11",
            "0b6c3a5e6f0e4c1c9d6b2f8f7f1f0a11",
            "{0b6c3a5e-6f0e-4c1c-9d6b-2f8f7f1f0a11}",
            "",
        ] {
            assert_eq!(text.parse::<EntryId>(), Err(InvalidEntryId), "{text}");
        }
    }

    #[test]
    fn new_ids_are_random_ones() {
        let ids = [EntryId::random(), EntryId::random()];
        assert_ne!(ids[0], ids[1]);
        assert!(ids.iter().all(|EntryId(uuid)| uuid.get_version_num() == 4));
    }

    #[test]
    fn an_entry_has_one_successor() {
        let first = EntryId::random();
        let second = first.successor();
        assert_eq!(second, first.successor());
        assert!(second != first && second.successor() != first && second.successor() != second);
        assert_eq!(second.to_string().parse(), Ok(second));
    }

    #[test]
    fn uuids_of_the_go_product_are_entry_ids() {
        let version_1 = "8a6e0804-2bd0-11f0-9cd2-0242ac120002";
        assert_eq!(version_1.parse::<EntryId>().unwrap().to_string(), version_1);
    }
}
