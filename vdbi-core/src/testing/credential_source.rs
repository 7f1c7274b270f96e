//! The contract of [`CredentialSource`].

use std::{collections::BTreeSet, future::Future, time::Duration};

use futures::future::join_all;
use tokio::time::{Instant, sleep};

use super::Clause;
use crate::{
    credential::{
        Advice, CredentialRequest, CredentialSource, Issued, Lease, Renewed, SourceError, TokenHandle,
    },
    suite,
};

/// By how much two lifetimes may differ that ought to be the same: servers count whole seconds.
const ROUNDING: Duration = Duration::from_secs(2);

/// How much of a life has to be over until it shows whether a renewal gives it back.
const AGE: Duration = Duration::from_secs(4);

/// How many characters kubectl shows of a warning.
const LINE: usize = 120;

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

    /// For how long the database lets this user log in yet, where a test can find out: what the source says of lives is compared with that
    /// only then.
    fn remaining(&self, _issued: &Issued) -> impl Future<Output = Option<Duration>> {
        std::future::ready(None)
    }

    /// How long it may take until what a failed `issue` left behind is gone, and how long a test waits for any other end that need
    /// not be immediate.
    fn patience(&self) -> Duration {
        Duration::from_secs(10)
    }
}

suite! {
    /// Runs every clause. What the suite issues it revokes again.
    pub async fn run(fixture: &impl Fixture) {
        authorize_allows_who_is_bound,
        authorize_denies_who_is_not_bound,
        an_unknown_role_is_not_worth_another_try,
        authorize_creates_nothing,
        a_failed_issue_leaves_nothing,
        an_issued_credential_opens_a_session,
        every_credential_is_its_own,
        a_warning_is_one_short_line,
        renew_never_shortens,
        renew_prolongs_unless_a_maximum_is_in_sight,
        a_life_is_no_shorter_than_it_is_told,
        a_revoked_credential_opens_no_session,
        revoke_is_idempotent,
        what_is_cut_off_opens_no_session,
        a_revoked_credential_is_gone,
        a_raw_token_is_as_good_as_its_accessor,
        dropped_calls_can_be_repeated,
        nothing_shows_a_secret,
    }
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
    let Some(first) = issued.pop() else { return };
    let mut worked = Vec::new();
    for other in &issued {
        worked.push(fixture.opens_session(other).await);
    }
    revoke(clause, fixture, &first).await;
    for (other, worked) in issued.iter().zip(worked) {
        let ended = worked && !fixture.opens_session(other).await;
        clause.holds(!ended, "revoking one credential ended another");
        revoke(clause, fixture, other).await;
    }
}

/// A warning fits into one line of kubectl: 120 characters.
pub async fn a_warning_is_one_short_line(fixture: &impl Fixture) {
    let clause = clause("a_warning_is_one_short_line");
    let issued = issue(clause, fixture).await;
    revoke(clause, fixture, &issued).await;
    for warning in &issued.warnings {
        let fits = warning.chars().count() <= LINE && !warning.contains('\n');
        clause.holds(fits, format_args!("it has more than {LINE} characters or a line break: {warning:?}"));
    }
}

/// `renew` leaves the credential with at least the life that it had, and working; so does `renew_token`.
pub async fn renew_never_shortens(fixture: &impl Fixture) {
    let clause = clause("renew_never_shortens");
    let begun = Instant::now();
    let issued = issue(clause, fixture).await;
    let worked = fixture.opens_session(&issued).await;
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
    let ended = worked && !fixture.opens_session(&issued).await;
    clause.holds(!ended, "a renewed credential opens no session");
    revoke(clause, fixture, &issued).await;
}

