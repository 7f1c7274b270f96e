//! Database users and their leases.

use std::time::Duration;

use super::{
    access::Access,
    client::{Reply, VaultClient},
    endpoint::{Credentials, ReadCredentials, RenewLease, RevokeLease},
    error::Operation,
    path::Path,
};
use crate::{
    credential::{Renewed, SourceError},
    secret::Secret,
};

/// How long the creation of a database user may take. Longer than the 90 seconds for which the PostgreSQL plugin hangs at a
/// frozen database would be of no use; giving up earlier may leave a user without a lease.
const CREDENTIALS_TIMEOUT: Duration = Duration::from_secs(90);

/// A database user that exists now.
pub(super) struct User {
    pub(super) name: String,
    pub(super) password: Secret,
    pub(super) lease_id: String,
    pub(super) ttl: Duration,
}

/// Creates a database user with the pod's token. Tried once: every attempt creates another one.
pub(super) async fn create_user(
    client: &VaultClient,
    token: &Secret,
    engine: &Path,
    role: &Path,
) -> Result<User, SourceError> {
    let operation = Operation::ReadCredentials { engine: engine.as_str(), role: role.as_str() };
    let outcome =
        client.call_within(&ReadCredentials { engine, role }, Some(token), CREDENTIALS_TIMEOUT).await;
    match outcome.map_err(|failure| failure.meaning(operation))? {
        Reply { data: Some(Credentials { username, password }), lease_id, lease_duration, .. }
            if !lease_id.is_empty() =>
        {
            Ok(User { name: username, password, lease_id, ttl: Duration::from_secs(lease_duration) })
        }
        _ => Err(SourceError::Invalid(format!(
            "{engine}/creds/{role} gives no user with a lease: is there a database engine at {engine}?"
        ))),
    }
}

/// Prolongs a lease by its role's default.
pub(super) async fn renew(access: &Access, lease_id: &str) -> Result<Renewed, SourceError> {
    let outcome = access.call(&RenewLease { lease_id }).await;
    let reply = outcome.map_err(|failure| failure.meaning(Operation::RenewLease))?;
    Ok(Renewed { ttl: Duration::from_secs(reply.lease_duration), capped: reply.is_capped() })
}

/// Ends a lease; afterwards its database user is gone. Succeeds when it is gone already.
pub(super) async fn revoke(access: &Access, lease_id: &str) -> Result<(), SourceError> {
    let outcome = access.call(&RevokeLease { lease_id, sync: true }).await;
    match outcome.map_err(|failure| failure.meaning(Operation::RevokeLease)) {
        Ok(_) | Err(SourceError::Gone(_)) => Ok(()),
        Err(error) => Err(error),
    }
}
