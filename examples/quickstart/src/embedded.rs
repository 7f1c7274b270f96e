//! Everything in memory.

use std::{net::SocketAddr, time::Duration};

use anyhow::Result;
use e2e::{Component, system::LABEL};
use vdbi_core::{
    memory::{
        Lifetimes, MemoryLedger, MemorySource,
        kubernetes::{KubernetesApi, Webhook},
    },
    secret::Secret,
};

use crate::{
    release::TTL,
    stage::{NAMESPACE, ROLE, SERVICE_ACCOUNT, Stage},
};

pub(crate) struct Embedded {
    kubernetes: KubernetesApi,
    source: MemorySource,
    ledger: MemoryLedger,
}

impl Embedded {
    pub(crate) fn start() -> Self {
        let source = MemorySource::new();
        source.allow(ROLE, NAMESPACE, SERVICE_ACCOUNT);
        source.set_lifetimes(Lifetimes { ttl: TTL, max_ttl: Duration::from_secs(3600) });
        Self { kubernetes: KubernetesApi::new(), source, ledger: MemoryLedger::new() }
    }
}

impl Stage for Embedded {
    type Source = MemorySource;
    type Ledger = MemoryLedger;

    fn description(&self) -> &'static str {
        "an embedded Kubernetes API and an embedded secrets backend"
    }

    fn client(&self) -> kube::Client {
        self.kubernetes.client()
    }

    fn source(&self, _: Component) -> MemorySource {
        self.source.clone()
    }

    fn ledger(&self, _: Component) -> MemoryLedger {
        self.ledger.clone()
    }

    async fn install_webhook(&self, address: SocketAddr, ca_pem: &str) -> Result<()> {
        self.kubernetes.set_mutating_webhook(Webhook {
            url: format!("https://{address}/"),
            name: "pods.vdbi.example".to_owned(),
            ca_pem: ca_pem.as_bytes().to_vec(),
            client_identity_pem: None,
            label: LABEL.to_owned(),
            timeout: Duration::from_secs(5),
        })?;
        Ok(())
    }

    async fn opens_a_session(&self, user: &str, password: &str) -> Result<bool> {
        Ok(self.source.can_login(user, &Secret::new(password)))
    }
}
