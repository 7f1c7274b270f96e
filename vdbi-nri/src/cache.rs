//! The credentials of the node's pods: in memory, and on a tmpfs so that a plugin that restarts still has them.
//!
//! A file for each pod, named after its uid, readable by root alone, and replaced as a whole: whatever ends the process, a file is
//! complete or is not there. The directory belongs on a tmpfs, so that nothing is left of it after the node's power is gone.

use std::{
    collections::{BTreeSet, HashMap},
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use thiserror::Error;
use vdbi_core::{credential::Lease, ledger::EntryId, placeholder::Placeholder, secret::Secret};

mod record;

/// One credential of a pod.
#[derive(Clone, Debug)]
pub(crate) struct Credential {
    /// Its ledger entry.
    pub(crate) id: EntryId,
    /// The name that the pod's annotations give to the database.
    pub(crate) database: String,
    /// The database user.
    pub(crate) username: String,
    /// Its password.
    pub(crate) password: Secret,
    /// What renews and revokes it.
    pub(crate) lease: Lease,
    /// When it was issued, or last seen to be alive.
    pub(crate) seen_at: Timestamp,
    /// How long it lives from then on without a renewal.
    pub(crate) ttl: Duration,
    /// What stands for the user's name.
    pub(crate) user_placeholders: BTreeSet<Placeholder>,
    /// What stands for the password.
    pub(crate) password_placeholders: BTreeSet<Placeholder>,
}

/// The credentials of one pod.
#[derive(Clone, Debug, Default)]
pub(crate) struct Held {
    /// One for each database that the pod has had one for.
    pub(crate) credentials: Vec<Credential>,
    /// Where they come from, for the metrics.
    pub(crate) source: Source,
}

/// How credentials came into the cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) enum Source {
    /// Before a container needed them.
    Prewarm,
    /// When a container needed them.
    Sync,
    /// From the file of an earlier process.
    #[default]
    Unknown,
}

/// Why there is no cache.
#[derive(Debug, Error)]
#[error("cannot keep credentials in {} (nri.cachePath): {error}; mount a tmpfs there that root may write to", path.display())]
pub struct CacheError {
    path: PathBuf,
    error: io::Error,
}

/// The credentials of all pods of the node, by the pod's uid.
#[derive(Debug)]
pub struct Cache {
    directory: PathBuf,
    held: Mutex<HashMap<String, Arc<Held>>>,
}

impl Source {
    /// Its name in metrics.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Prewarm => "prewarm",
            Self::Sync => "sync",
            Self::Unknown => "unknown",
        }
    }
}

impl Held {
    /// What is behind each placeholder.
    pub(crate) fn secrets(&self) -> HashMap<Placeholder, Secret> {
        let mut secrets = HashMap::new();
        for credential in &self.credentials {
            let user = Secret::new(credential.username.clone());
            secrets
                .extend(credential.user_placeholders.iter().map(|&placeholder| (placeholder, user.clone())));
            let password = &credential.password;
            secrets.extend(
                credential.password_placeholders.iter().map(|&placeholder| (placeholder, password.clone())),
            );
        }
        secrets
    }

    /// Whether every placeholder of this environment is one of these, and none of the credentials may have ended by now.
    pub(crate) fn covers(&self, environment: &[String], now: Timestamp) -> bool {
        let known = |placeholder: &Placeholder| {
            self.credentials.iter().any(|credential| {
                credential.user_placeholders.contains(placeholder)
                    || credential.password_placeholders.contains(placeholder)
            })
        };
        self.source != Source::Unknown
            && !self.credentials.iter().any(|credential| credential.may_have_ended(now))
            && environment.iter().flat_map(|line| Placeholder::find_all(line)).all(|(_, found)| known(&found))
    }
}

impl Credential {
    /// Whether it may have ended by now, as far as this node knows: the renewer tells it nothing.
    pub(crate) fn may_have_ended(&self, now: Timestamp) -> bool {
        let ttl = SignedDuration::try_from(self.ttl).unwrap_or(SignedDuration::MAX);
        now.duration_since(self.seen_at) >= ttl
    }
}

