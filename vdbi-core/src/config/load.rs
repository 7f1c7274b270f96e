//! From file and environment to a [`Config`].

use std::{
    fs, io,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::Value;
use thiserror::Error;

use super::{
    Component, Config, LeaderElectionConfig, LedgerConfig, LogFormat, LogLevel, MetricsConfig, NriConfig,
    PrewarmerConfig, RenewerConfig, RevokerConfig, RotationConfig, WebhookConfig,
    keys::{KEYS, Key, nearest},
    values::Values,
};

/// Keys without which there is no session at OpenBao or Vault.
const REQUIRED_BY_VAULT: [&str; 4] = ["vaultAddress", "kubeRole", "vaultSecretName", "vaultSecretPrefix"];

/// A configuration, and what its author should know about it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// What was set and has no effect, once each; for the log.
    pub notices: Vec<String>,
}

/// Why there is no configuration.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration file {}: {error}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The file is no YAML.
    #[error("the configuration file {} is no valid YAML: {message}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Where and why.
        message: String,
    },
    /// Values are missing or wrong: all of them.
    #[error("the configuration of vdbi-{component} is wrong:\n  {}", problems.join("\n  "))]
    Invalid {
        /// The component.
        component: &'static str,
        /// One line each.
        problems: Vec<String>,
    },
}

impl Config {
    /// Reads the file, if there is one, then the variables `INJECTOR_*` of `environment` over it. Of the others
    /// `POD_NAMESPACE` and `NODE_NAME` are looked at, which the downward API sets: for the namespace of the leases, and for the node
    /// of the node plugin. What `component` needs has to be set; what it does not use is checked all the same.
    ///
    /// # Errors
    ///
    /// See [`ConfigError`].
    pub fn load(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
        component: Component,
    ) -> Result<Loaded, ConfigError> {
        Self::read(file, environment, component, &REQUIRED_BY_VAULT)
    }

    /// As [`load`](Self::load), for a component over another backend than OpenBao or Vault: `vaultAddress`, `kubeRole`,
    /// `vaultSecretName` and `vaultSecretPrefix` need not be there.
    ///
    /// # Errors
    ///
    /// See [`ConfigError`].
    pub fn load_without_vault(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
        component: Component,
    ) -> Result<Loaded, ConfigError> {
        Self::read(file, environment, component, &[])
    }

    fn read(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
        component: Component,
        required: &[&str],
    ) -> Result<Loaded, ConfigError> {
        let text = match file {
            Some(path) => fs::read_to_string(path)
                .map_err(|error| ConfigError::Read { path: path.to_owned(), error })?,
            None => String::new(),
        };
        let mut values = Values::default();
        if !text.trim().is_empty() {
            let document: Value = serde_saphyr::from_str(&text).map_err(|error| ConfigError::Syntax {
                path: file.map(Path::to_owned).unwrap_or_default(),
                message: error.to_string(),
            })?;
            values.add_document(&document, &text);
        }
        let mut notices = overlay(&mut values, environment);
        notices.extend(without_effect(&values, component));
        for path in required {
            let replaced = *path == "kubeRole" && component == Component::Nri && values.is_set("kubeRoleNri");
            if !replaced {
                values.require(path);
            }
        }
        let config = typed(&mut values, component);
        if values.problems.is_empty() {
            Ok(Loaded { config, notices })
        } else {
            Err(ConfigError::Invalid { component: component.name(), problems: values.problems })
        }
    }
}

