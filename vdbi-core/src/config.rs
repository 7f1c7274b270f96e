//! Configuration: a YAML file, and `INJECTOR_*` environment variables over it, parsed into types at load.
//!
//! Every key of numberly/vault-db-injector 3.2.3 is understood. Unknown keys are errors that name the nearest known one, and
//! all problems are reported at once. `docs/configuration.md` lists the keys; a test holds it to [`KEYS`].
//!
//! ```
//! use std::time::Duration;
//! use vdbi_core::config::{Component, Config};
//!
//! let environment = [
//!     ("INJECTOR_VAULT_ADDRESS", "https://vault:8200"),
//!     ("INJECTOR_KUBE_ROLE", "renewer"),
//!     ("INJECTOR_VAULT_SECRET_NAME", "dbi"),
//!     ("INJECTOR_VAULT_SECRET_PREFIX", "my-release"),
//!     ("INJECTOR_SYNC_TTL_SECOND", "600"),
//!     ("POD_NAMESPACE", "vdbi-system"),
//! ];
//! let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned()));
//! let loaded = Config::load(None, environment, Component::Renewer)?;
//! assert_eq!(loaded.config.sync_ttl_second, Duration::from_secs(600));
//! assert_eq!(loaded.config.renewer.renew_at, 0.5);
//! # Ok::<(), vdbi_core::config::ConfigError>(())
//! ```

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use jiff::Timestamp;

mod duration;
mod keys;
mod load;
mod values;

pub use duration::{InvalidDuration, parse_duration};
pub use keys::{KEYS, Key, Kind};
pub use load::{ConfigError, Loaded};

/// A component, each with a binary of its own. Whoever assembles them has to know them all, so that this list is complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Component {
    /// The admission webhook.
    Injector,
    /// Keeps credentials alive.
    Renewer,
    /// Takes credentials back.
    Revoker,
    /// The node plugin.
    Nri,
}

impl Component {
    /// Its name, as in the configuration's `mode` and, behind `vdbi-`, the binary's.
    pub fn name(self) -> &'static str {
        match self {
            Self::Injector => "injector",
            Self::Renewer => "renewer",
            Self::Revoker => "revoker",
            Self::Nri => "nri",
        }
    }

    /// Whether its replicas elect a leader; the webhook's do so for a certificate of their own (`webhook.selfManaged`).
    pub fn elects(self, self_managed: bool) -> bool {
        match self {
            Self::Renewer | Self::Revoker => true,
            Self::Injector => self_managed,
            Self::Nri => false,
        }
    }
}

/// How logs look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LogFormat {
    /// One JSON object per line.
    Json,
    /// For people.
    Human,
}

/// From which level on there are logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    /// Everything.
    Debug,
    /// What happens.
    Info,
    /// What may need attention.
    Warn,
    /// What needs attention.
    Error,
}

/// The configuration of every component; each uses its part. [`KEYS`] tells what the fields mean.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "KEYS has the meaning of each, which the reference in docs/ shows")]
#[non_exhaustive]
pub struct Config {
    pub log_level: LogLevel,
    pub log_format: LogFormat,
    pub metrics: MetricsConfig,
    pub admin_address: SocketAddr,
    pub metrics_address: SocketAddr,
    pub shutdown_grace_period: Duration,
    pub cluster_id: String,
    pub release: String,

    pub vault_address: String,
    pub vault_namespace: Option<String>,
    pub vault_ca_cert: Option<PathBuf>,
    pub vault_auth_path: String,
    pub vault_request_timeout: Duration,
    pub kube_role: String,
    pub service_account_token_file: PathBuf,
    pub vault_secret_name: String,
    pub vault_secret_prefix: String,
    /// Requests per second.
    pub vault_rate_limit: f64,

