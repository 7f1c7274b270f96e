//! The ValidatingAdmissionPolicies, on a real API server: what each refuses, and what it lets pass.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::{Cluster, Kubernetes, kubernetes::client, scene::eventually};
use k8s_openapi::api::{
    admissionregistration::v1::MutatingWebhookConfiguration,
    authentication::v1::{TokenRequest, TokenRequestSpec},
    authorization::v1::SubjectAccessReview,
    core::v1::{Binding, PersistentVolume, Pod, ServiceAccount},
};
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

use crate::{
    apiserver::install,
    helm::{NAMESPACE, Rendered, values},
};

const UUID: &str = "db-creds-injector.numberly.io/uuid";
const MARK: &str = "db-creds-injector.numberly.io/injected";

/// How long the API server may take to act on a new policy.
const NOTICE: Duration = Duration::from_secs(30);

/// A cluster with the chart and a namespace `shop`, whose policies are in force.
async fn cluster(values: &Value) -> Result<Cluster> {
    let cluster = Cluster::builder().kubernetes().start().await?;
    let kubernetes = cluster.kubernetes();
    install(kubernetes, "vdbi", NAMESPACE, values).await?;
    // Nothing answers for it here, and the policies are what is asked.
    let webhooks = Api::<MutatingWebhookConfiguration>::all(kubernetes.admin());
    webhooks.delete("vdbi", &DeleteParams::default()).await?;
    kubernetes.create_namespace("shop").await?;
    for namespace in ["shop", NAMESPACE, "kube-system"] {
        kubernetes.create_service_account(namespace, "app").await?;
    }
    Ok(cluster)
}

/// Waits until what has to be refused is refused.
async fn in_force(refused: impl AsyncFn() -> bool) -> Result<()> {
    eventually(NOTICE, async || {
        ensure!(refused().await, "the API server does not act on the policy");
        Ok(())
    })
    .await
}

fn pod(metadata: Value, spec: Value) -> Pod {
    let mut pod = json!({
        "metadata": { "generateName": "pod-" },
        "spec": { "serviceAccountName": "app", "containers": [{ "name": "app", "image": "app" }] },
    });
    for (part, more) in [("metadata", metadata), ("spec", spec)] {
        for (key, value) in more.as_object().unwrap() {
            pod[part][key] = value.clone();
        }
    }
    serde_json::from_value(pod).unwrap()
}

fn pods(kubernetes: &Kubernetes, namespace: &str) -> Api<Pod> {
    Api::namespaced(kubernetes.admin(), namespace)
}

/// The API server's answer to a creation that changes nothing.
async fn tried(kubernetes: &Kubernetes, namespace: &str, pod: &Pod) -> Result<(), String> {
    let dry_run = PostParams { dry_run: true, ..PostParams::default() };
    pods(kubernetes, namespace).create(&dry_run, pod).await.map(drop).map_err(|error| error.to_string())
}