/// `renew` gives a credential the life back that has passed, and `renew_token` its token; or says that a maximum is in sight.
pub async fn renew_prolongs_unless_a_maximum_is_in_sight(fixture: &impl Fixture) {
    let clause = clause("renew_prolongs_unless_a_maximum_is_in_sight");
    let issued = issue(clause, fixture).await;
    sleep(AGE).await;
    let renewed = clause.ok("renew", fixture.source().renew(&issued.lease).await);
    let token = clause.ok("renew_token", fixture.source().renew_token(&issued.lease).await);
    let before = issued.ttl;
    for (what, Renewed { ttl, capped }) in [("it", Some(renewed)), ("its token", token)]
        .into_iter()
        .filter_map(|(what, renewed)| Some((what, renewed?)))
    {
        let prolonged = capped || ttl >= before.saturating_sub(ROUNDING);
        clause.holds(
            prolonged,
            format_args!(
                "issued for {before:?}, {AGE:?} later renewed, {what} lives for {ttl:?}, not capped"
            ),
        );
    }
    revoke(clause, fixture, &issued).await;
}

/// The database ends a credential no earlier than `issue` and `renew` say.
pub async fn a_life_is_no_shorter_than_it_is_told(fixture: &impl Fixture) {
    let clause = clause("a_life_is_no_shorter_than_it_is_told");
    let begun = Instant::now();
    let issued = issue(clause, fixture).await;
    lives_for(clause, fixture, &issued, begun, issued.ttl).await;
    sleep(AGE).await;
    let begun = Instant::now();
    let renewed = clause.ok("renew", fixture.source().renew(&issued.lease).await);
    lives_for(clause, fixture, &issued, begun, renewed.ttl).await;
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
}

/// After `cut_off` returned `Ok` the credential opens no new session, and after `clear` its token is gone too; both are idempotent.
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
    token_is_gone(clause, fixture, lease).await;
    clause.ok("revoke of what is cut off and cleared", source.revoke(lease).await);
}

/// `renew` of a revoked credential says that it is gone, and does not revive it; its token is gone too.
pub async fn a_revoked_credential_is_gone(fixture: &impl Fixture) {
    let clause = clause("a_revoked_credential_is_gone");
    let issued = issue(clause, fixture).await;
    revoke(clause, fixture, &issued).await;
    let ended = !fixture.opens_session(&issued).await;
    match fixture.source().renew(&issued.lease).await {
        Err(SourceError::Gone(_)) => {}
        Err(error) => clause.broken(format_args!("the error is {}, not gone: {error}", error.label())),
        Ok(_) => clause.broken("renew succeeded"),
    }
    token_is_gone(clause, fixture, &issued.lease).await;
    let revived = ended && fixture.opens_session(&issued).await;
    clause.holds(!revived, "renew revived it");
}

/// Where `issue` tells the token itself, that renews and revokes as its accessor does, and `accessor` finds that for it: entries of
/// the Go product hold tokens.
pub async fn a_raw_token_is_as_good_as_its_accessor(fixture: &impl Fixture) {
    let clause = clause("a_raw_token_is_as_good_as_its_accessor");
    let (source, issued) = (fixture.source(), issue(clause, fixture).await);
    let Some(token) = &issued.token else { return revoke(clause, fixture, &issued).await };
    let under = |token: TokenHandle| Lease { id: issued.lease.id.clone(), token };
    let raw = under(TokenHandle::Raw(token.clone()));
    clause.ok("renew through the token", source.renew(&raw).await);
    clause.ok("renew_token through the token", source.renew_token(&raw).await);
    if let Some(accessor) = clause.ok("accessor", source.accessor(token).await) {
        let handle = under(TokenHandle::Accessor(accessor));
        clause.ok("renew_token through the accessor that was found", source.renew_token(&handle).await);
        clause.ok("renew through the accessor that was found", source.renew(&handle).await);
    }
    clause.ok("revoke through the token", source.revoke(&raw).await);
    ended(clause, fixture, &issued).await;
    match source.accessor(token).await {
        Ok(None) | Err(SourceError::Gone(_)) => {}
        Err(error) => clause.broken(format_args!("accessor's error is {}, not gone: {error}", error.label())),
        Ok(Some(_)) => clause.broken("a token that was revoked still has an accessor"),
    }
}