/// Variables without the prefix are not read: the Go product reads `MODE` and `ENABLED` too, which anything may have set.
fn overlay(values: &mut Values, environment: impl IntoIterator<Item = (String, String)>) -> Vec<String> {
    let mut notices = Vec::new();
    for (name, value) in environment {
        match name.as_str() {
            "VAULT_CACERT" if !values.is_set("vaultCaCert") => values.set("vaultCaCert", value),
            "VAULT_NAMESPACE" if !values.is_set("vaultNamespace") => values.set("vaultNamespace", value),
            "POD_NAMESPACE" if !values.is_set("leaderElection.leaseNamespace") => {
                values.set("leaderElection.leaseNamespace", value);
            }
            "NODE_NAME" if !values.is_set("nri.nodeName") => values.set("nri.nodeName", value),
            _ if !name.starts_with("INJECTOR_") => {}
            _ => match KEYS.iter().find(|key| key.variable() == name) {
                Some(key) => values.set(key.path, value),
                None => {
                    let nearest = nearest(&name, KEYS.iter().map(Key::variable));
                    notices.push(format!(
                        "the environment variable {name} is not known and has no effect: did you mean {nearest}?"
                    ));
                }
            },
        }
    }
    notices
}

fn without_effect(values: &Values, component: Component) -> Option<String> {
    let idle: Vec<&str> = KEYS
        .iter()
        .filter(|key| !key.components.contains(&component))
        .map(|key| key.path)
        // The downward API's variables may have set these, in which case nobody asked for anything.
        .filter(|path| {
            values.is_set(path) && !["leaderElection.leaseNamespace", "nri.nodeName"].contains(path)
        })
        .collect();
    (!idle.is_empty()).then(|| {
        format!("these keys are set and have no effect in vdbi-{}: {}", component.name(), idle.join(", "))
    })
}

