use std::time::Duration;

use ::base64::Engine as _;
use ::base64::engine::general_purpose::STANDARD;
use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::Kubernetes;

/// The objects of the documentation, which users apply.
const CONFIGURATION: &str = include_str!("../../../docs/manifests/webhook.yaml");
const REQUIRE_MARK: &str = include_str!("../../../docs/manifests/require-mark.yaml");

/// How long the API server may take to notice a new admission policy.
const NOTICE: Duration = Duration::from_secs(10);

impl Kubernetes {
    /// Sends the creation of every pod with the label `<label_key>: "true"` to a webhook at this address; a pod is refused when
    /// the webhook does not answer.
    ///
    /// # Errors
    ///
    /// When the API server refuses it.
    pub async fn install_webhook(&self, url: &str, ca_pem: &str, label_key: &str) -> Result<()> {
        let change = |configuration: &mut Value| {
            let webhook = &mut configuration["webhooks"][0];
            webhook["objectSelector"] = json!({ "matchLabels": { label_key: "true" } });
        };
        self.install_webhook_with(url, ca_pem, change).await
    }

    /// As [`Kubernetes::install_webhook`], with the documented configuration changed in other ways.
    ///
    /// # Errors
    ///
    /// When the API server refuses it.
    pub async fn install_webhook_with(
        &self,
        url: &str,
        ca_pem: &str,
        change: impl FnOnce(&mut Value),
    ) -> Result<()> {
        let mut configuration: Value = serde_saphyr::from_str(CONFIGURATION)?;
        configuration["webhooks"][0]["clientConfig"] =
            json!({ "url": url, "caBundle": STANDARD.encode(ca_pem) });
        change(&mut configuration);
        self.apply(&configuration).await
    }

    /// Refuses labelled pods that carry no mark of the webhook, as the documentation has it; waits until that is in force.
    ///
    /// # Errors
    ///
    /// When the API server refuses the policy, or does not act on it.
    pub async fn require_mark(&self) -> Result<()> {
        for document in REQUIRE_MARK.split("\n---\n") {
            self.apply(&serde_saphyr::from_str::<Value>(document)?).await?;
        }
        let started = std::time::Instant::now();
        let probe = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": { "name": "probe", "namespace": "default", "labels": { "vault-db-injector": "true" } },
            "spec": { "serviceAccountName": "probe", "containers": [{ "name": "probe", "image": "probe" }] },
        });
        self.create_service_account("default", "probe").await?;
        let pods = kube::Api::<k8s_openapi::api::core::v1::Pod>::namespaced(self.admin(), "default");
        let dry_run = kube::api::PostParams { dry_run: true, ..Default::default() };
        let probe = serde_json::from_value(probe)?;
        while !pods
            .create(&dry_run, &probe)
            .await
            .is_err_and(|error| error.to_string().contains("require-mark"))
        {
            ensure!(started.elapsed() < NOTICE, "the API server does not act on the policy");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(())
    }
}
