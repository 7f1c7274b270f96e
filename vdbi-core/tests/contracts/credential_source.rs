//! Sources of credentials.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard},
    time::Duration,
};

use tokio::task::JoinSet;
use vdbi_core::{
    credential::{CredentialRequest, CredentialSource, Issued, Lease, Renewed, SourceError, TokenHandle},
    memory::{MemorySource, SourceOperation},
    pod::PodRef,
    secret::Secret,
    testing::{
        Broken,
        credential_source::{self as suite, Fixture},
    },
};

use crate::wrong;

// ANCHOR: fixture
/// A source over a database in memory, as another one would be over a database of its own.
struct OverDatabase<S> {
    source: S,
    database: MemorySource,
}

impl<S: CredentialSource> OverDatabase<S> {
    fn new(make: impl FnOnce(MemorySource) -> S) -> Self {
        let database = MemorySource::new();
        // The role `app` exists, and this one service account may have it.
        database.allow("app", "shop", "app1");
        Self { source: make(database.clone()), database }
    }
}

fn request(namespace: &str, role: &str) -> CredentialRequest {
    CredentialRequest {
        pod: PodRef { namespace: namespace.into(), service_account: "app1".into(), ..PodRef::default() },
        database: "main".into(),
        engine: "databases".into(),
        role: role.into(),
    }
}

impl<S: CredentialSource> Fixture for OverDatabase<S> {
    type Source = S;

    fn source(&self) -> &S {
        &self.source
    }

    fn allowed(&self) -> CredentialRequest {
        request("shop", "app")
    }

    fn refused(&self) -> CredentialRequest {
        request("other", "app")
    }

    fn unknown_role(&self) -> CredentialRequest {
        request("shop", "unknown")
    }

    // Over a server: log in to the database with the credential.
    async fn opens_session(&self, issued: &Issued) -> bool {
        self.database.can_login(&issued.username, &issued.password)
    }

    // Over a server: the names of the database's users.
    async fn users(&self) -> Option<BTreeSet<String>> {
        Some(self.database.leases().into_iter().collect())
    }

    // Over a server: until when the database lets the user log in.
    async fn remaining(&self, issued: &Issued) -> Option<Duration> {
        self.database.remaining(&issued.lease.id)
    }
}

#[tokio::test(start_paused = true)]
async fn my_source_keeps_the_contract() {
    let fixture = OverDatabase::new(|database| database);
    suite::run(&fixture).await;
    assert!(fixture.database.leases().is_empty(), "the suite revokes what it issued");
}
// ANCHOR_END: fixture

