//! The shipped contract suites over both.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

use std::{collections::BTreeSet, fs, path::PathBuf, time::Duration, time::SystemTime};

use custom_source::{FileLedger, FileSource};
use tempfile::TempDir;
use vdbi_core::{
    credential::{CredentialRequest, CredentialSource, Issued, Lease, SourceError, TokenHandle},
    pod::PodRef,
    testing::{self, credential_source::Fixture},
};

struct Directory {
    directory: TempDir,
    source: FileSource,
}

impl Directory {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        for name in ["roles", "accounts", "ledger"] {
            fs::create_dir(directory.path().join(name)).unwrap();
        }
        fs::write(directory.path().join("roles/app"), "shop/app1\n").unwrap();
        let source = FileSource::new(directory.path(), Duration::from_secs(600));
        Self { directory, source }
    }

    fn account(&self, user: &str) -> PathBuf {
        self.directory.path().join("accounts").join(user)
    }

    /// As whatever checks logins would.
    fn accepts(&self, user: &str, password: &str) -> bool {
        let ends = fs::metadata(self.account(user)).and_then(|file| file.modified());
        ends.is_ok_and(|ends| ends > SystemTime::now())
            && fs::read_to_string(self.account(user)).is_ok_and(|stored| stored == password)
    }

    fn accounts(&self) -> BTreeSet<String> {
        let entries = fs::read_dir(self.directory.path().join("accounts")).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }
}

fn request(service_account: &str, role: &str) -> CredentialRequest {
    CredentialRequest {
        pod: PodRef {
            namespace: "shop".into(),
            service_account: service_account.into(),
            ..PodRef::default()
        },
        database: "main".into(),
        engine: "database".into(),
        role: role.into(),
    }
}

impl Fixture for Directory {
    type Source = FileSource;

    fn source(&self) -> &FileSource {
        &self.source
    }

    fn allowed(&self) -> CredentialRequest {
        request("app1", "app")
    }

    fn refused(&self) -> CredentialRequest {
        request("app2", "app")
    }

    fn unknown_role(&self) -> CredentialRequest {
        request("app1", "unknown")
    }

    async fn opens_session(&self, issued: &Issued) -> bool {
        self.accepts(&issued.username, issued.password.expose())
    }

    async fn users(&self) -> Option<BTreeSet<String>> {
        Some(self.accounts())
    }

    async fn remaining(&self, issued: &Issued) -> Option<Duration> {
        let ends = fs::metadata(self.account(&issued.username)).and_then(|file| file.modified()).ok()?;
        ends.duration_since(SystemTime::now()).ok()
    }
}

#[tokio::test]
async fn the_source_keeps_its_contract() {
    testing::credential_source::run(&Directory::new()).await;
}

#[tokio::test]
async fn the_ledger_keeps_its_contract() {
    let directory = tempfile::tempdir().unwrap();
    testing::ledger::run(&FileLedger::new(directory.path())).await;
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0, "nothing is left behind");
}

#[tokio::test]
async fn an_account_that_nobody_renews_ends_and_is_not_revived() {
    let fixture = Directory::new();
    let issued = fixture.source.issue(&fixture.allowed()).await.unwrap();
    let file = fs::File::options().write(true).open(fixture.account(&issued.username)).unwrap();
    file.set_modified(SystemTime::now() - Duration::from_secs(1)).unwrap();
    assert!(!fixture.opens_session(&issued).await);
    let renewed = fixture.source.renew(&issued.lease).await;
    assert!(matches!(renewed, Err(SourceError::Gone(_))), "{renewed:?}");
    assert!(!fixture.opens_session(&issued).await);
}

/// Roles come from annotations, and leases from the ledger.
#[tokio::test]
async fn no_name_leads_out_of_the_directory() {
    let fixture = Directory::new();
    let outside = fixture.directory.path().join("outside");
    fs::write(&outside, "shop/app1").unwrap();
    let refused = fixture.source.authorize(&request("app1", "../outside")).await;
    assert!(matches!(refused, Err(SourceError::Invalid(_))), "{refused:?}");
    let lease = Lease { id: "../outside".into(), token: TokenHandle::None };
    assert!(matches!(fixture.source.revoke(&lease).await, Err(SourceError::Invalid(_))));
    assert!(outside.exists());
}

#[test]
fn the_source_takes_less_than_a_hundred_lines() {
    assert!(include_str!("../src/source.rs").lines().count() < 100);
}
