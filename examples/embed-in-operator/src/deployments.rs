//! The operator's own controller.

use std::{sync::Arc, time::Duration};

use futures::StreamExt;
use k8s_openapi::api::apps::v1::Deployment;
use kube::{
    Api, Client, ResourceExt,
    api::{Patch, PatchParams},
    runtime::{Controller, controller::Action, watcher},
};
use serde_json::json;
use thiserror::Error;
use vdbi_core::leadership::{Term, TermOver};

/// The annotation by which a Deployment asks for a database: the name of a role.
pub const DATABASE: &str = "shop.example/database";

/// The label of pods that the webhook is asked about.
pub const LABEL: &str = "vault-db-injector";

const RETRY: Duration = Duration::from_secs(5);

#[derive(Debug, Error)]
enum ReconcileError {
    #[error(transparent)]
    Term(#[from] TermOver),
    #[error(transparent)]
    Kubernetes(#[from] kube::Error),
}

struct Context {
    client: Client,
    term: Term,
}

/// Reconciles until the term is over.
pub(crate) async fn reconcile_all(client: Client, term: Term) {
    let deployments: Api<Deployment> = Api::all(client.clone());
    let over = term.clone();
    let context = Arc::new(Context { client, term });
    Controller::new(deployments, watcher::Config::default())
        .graceful_shutdown_on(async move { over.over().await })
        .run(reconcile, |_, _, _| Action::requeue(RETRY), context)
        .for_each(async |outcome| {
            if let Err(error) = outcome {
                tracing::warn!("a Deployment is not connected to its database: {error}");
            }
        })
        .await;
}

/// Gives the pods of a Deployment that asks for a database the label and the annotation that vdbi's webhook looks for.
async fn reconcile(deployment: Arc<Deployment>, context: Arc<Context>) -> Result<Action, ReconcileError> {
    let (Some(role), Some(namespace)) = (deployment.annotations().get(DATABASE), deployment.namespace())
    else {
        return Ok(Action::await_change());
    };
    let connected = Patch::Apply(json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "spec": { "template": { "metadata": {
            "labels": { LABEL: "true" },
            "annotations": { "db-creds-injector.numberly.io/main.role": role },
        } } },
    }));
    let deployments: Api<Deployment> = Api::namespaced(context.client.clone(), &namespace);
    let apply = PatchParams::apply("shop-operator");
    // Not at all when another replica leads by now.
    context.term.run(deployments.patch(&deployment.name_any(), &apply, &connected)).await??;
    Ok(Action::await_change())
}