/// `authorize`, `renew`, `renew_token`, `revoke` and its parts can be dropped half-way and called again.
pub async fn dropped_calls_can_be_repeated(fixture: &impl Fixture) {
    let clause = clause("dropped_calls_can_be_repeated");
    let (source, request) = (fixture.source(), fixture.allowed());
    drop_half_way(source.authorize(&request)).await;
    clause.ok("authorize after a dropped one", source.authorize(&request).await);
    let (first, second) = (issue(clause, fixture).await, issue(clause, fixture).await);
    let lease = &first.lease;
    drop_half_way(source.renew(lease)).await;
    clause.ok("renew after a dropped one", source.renew(lease).await);
    drop_half_way(source.renew_token(lease)).await;
    clause.ok("renew_token after a dropped one", source.renew_token(lease).await);
    drop_half_way(source.revoke(lease)).await;
    clause.ok("revoke after a dropped one", source.revoke(lease).await);
    ended(clause, fixture, &first).await;
    let lease = &second.lease;
    drop_half_way(source.cut_off(lease)).await;
    clause.ok("cut_off after a dropped one", source.cut_off(lease).await);
    drop_half_way(source.clear(lease)).await;
    clause.ok("clear after a dropped one", source.clear(lease).await);
    ended(clause, fixture, &second).await;
}

/// Neither `Debug` of a credential nor a warning nor an error contains its password or token.
pub async fn nothing_shows_a_secret(fixture: &impl Fixture) {
    let clause = clause("nothing_shows_a_secret");
    let (source, issued) = (fixture.source(), issue(clause, fixture).await);
    revoke(clause, fixture, &issued).await;
    let raw =
        issued.token.clone().map(|token| Lease { token: TokenHandle::Raw(token), ..issued.lease.clone() });
    let mut errors = Vec::new();
    for lease in std::iter::once(&issued.lease).chain(&raw) {
        errors.extend(source.renew(lease).await.err());
        errors.extend(source.renew_token(lease).await.err());
        errors.extend(source.revoke(lease).await.err());
    }
    if let Some(token) = &issued.token {
        errors.extend(source.accessor(token).await.err());
    }
    let mut texts: Vec<String> = errors.iter().map(|error| format!("{error} {error:?}")).collect();
    texts.push(format!("{issued:?}"));
    let secrets = [Some(&issued.password), issued.token.as_ref()];
    for secret in secrets.into_iter().flatten() {
        let shown = texts.iter().any(|text| text.contains(secret.expose()));
        clause.holds(!shown, "a text contains the password or the token");
    }
}

fn clause(name: &'static str) -> Clause {
    Clause::new("CredentialSource", name)
}

async fn issue(clause: Clause, fixture: &impl Fixture) -> Issued {
    clause.ok("issue", fixture.source().issue(&fixture.allowed()).await)
}

async fn revoke(clause: Clause, fixture: &impl Fixture, issued: &Issued) {
    clause.ok("revoke", fixture.source().revoke(&issued.lease).await);
}

/// The source was asked at `begun`, and told this life.
async fn lives_for(clause: Clause, fixture: &impl Fixture, issued: &Issued, begun: Instant, told: Duration) {
    if let Some(remaining) = fixture.remaining(issued).await {
        let lives = begun.elapsed() + remaining;
        clause.holds(
            lives + ROUNDING >= told,
            format_args!("it lives for {told:?}, says the source, and for {lives:?}, says the database"),
        );
    }
}

/// It opens no session any more, a moment later at the most: that it does not at once is for other clauses to say.
async fn ended(clause: Clause, fixture: &impl Fixture, issued: &Issued) {
    let ended = async || !fixture.opens_session(issued).await;
    clause.eventually(fixture.patience(), "it still opens a session", ended).await;
}

async fn token_is_gone(clause: Clause, fixture: &impl Fixture, lease: &Lease) {
    match fixture.source().renew_token(lease).await {
        Ok(None) | Err(SourceError::Gone(_)) => {}
        Err(error) => {
            clause.broken(format_args!("the token's error is {}, not gone: {error}", error.label()))
        }
        Ok(Some(_)) => clause.broken("its token lives on"),
    }
}

/// Polls a call once, which sends its request where there is one, and drops it.
async fn drop_half_way<T>(call: impl Future<Output = T>) {
    futures::pin_mut!(call);
    drop(futures::poll!(call));
}
