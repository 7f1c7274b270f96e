//! Eviction: a deletion that a disruption budget may refuse.

use serde_json::{Value, json};

use super::{
    call::Request,
    deletion::delete,
    resource::POD_DISRUPTION_BUDGETS,
    selector::Selector,
    status::Refusal,
    store::{Object, Store},
};

/// Evicts a pod as far as the budgets that select it allow. Of a budget's selector `matchLabels` count, and its status is what a
/// test wrote, less what was evicted since: no controller keeps it.
pub(super) fn evict(
    store: &mut Store,
    request: &Request,
    pod: &Object,
    eviction: &Value,
) -> Result<(), Refusal> {
    if eviction["metadata"]["name"] != request.name() {
        return Err(Refusal::bad_request("name in URL does not match name in Eviction object"));
    }
    if is_guarded(pod) {
        spend_budget(store, request, pod)?;
    }
    delete(store, request, pod, &eviction["deleteOptions"])?;
    Ok(())
}

/// A pod that does not run yet, or no longer, is nothing that a budget counts.
fn is_guarded(pod: &Value) -> bool {
    let phase = pod["status"]["phase"].as_str();
    pod["metadata"]["deletionTimestamp"].is_null()
        && !matches!(phase, Some("Pending" | "Succeeded" | "Failed"))
}

