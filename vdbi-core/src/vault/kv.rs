//! KV version 2, as far as the ledger needs it.

use std::collections::BTreeMap;

use super::{
    access::Access,
    endpoint::{
        CheckAndSet, DeleteEntry, DescribeEntry, Detail, Field, KvEntry, ListDetails, ListEntries, ReadEntry,
        WriteEntry,
    },
    error::{Failure, Operation},
    path::{Configured, Path},
};
use crate::{credential::SourceError, ledger::EntryId, secret::Secret};

/// A folder of a KV mount.
#[derive(Debug)]
pub(super) struct Folder {
    access: Access,
    mount: Configured,
    prefix: Configured,
}

/// What a write did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Written {
    /// It is stored under this version.
    Version(u64),
    /// The stored version is not the expected one.
    Conflict,
}

impl Folder {
    pub(super) fn new(access: Access, mount: &str, prefix: &str) -> Self {
        let mount = Configured::mount("vaultSecretName", mount);
        Self { access, mount, prefix: Configured::mount("vaultSecretPrefix", prefix) }
    }

    /// The text fields under a key, and their version. `None` when there is nothing, or it was soft-deleted.
    pub(super) async fn read(
        &self,
        id: EntryId,
    ) -> Result<Option<(BTreeMap<String, Secret>, u64)>, SourceError> {
        let (mount, prefix) = self.paths()?;
        match self.access.call(&ReadEntry { mount, prefix, id }).await {
            Ok(reply) => Ok(reply.data.and_then(|KvEntry { data, metadata }| {
                let texts = data?.into_iter().filter_map(|(key, Field(text))| Some((key, text?))).collect();
                Some((texts, metadata.version))
            })),
            Err(failure) if is_nothing(&failure) => Ok(None),
            Err(failure) => Err(self.meaning(failure)),
        }
    }

    /// Writes the fields if the stored version is `cas`, 0 being none.
    pub(super) async fn write(
        &self,
        id: EntryId,
        fields: &BTreeMap<&'static str, Secret>,
        cas: u64,
    ) -> Result<Written, SourceError> {
        let (mount, prefix) = self.paths()?;
        let data = fields.iter().map(|(&key, value)| (key, value.expose())).collect();
        let endpoint = WriteEntry { mount, prefix, id, data, options: CheckAndSet { cas } };
        match self.access.call(&endpoint).await {
            Ok(reply) => match reply.data {
                Some(stored) => Ok(Written::Version(stored.version)),
                // Version 1 takes anything, and answers nothing.
                None => Err(SourceError::Misconfigured(format!(
                    "vaultSecretName: {mount} is no KV engine of version 2: run `bao kv enable-versioning {mount}`, or name another"
                ))),
            },
            Err(Failure::Refused(refusal)) if refusal.says("check-and-set parameter did not match") => {
                Ok(Written::Conflict)
            }
            Err(failure) => Err(self.meaning(failure)),
        }
    }

    /// Every key, in one request: pages would cost the server the whole list each.
    pub(super) async fn list(&self) -> Result<Vec<String>, SourceError> {
        let (mount, prefix) = self.paths()?;
        match self.access.call(&ListEntries { mount, prefix }).await {
            Ok(reply) => Ok(reply.data.map(|keys| keys.keys).unwrap_or_default()),
            Err(failure) if is_nothing(&failure) => Ok(Vec::new()),
            Err(failure) => Err(self.meaning(failure)),
        }
    }

    /// Every key with what is noted beside it, in one request. `None` when the folder is empty, or the server is none that can
    /// tell: HashiCorp Vault's answer is the same.
    pub(super) async fn details(&self) -> Result<Option<BTreeMap<String, Detail>>, SourceError> {
        let (mount, prefix) = self.paths()?;
        match self.access.call(&ListDetails { mount, prefix }).await {
            Ok(reply) => Ok(reply.data.map(|details| details.key_info)),
            Err(failure) if is_nothing(&failure) => Ok(None),
            Err(failure) => Err(self.meaning(failure)),
        }
    }

    /// Notes these texts beside a key, in place of what was noted before. Succeeds when there is no such key, and creates none.
    pub(super) async fn describe(
        &self,
        id: EntryId,
        notes: &BTreeMap<&'static str, Secret>,
    ) -> Result<(), SourceError> {
        let (mount, prefix) = self.paths()?;
        let custom_metadata = notes.iter().map(|(&key, value)| (key, value.expose())).collect();
        match self.access.call(&DescribeEntry { mount, prefix, id, custom_metadata }).await {
            Ok(_) => Ok(()),
            Err(failure) if is_nothing(&failure) => Ok(()),
            Err(failure) => Err(self.meaning(failure)),
        }
    }

    /// Removes a key with all its versions. Succeeds when there is none.
    pub(super) async fn delete(&self, id: EntryId) -> Result<(), SourceError> {
        let (mount, prefix) = self.paths()?;
        match self.access.call(&DeleteEntry { mount, prefix, id }).await {
            Ok(_) => Ok(()),
            Err(failure) if is_nothing(&failure) => Ok(()),
            Err(failure) => Err(self.meaning(failure)),
        }
    }

    fn paths(&self) -> Result<(&Path, &Path), SourceError> {
        Ok((self.mount.get()?, self.prefix.get()?))
    }

    fn meaning(&self, failure: Failure) -> SourceError {
        let mount = self.mount.get().map(Path::as_str).unwrap_or_default();
        failure.meaning(Operation::Ledger { mount })
    }
}

/// Vault's "nothing here": 404 without an error. An unknown mount is a 404 with one.
fn is_nothing(failure: &Failure) -> bool {
    matches!(failure, Failure::Refused(refusal) if refusal.status == 404 && refusal.errors.is_empty())
}