#[tokio::test(start_paused = true)]
async fn a_source_that_tells_tokens_keeps_the_contract() {
    let fixture = OverDatabase::new(|database| database);
    fixture.database.set_raw_tokens(true);
    suite::run(&fixture).await;
    assert!(fixture.database.leases().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_slow_source_keeps_the_contract() {
    let fixture = OverDatabase::new(|database| database);
    fixture.database.set_latency(Duration::from_secs(2));
    suite::run(&fixture).await;
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_no_denial() {
    let fixture = OverDatabase::new(|database| database);
    fixture.database.fail_next(SourceOperation::Authorize, SourceError::Unavailable("sealed".into()));
    let clause = "authorize_denies_who_is_not_bound";
    let broken = Broken::by(clause, suite::authorize_denies_who_is_not_bound(&fixture)).await.unwrap();
    assert!(broken.message.contains("the refusal is unavailable, not denied"), "{broken}");
}

/// What a wrong source does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flaw {
    AuthorizesAtTheFirstTimeOnly,
    AllowsEverybody,
    DeniesWithoutAReason,
    TakesAnUnknownRoleForAnOutage,
    AuthorizesByIssuing,
    LeavesCredentialsBehind,
    IssuesAWrongPassword,
    SharesOneCredential,
    RevokesAllOfARole,
    WarnsAtLength,
    RenewalsShorten,
    RenewsNothing,
    RenewsInWordsOnly,
    RevokesInTheBackground,
    RevokesOnce,
    CutsOffLater,
    ClearsNothing,
    RevivesWhatIsGone,
    KnowsAccessorsOnly,
    RemembersDroppedCalls,
    ShowsPasswords,
}

const FLAWS: [(Flaw, &str); 21] = [
    (Flaw::AuthorizesAtTheFirstTimeOnly, "authorize_allows_who_is_bound"),
    (Flaw::AllowsEverybody, "authorize_denies_who_is_not_bound"),
    (Flaw::DeniesWithoutAReason, "authorize_denies_who_is_not_bound"),
    (Flaw::TakesAnUnknownRoleForAnOutage, "an_unknown_role_is_not_worth_another_try"),
    (Flaw::AuthorizesByIssuing, "authorize_creates_nothing"),
    (Flaw::LeavesCredentialsBehind, "a_failed_issue_leaves_nothing"),
    (Flaw::IssuesAWrongPassword, "an_issued_credential_opens_a_session"),
    (Flaw::SharesOneCredential, "every_credential_is_its_own"),
    (Flaw::RevokesAllOfARole, "every_credential_is_its_own"),
    (Flaw::WarnsAtLength, "a_warning_is_one_short_line"),
    (Flaw::RenewalsShorten, "renew_never_shortens"),
    (Flaw::RenewsNothing, "renew_prolongs_unless_a_maximum_is_in_sight"),
    (Flaw::RenewsInWordsOnly, "a_life_is_no_shorter_than_it_is_told"),
    (Flaw::RevokesInTheBackground, "a_revoked_credential_opens_no_session"),
    (Flaw::RevokesOnce, "revoke_is_idempotent"),
    (Flaw::CutsOffLater, "what_is_cut_off_opens_no_session"),
    (Flaw::ClearsNothing, "what_is_cut_off_opens_no_session"),
    (Flaw::RevivesWhatIsGone, "a_revoked_credential_is_gone"),
    (Flaw::KnowsAccessorsOnly, "a_raw_token_is_as_good_as_its_accessor"),
    (Flaw::RemembersDroppedCalls, "dropped_calls_can_be_repeated"),
    (Flaw::ShowsPasswords, "nothing_shows_a_secret"),
];

struct Wrong {
    source: MemorySource,
    flaw: Flaw,
    issuing: tokio::sync::Mutex<()>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    authorized: usize,
    issued: Vec<Issued>,
    revoked: BTreeSet<String>,
    cut_off: BTreeSet<String>,
    renewing: BTreeMap<String, usize>,
    background: JoinSet<()>,
}

impl Wrong {
    fn fixture(flaw: Flaw) -> OverDatabase<Self> {
        let fixture = OverDatabase::new(|source| Self {
            source,
            flaw,
            issuing: tokio::sync::Mutex::default(),
            state: Mutex::default(),
        });
        // So that a call that is dropped has begun and not ended.
        fixture.database.set_latency(Duration::from_millis(10));
        fixture.database.set_raw_tokens(flaw == Flaw::KnowsAccessorsOnly);
        fixture
    }

    fn is(&self, flaw: Flaw) -> bool {
        self.flaw == flaw
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn living(&self) -> Vec<Issued> {
        let issued = self.state().issued.clone();
        issued.into_iter().filter(|issued| self.source.remaining(&issued.lease.id).is_some()).collect()
    }
}

impl CredentialSource for Wrong {
    async fn authorize(&self, wanted: &CredentialRequest) -> Result<(), SourceError> {
        self.state().authorized += 1;
        let answer = match self.flaw {
            Flaw::AuthorizesByIssuing => self.source.issue(wanted).await.map(drop),
            _ => self.source.authorize(wanted).await,
        };
        match (self.flaw, answer) {
            (Flaw::AuthorizesAtTheFirstTimeOnly, Ok(())) if self.state().authorized == 2 => {
                Err(SourceError::Unavailable("authorized already".into()))
            }
            (Flaw::AllowsEverybody, Err(SourceError::Denied(_))) => Ok(()),
            (Flaw::DeniesWithoutAReason, Err(SourceError::Denied(_))) => {
                Err(SourceError::Denied(String::new()))
            }
            (Flaw::TakesAnUnknownRoleForAnOutage, Err(SourceError::Invalid(why))) => {
                Err(SourceError::Unavailable(why))
            }
            (_, answer) => answer,
        }
    }

    async fn issue(&self, wanted: &CredentialRequest) -> Result<Issued, SourceError> {
        let _one = self.issuing.lock().await;
        if let Some(shared) = self.living().pop()
            && self.is(Flaw::SharesOneCredential)
        {
            return Ok(shared);
        }
        let mut issued = match self.source.issue(wanted).await {
            Ok(issued) => issued,
            Err(error) => {
                if self.is(Flaw::LeavesCredentialsBehind) {
                    self.source.issue(&request("shop", "app")).await?;
                }
                return Err(error);
            }
        };
        self.state().issued.push(issued.clone());
        match self.flaw {
            Flaw::IssuesAWrongPassword => issued.password = Secret::new("another"),
            Flaw::WarnsAtLength => issued.warnings.push("this role is deprecated. ".repeat(8)),
            _ => {}
        }
        Ok(issued)
    }

    async fn renew(&self, lease: &Lease) -> Result<Renewed, SourceError> {
        if self.is(Flaw::KnowsAccessorsOnly) && matches!(lease.token, TokenHandle::Raw(_)) {
            return Err(SourceError::Gone("there is no such accessor".into()));
        }
        if self.is(Flaw::RevokesInTheBackground) && self.state().revoked.contains(&lease.id) {
            return Err(SourceError::Gone("it is revoked".into()));
        }
        if self.is(Flaw::RemembersDroppedCalls) {
            *self.state().renewing.entry(lease.id.clone()).or_default() += 1;
            if self.state().renewing[&lease.id] > 1 {
                return Err(SourceError::Unavailable("another renewal is under way".into()));
            }
        }
        let remaining = self.source.remaining(&lease.id);
        if self.is(Flaw::RenewsInWordsOnly) && remaining.is_some() {
            return Ok(Renewed { ttl: Duration::from_secs(3600), capped: false });
        }
        let renewed = self.source.renew(lease).await;
        self.state().renewing.remove(&lease.id);
        match (self.flaw, renewed) {
            (Flaw::RenewalsShorten, Ok(renewed)) => Ok(Renewed { ttl: renewed.ttl / 2, capped: true }),
            (Flaw::RenewsNothing, Ok(renewed)) => {
                Ok(Renewed { ttl: remaining.unwrap_or_default(), ..renewed })
            }
            (Flaw::RevivesWhatIsGone, Err(_)) => {
                Ok(Renewed { ttl: Duration::from_secs(3600), capped: false })
            }
            (Flaw::ShowsPasswords, Err(_)) => {
                let passwords =
                    self.state().issued.iter().map(|issued| issued.password.expose().to_owned()).collect();
                Err(SourceError::Gone(passwords))
            }
            (_, outcome) => outcome,
        }
    }

    async fn renew_token(&self, lease: &Lease) -> Result<Option<Renewed>, SourceError> {
        let lives_on = self.is(Flaw::ClearsNothing) && self.state().cut_off.contains(&lease.id);
        Ok(lives_on.then_some(Renewed { ttl: Duration::from_secs(3600), capped: false }))
    }

    async fn accessor(&self, token: &Secret) -> Result<Option<String>, SourceError> {
        self.source.accessor(token).await
    }

    async fn revoke(&self, lease: &Lease) -> Result<(), SourceError> {
        if self.is(Flaw::RevokesAllOfARole) {
            for issued in self.living() {
                self.source.revoke(&issued.lease).await?;
            }
        }
        if self.is(Flaw::RevokesInTheBackground) {
            let (source, lease) = (self.source.clone(), lease.clone());
            let mut state = self.state();
            state.revoked.insert(lease.id.clone());
            state.background.spawn(async move {
                tokio::time::sleep(Duration::from_secs(1)).await;
                source.revoke(&lease).await.unwrap();
            });
            return Ok(());
        }
        self.source.revoke(lease).await?;
        let is_first = self.state().revoked.insert(lease.id.clone());
        if self.is(Flaw::RevokesOnce) && !is_first {
            return Err(SourceError::Gone("there is no such lease".into()));
        }
        Ok(())
    }

    async fn cut_off(&self, lease: &Lease) -> Result<(), SourceError> {
        self.state().cut_off.insert(lease.id.clone());
        if self.is(Flaw::CutsOffLater) { Ok(()) } else { self.source.revoke(lease).await }
    }

    async fn clear(&self, lease: &Lease) -> Result<(), SourceError> {
        self.source.revoke(lease).await
    }
}

#[tokio::test(start_paused = true)]
async fn each_wrong_source_breaks_the_clause_meant() {
    for (flaw, clause) in FLAWS {
        let run = Broken::by("run", suite::run(&Wrong::fixture(flaw))).await;
        let broken = suite::broken(&Wrong::fixture(flaw)).await;
        wrong::expect_one_broken(flaw, clause, &broken, run);
    }
}

#[test]
fn every_clause_of_the_suite_has_a_wrong_source() {
    wrong::expect_complete("vdbi_core::testing::credential_source", suite::CLAUSES, &FLAWS);
}
