//! The contract of [`CredentialSource`].

use std::{collections::BTreeSet, future::Future, time::Duration};

use futures::future::join_all;
use tokio::time::Instant;

use super::Clause;
use crate::credential::{Advice, CredentialRequest, CredentialSource, Issued, SourceError};

/// By how much two lifetimes may differ that ought to be the same: servers count whole seconds.
const ROUNDING: Duration = Duration::from_secs(2);

/// A source, with what a test has to know about its set-up.
pub trait Fixture {
    /// The source.
    type Source: CredentialSource;

    /// The source. Its credentials have to live for longer than the suite takes.
    fn source(&self) -> &Self::Source;

    /// A request of a pod that may have the credential.
    fn allowed(&self) -> CredentialRequest;

    /// A request for the same role by a pod that may not have it.
    fn refused(&self) -> CredentialRequest;

    /// A request for a role that does not exist.
    fn unknown_role(&self) -> CredentialRequest;

    /// Whether the database opens a session for this user now.
    fn opens_session(&self, issued: &Issued) -> impl Future<Output = bool>;

    /// The names of the database users that exist now, where a test can find out: that nothing is left behind is checked
    /// only then. The suite has to be alone with the database.
    fn users(&self) -> impl Future<Output = Option<BTreeSet<String>>> {
        std::future::ready(None)
    }

    /// How long it may take until what a failed `issue` left behind is gone.
    fn patience(&self) -> Duration {
        Duration::from_secs(10)
    }
}

/// Runs every clause. What the suite issues it revokes again.
///
/// # Panics
///
/// When a clause is broken.
pub async fn run(fixture: &impl Fixture) {
    authorize_allows_who_is_bound(fixture).await;
    authorize_denies_who_is_not_bound(fixture).await;
    an_unknown_role_is_not_worth_another_try(fixture).await;
    authorize_creates_nothing(fixture).await;
    a_failed_issue_leaves_nothing(fixture).await;
    an_issued_credential_opens_a_session(fixture).await;
    every_credential_is_its_own(fixture).await;
    renew_never_shortens(fixture).await;
    a_revoked_credential_opens_no_session(fixture).await;
    revoke_is_idempotent(fixture).await;
    what_is_cut_off_opens_no_session(fixture).await;
    a_revoked_credential_is_gone(fixture).await;
    dropped_calls_can_be_repeated(fixture).await;
    nothing_shows_a_secret(fixture).await;
}

/// `authorize` of a bound pod succeeds, again and again.
pub async fn authorize_allows_who_is_bound(fixture: &impl Fixture) {
    let clause = clause("authorize_allows_who_is_bound");
    for _ in 0..2 {
        clause.ok("authorize", fixture.source().authorize(&fixture.allowed()).await);
    }
}

/// `authorize` of a pod that is not bound is denied, and says why.
pub async fn authorize_denies_who_is_not_bound(fixture: &impl Fixture) {
    let clause = clause("authorize_denies_who_is_not_bound");
    match fixture.source().authorize(&fixture.refused()).await {
        Err(SourceError::Denied(why)) => clause.holds(!why.is_empty(), "the denial does not say why"),
        Err(error) => clause.broken(format_args!("the refusal is {}, not denied: {error}", error.label())),
        Ok(()) => clause.broken("authorize succeeded"),
    }
}

/// A role that does not exist is refused for good.
pub async fn an_unknown_role_is_not_worth_another_try(fixture: &impl Fixture) {
    let clause = clause("an_unknown_role_is_not_worth_another_try");
    match fixture.source().authorize(&fixture.unknown_role()).await {
        Err(error) => match error.advice() {
            Advice::Deny | Advice::GiveUp => {}
            Advice::Retry => clause.broken(format_args!("the error asks for another try: {error}")),
        },
        Ok(()) => clause.broken("authorize succeeded"),
    }
}

/// `authorize` creates nothing, whatever it answers.
pub async fn authorize_creates_nothing(fixture: &impl Fixture) {
    let clause = clause("authorize_creates_nothing");
    let before = fixture.users().await;
    for request in [fixture.allowed(), fixture.refused(), fixture.unknown_role()] {
        // Other clauses look at the answer.
        drop(fixture.source().authorize(&request).await);
    }
    clause.holds(fixture.users().await == before, "there are other database users than before");
}

