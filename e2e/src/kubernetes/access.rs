use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams, PostParams, TypeMeta};
use kube::core::GroupVersionKind;
use kube::{Api, ResourceExt};
use serde_json::{Value, json};

use super::{Kubernetes, start};

/// Longer than any test.
const TEST_LIFETIME: Duration = Duration::from_secs(12 * 60 * 60);

impl Kubernetes {
    /// Makes an object, or changes it to look like this (server-side apply).
    ///
    /// # Errors
    ///
    /// When the API server refuses it.
    pub async fn apply(&self, object: &Value) -> Result<()> {
        let object: DynamicObject = serde_json::from_value(object.clone())?;
        let TypeMeta { api_version, kind } =
            object.types.clone().context("an object needs apiVersion and kind")?;
        let (group, version) = api_version.split_once('/').unwrap_or(("", &api_version));
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, &kind));
        let api: Api<DynamicObject> = match object.namespace() {
            Some(namespace) => Api::namespaced_with(self.admin(), &namespace, &resource),
            None => Api::all_with(self.admin(), &resource),
        };
        let name = object.name_any();
        api.patch(&name, &PatchParams::apply("e2e").force(), &Patch::Apply(&object))
            .await
            .with_context(|| format!("the API server refused {kind} {name}"))?;
        Ok(())
    }

    /// Makes a namespace, unless it is there.
    ///
    /// # Errors
    ///
    /// When the API server refuses it.
    pub async fn create_namespace(&self, name: &str) -> Result<()> {
        self.apply(&json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name } })).await
    }

    /// Makes a service account, unless it is there. Nothing makes `default` here, and a pod needs the one that it names.
    ///
    /// # Errors
    ///
    /// When the API server refuses it.
    pub async fn create_service_account(&self, namespace: &str, name: &str) -> Result<()> {
        let metadata = json!({ "namespace": namespace, "name": name });
        self.apply(&json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata })).await
    }

    /// Gives a service account a role of its own name in its namespace, with these rules.
    ///
    /// # Errors
    ///
    /// When the API server refuses it.
    pub async fn grant(&self, namespace: &str, account: &str, rules: Value) -> Result<()> {
        let metadata = json!({ "name": account, "namespace": namespace });
        self.bind("Role", &metadata, namespace, account, rules).await
    }

    /// Gives a service account a cluster role with these rules.
    ///
    /// # Errors
    ///
    /// When the API server refuses it.
    pub async fn grant_in_cluster(
        &self,
        namespace: &str,
        account: &str,
        role: &str,
        rules: Value,
    ) -> Result<()> {
        self.bind("ClusterRole", &json!({ "name": role }), namespace, account, rules).await
    }

    async fn bind(
        &self,
        kind: &str,
        metadata: &Value,
        namespace: &str,
        account: &str,
        rules: Value,
    ) -> Result<()> {
        let api_version = "rbac.authorization.k8s.io/v1";
        let role = json!({ "apiVersion": api_version, "kind": kind, "metadata": metadata, "rules": rules });
        self.apply(&role).await?;
        self.apply(&json!({
            "apiVersion": api_version, "kind": format!("{kind}Binding"), "metadata": metadata,
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": metadata["name"] },
            "subjects": [{ "kind": "ServiceAccount", "name": account, "namespace": namespace }],
        }))
        .await
    }

    /// A token of a service account, as a pod of it would get; without audiences it is for the API server.
    ///
    /// # Errors
    ///
    /// When the API server refuses it; ten minutes is the shortest lifetime.
    pub async fn service_account_token(
        &self,
        namespace: &str,
        name: &str,
        audiences: &[&str],
        lifetime: Duration,
    ) -> Result<String> {
        let spec = TokenRequestSpec {
            audiences: Some(audiences.iter().map(|&audience| audience.to_owned()).collect()),
            expiration_seconds: Some(i64::try_from(lifetime.as_secs())?),
            bound_object_ref: None,
        };
        let request = TokenRequest { spec: Some(spec), ..TokenRequest::default() };
        let accounts: Api<ServiceAccount> = Api::namespaced(self.admin(), namespace);
        let answer = accounts
            .create_token_request(name, &PostParams::default(), &request)
            .await
            .with_context(|| format!("no token for service account {namespace}/{name}"))?;
        answer.status.and_then(|status| status.token).context("the answer to the token request has no token")
    }

    /// A file with a token of a service account, in place of a projected volume.
    ///
    /// # Errors
    ///
    /// When there is no such service account.
    pub async fn service_account_token_file(
        &self,
        namespace: &str,
        name: &str,
        audience: &str,
    ) -> Result<PathBuf> {
        let token = self.service_account_token(namespace, name, &[audience], TEST_LIFETIME).await?;
        let path = self.directory.join(format!("{namespace}-{name}-{}.token", uuid::Uuid::new_v4().simple()));
        fs::write(&path, token)?;
        Ok(path)
    }

    /// A kubeconfig file of a user by a certificate, as Kubernetes' own components have one.
    ///
    /// # Errors
    ///
    /// When a name does not fit into a certificate.
    pub fn kubeconfig_for_user(&self, user: &str, group: &str) -> Result<PathBuf> {
        let certificate = start::certificate_of(&self.authority, user, group)?;
        let path = self.directory.join(format!("{}.kubeconfig", user.replace(':', "-")));
        start::write_kubeconfig(&path, &self.url, &self.ca_pem, certificate)
    }

    /// A kubeconfig file of a service account, to run a program as it with `KUBECONFIG`.
    ///
    /// # Errors
    ///
    /// When there is no such service account.
    pub async fn kubeconfig_for_service_account(&self, namespace: &str, name: &str) -> Result<PathBuf> {
        let token = self.service_account_token(namespace, name, &[], TEST_LIFETIME).await?;
        // Of its own each time: a program may read the one before just now.
        let unique = uuid::Uuid::new_v4().simple();
        let path = self.directory.join(format!("{namespace}-{name}-{unique}.kubeconfig"));
        start::write_kubeconfig(&path, &self.url, &self.ca_pem, json!({ "token": token }))
    }
}