fn typed(values: &mut Values, component: Component) -> Config {
    mode(values, component);
    for path in [
        "vaultAuthPath",
        "vaultSecretName",
        "vaultSecretPrefix",
        "kubeRole",
        "kubeRoleNri",
        "tokenRole",
        "defaultEngine",
    ] {
        vault_path(values, path);
    }
    let address = values.text("vaultAddress");
    let is_url = ["http://", "https://"].iter().any(|scheme| address.starts_with(scheme));
    if !(address.is_empty() || is_url) {
        // It is not repeated: it may hold a password.
        values.problems.push(
            "vaultAddress: it has to begin with https:// or http://, such as https://vault.example:8200"
                .to_owned(),
        );
    }
    let self_managed = values.bool("webhook.selfManaged");
    if component == Component::Injector {
        webhook(values, self_managed);
    }
    if component == Component::Nri {
        node_plugin(values);
    }
    if component.elects(self_managed) && values.text("leaderElection.leaseNamespace").is_empty() {
        values
            .problems
            .push("leaderElection.leaseNamespace: it is required where POD_NAMESPACE is not set".to_owned());
    }
    let use_projected_sa = values.bool("useProjectedSA");
    let token_request_audiences = values.list("tokenRequestAudiences");
    let issues = matches!(component, Component::Injector | Component::Nri);
    if use_projected_sa && token_request_audiences.is_empty() && issues {
        values.problems.push("tokenRequestAudiences: useProjectedSA needs at least one".to_owned());
    }
    let least_expiration = if use_projected_sa { 600 } else { 0 };
    let any = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
    Config {
        log_level: values
            .choice(
                "logLevel",
                &[
                    ("debug", LogLevel::Debug),
                    ("info", LogLevel::Info),
                    ("warn", LogLevel::Warn),
                    ("warning", LogLevel::Warn),
                    ("error", LogLevel::Error),
                ],
            )
            .unwrap_or(LogLevel::Info),
        log_format: values
            .choice("logFormat", &[("json", LogFormat::Json), ("human", LogFormat::Human)])
            .unwrap_or(LogFormat::Json),
        metrics: MetricsConfig { per_pod: values.bool("metrics.perPod") },
        admin_address: values.parsed("adminAddress", any),
        metrics_address: values.parsed("metricsAddress", any),
        shutdown_grace_period: values.positive_duration("shutdownGracePeriod"),
        cluster_id: values.text("clusterId"),
        release: values.text("release"),

        vault_address: address,
        vault_namespace: values.optional("vaultNamespace"),
        vault_ca_cert: values.optional("vaultCaCert").map(PathBuf::from),
        vault_auth_path: values.text("vaultAuthPath"),
        vault_request_timeout: values.positive_duration("vaultRequestTimeout"),
        kube_role: match values.optional("kubeRoleNri") {
            Some(role) if component == Component::Nri => role,
            _ => values.text("kubeRole"),
        },
        service_account_token_file: values.text("serviceAccountTokenFile").into(),
        vault_secret_name: values.text("vaultSecretName"),
        vault_secret_prefix: values.text("vaultSecretPrefix"),
        vault_rate_limit: values.number("vaultRateLimit", 0.1, 100_000.0),

        admission_address: values.parsed("admissionAddress", any),
        admission_timeout: values.positive_duration("admissionTimeout"),
        cert_file: values.text("certFile").into(),
        key_file: values.text("keyFile").into(),
        webhook: WebhookConfig {
            max_in_flight: values.number("webhook.maxInFlight", 1, 10_000),
            max_queued: values.number("webhook.maxQueued", 0, 1_000_000),
            client_ca_file: values.optional("webhook.clientCaFile").map(PathBuf::from),
            client_allowed_names: values.list("webhook.clientAllowedNames"),
            drain_delay: values.duration("webhook.drainDelay"),
            self_managed,
            secret_name: values
                .optional("webhook.secretName")
                .unwrap_or_else(|| format!("{}-webhook-tls", values.text("release"))),
            configuration_name: values
                .optional("webhook.configurationName")
                .unwrap_or_else(|| values.text("release")),
            dns_names: values.list("webhook.dnsNames"),
        },
        default_engine: values.text("defaultEngine"),
        token_ttl: values.positive_duration("tokenTTL"),
        token_role: values.optional("tokenRole"),
        role_cache_ttl: values.duration("roleCacheTTL"),
        use_projected_sa,
        token_request_audiences,
        token_request_expiration: Duration::from_secs(values.number(
            "tokenRequestExpirationSeconds",
            least_expiration,
            u64::from(u32::MAX),
        )),
        ledger: LedgerConfig { store_raw_token: values.bool("ledger.storeRawToken") },
        nri: NriConfig {
            enabled: values.bool("nri.enabled"),
            tripwire: values.bool("nri.tripwire"),
            require_plugin: values.bool("nri.requirePlugin"),
            node_name: values.text("nri.nodeName"),
            socket_path: values.text("nri.socketPath").into(),
            cache_path: values.text("nri.cachePath").trim_end_matches(".json").into(),
            plugin_name: values.text("nri.pluginName"),
            plugin_index: values.text("nri.pluginIndex"),
            pod_label: values.text("nri.podLabel"),
            fetch_timeout: values.positive_duration("nri.fetchTimeout"),
            prewarmer: PrewarmerConfig {
                enabled: values.bool("nri.prewarmer.enabled"),
                max_concurrent: values.number("nri.prewarmer.maxConcurrent", 1, 10_000),
            },
        },

        injector_label: values.text("injectorLabel"),
        shards: values.number("shards", 1, 64),
        leader_election: LeaderElectionConfig {
            lease_name: values.text("leaderElection.leaseName"),
            lease_namespace: values.text("leaderElection.leaseNamespace"),
            lease_duration: values.positive_duration("leaderElection.leaseDuration"),
            hard_deadline: values.positive_duration("leaderElection.hardDeadline"),
            abort_after: values.positive_duration("leaderElection.abortAfter"),
            renew_interval: values.positive_duration("leaderElection.renewInterval"),
            retry: values.positive_duration("leaderElection.retry"),
            request_timeout: values.positive_duration("leaderElection.requestTimeout"),
            drain_timeout: values.positive_duration("leaderElection.drainTimeout"),
        },
        sync_ttl_second: Duration::from_secs(values.number("syncTTLSecond", 1, u64::from(u32::MAX))),
        renewer: RenewerConfig {
            renew_at: values.number("renewer.renewAt", 0.1, 0.9),
            max_in_flight: values.number("renewer.maxInFlight", 1, 10_000),
        },
        rotation: RotationConfig {
            enabled: values.bool("rotation.enabled"),
            max_in_flight: values.number("rotation.maxInFlight", 1, 10_000),
        },
        revoker: RevokerConfig {
            interval: values.positive_duration("revoker.interval"),
            grace_period: values.duration("revoker.gracePeriod"),
            brake_share: values.number("revoker.brakeShare", 0.0, 1.0),
            brake_minimum: values.number("revoker.brakeMinimum", 0, usize::MAX),
            brake_override_until: values.time("revoker.brakeOverrideUntil"),
            revoke_without_label: values
                .choice("revoker.labelRemoved", &[("keep", false), ("revoke", true)])
                .unwrap_or_default(),
            overdue_after: values.duration("revoker.overdueAfter"),
            max_in_flight: values.number("revoker.maxInFlight", 1, 10_000),
            rate_limit: values.number("revoker.rateLimit", 0.1, 100_000.0),
        },
    }
}