#[track_caller]
fn assert_refused(answer: Result<(), String>, by: &str, what: &str) {
    match answer {
        Ok(()) => panic!("{what} passed"),
        Err(error) => assert!(error.contains(by), "{what}: {error}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_labelled_pod_without_the_mark_is_refused_where_the_webhook_may_fail_open() -> Result<()> {
    let cluster = cluster(&values("node-plugin")).await?;
    let kubernetes = cluster.kubernetes();
    let labelled = |annotations: Value| {
        pod(json!({ "labels": { "vault-db-injector": "true" }, "annotations": annotations }), json!({}))
    };
    in_force(async || tried(kubernetes, "shop", &labelled(json!({}))).await.is_err()).await?;
    let policy = "'vdbi-require-mark'";
    assert_refused(tried(kubernetes, "shop", &labelled(json!({}))).await, policy, "a labelled pod");
    assert_refused(
        tried(kubernetes, "shop", &labelled(json!({}))).await,
        "did not answer: create the pod again",
        "it",
    );
    let other = labelled(json!({ UUID: "b3b4f1d6-6a43-4b0e-9d5c-0123456789ab" }));
    assert_refused(tried(kubernetes, "shop", &other).await, policy, "a pod with another annotation of ours");
    for (passes, why) in [
        (labelled(json!({ MARK: "now" })), "the mark"),
        (labelled(json!({ "db-creds-injector.numberly.io/revoke-ttl": "1" })), "an earlier release"),
        (pod(json!({}), json!({})), "no label"),
        (pod(json!({ "labels": { "vault-db-injector": "false" } }), json!({})), "label false"),
    ] {
        assert_eq!(tried(kubernetes, "shop", &passes).await, Ok(()), "{why}");
    }
    for namespace in ["kube-system", NAMESPACE] {
        assert_eq!(tried(kubernetes, namespace, &labelled(json!({}))).await, Ok(()), "{namespace}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn our_service_accounts_get_tokens_for_the_configured_audience_alone() -> Result<()> {
    let cluster = cluster(&values("node-plugin")).await?;
    let kubernetes = cluster.kubernetes();
    let request = |audiences: &[&str], seconds: i64| TokenRequest {
        spec: Some(TokenRequestSpec {
            audiences: Some(audiences.iter().map(|&audience| audience.to_owned()).collect()),
            expiration_seconds: Some(seconds),
            ..TokenRequestSpec::default()
        }),
        ..TokenRequest::default()
    };
    let policy = "'vdbi-token-audience'";
    for component in ["vdbi-injector", "vdbi-nri"] {
        let ours = client(&kubernetes.kubeconfig_for_service_account(NAMESPACE, component).await?).await?;
        let ask = async |namespace: &str, request: &TokenRequest| {
            let accounts = Api::<ServiceAccount>::namespaced(ours.clone(), namespace);
            accounts
                .create_token_request("app", &PostParams::default(), request)
                .await
                .map(drop)
                .map_err(|error| error.to_string())
        };
        in_force(async || ask("shop", &request(&["other"], 600)).await.is_err()).await?;
        assert_eq!(ask("shop", &request(&["vault"], 600)).await, Ok(()), "{component}");
        for (audiences, seconds, why) in [
            (&["other"][..], 600, "another audience"),
            (&["vault", "other"], 600, "one audience too many"),
            // The API server's own: good for everything that the account may do.
            (&[], 600, "no audience"),
            (&["vault"], 601, "too long"),
        ] {
            assert_refused(ask("shop", &request(audiences, seconds)).await, policy, why);
        }
        for namespace in ["kube-system", NAMESPACE] {
            assert_refused(ask(namespace, &request(&["vault"], 600)).await, policy, namespace);
        }
    }
    let admin = Api::<ServiceAccount>::namespaced(kubernetes.admin(), "kube-system");
    admin
        .create_token_request("app", &PostParams::default(), &request(&[], 3600))
        .await
        .context("others are not concerned")?;
    Ok(())
}

/// Whether an account may use the nodes' paths in its own namespace.
async fn may_use(kubernetes: &Kubernetes, namespace: &str, account: &str) -> Result<bool> {
    let review = serde_json::from_value(json!({ "spec": {
        "user": format!("system:serviceaccount:{namespace}:{account}"),
        "resourceAttributes": {
            "namespace": namespace, "verb": "use", "group": "vault-db-injector.numberly.io", "resource": "nodepaths",
        },
    } }))?;
    let reviews = Api::<SubjectAccessReview>::all(kubernetes.admin());
    let review = reviews.create(&PostParams::default(), &review).await?;
    Ok(review.status.is_some_and(|status| status.allowed))
}

fn mounting(path: &str, account: &str) -> Pod {
    let volumes =
        json!([{ "name": "harmless", "emptyDir": {} }, { "name": "host", "hostPath": { "path": path } }]);
    pod(json!({}), json!({ "serviceAccountName": account, "volumes": volumes }))
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_but_the_node_plugin_mounts_what_leads_to_the_nodes_credentials() -> Result<()> {
    let mut values = values("node-plugin");
    values["policies"] = json!({ "hostPaths": { "exemptNamespaces": ["monitoring"], "additionalPaths": ["/run/containerd"] } });
    let cluster = cluster(&values).await?;
    let kubernetes = cluster.kubernetes();
    for namespace in ["monitoring", "vdbi-dev"] {
        kubernetes.create_namespace(namespace).await?;
    }
    for (namespace, name) in
        [("monitoring", "app"), ("vdbi-dev", "app"), ("shop", "vdbi-nri"), ("vdbi-dev", "vdbi-dev-nri")]
    {
        kubernetes.create_service_account(namespace, name).await?;
    }
    in_force(async || tried(kubernetes, "shop", &mounting("/run/nri", "app")).await.is_err()).await?;

    let policy = "'vdbi-host-paths'";
    for path in [
        "/var/run/nri",
        "/run/nri",
        "/run/nri/nri.sock",
        "/run/vdbi/nri",
        "/run/vdbi",
        "/var/run/vdbi/nri/cache",
        "/run",
        "/var/run",
        "/var",
        "/",
        "//",
        "/.",
        "/run/",
        "//run",
        "/run//nri",
        "/run/./nri/",
        "/./var//run/nri/.",
        "run/nri",
        "./run",
        "/run/containerd",
        "/var/run/containerd/containerd.sock",
        "/proc/1/root",
        "/proc/self/root/run/nri",
        "/proc/thread-self/cwd",
        "/proc/4711/root/",
        "/dev/fd/3",
    ] {
        assert_refused(tried(kubernetes, "shop", &mounting(path, "app")).await, policy, path);
    }
    let message = tried(kubernetes, "shop", &mounting("//run/./nri/", "app")).await.unwrap_err();
    assert!(message.contains("/run/nri/ of the host leads to the database credentials"), "{message}");
    // The API server itself takes no way back up.
    assert_refused(
        tried(kubernetes, "shop", &mounting("/tmp/../run/nri", "app")).await,
        "must not contain '..'",
        "..",
    );
    for path in [
        "/run/nrix",
        "/run/vdbix",
        "/run/vdbi/other",
        "/var/runner",
        "/var/log",
        "/runs",
        "/proc",
        "/sys",
        "/dev",
        "/var/lib/run/nri",
        "/nri",
    ] {
        assert_eq!(tried(kubernetes, "shop", &mounting(path, "app")).await, Ok(()), "{path}");
    }
    assert_eq!(tried(kubernetes, "shop", &pod(json!({}), json!({}))).await, Ok(()), "no volumes");

    // By the service account that may, in the namespace in which it may.
    let (_, template) = Rendered::new(&values)
        .pods()
        .into_iter()
        .find(|(component, _)| component == "nri")
        .map(|(a, b)| (a, b.clone()))
        .unwrap();
    let plugin = pod(json!({ "labels": template["metadata"]["labels"] }), template["spec"].clone());
    assert_eq!(tried(kubernetes, NAMESPACE, &plugin).await, Ok(()), "the plugin");
    assert_refused(
        tried(kubernetes, NAMESPACE, &mounting("/run/nri", "app")).await,
        policy,
        "another account of the plugin's namespace",
    );
    assert_refused(
        tried(kubernetes, "shop", &mounting("/run/nri", "vdbi-nri")).await,
        policy,
        "an account of the same name elsewhere",
    );
    assert_eq!(tried(kubernetes, "monitoring", &mounting("/", "app")).await, Ok(()), "an exempt namespace");
    let everything = json!([{ "apiGroups": ["*"], "resources": ["*"], "verbs": ["*"] }]);
    kubernetes.grant("shop", "app", everything).await?;
    in_force(async || may_use(kubernetes, "shop", "app").await.is_ok_and(|may| may)).await?;
    assert_refused(
        tried(kubernetes, "shop", &mounting("/run/nri", "app")).await,
        policy,
        "a tenant who may do everything in his namespace",
    );

    // The plugin of another release.
    assert_refused(
        tried(kubernetes, "vdbi-dev", &mounting("/run/nri", "vdbi-dev-nri")).await,
        policy,
        "a release that is not there",
    );
    install(kubernetes, "vdbi-dev", "vdbi-dev", &{
        let mut values = values.clone();
        values["podLabel"] = json!("dev");
        values["nri"]["pluginIndex"] = json!("11");
        values["nri"]["serviceAccountName"] = json!("vdbi-dev-nri");
        values["nri"]["serviceAccount"] = json!({ "create": false });
        values
    })
    .await?;
    in_force(async || tried(kubernetes, "vdbi-dev", &mounting("/run/nri", "vdbi-dev-nri")).await.is_ok())
        .await?;
    // By the policies of both, of which the API server names one.
    assert_refused(
        tried(kubernetes, "vdbi-dev", &mounting("/run/nri", "app")).await,
        "-host-paths'",
        "another account of its namespace",
    );

    let volumes = Api::<PersistentVolume>::all(kubernetes.admin());
    let dry_run = PostParams { dry_run: true, ..PostParams::default() };
    let volume = async |source: Value| {
        let mut spec = json!({ "capacity": { "storage": "1Mi" }, "accessModes": ["ReadWriteOnce"] });
        spec.as_object_mut().unwrap().extend(source.as_object().unwrap().clone());
        let volume =
            serde_json::from_value(json!({ "metadata": { "name": "volume" }, "spec": spec })).unwrap();
        volumes.create(&dry_run, &volume).await.map(drop).map_err(|error| error.to_string())
    };
    // Both releases refuse it, and the API server names one of them.
    let either = "-host-paths'";
    let affinity = json!({ "required": { "nodeSelectorTerms": [{ "matchExpressions": [{ "key": "a", "operator": "Exists" }] }] } });
    assert_refused(
        volume(json!({ "hostPath": { "path": "/run//nri" } })).await,
        either,
        "a volume of the host",
    );
    assert_refused(
        volume(json!({ "local": { "path": "/run" }, "nodeAffinity": affinity })).await,
        either,
        "a local volume",
    );
    assert_eq!(volume(json!({ "hostPath": { "path": "/data" } })).await, Ok(()));
    assert_eq!(volume(json!({ "local": { "path": "/data" }, "nodeAffinity": affinity })).await, Ok(()));
    assert_eq!(volume(json!({ "csi": { "driver": "a", "volumeHandle": "b" } })).await, Ok(()));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_changes_which_ledger_entries_a_pod_has() -> Result<()> {
    let cluster = cluster(&values("least")).await?;
    let kubernetes = cluster.kubernetes();
    let shop = pods(kubernetes, "shop");
    let create = async |name: &str, label: bool, uuid: bool| -> Result<()> {
        let mut metadata = json!({ "name": name });
        if label {
            metadata["labels"] = json!({ "vault-db-injector": "true" });
        }
        if uuid {
            metadata["annotations"] = json!({ UUID: "b3b4f1d6-6a43-4b0e-9d5c-0123456789ab", MARK: "now" });
        }
        shop.create(&PostParams::default(), &pod(metadata, json!({}))).await.map(drop).context("created")
    };
    create("served", true, true).await?;
    create("labelled", true, false).await?;
    create("forged", false, true).await?;
    create("plain", false, false).await?;

    let patch = async |name: &str, patch: Value| {
        shop.patch(name, &PatchParams::default(), &Patch::Merge(&patch))
            .await
            .map(drop)
            .map_err(|error| error.to_string())
    };
    let patch_status = async |name: &str, patch: Value| {
        shop.patch_status(name, &PatchParams::default(), &Patch::Merge(&patch))
            .await
            .map(drop)
            .map_err(|error| error.to_string())
    };
    let annotate = |value: Value| json!({ "metadata": { "annotations": { UUID: value } } });
    // Another value each time, as what changes nothing passes.
    in_force(async || patch("plain", annotate(json!(uuid::Uuid::new_v4()))).await.is_err()).await?;
    // The first of them may have been faster than the policy.
    shop.delete("plain", &DeleteParams::default().grace_period(0)).await?;
    create("plain", false, false).await?;

    let policy = "'vdbi-uuid'";
    let other = || annotate(json!("00000000-0000-4000-8000-000000000000"));
    for (name, value) in
        [("served", other()), ("served", annotate(json!(null))), ("labelled", other()), ("plain", other())]
    {
        assert_refused(patch(name, value.clone()).await, policy, name);
        assert_refused(patch_status(name, value).await, policy, &format!("the status of {name}"));
    }
    // The pod that the webhook has not seen does not become one of ours.
    let label = json!({ "metadata": { "labels": { "vault-db-injector": "true" } } });
    assert_refused(patch("forged", label.clone()).await, policy, "a forged pod");
    assert_refused(patch_status("forged", label.clone()).await, policy, "the status of a forged pod");

    let note = json!({ "metadata": { "annotations": { "note": "other" }, "labels": { "tier": "web" } } });
    for name in ["served", "labelled", "forged", "plain"] {
        assert_eq!(patch(name, note.clone()).await, Ok(()), "{name}");
        assert_eq!(patch_status(name, json!({ "status": { "phase": "Running" } })).await, Ok(()), "{name}");
    }
    assert_eq!(patch("plain", label).await, Ok(()), "a label alone is no claim");
    let unlabelled = json!({ "metadata": { "labels": { "vault-db-injector": null } } });
    assert_eq!(patch("served", unlabelled).await, Ok(()), "the label may be taken away");

    // The annotations of a binding become those of its pod.
    let bind = async |name: &str, annotations: Value| {
        let binding: Binding = serde_json::from_value(json!({
            "metadata": { "name": name, "annotations": annotations }, "target": { "kind": "Node", "name": "node-1" },
        }))
        .unwrap();
        let body = serde_json::to_vec(&binding).unwrap();
        let uri = format!("/api/v1/namespaces/shop/pods/{name}/binding");
        let request = http::Request::post(uri).header("content-type", "application/json").body(body).unwrap();
        kubernetes.admin().request_text(request).await.map(drop).map_err(|error| error.to_string())
    };
    assert_refused(
        bind("labelled", json!({ UUID: "00000000-0000-4000-8000-000000000000" })).await,
        policy,
        "a binding",
    );
    assert_eq!(bind("labelled", json!({ "note": "bound" })).await, Ok(()));
    Ok(())
}
