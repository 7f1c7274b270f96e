//! One eviction.

use k8s_openapi::{
    api::{core::v1::Pod, policy::v1},
    apimachinery::pkg::apis::meta::v1::{DeleteOptions, ObjectMeta, Preconditions},
};
use kube::{Api, Client, api::PostParams, core::Status};
use vdbi_core::leadership::Term;

use super::plan::{Eviction, Outcome};

/// The reason in the refusal of a disruption budget. Without it the API server is only busy.
const BUDGET: &str = "DisruptionBudget";

/// Evicts the pod with that uid, and none that has taken its name since. Answers also what the API server said.
pub(super) async fn evict(client: Client, term: Term, eviction: &Eviction) -> (Outcome, String) {
    let Eviction { namespace, name, uid, .. } = eviction;
    // Not by Api::evict: it sends "delete_options", which API servers do not know and pass over, precondition and all.
    let body = v1::Eviction {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            namespace: Some(namespace.clone()),
            ..ObjectMeta::default()
        },
        delete_options: Some(DeleteOptions {
            preconditions: Some(Preconditions { uid: Some(uid.clone()), resource_version: None }),
            ..DeleteOptions::default()
        }),
    };
    let pods: Api<Pod> = Api::namespaced(client, namespace);
    let parameters = PostParams::default();
    match term.run(pods.create_subresource::<_, Status>("eviction", name, &parameters, &body)).await {
        Ok(Ok(_)) => (Outcome::Evicted, String::new()),
        Ok(Err(kube::Error::Api(status))) => (outcome(&status), said(&status)),
        Ok(Err(error)) => (Outcome::Failed, error.to_string()),
        // It may have happened all the same; the next look tells.
        Err(over) => (Outcome::Failed, over.to_string()),
    }
}

fn outcome(status: &Status) -> Outcome {
    let mut causes = status.details.iter().flat_map(|details| &details.causes);
    match status.code {
        429 if causes.any(|cause| cause.reason == BUDGET) => Outcome::Blocked,
        403 => Outcome::Refused,
        // Gone, or another pod by now.
        404 | 409 => Outcome::Vanished,
        _ => Outcome::Failed,
    }
}

fn said(status: &Status) -> String {
    let causes = status.details.iter().flat_map(|details| &details.causes);
    let causes = causes.map(|cause| cause.message.as_str());
    [status.message.as_str()].into_iter().chain(causes).collect::<Vec<_>>().join(" ")
}
