use anyhow::{Context, Result, ensure};
use e2e::{DatabaseAccess, System, system::LABEL};
use reqwest::header::{CONTENT_TYPE, HeaderValue};
use reqwest::{Certificate, Client};
use serde_json::{Value, json};

/// The creation of a pod with one database, as the API server asks about it: over TLS and connections that stay open.
#[derive(Clone)]
pub(super) struct Admissions {
    http: Client,
    url: String,
    review: Vec<u8>,
}

impl Admissions {
    pub(super) fn new(system: &System, access: &DatabaseAccess) -> Result<Self> {
        let authority = Certificate::from_pem(system.ca_pem.as_bytes())?;
        // One connection for each client; with HTTP/2 all would share one.
        let http = Client::builder().tls_certs_only([authority]).https_only(true).http1_only().no_proxy();
        let address = system.injector.admission_address.context("the injector has no address")?;
        let review = serde_json::to_vec(&review(access))?;
        Ok(Self { http: http.build()?, url: format!("https://{address}/"), review })
    }

    pub(super) async fn run(&self) -> Result<()> {
        let request =
            self.http.post(&self.url).header(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let answer = request.body(self.review.clone()).send().await?.error_for_status()?;
        let answer: Value = answer.json().await?;
        let response = &answer["response"];
        ensure!(response["allowed"] == true, "the pod was denied: {}", response["status"]["message"]);
        // The figure of a pod that is let through without a credential would be a good one.
        ensure!(response["patch"].is_string(), "the pod was let through without a credential");
        Ok(())
    }
}

fn review(access: &DatabaseAccess) -> Value {
    let DatabaseAccess { namespace, service_account, role, .. } = access;
    let pods = json!({ "group": "", "version": "v1", "resource": "pods" });
    let kind = json!({ "group": "", "version": "v1", "kind": "Pod" });
    json!({
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": "6f1b7a2e-4c53-4f0e-9d52-3d3f4b1c9a10",
            "kind": kind,
            "resource": pods,
            "requestKind": kind,
            "requestResource": pods,
            "name": "web",
            "namespace": namespace,
            "operation": "CREATE",
            "userInfo": { "username": "e2e-admin", "groups": ["system:masters", "system:authenticated"] },
            "object": {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {
                    "name": "web",
                    "namespace": namespace,
                    "labels": { LABEL: "true" },
                    "annotations": { "db-creds-injector.numberly.io/main.role": role },
                },
                "spec": {
                    "serviceAccountName": service_account,
                    "containers": [{ "name": "web", "image": "registry.example/web:1" }],
                },
            },
            "oldObject": null,
            "dryRun": false,
            "options": { "kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1" },
        },
    })
}
