//! Auth roles, as they were a moment ago.

use std::{sync::Arc, time::Duration};

use moka::future::Cache;
use tokio::time::Instant;

use super::{
    access::Access,
    authorize::{permits, read_role},
    endpoint::AuthRole,
    error::again,
    path::Path,
};
use crate::credential::{CredentialRequest, SourceError};

/// Pods choose the names of their roles, so that there may be any number of them.
pub(super) const MOST_ROLES: u64 = 10_000;

/// What is younger than this is not read again for a denial.
const FRESH: Duration = Duration::from_secs(1);

/// The auth roles that pods named lately. Whoever asks for one that is being read waits for the same answer; an error is not
/// kept.
pub(super) struct Roles {
    cache: Cache<String, Known>,
}

#[derive(Clone)]
struct Known {
    at: Instant,
    role: Arc<AuthRole>,
}

impl Roles {
    /// `lifetime` is how long a role is taken for unchanged; zero reads it each time.
    pub(super) fn new(lifetime: Duration) -> Self {
        Self { cache: Cache::builder().max_capacity(MOST_ROLES).time_to_live(lifetime).build() }
    }

    /// Whether the role permits what the pod asks for. A role that does not is read again first, so that whoever has just
    /// added a binding need not wait.
    pub(super) async fn authorize(
        &self,
        access: &Access,
        mount: &Path,
        name: &Path,
        request: &CredentialRequest,
    ) -> Result<(), SourceError> {
        let known = self.get(access, mount, name).await?;
        let outcome = match permits(&known.role, mount, request) {
            Err(_) if known.at.elapsed() >= FRESH => {
                self.forget(name, &known).await;
                permits(&self.get(access, mount, name).await?.role, mount, request)
            }
            outcome => outcome,
        };
        let metrics = access.client.metrics();
        match outcome {
            Ok(()) => {
                metrics.authorized.increment(1);
                Ok(())
            }
            Err(denial) => {
                metrics.denied(&request.pod.namespace, denial.cause);
                Err(SourceError::Denied(denial.text))
            }
        }
    }

    async fn get(&self, access: &Access, mount: &Path, name: &Path) -> Result<Known, SourceError> {
        let read = async {
            let at = Instant::now();
            Ok(Known { at, role: Arc::new(read_role(access, mount, name).await?) })
        };
        self.cache
            .try_get_with_by_ref(name.as_str(), read)
            .await
            .map_err(|error: Arc<SourceError>| again(&error))
    }

    /// Unless somebody has read it anew meanwhile.
    async fn forget(&self, name: &Path, outdated: &Known) {
        if self.cache.get(name.as_str()).await.is_some_and(|known| known.at == outdated.at) {
            self.cache.invalidate(name.as_str()).await;
        }
    }
}
