use ::base64::Engine as _;
use ::base64::engine::general_purpose::STANDARD;
use anyhow::Result;
use serde_json::json;

use super::Kubernetes;

impl Kubernetes {
    /// Sends the creation of every pod with the label `<label_key>: "true"` to a webhook at this address; a pod is refused when
    /// the webhook does not answer.
    ///
    /// # Errors
    ///
    /// When the API server refuses it.
    pub async fn install_webhook(&self, url: &str, ca_pem: &str, label_key: &str) -> Result<()> {
        self.apply(&json!({
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "MutatingWebhookConfiguration",
            "metadata": { "name": "vdbi" },
            "webhooks": [{
                "name": "pods.vdbi.test",
                "clientConfig": { "url": url, "caBundle": STANDARD.encode(ca_pem) },
                "rules": [{
                    "operations": ["CREATE"],
                    "apiGroups": [""],
                    "apiVersions": ["v1"],
                    "resources": ["pods"],
                    "scope": "Namespaced",
                }],
                "objectSelector": { "matchLabels": { label_key: "true" } },
                "namespaceSelector": { "matchExpressions": [{
                    "key": "kubernetes.io/metadata.name",
                    "operator": "NotIn",
                    "values": ["kube-system"],
                }] },
                "failurePolicy": "Fail",
                "sideEffects": "NoneOnDryRun",
                "timeoutSeconds": 5,
                "admissionReviewVersions": ["v1"],
                "reinvocationPolicy": "Never",
            }],
        }))
        .await
    }
}
