//! Accounts in the files of a directory, which whatever checks logins reads: a proxy, a mail server, a script of PAM.

use std::{io, io::ErrorKind::NotFound, path::PathBuf, time::Duration, time::SystemTime};

use tokio::{fs::OpenOptions, io::AsyncWriteExt};
use uuid::Uuid;
use vdbi_core::{
    credential::{CredentialRequest, CredentialSource, Issued, Lease, Renewed, SourceError, TokenHandle},
    secret::Secret,
};

/// `roles/<role>` lists who may have the role, one `<namespace>/<service account>` in a line. `accounts/<user>` holds the
/// password of an account, which ends at the time of the file's last modification.
#[derive(Clone, Debug)]
pub struct FileSource {
    directory: PathBuf,
    ttl: Duration,
}

impl FileSource {
    /// Accounts that live for `ttl` from their issue, and from each renewal.
    pub fn new(directory: impl Into<PathBuf>, ttl: Duration) -> Self {
        Self { directory: directory.into(), ttl }
    }

    /// Roles come from annotations, lease ids from the ledger: neither may lead to another place.
    fn path(&self, kind: &str, name: &str) -> Result<PathBuf, SourceError> {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        if name.is_empty() || !name.chars().all(is_plain) {
            return Err(SourceError::Invalid(format!("{name:?} is no name: use letters, digits, - and _")));
        }
        Ok(self.directory.join(kind).join(name))
    }
}

impl CredentialSource for FileSource {
    async fn authorize(&self, request: &CredentialRequest) -> Result<(), SourceError> {
        let CredentialRequest { role, pod, .. } = request;
        let bound = tokio::fs::read_to_string(self.path("roles", role)?).await.map_err(|error| {
            let why = format!("role {role} cannot be read from the file roles/{role}: {error}");
            if error.kind() == NotFound { SourceError::Invalid(why) } else { SourceError::Unavailable(why) }
        })?;
        let account = format!("{}/{}", pod.namespace, pod.service_account);
        if !bound.lines().any(|line| line.trim() == account) {
            return Err(SourceError::Denied(format!("add the line {account} to the file roles/{role}")));
        }
        Ok(())
    }

    async fn issue(&self, request: &CredentialRequest) -> Result<Issued, SourceError> {
        self.authorize(request).await?;
        let username = format!("{}-{}", request.role, Uuid::new_v4().simple());
        let password = Secret::new(Uuid::new_v4().simple().to_string());
        let created = create(self.path("accounts", &username)?, &password, self.ttl).await;
        created.map_err(|error| SourceError::Unavailable(format!("no account can be created: {error}")))?;
        let lease = Lease { id: username.clone(), token: TokenHandle::None };
        Ok(Issued::new(username, password, lease, self.ttl))
    }

    async fn renew(&self, lease: &Lease) -> Result<Renewed, SourceError> {
        let prolonged = prolong(self.path("accounts", &lease.id)?, self.ttl).await;
        prolonged.map_err(|error| lost(&lease.id, error))?;
        Ok(Renewed { ttl: self.ttl, capped: false })
    }

    async fn revoke(&self, lease: &Lease) -> Result<(), SourceError> {
        let removed = tokio::fs::remove_file(self.path("accounts", &lease.id)?).await;
        match removed.map_err(|error| lost(&lease.id, error)) {
            Ok(()) | Err(SourceError::Gone(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// Until its end is set the account has ended: what a failure leaves behind is of no use.
async fn create(path: PathBuf, password: &Secret, ttl: Duration) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).await?;
    file.write_all(password.expose().as_bytes()).await?;
    file.sync_all().await?;
    file.into_std().await.set_modified(SystemTime::now() + ttl)
}

/// What is revoked is not created again, nor what has ended revived.
async fn prolong(path: PathBuf, ttl: Duration) -> io::Result<()> {
    let file = OpenOptions::new().write(true).open(path).await?.into_std().await;
    let now = SystemTime::now();
    if file.metadata()?.modified()? <= now { Err(NotFound.into()) } else { file.set_modified(now + ttl) }
}

fn lost(account: &str, error: io::Error) -> SourceError {
    let why = format!("account {account}: {error}");
    if error.kind() == NotFound { SourceError::Gone(why) } else { SourceError::Unavailable(why) }
}
