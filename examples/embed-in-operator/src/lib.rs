//! An operator of one's own, with vdbi's renewer and revoker inside: one process, one client, one leader, one shutdown.
//!
//! The operator connects applications to databases: a Deployment that carries the annotation [`DATABASE`] gets what its pods need to be
//! given a credential by the webhook. Whichever replica leads does that, renews the credentials of all pods, and revokes those of pods
//! that are done.

mod deployments;

use std::{sync::Arc, time::Duration};

use futures::FutureExt;
use kube::Client;
use tokio_util::sync::CancellationToken;
use vdbi_core::{
    credential::CredentialSource,
    leadership::{Leadership, LeadershipError, Term, WorkError},
    ledger::{Ledger, Owner},
    metrics::Registry,
};
use vdbi_lifecycle::{
    events::PodEvents,
    pods::Pods,
    renewer::{self, Renewer},
    revoker::{self, Revoker},
};

pub use deployments::{DATABASE, LABEL};

/// The operator. Clones are one operator, of which each term runs one.
pub struct Operator<S, L> {
    client: Client,
    renewer: Renewer<Arc<S>, Arc<L>>,
    revoker: Revoker<Arc<S>, Arc<L>>,
}

impl<S, L> Clone for Operator<S, L> {
    fn clone(&self) -> Self {
        let Self { client, renewer, revoker } = self;
        Self { client: client.clone(), renewer: renewer.clone(), revoker: revoker.clone() }
    }
}

impl<S: CredentialSource, L: Ledger> Operator<S, L> {
    /// Over the source and the ledger of a vdbi release whose webhook issues the credentials; `owner` is its cluster and its name.
    /// New credentials are looked for every `scan_interval`, which has to be below half of the shortest life of one.
    pub fn new(
        client: Client,
        source: S,
        ledger: L,
        owner: Owner,
        scan_interval: Duration,
        registry: &Registry,
    ) -> Self {
        let (source, ledger) = (Arc::new(source), Arc::new(ledger));
        let pods = Pods::new(client.clone(), LABEL);
        let events = PodEvents::new(client.clone(), pods.clone(), "shop-operator");
        let mut renewing = renewer::Settings::new(owner.clone());
        renewing.scan_interval = scan_interval;
        let renewer = Renewer::new(source.clone(), ledger.clone(), renewing, registry).with_events(events);
        let revoker = Revoker::new(source, ledger, pods, revoker::Settings::new(owner), registry);
        Self { client, renewer, revoker }
    }

    /// Works whenever this replica leads, until the shutdown.
    ///
    /// # Errors
    ///
    /// The leadership's.
    pub async fn run(
        self,
        leadership: impl Leadership,
        shutdown: CancellationToken,
    ) -> Result<(), LeadershipError> {
        leadership.run(move |term| self.clone().lead(term), shutdown).await
    }

    /// All of it for one term. What fails ends the others, and the next term starts all of them again.
    async fn lead(self, term: Term) -> Result<(), WorkError> {
        tokio::try_join!(
            deployments::reconcile_all(self.client, term.clone()).map(Ok),
            self.renewer.run(term.clone()),
            self.revoker.run(term),
        )?;
        Ok(())
    }
}
