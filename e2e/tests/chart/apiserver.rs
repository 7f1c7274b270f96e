//! What a real API server says of the chart, and what a release leaves there.

use anyhow::{Context, Result};
use e2e::{Cluster, Kubernetes};
use k8s_openapi::{
    ByteString,
    api::{
        admissionregistration::v1::{MutatingWebhookConfiguration, ValidatingAdmissionPolicy},
        rbac::v1::ClusterRole,
    },
};
use kube::{
    Api, ResourceExt,
    api::{ApiResource, DynamicObject, ListParams, Patch, PatchParams, ValidationDirective},
    core::GroupVersionKind,
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::helm::{NAMESPACE, Rendered, VALUES, chart, helm, title, values, with};

/// Of operators, which are not here.
const FOREIGN: [&str; 4] = ["cert-manager.io", "monitoring.coreos.com", "cilium.io", "kyverno.io"];

/// Runs Helm against a cluster.
pub(crate) async fn helm_in(
    kubernetes: &Kubernetes,
    arguments: &[&str],
    values: Option<&Value>,
) -> Result<String> {
    let kubeconfig = kubernetes.admin_kubeconfig().to_str().context("a path is text")?.to_owned();
    let mut arguments: Vec<String> = arguments.iter().map(|&argument| argument.to_owned()).collect();
    arguments.extend(["--kubeconfig".to_owned(), kubeconfig]);
    let values = values.cloned();
    tokio::task::spawn_blocking(move || {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        helm(&arguments, values.as_ref())
    })
    .await?
}

/// Installs the chart; nothing runs, as there are no nodes.
pub(crate) async fn install(
    kubernetes: &Kubernetes,
    release: &str,
    namespace: &str,
    values: &Value,
) -> Result<String> {
    let chart = chart();
    let arguments =
        ["install", release, chart.to_str().unwrap(), "--namespace", namespace, "--create-namespace"];
    helm_in(kubernetes, &arguments, Some(values)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_object_is_one_that_the_api_server_takes_to_the_letter() -> Result<()> {
    let cluster = Cluster::builder().kubernetes().start().await?;
    cluster.kubernetes().create_namespace(NAMESPACE).await?;
    let strict = PatchParams {
        dry_run: true,
        force: true,
        field_manager: Some("e2e".to_owned()),
        field_validation: Some(ValidationDirective::Strict),
    };
    for name in VALUES {
        let rendered = Rendered::new(&values(name));
        for object in rendered.all() {
            let (group, version) =
                object["apiVersion"].as_str().unwrap().rsplit_once('/').unwrap_or(("", "v1"));
            if FOREIGN.contains(&group) {
                assert!(object["spec"].is_object(), "{}", title(object));
                continue;
            }
            let kind = GroupVersionKind::gvk(group, version, object["kind"].as_str().unwrap());
            let resource = ApiResource::from_gvk(&kind);
            let api: Api<DynamicObject> = match object["metadata"]["namespace"].as_str() {
                Some(namespace) => Api::namespaced_with(cluster.kubernetes().admin(), namespace, &resource),
                None => Api::all_with(cluster.kubernetes().admin(), &resource),
            };
            api.patch(object["metadata"]["name"].as_str().unwrap(), &strict, &Patch::Apply(object))
                .await
                .with_context(|| format!("{name}: {}", title(object)))?;
        }
    }
    Ok(())
}

async fn bundle(kubernetes: &Kubernetes) -> Result<Option<String>> {
    let all = Api::<MutatingWebhookConfiguration>::all(kubernetes.admin());
    let found = all.get("vdbi").await?.webhooks.unwrap_or_default();
    Ok(found[0].client_config.ca_bundle.clone().map(|ByteString(bytes)| String::from_utf8(bytes).unwrap()))
}

/// What the webhook does with an authority of its own.
async fn write_bundle(kubernetes: &Kubernetes, authority: &str) -> Result<()> {
    let all = Api::<MutatingWebhookConfiguration>::all(kubernetes.admin());
    let patch = json!([{ "op": "add", "path": "/webhooks/0/clientConfig/caBundle", "value": ByteString(authority.as_bytes().to_vec()) }]);
    all.patch("vdbi", &PatchParams::default(), &Patch::Json::<()>(serde_json::from_value(patch)?)).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn upgrades_and_rollbacks_keep_the_authority_that_the_webhook_wrote() -> Result<()> {
    let cluster = Cluster::builder().kubernetes().start().await?;
    let kubernetes = cluster.kubernetes();
    let chart = chart();
    let chart = chart.to_str().unwrap();
    let notes = install(kubernetes, "vdbi", NAMESPACE, &values("least")).await?;
    assert!(notes.contains("role revoker: vdbi-system/vdbi-revoker"), "{notes}");
    assert_eq!(bundle(kubernetes).await?, None);
    let first = rcgen_authority("first");
    write_bundle(kubernetes, &first).await?;

    let changed = with(
        json!({ "webhook": { "timeoutSeconds": 7 }, "vaultDbInjector": { "configuration": { "logLevel": "debug" } } }),
    );
    let upgrade = ["upgrade", "vdbi", chart, "--namespace", NAMESPACE];
    helm_in(kubernetes, &upgrade, Some(&changed)).await?;
    let webhook = Api::<MutatingWebhookConfiguration>::all(kubernetes.admin()).get("vdbi").await?;
    assert_eq!(webhook.webhooks.unwrap_or_default()[0].timeout_seconds, Some(7));
    assert_eq!(bundle(kubernetes).await?.as_deref(), Some(first.as_str()));

    // Rotated meanwhile: what an earlier revision saw is of no use any more.
    let second = rcgen_authority("second");
    write_bundle(kubernetes, &second).await?;
    helm_in(kubernetes, &["rollback", "vdbi", "1", "--namespace", NAMESPACE], None).await?;
    assert_eq!(bundle(kubernetes).await?.as_deref(), Some(second.as_str()));

    helm_in(kubernetes, &["uninstall", "vdbi", "--namespace", NAMESPACE], None).await?;
    let left = [
        installed(Api::<ClusterRole>::all(kubernetes.admin())).await?,
        installed(Api::<MutatingWebhookConfiguration>::all(kubernetes.admin())).await?,
        installed(Api::<ValidatingAdmissionPolicy>::all(kubernetes.admin())).await?,
    ]
    .concat();
    assert!(left.is_empty(), "{left:?}");
    Ok(())
}

/// The names of the release's objects of one kind.
async fn installed<K>(api: Api<K>) -> Result<Vec<String>>
where
    K: Clone + DeserializeOwned + std::fmt::Debug + ResourceExt,
{
    let ours = ListParams::default().labels("app.kubernetes.io/instance=vdbi");
    Ok(api.list(&ours).await?.items.iter().map(ResourceExt::name_any).collect())
}

fn rcgen_authority(name: &str) -> String {
    e2e::Authority::new(name).unwrap().pem()
}

#[tokio::test(flavor = "multi_thread")]
async fn two_releases_that_differ_in_index_and_label_live_on_one_cluster() -> Result<()> {
    let cluster = Cluster::builder().kubernetes().start().await?;
    let of = |index: &str, label: &str| {
        let mut values = values("node-plugin");
        values["nri"]["pluginIndex"] = json!(index);
        values["vaultDbInjector"]["configuration"]["webhookMatchLabels"] = json!(label);
        values
    };
    install(cluster.kubernetes(), "vdbi-prod", "vdbi-prod", &of("10", "vault-db-injector")).await?;
    install(cluster.kubernetes(), "vdbi-dev", "vdbi-dev", &of("11", "vault-db-injector-dev")).await?;
    // Only in another namespace, the same name would be the same objects.
    let error = install(cluster.kubernetes(), "vdbi-dev", "elsewhere", &of("12", "other"))
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("cannot be imported into the current release"), "{error}");
    Ok(())
}
