//! The authority's place in the cluster: a Secret for all replicas, and the caBundle of the webhook's configuration.

use std::{fmt, time::Duration};

use jiff::Timestamp;
use k8s_openapi::{
    ByteString,
    api::{admissionregistration::v1::MutatingWebhookConfiguration, core::v1::Secret},
};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{ObjectMeta, Patch, PatchParams, PostParams},
};
use serde_json::json;
use vdbi_core::leadership::{Term, WorkError};

use super::{
    Material, TlsError,
    authority::{Lifetimes, Store, next},
};

/// How often the leader looks whether something is to be done.
const INTERVAL: Duration = Duration::from_secs(5);

/// A certificate that the webhook's replicas issue themselves, for clusters without a certificate manager.
///
/// One replica leads and keeps the Secret and the caBundle; all read the Secret. Needs the verbs get, create and update on
/// that Secret, and get and patch on that MutatingWebhookConfiguration.
#[derive(Clone)]
pub struct SelfManaged {
    secrets: Api<Secret>,
    configurations: Api<MutatingWebhookConfiguration>,
    settings: Settings,
    lifetimes: Lifetimes,
}

/// Where the authority is kept, and what it certifies.
///
/// It is written as a literal, on purpose: all of it is needed, and a constructor would take three texts that could be swapped.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The namespace of the Secret.
    pub namespace: String,
    /// The Secret's name.
    pub secret: String,
    /// The name of the MutatingWebhookConfiguration; every webhook in it gets the bundle.
    pub configuration: String,
    /// The DNS names or addresses of the certificate.
    pub names: Vec<String>,
}

impl SelfManaged {
    /// Asks nothing yet.
    pub fn new(client: Client, settings: Settings) -> Self {
        let secrets = Api::namespaced(client.clone(), &settings.namespace);
        Self { secrets, configurations: Api::all(client), settings, lifetimes: Lifetimes::default() }
    }

    /// Certificates that live for another time.
    #[must_use]
    pub fn with_lifetimes(self, lifetimes: Lifetimes) -> Self {
        Self { lifetimes, ..self }
    }

    /// The work of the leader: keeps the authority and its certificate until the term is over.
    ///
    /// # Errors
    ///
    /// None; what fails is logged once and tried again.
    pub async fn lead(self, term: Term) -> Result<(), WorkError> {
        let mut reported = None;
        loop {
            match term.run(self.tend()).await {
                // The term is over.
                Err(_) => return Ok(()),
                Ok(Ok(())) => reported = None,
                Ok(Err(error)) => {
                    if reported.as_ref() != Some(&error) {
                        tracing::warn!("cannot keep the webhook's own authority, trying again: {error}");
                    }
                    reported = Some(error);
                }
            }
            if term.wait(tokio::time::sleep(INTERVAL)).await.is_err() {
                return Ok(());
            }
        }
    }

    /// Brings Secret and caBundle to where they should be, one step at a time.
    async fn tend(&self) -> Result<(), String> {
        let Settings { secret: name, configuration, names, .. } = &self.settings;
        let present = self.secrets.get_opt(name).await.map_err(|error| self.about_secret(&error))?;
        let store = present.as_ref().map_or_else(|| Ok(Store::default()), |secret| self.store(secret))?;
        let found =
            self.configurations.get(configuration).await.map_err(|error| self.about_configuration(&error))?;
        let bundles = bundles(&found);
        let common = match &bundles[..] {
            [first, rest @ ..] if rest.iter().all(|bundle| bundle == first) => first.as_str(),
            _ => "",
        };
        let changed = next(&store, common, names, self.lifetimes, Timestamp::now())
            .map_err(|error| error.to_string())?;
        if let Some(changed) = &changed {
            self.write(present, changed).await.map_err(|error| self.about_secret(&error))?;
            tracing::info!(secret = name, "renewed the webhook's own certificate or authority");
        }
        let bundle = changed.as_ref().unwrap_or(&store).bundle();
        if bundles.iter().any(|present| *present != bundle) {
            self.publish(&found, &bundle).await.map_err(|error| self.about_configuration(&error))?;
            tracing::info!(
                configuration,
                "wrote the caBundle of MutatingWebhookConfiguration {configuration}"
            );
        }
        Ok(())
    }

    /// What to serve; `None` as long as no leader has made it.
    pub(super) async fn material(&self) -> Result<Option<Material>, TlsError> {
        let unusable = |reason: String| TlsError::Certificate(reason);
        let secret = self
            .secrets
            .get_opt(&self.settings.secret)
            .await
            .map_err(|error| unusable(self.about_secret(&error)))?;
        secret.map_or(Ok(None), |secret| Ok(self.store(&secret).map_err(unusable)?.material()))
    }

    fn store(&self, secret: &Secret) -> Result<Store, String> {
        let data = secret.data.iter().flatten();
        let data = data.map(|(key, ByteString(bytes))| (key.clone(), bytes.clone())).collect();
        Store::from_data(&data).map_err(|reason| {
            format!(
                "Secret {}/{} holds no authority of the webhook: {reason}; delete it, and a new one is made",
                self.settings.namespace, self.settings.secret
            )
        })
    }

    /// Only if nobody has written it since it was read.
    async fn write(&self, present: Option<Secret>, store: &Store) -> kube::Result<()> {
        let data = store.to_data().into_iter().map(|(key, bytes)| (key, ByteString(bytes))).collect();
        let (params, name) = (PostParams::default(), &self.settings.secret);
        match present {
            Some(secret) => {
                self.secrets.replace(name, &params, &Secret { data: Some(data), ..secret }).await.map(drop)
            }
            None => {
                let metadata = ObjectMeta { name: Some(name.clone()), ..ObjectMeta::default() };
                let secret = Secret { metadata, data: Some(data), ..Secret::default() };
                self.secrets.create(&params, &secret).await.map(drop)
            }
        }
    }

    async fn publish(&self, found: &MutatingWebhookConfiguration, bundle: &str) -> kube::Result<()> {
        let webhooks = found.webhooks.iter().flatten().enumerate();
        let operations: Vec<_> = webhooks
            .flat_map(|(index, webhook)| {
                let at = format!("/webhooks/{index}");
                [
                    // Not into one that took its place meanwhile.
                    json!({ "op": "test", "path": format!("{at}/name"), "value": webhook.name }),
                    json!({ "op": "add", "path": format!("{at}/clientConfig/caBundle"),
                        "value": ByteString(bundle.as_bytes().to_vec()) }),
                ]
            })
            .collect();
        let operations = serde_json::from_value(operations.into()).map_err(kube::Error::SerdeError)?;
        let patch = Patch::Json::<()>(operations);
        self.configurations.patch(&found.name_any(), &PatchParams::default(), &patch).await.map(drop)
    }

    fn about_secret(&self, error: &kube::Error) -> String {
        format!("Secret {}/{}: {error}", self.settings.namespace, self.settings.secret)
    }

    fn about_configuration(&self, error: &kube::Error) -> String {
        let kind = MutatingWebhookConfiguration::kind(&());
        format!("{kind} {}: {error}", self.settings.configuration)
    }
}

impl fmt::Debug for SelfManaged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SelfManaged").field("settings", &self.settings).finish_non_exhaustive()
    }
}

fn bundles(configuration: &MutatingWebhookConfiguration) -> Vec<String> {
    let webhooks = configuration.webhooks.iter().flatten();
    webhooks
        .map(|webhook| {
            let bundle = webhook.client_config.ca_bundle.as_ref();
            bundle.map_or_else(String::new, |ByteString(bytes)| String::from_utf8_lossy(bytes).into_owned())
        })
        .collect()
}
