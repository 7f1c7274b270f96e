//! A revocation in two steps.

use std::sync::Mutex;

use vdbi_core::credential::{CredentialRequest, CredentialSource, Lease, Renewed};

use super::*;

/// A source that ends a credential first and what is left of it later, and keeps a log of both.
#[derive(Clone)]
struct InSteps {
    source: MemorySource,
    log: Arc<Mutex<Vec<&'static str>>>,
    /// How many more times clearing fails.
    failures: Arc<Mutex<u32>>,
}

impl CredentialSource for InSteps {
    async fn authorize(&self, request: &CredentialRequest) -> Result<(), SourceError> {
        self.source.authorize(request).await
    }

    async fn issue(&self, request: &CredentialRequest) -> Result<Issued, SourceError> {
        self.source.issue(request).await
    }

    async fn renew(&self, lease: &Lease) -> Result<Renewed, SourceError> {
        self.source.renew(lease).await
    }

    async fn revoke(&self, lease: &Lease) -> Result<(), SourceError> {
        self.cut_off(lease).await?;
        self.clear(lease).await
    }

    async fn cut_off(&self, lease: &Lease) -> Result<(), SourceError> {
        self.source.revoke(lease).await?;
        self.log.lock().unwrap().push("cut off");
        Ok(())
    }

    async fn clear(&self, _: &Lease) -> Result<(), SourceError> {
        let mut failures = self.failures.lock().unwrap();
        if *failures > 0 {
            *failures -= 1;
            return Err(SourceError::Unavailable("not now".into()));
        }
        self.log.lock().unwrap().push("clear");
        Ok(())
    }
}

impl World {
    fn revoke_in_steps(&mut self, failures: u32) -> Arc<Mutex<Vec<&'static str>>> {
        let mut settings = revoker::Settings::new(Self::owner());
        settings.rules.brake_minimum = 3;
        settings.interval = Duration::from_millis(100);
        settings.max_in_flight = 1;
        let failures = Arc::new(Mutex::new(failures));
        let source = InSteps { source: self.source.clone(), log: Arc::default(), failures };
        let (log, pods) = (source.log.clone(), Pods::new(self.kubernetes.client(), LABEL));
        let revoker = Revoker::new(source, self.ledger.clone(), pods, settings, &Registry::disabled());
        let term = self.term.clone();
        self.work.spawn(async move { revoker.run(term).await.unwrap() });
        log
    }
}

#[tokio::test]
async fn every_credential_is_cut_off_before_the_rest_of_any_is_cleared() {
    let mut world = World::new();
    for name in ["first", "second"] {
        let (id, _) = world.credential(name, OLD, |_| {}).await;
        world.create_pod(name, id).await;
    }
    let log = world.revoke_in_steps(0);
    world.after_two_sweeps().await;
    let mut hold = world.source.hold(SourceOperation::Revoke);
    world.pods().delete("first", &DeleteParams::default()).await.unwrap();
    hold.arrived(1).await;
    world.pods().delete("second", &DeleteParams::default()).await.unwrap();
    world.after_two_sweeps().await;
    hold.release();
    world.eventually("both revocations", || world.ledger.entries().is_empty()).await;
    assert_eq!(*log.lock().unwrap(), ["cut off", "cut off", "clear", "clear"]);
}

#[tokio::test]
async fn an_entry_stays_until_the_rest_is_cleared_and_nothing_is_cut_off_twice() {
    let mut world = World::new();
    let (id, issued) = world.credential("web", OLD, |_| {}).await;
    world.create_pod("web", id).await;
    let log = world.revoke_in_steps(1);
    world.after_two_sweeps().await;
    world.pods().delete("web", &DeleteParams::default()).await.unwrap();
    world.eventually("the end of the credential", || !world.works(&issued)).await;
    assert!(world.ledger.entries().contains_key(&id));
    world.eventually("the end of its entry", || world.ledger.entries().is_empty()).await;
    assert_eq!(*log.lock().unwrap(), ["cut off", "clear"]);
}