fn spend_budget(store: &mut Store, request: &Request, pod: &Value) -> Result<(), Refusal> {
    let selector = Selector::in_namespace(request.namespace());
    let mut budgets = store.list(&POD_DISRUPTION_BUDGETS, &selector, 0).objects;
    budgets.retain(|budget| selects(&budget["spec"]["selector"], &pod["metadata"]["labels"]));
    let Some(budget) = budgets.pop_front() else { return Ok(()) };
    if !budgets.is_empty() {
        let message = "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.";
        return Err(Refusal::new(500, "", message));
    }
    let status = &budget["status"];
    let count = |field: &str| status[field].as_i64().unwrap_or(0);
    let enough = count("desiredHealthy") > 0 && count("currentHealthy") >= count("desiredHealthy");
    if !is_ready(pod) && (enough || budget["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow") {
        return Ok(());
    }
    if count("disruptionsAllowed") <= 0 {
        let (name, desired) =
            (budget["metadata"]["name"].as_str().unwrap_or_default(), count("desiredHealthy"));
        let why = format!(
            "The disruption budget {name} needs {desired} healthy pods and has {} currently",
            count("currentHealthy")
        );
        return Err(Refusal::disruption_budget(&why));
    }
    if !request.call.dry_run {
        let mut spent = Value::clone(&budget);
        spent["status"]["disruptionsAllowed"] = json!(count("disruptionsAllowed") - 1);
        store.put(&POD_DISRUPTION_BUDGETS, spent);
    }
    Ok(())
}

fn is_ready(pod: &Value) -> bool {
    let mut conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
    conditions.any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}

/// An empty selector selects every pod, one that is not there none.
fn selects(selector: &Value, labels: &Value) -> bool {
    let mut wanted = selector["matchLabels"].as_object().into_iter().flatten();
    selector.is_object() && wanted.all(|(key, value)| labels[key] == *value)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::{core::v1::Pod, policy::v1::PodDisruptionBudget};
    use kube::{
        Api,
        api::{Patch, PatchParams, PostParams},
        core::Status,
    };
    use serde_json::{Value, json};

    use super::super::KubernetesApi;

    struct Shop {
        api: KubernetesApi,
        pods: Api<Pod>,
        budgets: Api<PodDisruptionBudget>,
    }

    impl Shop {
        fn new() -> Self {
            let api = KubernetesApi::new();
            let pods = Api::namespaced(api.client(), "shop");
            let budgets = Api::namespaced(api.client(), "shop");
            Self { api, pods, budgets }
        }

        /// A pod that runs and is ready.
        async fn run(&self, name: &str) -> Pod {
            let pod = json!({
                "metadata": { "name": name, "labels": { "app": "web" } },
                "spec": { "containers": [{ "name": "web" }], "nodeName": "n1" },
            });
            self.pods.create(&PostParams::default(), &serde_json::from_value(pod).unwrap()).await.unwrap();
            self.ready(name, "True").await
        }

        async fn ready(&self, name: &str, ready: &str) -> Pod {
            let condition = json!([{ "type": "Ready", "status": ready }]);
            let status = json!({ "status": { "phase": "Running", "conditions": condition } });
            self.pods.patch_status(name, &PatchParams::default(), &Patch::Merge(&status)).await.unwrap()
        }

        async fn budget(&self, name: &str, allowed: i32) {
            let budget = json!({
                "metadata": { "name": name },
                "spec": { "minAvailable": 2, "selector": { "matchLabels": { "app": "web" } } },
            });
            let budget = serde_json::from_value(budget).unwrap();
            self.budgets.create(&PostParams::default(), &budget).await.unwrap();
            self.allow(name, allowed).await;
        }

        async fn allow(&self, name: &str, allowed: i32) {
            let status = json!({ "status": {
                "disruptionsAllowed": allowed, "desiredHealthy": 2, "currentHealthy": 2 - i32::from(allowed == 0), "expectedPods": 2,
            } });
            let params = PatchParams::default();
            self.budgets.patch_status(name, &params, &Patch::Merge(&status)).await.unwrap();
        }

        async fn evict(&self, name: &str, delete_options: Value) -> Result<Status, Status> {
            let eviction = json!({
                "apiVersion": "policy/v1", "kind": "Eviction",
                "metadata": { "name": name, "namespace": "shop" }, "deleteOptions": delete_options,
            });
            let answer =
                self.pods.create_subresource("eviction", name, &PostParams::default(), &eviction).await;
            answer.map_err(|error| match error {
                kube::Error::Api(status) => *status,
                error => panic!("{error}"),
            })
        }

        async fn is_marked(&self, name: &str) -> bool {
            self.pods.get(name).await.unwrap().metadata.deletion_timestamp.is_some()
        }
    }

    #[tokio::test]
    async fn an_evicted_pod_ends_in_its_own_time() {
        let shop = Shop::new();
        shop.run("web").await;
        let answer = shop.evict("web", json!({})).await.unwrap();
        assert_eq!(answer.code, 201);
        let pod = shop.pods.get("web").await.unwrap();
        assert_eq!(pod.metadata.deletion_grace_period_seconds, Some(30));
    }

    #[tokio::test]
    async fn a_budget_refuses_what_it_has_nothing_left_for_and_is_spent_by_each_eviction() {
        let shop = Shop::new();
        shop.run("a").await;
        shop.run("b").await;
        shop.budget("web", 0).await;
        let refusal = shop.evict("a", json!({})).await.unwrap_err();
        assert_eq!((refusal.code, refusal.reason.as_str()), (429, "TooManyRequests"));
        assert_eq!(refusal.message, "Cannot evict pod as it would violate the pod's disruption budget.");
        let cause = &refusal.details.unwrap().causes[0];
        assert_eq!(cause.reason, "DisruptionBudget");
        assert_eq!(cause.message, "The disruption budget web needs 2 healthy pods and has 1 currently");
        assert!(!shop.is_marked("a").await);
        shop.allow("web", 1).await;
        shop.evict("a", json!({})).await.unwrap();
        assert_eq!(shop.evict("b", json!({})).await.unwrap_err().code, 429);
        shop.budget("other", 1).await;
        assert_eq!(shop.evict("b", json!({})).await.unwrap_err().code, 500, "two budgets");
    }

    #[tokio::test]
    async fn a_budget_does_not_guard_what_is_not_healthy_or_has_not_begun() {
        let shop = Shop::new();
        for name in ["pending", "unready"] {
            shop.run(name).await;
        }
        shop.budget("web", 0).await;
        shop.api.set_pod_phase("shop", "pending", "Pending");
        shop.evict("pending", json!({})).await.unwrap();
        shop.ready("unready", "False").await;
        assert_eq!(shop.evict("unready", json!({})).await.unwrap_err().code, 429, "too few are healthy");
        let enough = json!({ "status": { "currentHealthy": 2 } });
        shop.budgets.patch_status("web", &PatchParams::default(), &Patch::Merge(&enough)).await.unwrap();
        shop.evict("unready", json!({})).await.unwrap();
    }

    #[tokio::test]
    async fn an_eviction_of_another_uid_is_a_conflict() {
        let shop = Shop::new();
        let uid = shop.run("web").await.metadata.uid.unwrap();
        let other = json!({ "preconditions": { "uid": "other" } });
        assert_eq!(shop.evict("web", other).await.unwrap_err().code, 409);
        assert!(!shop.is_marked("web").await);
        shop.evict("web", json!({ "preconditions": { "uid": uid } })).await.unwrap();
        assert_eq!(shop.evict("gone", json!({})).await.unwrap_err().code, 404);
    }
}