/// When `issue` fails, nothing usable remains.
pub async fn a_failed_issue_leaves_nothing(fixture: &impl Fixture) {
    let clause = clause("a_failed_issue_leaves_nothing");
    let before = fixture.users().await;
    let failed = fixture.source().issue(&fixture.unknown_role()).await;
    clause.holds(failed.is_err(), "issue for an unknown role succeeded");
    let unchanged = async || fixture.users().await == before;
    clause.eventually(fixture.patience(), "a failed issue left a database user behind", unchanged).await;
}

/// What `issue` returns works at once, and says how long it lives.
pub async fn an_issued_credential_opens_a_session(fixture: &impl Fixture) {
    let clause = clause("an_issued_credential_opens_a_session");
    let issued = issue(clause, fixture).await;
    clause.holds(fixture.opens_session(&issued).await, "it opens no session");
    clause.holds(!issued.ttl.is_zero(), "its time to live is zero");
    clause.holds(!issued.lease.id.is_empty(), "its lease has no id");
    revoke(clause, fixture, &issued).await;
}

/// Each `issue` makes a credential of its own, also at the same time and for the same request; revoking one leaves the others.
pub async fn every_credential_is_its_own(fixture: &impl Fixture) {
    let clause = clause("every_credential_is_its_own");
    let mut issued = join_all((0..3).map(|_| issue(clause, fixture))).await;
    let users: BTreeSet<_> = issued.iter().map(|issued| &issued.username).collect();
    let leases: BTreeSet<_> = issued.iter().map(|issued| &issued.lease.id).collect();
    clause.holds(users.len() == 3 && leases.len() == 3, "two credentials share a user or a lease");
    if let Some(first) = issued.pop() {
        revoke(clause, fixture, &first).await;
    }
    for other in &issued {
        clause.holds(fixture.opens_session(other).await, "revoking one credential ended another");
        revoke(clause, fixture, other).await;
    }
}

/// `renew` leaves the credential with at least the life that it had, and working; so does `renew_token`.
pub async fn renew_never_shortens(fixture: &impl Fixture) {
    let clause = clause("renew_never_shortens");
    let begun = Instant::now();
    let issued = issue(clause, fixture).await;
    for _ in 0..2 {
        let renewed = clause.ok("renew", fixture.source().renew(&issued.lease).await);
        let at_least = issued.ttl.saturating_sub(begun.elapsed() + ROUNDING);
        let (ttl, before) = (renewed.ttl, issued.ttl);
        clause.holds(ttl >= at_least, format_args!("it lived for {before:?}, and for {ttl:?} once renewed"));
        if let Some(token) = clause.ok("renew_token", fixture.source().renew_token(&issued.lease).await) {
            let ttl = token.ttl;
            clause.holds(
                ttl >= at_least,
                format_args!("its token lives for {ttl:?} once renewed, less than it"),
            );
        }
    }
    clause.holds(fixture.opens_session(&issued).await, "a renewed credential opens no session");
    revoke(clause, fixture, &issued).await;
}

/// After `revoke` returned `Ok` the credential opens no new session: at once, not a moment later.
pub async fn a_revoked_credential_opens_no_session(fixture: &impl Fixture) {
    let clause = clause("a_revoked_credential_opens_no_session");
    let issued = issue(clause, fixture).await;
    revoke(clause, fixture, &issued).await;
    clause.holds(!fixture.opens_session(&issued).await, "it still opens a session");
}

/// `revoke` of what is gone succeeds, and so do several at the same time.
pub async fn revoke_is_idempotent(fixture: &impl Fixture) {
    let clause = clause("revoke_is_idempotent");
    let issued = issue(clause, fixture).await;
    for outcome in join_all((0..3).map(|_| fixture.source().revoke(&issued.lease))).await {
        clause.ok("revoke at the same time as others", outcome);
    }
    clause.ok("revoke of what is gone", fixture.source().revoke(&issued.lease).await);
    clause.holds(!fixture.opens_session(&issued).await, "it still opens a session");
}

