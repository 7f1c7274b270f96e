#![cfg(feature = "memory")]

use std::sync::Mutex;

use super::*;
use crate::{
    credential::{Lease, Renewed, TokenHandle},
    memory::{MemorySource, SourceOperation},
    pod::PodRef,
    secret::Secret,
    testing::message_of_the_broken_clause,
};

struct InMemory<S> {
    source: S,
    database: MemorySource,
}

impl<S: CredentialSource> InMemory<S> {
    fn new(make: impl FnOnce(MemorySource) -> S) -> Self {
        let database = MemorySource::new();
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

impl<S: CredentialSource> Fixture for InMemory<S> {
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

    async fn opens_session(&self, issued: &Issued) -> bool {
        self.database.can_login(&issued.username, &issued.password)
    }

    async fn users(&self) -> Option<BTreeSet<String>> {
        Some(self.database.leases().into_iter().collect())
    }
}

#[tokio::test(start_paused = true)]
async fn the_source_in_memory_keeps_the_contract() {
    let fixture = InMemory::new(|source| source);
    fixture.database.set_raw_tokens(true);
    run(&fixture).await;
    assert!(fixture.database.leases().is_empty(), "the suite revokes what it issued");
}

#[tokio::test(start_paused = true)]
async fn a_slow_source_keeps_the_contract() {
    let fixture = InMemory::new(|source| source);
    fixture.database.set_latency(Duration::from_secs(2));
    run(&fixture).await;
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_no_denial() {
    let fixture = InMemory::new(|source| source);
    fixture.database.fail_next(SourceOperation::Authorize, SourceError::Unavailable("sealed".into()));
    let message = message_of_the_broken_clause(authorize_denies_who_is_not_bound(&fixture)).await;
    assert!(message.contains("authorize_denies_who_is_not_bound"), "{message}");
}

/// What a broken source does wrong.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flaw {
    AllowsEverybody,
    AuthorizesByIssuing,
    LeavesCredentialsBehind,
    SharesOneCredential,
    RenewalsShorten,
    RevokesLater,
    RevokesOnce,
    CutsOffLater,
    RevivesWhatIsGone,
    ShowsPasswords,
}

struct Broken {
    source: MemorySource,
    flaw: Flaw,
    issued: Mutex<Vec<Issued>>,
}

impl CredentialSource for Broken {
    async fn authorize(&self, request: &CredentialRequest) -> Result<(), SourceError> {
        match self.flaw {
            Flaw::AllowsEverybody => Ok(()),
            Flaw::AuthorizesByIssuing => self.source.issue(request).await.map(drop),
            _ => self.source.authorize(request).await,
        }
    }

    async fn issue(&self, wanted: &CredentialRequest) -> Result<Issued, SourceError> {
        if self.flaw == Flaw::LeavesCredentialsBehind {
            self.source.issue(&request("shop", "app")).await?;
        }
        let shared = self.issued.lock().unwrap().last().cloned();
        match shared.filter(|_| self.flaw == Flaw::SharesOneCredential) {
            Some(shared) => Ok(shared),
            None => {
                let issued = self.source.issue(wanted).await?;
                self.issued.lock().unwrap().push(issued.clone());
                Ok(issued)
            }
        }
    }

    async fn renew(&self, lease: &Lease) -> Result<Renewed, SourceError> {
        match (self.flaw, self.source.renew(lease).await) {
            (Flaw::RenewalsShorten, Ok(renewed)) => Ok(Renewed { ttl: renewed.ttl / 2, ..renewed }),
            (Flaw::RevivesWhatIsGone, Err(_)) => {
                Ok(Renewed { ttl: Duration::from_secs(3600), capped: false })
            }
            (Flaw::ShowsPasswords, Err(_)) => {
                let passwords = self
                    .issued
                    .lock()
                    .unwrap()
                    .iter()
                    .map(|issued| issued.password.expose().to_owned())
                    .collect();
                Err(SourceError::Gone(passwords))
            }
            (_, outcome) => outcome,
        }
    }

    async fn revoke(&self, lease: &Lease) -> Result<(), SourceError> {
        let live = self.source.remaining(&lease.id).is_some();
        match self.flaw {
            Flaw::RevokesLater => Ok(()),
            Flaw::RevokesOnce if !live => Err(SourceError::Gone("no such lease".into())),
            _ => self.source.revoke(lease).await,
        }
    }

    async fn cut_off(&self, lease: &Lease) -> Result<(), SourceError> {
        if self.flaw == Flaw::CutsOffLater { Ok(()) } else { self.revoke(lease).await }
    }

    async fn clear(&self, lease: &Lease) -> Result<(), SourceError> {
        self.revoke(lease).await
    }
}

#[tokio::test(start_paused = true)]
async fn the_suite_notices_what_is_broken() {
    let flaws = [
        (Flaw::AllowsEverybody, "authorize_denies_who_is_not_bound"),
        (Flaw::AuthorizesByIssuing, "authorize_creates_nothing"),
        (Flaw::LeavesCredentialsBehind, "a_failed_issue_leaves_nothing"),
        (Flaw::SharesOneCredential, "every_credential_is_its_own"),
        (Flaw::RenewalsShorten, "renew_never_shortens"),
        (Flaw::RevokesLater, "a_revoked_credential_opens_no_session"),
        (Flaw::RevokesOnce, "revoke_is_idempotent"),
        (Flaw::CutsOffLater, "what_is_cut_off_opens_no_session"),
        (Flaw::RevivesWhatIsGone, "a_revoked_credential_is_gone"),
        (Flaw::ShowsPasswords, "nothing_shows_a_secret"),
    ];
    for (flaw, clause) in flaws {
        let fixture = InMemory::new(|source| Broken { source, flaw, issued: Mutex::default() });
        let message = message_of_the_broken_clause(run(&fixture)).await;
        assert!(message.contains(&format!("clause {clause}:")), "{message}");
    }
}

#[test]
fn a_raw_token_is_not_shown_either() {
    let lease = Lease { id: "1".into(), token: TokenHandle::Raw(Secret::new("s.raw")) };
    assert!(!format!("{lease:?}").contains("s.raw"));
}
