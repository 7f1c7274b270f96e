//! A ledger in the files of a directory, for the processes of one machine or over a shared file system with hard links.

use std::{collections::BTreeMap, io::Error, io::ErrorKind, path::PathBuf};

use tokio::{fs, fs::OpenOptions, io::AsyncWriteExt};
use uuid::Uuid;
use vdbi_core::{
    ledger::{Entry, EntryId, Ledger, LedgerError, Stored},
    secret::Secret,
};

/// `<id>/<version>` is an entry, from version 1 on; the highest counts. That a name is taken only once makes it the
/// compare-and-swap.
#[derive(Clone, Debug)]
pub struct FileLedger {
    directory: PathBuf,
}

impl FileLedger {
    /// Entries below `directory`, which exists.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into() }
    }

    /// A name that nobody else uses, and that is no entry's.
    fn unique(&self) -> PathBuf {
        self.directory.join(format!(".{}", Uuid::new_v4()))
    }

    fn path(&self, id: EntryId) -> PathBuf {
        self.directory.join(id.to_string())
    }

    async fn version(&self, id: EntryId) -> Result<Option<u64>, LedgerError> {
        Ok(self.names(self.path(id)).await?.iter().filter_map(|name| name.parse().ok()).max())
    }

    /// The names in a directory; none where it does not exist.
    async fn names(&self, directory: PathBuf) -> Result<Vec<String>, LedgerError> {
        let mut names = Vec::new();
        let Some(mut read) = found(fs::read_dir(directory).await)? else { return Ok(names) };
        while let Some(entry) = read.next_entry().await.map_err(unavailable)? {
            names.extend(entry.file_name().into_string());
        }
        Ok(names)
    }
}

impl Ledger for FileLedger {
    async fn record(&self, id: EntryId, entry: &Entry) -> Result<(), LedgerError> {
        let prepared = self.unique();
        fs::create_dir(&prepared).await.map_err(unavailable)?;
        write(prepared.join("1"), entry).await.map_err(unavailable)?;
        // Fails where there is an entry, since its directory is not empty.
        let renamed = fs::rename(&prepared, self.path(id)).await;
        if renamed.is_err() {
            fs::remove_dir_all(prepared).await.map_err(unavailable)?;
        }
        decided(id, renamed)
    }

    async fn read(&self, id: EntryId) -> Result<Option<Stored>, LedgerError> {
        let Some(version) = self.version(id).await? else { return Ok(None) };
        let read = fs::read(self.path(id).join(version.to_string())).await;
        let Some(text) = found(read)? else { return Ok(None) };
        let texts: BTreeMap<String, String> = serde_json::from_slice(&text).unwrap_or_default();
        let fields = texts.into_iter().map(|(key, value)| (key, Secret::new(value))).collect();
        let entry = Entry::from_fields(fields).map_err(|reason| LedgerError::Corrupt { id, reason })?;
        Ok(Some(Stored { entry, version }))
    }

    async fn update(&self, id: EntryId, entry: &Entry, expected: u64) -> Result<(), LedgerError> {
        if self.version(id).await? != Some(expected) {
            return Err(LedgerError::Conflict(id));
        }
        let prepared = self.unique();
        write(prepared.clone(), entry).await.map_err(unavailable)?;
        let next = expected.saturating_add(1).to_string();
        let linked = fs::hard_link(&prepared, self.path(id).join(next)).await;
        fs::remove_file(prepared).await.map_err(unavailable)?;
        decided(id, linked)
    }

    async fn list(&self) -> Result<Vec<EntryId>, LedgerError> {
        Ok(self.names(self.directory.clone()).await?.iter().filter_map(|name| name.parse().ok()).collect())
    }

    async fn forget(&self, id: EntryId) -> Result<(), LedgerError> {
        let forgotten = self.unique();
        if found(fs::rename(self.path(id), &forgotten).await)?.is_some() {
            fs::remove_dir_all(forgotten).await.map_err(unavailable)?;
        }
        Ok(())
    }
}

async fn write(path: PathBuf, entry: &Entry) -> Result<(), Error> {
    let fields = entry.to_fields();
    let texts: BTreeMap<_, _> = fields.iter().map(|(key, value)| (key, value.expose())).collect();
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).await?;
    file.write_all(&serde_json::to_vec(&texts)?).await?;
    file.sync_all().await
}

/// Who came second.
fn decided(id: EntryId, outcome: Result<(), Error>) -> Result<(), LedgerError> {
    use ErrorKind::{AlreadyExists, DirectoryNotEmpty, NotFound};
    outcome.map_err(|error| match error.kind() {
        AlreadyExists | DirectoryNotEmpty | NotFound => LedgerError::Conflict(id),
        _ => unavailable(error),
    })
}

fn found<T>(outcome: Result<T, Error>) -> Result<Option<T>, LedgerError> {
    match outcome {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        outcome => outcome.map(Some).map_err(unavailable),
    }
}

fn unavailable(error: Error) -> LedgerError {
    LedgerError::Unavailable(error.to_string())
}
