use std::ops::Range;

use anyhow::{Context, Result};
use e2e::system::LABEL;
use e2e::{Cluster, DatabaseAccess};
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, api::PostParams};
use serde_json::json;
use vdbi_core::ledger::EntryId;
use vdbi_core::pod::UUID_ANNOTATION;

use crate::load::each;

const CLIENTS: usize = 16;

/// Credentials with their tokens, entries and pods, as the webhook leaves them behind.
pub(super) async fn add(cluster: &Cluster, access: &DatabaseAccess, pods: Range<usize>) -> Result<()> {
    let (root, access) = (cluster.openbao().root().clone(), access.clone());
    let api: Api<Pod> = Api::namespaced(cluster.kubernetes().admin(), &access.namespace);
    let first = pods.start;
    each(pods.len(), CLIENTS, move |index| {
        let (root, access, api) = (root.clone(), access.clone(), api.clone());
        async move {
            let DatabaseAccess { engine, role, token_role, mount, prefix, namespace, .. } = &access;
            let (id, name) = (EntryId::random().to_string(), format!("web-{}", first + index));
            let token = json!({ "policies": [role] });
            let token = root.write(&format!("auth/token/create/{token_role}"), &token).await?;
            let token = &token["auth"];
            let user = root.with_token(token["client_token"].as_str().context("there is no token")?);
            let credential = user.read_answer(&format!("{engine}/creds/{role}")).await?;
            let credential = credential.context("the database role is missing")?;
            // Without its life, so that a renewer which has just begun has to renew it at once.
            let entry = json!({ "data": {
                "LeaseId": credential["lease_id"],
                "TokenAccessor": token["accessor"],
                "TokenId": "",
                "Namespace": namespace,
                "ServiceAccountName": access.service_account,
                "PodName": name,
                "ClusterId": super::CLUSTER,
                "Release": access.release,
                "Database": "main",
                "Role": role,
                "IssuedAt": "2026-01-01T00:00:00Z",
                "Schema": "1",
            } });
            root.write(&format!("{mount}/data/{prefix}/{id}"), &entry).await?;
            let pod = json!({
                "metadata": { "name": name, "labels": { LABEL: "true" }, "annotations": { UUID_ANNOTATION: id } },
                "spec": {
                    "serviceAccountName": access.service_account,
                    "containers": [{ "name": "web", "image": "registry.example/web:1" }],
                },
            });
            api.create(&PostParams::default(), &serde_json::from_value(pod)?).await?;
            Ok(())
        }
    })
    .await?;
    Ok(())
}
