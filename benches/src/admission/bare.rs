use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result};
use e2e::openbao::Client;
use e2e::{Cluster, Component, DatabaseAccess};
use serde_json::{Value, json};

/// What no admission in legacy mode can do without, over pooled connections and with the injector's own rights: a token of the
/// pod's role, the credential that is issued to it, the ledger's entry.
#[derive(Clone)]
pub(super) struct RoundTrips {
    injector: Client,
    access: Arc<DatabaseAccess>,
    entries: Arc<AtomicU64>,
}

impl RoundTrips {
    pub(super) async fn new(cluster: &Cluster, access: &DatabaseAccess) -> Result<Self> {
        let jwt = fs::read_to_string(cluster.component_token_file(access, Component::Injector).await?)?;
        let role = access.component_role(Component::Injector);
        let (injector, _) = cluster.openbao().root().login("kubernetes", &role, &jwt).await?;
        Ok(Self { injector, access: Arc::new(access.clone()), entries: Arc::default() })
    }

    pub(super) async fn run(&self) -> Result<()> {
        let DatabaseAccess { engine, role, token_role, mount, prefix, .. } = &*self.access;
        let token = json!({ "policies": [role] });
        let minted = self.injector.write(&format!("auth/token/create/{token_role}"), &token).await?;
        let pod = self.injector.with_token(text(&minted["auth"]["client_token"])?);
        let credential = pod.read_answer(&format!("{engine}/creds/{role}")).await?;
        let credential = credential.context("the database role is missing")?;
        text(&credential["data"]["password"])?;

        let number = self.entries.fetch_add(1, Ordering::Relaxed);
        // As much as the injector writes.
        let entry = json!({ "data": {
            "LeaseId": credential["lease_id"],
            "TokenAccessor": minted["auth"]["accessor"],
            "Namespace": self.access.namespace,
            "ServiceAccountName": self.access.service_account,
            "PodName": "bare",
            "ClusterId": "00000000-0000-4000-8000-000000000000",
            "Release": self.access.release,
            "Database": "main",
            "Role": role,
            "IssuedAt": "2026-01-01T00:00:00Z",
            "Schema": "2",
        } });
        let path = format!("{mount}/data/{prefix}/00000000-0000-4000-8000-{number:012x}");
        self.injector.write(&path, &entry).await.map(drop)
    }
}

fn text(value: &Value) -> Result<&str> {
    value.as_str().context("the answer lacks what was asked for")
}
