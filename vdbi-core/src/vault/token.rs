//! The tokens of pods.

use std::{collections::BTreeMap, time::Duration};

use serde::de::IgnoredAny;

use super::{
    access::Access,
    client::{Auth, Reply, VaultClient},
    endpoint::{
        CreateToken, KubernetesLogin, LookupSelf, Measured, RenewAccessor, RenewSelf, RenewToken,
        RevokeAccessor, RevokeSelf, RevokeToken,
    },
    error::{Failure, Operation},
    metrics::AuthMode,
    path::Path,
};
use crate::{
    credential::{Renewed, SourceError, TokenHandle},
    pod::PodRef,
    secret::Secret,
};

/// The name under which Vault's audit log shows the tokens.
const DISPLAY_NAME: &str = "vdbi-pod";

/// A token that carries one policy, created by this component.
pub(super) async fn create(
    access: &Access,
    token_role: Option<&Path>,
    policy: &Path,
    pod: &PodRef,
    period: Duration,
) -> Result<Auth, SourceError> {
    let mut meta = BTreeMap::from([
        ("namespace", pod.namespace.as_str()),
        ("service_account", pod.service_account.as_str()),
    ]);
    if let Some(name) = &pod.name {
        meta.insert("pod", name);
    }
    let (target, period) = match token_role {
        Some(token_role) => (format!("create/{token_role}"), None),
        None => ("create-orphan".to_owned(), Some(format!("{}s", period.as_secs()))),
    };
    let endpoint =
        CreateToken { target, policies: [policy.as_str()], period, display_name: DISPLAY_NAME, meta };
    let operation =
        Operation::CreateToken { token_role: token_role.map(Path::as_str), policy: policy.as_str() };
    let outcome = token_of(access.call(&endpoint).await, operation);
    let metrics = access.client.metrics();
    match outcome {
        Ok(_) => metrics.token_created.increment(1),
        Err(_) => metrics.token_error.increment(1),
    }
    outcome
}

/// A token by a login as the pod.
pub(super) async fn log_in_as(
    client: &VaultClient,
    mount: &Path,
    role: &Path,
    jwt: &Secret,
) -> Result<Auth, SourceError> {
    let endpoint = KubernetesLogin { mount, role: role.as_str(), jwt: jwt.expose() };
    let operation = Operation::PodLogin { auth_path: mount.as_str(), role: role.as_str() };
    let outcome = client.call(&endpoint, None).await;
    if let Err(failure) = &outcome {
        client.metrics().login_failed(failure, AuthMode::Projected);
    }
    token_of(outcome, operation)
}

/// Whether a token can be renewed for ever. `None` where its policy does not let it look at itself (the policy `default` does).
pub(super) async fn is_periodic(client: &VaultClient, token: &Secret) -> Option<bool> {
    let facts = client.call(&LookupSelf {}, Some(token)).await.ok()?.data?;
    Some(facts.period > 0)
}

/// The accessor of a token, which the token itself tells; `None` where it has none or its policy does not let it look at itself (the
/// policy `default`, which the Go product's tokens have, does).
pub(super) async fn accessor(client: &VaultClient, token: &Secret) -> Result<Option<String>, SourceError> {
    let facts = match client.call(&LookupSelf {}, Some(token)).await {
        Ok(reply) => reply.data,
        Err(Failure::Refused(refusal)) if refusal.is_denied_by_policy() => None,
        Err(Failure::Refused(refusal)) if refusal.token_is_gone() => {
            return Err(SourceError::Gone("the token no longer exists".into()));
        }
        Err(failure) => return Err(failure.meaning(Operation::RenewToken)),
    };
    Ok(facts.map(|facts| facts.accessor).filter(|accessor| !accessor.is_empty()))
}

/// Prolongs a token by its own period or default. `None` when it lives for ever.
pub(super) async fn renew(access: &Access, handle: &TokenHandle) -> Result<Option<Renewed>, SourceError> {
    let outcome = match handle {
        TokenHandle::Accessor(accessor) => access.call(&RenewAccessor { accessor }).await,
        TokenHandle::Raw(token) => {
            itself_or(access, token, &RenewSelf {}, &RenewToken { token: token.expose() }).await
        }
        TokenHandle::None => return Ok(None),
    };
    let capped = outcome.as_ref().is_ok_and(Reply::is_capped);
    let token = token_of(outcome, Operation::RenewToken)?;
    let renewed = Renewed { ttl: Duration::from_secs(token.lease_duration), capped };
    Ok((!renewed.ttl.is_zero()).then_some(renewed))
}

/// Ends a token, and with it everything that was issued under it. Succeeds when it is gone already: an accessor that is
/// unknown is answered with a warning, not with an error.
pub(super) async fn revoke(access: &Access, handle: &TokenHandle) -> Result<(), SourceError> {
    let outcome = match handle {
        TokenHandle::Accessor(accessor) => access.call(&RevokeAccessor { accessor }).await,
        TokenHandle::Raw(token) => {
            itself_or(access, token, &RevokeSelf {}, &RevokeToken { token: token.expose() }).await
        }
        TokenHandle::None => return Ok(()),
    };
    match outcome.map_err(|failure| failure.meaning(Operation::RevokeToken)) {
        Ok(_) | Err(SourceError::Gone(_)) => Ok(()),
        Err(error) => Err(error),
    }
}

/// With the token itself where its own policy allows that (the policy `default` does), so that this component needs no right
/// over tokens at large; otherwise with ours.
async fn itself_or<S, O>(
    access: &Access,
    token: &Secret,
    itself: &S,
    ours: &O,
) -> Result<Reply<IgnoredAny>, Failure>
where
    S: Measured<Response = IgnoredAny>,
    O: Measured<Response = IgnoredAny>,
{
    match access.client.call(itself, Some(token)).await {
        Err(Failure::Refused(refusal)) if refusal.is_denied_by_policy() => access.call(ours).await,
        outcome => outcome,
    }
}

fn token_of(
    outcome: Result<Reply<IgnoredAny>, Failure>,
    operation: Operation<'_>,
) -> Result<Auth, SourceError> {
    let reply = outcome.map_err(|failure| failure.meaning(operation))?;
    reply
        .auth
        .ok_or_else(|| SourceError::Unavailable("Vault answered a token request without a token".into()))
}