impl Cache {
    /// Opens it, with what an earlier process has left. What cannot be read is removed, and counts as never having been there.
    ///
    /// # Errors
    ///
    /// When the directory cannot be made, or is not this user's alone.
    pub fn open(directory: impl Into<PathBuf>) -> Result<Self, CacheError> {
        let directory = directory.into();
        match prepare(&directory).and_then(|()| load(&directory)) {
            Ok(held) => Ok(Self { directory, held: Mutex::new(held) }),
            Err(error) => Err(CacheError { path: directory, error }),
        }
    }

    /// The pod's credentials.
    pub(crate) fn get(&self, uid: &str) -> Option<Arc<Held>> {
        self.held().get(uid).cloned()
    }

    /// Replaces the pod's credentials. They are there for this process even when the file cannot be written.
    ///
    /// # Errors
    ///
    /// The file system's.
    pub(crate) fn put(&self, uid: &str, held: Held) -> Result<Arc<Held>, CacheError> {
        let held = Arc::new(held);
        // One writer at a time: a file is never older than what is in memory.
        let mut all = self.held();
        all.insert(uid.to_owned(), held.clone());
        match self.write(uid, &held) {
            Ok(()) => Ok(held),
            Err(error) => Err(CacheError { path: self.directory.clone(), error }),
        }
    }

    /// Forgets the pod.
    pub(crate) fn remove(&self, uid: &str) {
        let mut all = self.held();
        if all.remove(uid).is_some()
            && let Err(error) = fs::remove_file(self.directory.join(file_name(uid)))
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(uid, %error, "could not remove the cached credentials of pod {uid}: {error}");
        }
    }

    /// The uids of the pods that have credentials here.
    pub(crate) fn uids(&self) -> Vec<String> {
        self.held().keys().cloned().collect()
    }

    /// How many pods have credentials here.
    pub(crate) fn len(&self) -> usize {
        self.held().len()
    }

    fn write(&self, uid: &str, held: &Held) -> io::Result<()> {
        let name = file_name(uid);
        let (path, new) = (self.directory.join(&name), self.directory.join(format!("{name}{UNFINISHED}")));
        let mut file = create(&new)?;
        let text = record::encode(uid, held)?;
        file.write_all(text.expose().as_bytes())?;
        fs::rename(&new, &path)
    }

    fn held(&self) -> MutexGuard<'_, HashMap<String, Arc<Held>>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const UNFINISHED: &str = ".new";
const EXTENSION: &str = ".json";

/// A uid is the API server's, and still nothing that may lead elsewhere.
fn file_name(uid: &str) -> String {
    let safe = |c: char| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' };
    uid.chars().map(safe).collect::<String>() + EXTENSION
}

/// What is left of a write that was interrupted gives way.
fn create(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o600);
    match options.open(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            fs::remove_file(path)?;
            options.open(path)
        }
        outcome => outcome,
    }
}

fn prepare(directory: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    let metadata = fs::symlink_metadata(directory)?;
    if !metadata.is_dir() {
        return Err(io::Error::new(io::ErrorKind::NotADirectory, "it is not a directory"));
    }
    if metadata.permissions().mode() & 0o077 != 0 {
        fs::set_permissions(directory, fs::Permissions::from_mode(0o700))?;
    }
    Ok(())
}

fn load(directory: &Path) -> io::Result<HashMap<String, Arc<Held>>> {
    let mut held = HashMap::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        match fs::read_to_string(&path)
            .map_err(|error| error.to_string())
            .and_then(|text| record::decode(&text))
        {
            Ok((uid, of_pod)) => drop(held.insert(uid, Arc::new(of_pod))),
            Err(error) => {
                // Not the content of the file: it may hold a password.
                tracing::warn!(file = %path.display(), "removing {}, which is no cached credential: {error}", path.display());
                fs::remove_file(&path)?;
            }
        }
    }
    Ok(held)
}

#[cfg(test)]
mod tests;