fn mode(values: &mut Values, component: Component) {
    let named = values.text("mode");
    let others = [Component::Injector, Component::Renewer, Component::Revoker, Component::Nri];
    let problem = match others.iter().find(|other| other.name() == named) {
        None if named == "all" => return,
        Some(&other) if other == component => return,
        Some(_) => format!(
            "mode: {named} is another component, and this is vdbi-{}: remove mode, or start vdbi-{named}",
            component.name()
        ),
        None => format!("mode: {named:?} is no component: remove it, each component has its own binary"),
    };
    values.problems.push(problem);
}

fn webhook(values: &mut Values, self_managed: bool) {
    if self_managed {
        values.require("webhook.dnsNames");
    } else {
        values.require("certFile");
        values.require("keyFile");
    }
    if !values.list("webhook.clientAllowedNames").is_empty()
        && values.optional("webhook.clientCaFile").is_none()
    {
        values.problems.push(
            "webhook.clientAllowedNames: they are only looked for in certificates of webhook.clientCaFile, which is not set"
                .to_owned(),
        );
    }
    let (delay, grace) = (values.duration("webhook.drainDelay"), values.duration("shutdownGracePeriod"));
    if delay >= grace {
        values
            .problems
            .push(format!("webhook.drainDelay: {delay:?} is not below shutdownGracePeriod ({grace:?})"));
    }
}

fn node_plugin(values: &mut Values) {
    if !values.bool("nri.enabled") {
        values.problems.push(
            "nri.enabled: the node plugin has nothing to do without it: set it to true, for the injector too"
                .to_owned(),
        );
    }
    for required in ["nri.nodeName", "nri.pluginName", "nri.podLabel"] {
        values.require(required);
    }
    let index = values.text("nri.pluginIndex");
    if index.len() != 2 || !index.bytes().all(|byte| byte.is_ascii_digit()) {
        values.problems.push(format!("nri.pluginIndex: {index:?} is not two digits, such as \"10\""));
    }
    for path in ["nri.socketPath", "nri.cachePath"] {
        let value = values.text(path);
        if !Path::new(&value).is_absolute() {
            values.problems.push(format!("{path}: {value:?} is not an absolute path"));
        }
    }
}

/// Refuses what would lead to another place in Vault.
fn vault_path(values: &mut Values, path: &str) {
    let value = values.text(path);
    let strange = |c: char| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/'));
    let upwards = value.split('/').any(|part| matches!(part, "." | ".."));
    if value.contains(strange) || upwards || value.starts_with('/') || value.contains("//") {
        values.problems.push(format!(
            "{path}: {value:?} cannot be a path in Vault: use letters, digits, '-', '_', '.' and '/' between parts"
        ));
    }
}

#[cfg(test)]
mod tests;