    pub admission_address: SocketAddr,
    pub admission_timeout: Duration,
    pub cert_file: PathBuf,
    pub key_file: PathBuf,
    pub webhook: WebhookConfig,
    pub default_engine: String,
    pub token_ttl: Duration,
    pub token_role: Option<String>,
    pub role_cache_ttl: Duration,
    pub use_projected_sa: bool,
    pub token_request_audiences: Vec<String>,
    pub token_request_expiration: Duration,
    pub ledger: LedgerConfig,
    pub nri: NriConfig,

    pub injector_label: String,
    /// From 1 on.
    pub shards: u16,
    pub leader_election: LeaderElectionConfig,
    pub sync_ttl_second: Duration,
    pub renewer: RenewerConfig,
    pub rotation: RotationConfig,
    pub revoker: RevokerConfig,
}

/// `metrics.*`
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "KEYS has the meaning of each, which the reference in docs/ shows")]
#[non_exhaustive]
pub struct MetricsConfig {
    pub per_pod: bool,
}

/// `webhook.*`
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "KEYS has the meaning of each, which the reference in docs/ shows")]
#[non_exhaustive]
pub struct WebhookConfig {
    pub max_in_flight: usize,
    pub max_queued: usize,
    pub client_ca_file: Option<PathBuf>,
    pub client_allowed_names: Vec<String>,
    pub drain_delay: Duration,
    pub self_managed: bool,
    pub secret_name: String,
    pub configuration_name: String,
    pub dns_names: Vec<String>,
}

/// `nri.*`
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "KEYS has the meaning of each, which the reference in docs/ shows")]
#[non_exhaustive]
pub struct NriConfig {
    pub enabled: bool,
    pub tripwire: bool,
    pub require_plugin: bool,
    pub node_name: String,
    pub socket_path: PathBuf,
    /// The directory, without the extension that the key may have.
    pub cache_path: PathBuf,
    pub plugin_name: String,
    pub plugin_index: String,
    pub pod_label: String,
    pub fetch_timeout: Duration,
    pub prewarmer: PrewarmerConfig,
}

/// `nri.prewarmer.*`
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "KEYS has the meaning of each, which the reference in docs/ shows")]
#[non_exhaustive]
pub struct PrewarmerConfig {
    pub enabled: bool,
    pub max_concurrent: usize,
}

/// `ledger.*`
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "KEYS has the meaning of each, which the reference in docs/ shows")]
#[non_exhaustive]
pub struct LedgerConfig {
    pub store_raw_token: bool,
}

/// `leaderElection.*`
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "KEYS has the meaning of each, which the reference in docs/ shows")]
#[non_exhaustive]
pub struct LeaderElectionConfig {
    pub lease_name: String,
    pub lease_namespace: String,
    pub lease_duration: Duration,
    pub hard_deadline: Duration,
    pub abort_after: Duration,
    pub renew_interval: Duration,
    pub retry: Duration,
    pub request_timeout: Duration,
    pub drain_timeout: Duration,
}

/// `renewer.*`
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "KEYS has the meaning of each, which the reference in docs/ shows")]
#[non_exhaustive]
pub struct RenewerConfig {
    pub renew_at: f64,
    pub max_in_flight: usize,
}

/// `rotation.*`
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "KEYS has the meaning of each, which the reference in docs/ shows")]
#[non_exhaustive]
pub struct RotationConfig {
    pub enabled: bool,
    pub max_in_flight: usize,
}

/// `revoker.*`
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "KEYS has the meaning of each, which the reference in docs/ shows")]
#[non_exhaustive]
pub struct RevokerConfig {
    pub interval: Duration,
    pub grace_period: Duration,
    pub brake_share: f64,
    pub brake_minimum: usize,
    pub brake_override_until: Option<Timestamp>,
    /// `revoker.labelRemoved` is `revoke`.
    pub revoke_without_label: bool,
    pub overdue_after: Duration,
    pub max_in_flight: usize,
    /// Requests per second.
    pub rate_limit: f64,
}