/// After `cut_off` returned `Ok` the credential opens no new session, and after `clear` it is as if revoked; both are idempotent.
pub async fn what_is_cut_off_opens_no_session(fixture: &impl Fixture) {
    let clause = clause("what_is_cut_off_opens_no_session");
    let issued = issue(clause, fixture).await;
    let (source, lease) = (fixture.source(), &issued.lease);
    clause.ok("cut_off", source.cut_off(lease).await);
    clause.holds(!fixture.opens_session(&issued).await, "it still opens a session");
    clause.ok("cut_off of what is cut off", source.cut_off(lease).await);
    for _ in 0..2 {
        clause.ok("clear", source.clear(lease).await);
    }
    match source.renew_token(lease).await {
        Ok(None) | Err(SourceError::Gone(_)) => {}
        Err(error) => {
            clause.broken(format_args!("the token's error is {}, not gone: {error}", error.label()))
        }
        Ok(Some(_)) => clause.broken("its token lives on after clear"),
    }
    clause.ok("revoke of what is cut off and cleared", source.revoke(lease).await);
}

/// `renew` of a revoked credential says that it is gone, and does not revive it; its token is gone too.
pub async fn a_revoked_credential_is_gone(fixture: &impl Fixture) {
    let clause = clause("a_revoked_credential_is_gone");
    let issued = issue(clause, fixture).await;
    revoke(clause, fixture, &issued).await;
    match fixture.source().renew(&issued.lease).await {
        Err(SourceError::Gone(_)) => {}
        Err(error) => clause.broken(format_args!("the error is {}, not gone: {error}", error.label())),
        Ok(_) => clause.broken("renew succeeded"),
    }
    match fixture.source().renew_token(&issued.lease).await {
        Ok(None) | Err(SourceError::Gone(_)) => {}
        Err(error) => {
            clause.broken(format_args!("the token's error is {}, not gone: {error}", error.label()))
        }
        Ok(Some(_)) => clause.broken("renew_token succeeded"),
    }
    clause.holds(!fixture.opens_session(&issued).await, "renew revived it");
}

/// `authorize`, `renew` and `revoke` can be dropped half-way and called again.
pub async fn dropped_calls_can_be_repeated(fixture: &impl Fixture) {
    let clause = clause("dropped_calls_can_be_repeated");
    let (source, request) = (fixture.source(), fixture.allowed());
    drop_half_way(source.authorize(&request)).await;
    clause.ok("authorize after a dropped one", source.authorize(&request).await);
    let issued = issue(clause, fixture).await;
    drop_half_way(source.renew(&issued.lease)).await;
    clause.ok("renew after a dropped one", source.renew(&issued.lease).await);
    drop_half_way(source.revoke(&issued.lease)).await;
    clause.ok("revoke after a dropped one", source.revoke(&issued.lease).await);
    clause.holds(!fixture.opens_session(&issued).await, "it still opens a session");
}

/// Neither `Debug` of a credential nor an error contains its password or token.
pub async fn nothing_shows_a_secret(fixture: &impl Fixture) {
    let clause = clause("nothing_shows_a_secret");
    let issued = issue(clause, fixture).await;
    revoke(clause, fixture, &issued).await;
    let mut texts = vec![format!("{issued:?}")];
    if let Err(error) = fixture.source().renew(&issued.lease).await {
        texts.push(format!("{error} {error:?}"));
    }
    let secrets = [Some(&issued.password), issued.token.as_ref()];
    for secret in secrets.into_iter().flatten() {
        let shown = texts.iter().any(|text| text.contains(secret.expose()));
        clause.holds(!shown, "a text contains the password or the token");
    }
}

fn clause(name: &'static str) -> Clause {
    Clause { contract: "CredentialSource", name }
}

async fn issue(clause: Clause, fixture: &impl Fixture) -> Issued {
    clause.ok("issue", fixture.source().issue(&fixture.allowed()).await)
}

async fn revoke(clause: Clause, fixture: &impl Fixture, issued: &Issued) {
    clause.ok("revoke", fixture.source().revoke(&issued.lease).await);
}

/// Polls a call once, which sends its request where there is one, and drops it.
async fn drop_half_way<T>(call: impl Future<Output = T>) {
    futures::pin_mut!(call);
    drop(futures::poll!(call));
}

#[cfg(test)]
mod tests;
