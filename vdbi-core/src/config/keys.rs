//! Every key there is: the one place that knows names, defaults and meanings.

use super::Component::{self, Injector, Nri, Renewer, Revoker};

/// One configuration key.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Its place in the YAML file, with dots between levels.
    pub path: &'static str,
    /// What a value looks like.
    pub kind: Kind,
    /// The value where it is not set; empty for none.
    pub default: &'static str,
    /// The components in which it has an effect; none for a key of the Go product that has no counterpart here.
    pub components: &'static [Component],
    /// What it does.
    pub meaning: &'static str,
}

/// What a value looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Text.
    Text,
    /// `true` or `false`.
    Bool,
    /// A whole number.
    Integer,
    /// A number.
    Number,
    /// A duration in Go's syntax.
    Duration,
    /// A list; in an environment variable separated by commas.
    List,
    /// An IP address and a port.
    Address,
}

const ALL: &[Component] = &[Injector, Renewer, Revoker, Nri];
const ISSUERS: &[Component] = &[Injector, Nri];
const LEADERS: &[Component] = &[Injector, Renewer, Revoker];
const NONE: &[Component] = &[];

const fn key(
    path: &'static str,
    kind: Kind,
    default: &'static str,
    components: &'static [Component],
    meaning: &'static str,
) -> Key {
    Key { path, kind, default, components, meaning }
}

/// Every key, in the order of the reference.
pub const KEYS: &[Key] = &[
    key(
        "mode",
        Kind::Text,
        "all",
        ALL,
        "which component this is; a file that names another one is refused. Each component has a binary of its own, so it is best left out",
    ),
    key("logLevel", Kind::Text, "info", ALL, "debug, info, warn or error; RUST_LOG overrides it"),
    key("logFormat", Kind::Text, "json", ALL, "json, or human for people"),
    key(
        "metrics.perPod",
        Kind::Bool,
        "false",
        &[Renewer],
        "metrics of renewals with the label uuid, a series for each credential for as long as its entry is in the ledger, as the Go product has them",
    ),
    key("adminAddress", Kind::Address, "0.0.0.0:8888", ALL, "where health is served"),
    key("metricsAddress", Kind::Address, "0.0.0.0:8080", ALL, "where metrics are served"),
    key(
        "shutdownGracePeriod",
        Kind::Duration,
        "25s",
        ALL,
        "how long a process may take to finish after SIGTERM; below the pod's terminationGracePeriodSeconds",
    ),
    key(
        "clusterId",
        Kind::Text,
        "",
        ALL,
        "the cluster's identity in ledger entries; by default the uid of the namespace kube-system",
    ),
    key(
        "release",
        Kind::Text,
        "vault-db-injector",
        ALL,
        "the release's identity in ledger entries and in the default lease names; the same for all components of a release",
    ),
    key("vaultAddress", Kind::Text, "", ALL, "required. The URL of OpenBao or Vault"),
    key(
        "vaultNamespace",
        Kind::Text,
        "",
        ALL,
        "the namespace in OpenBao or Vault; by default what VAULT_NAMESPACE says",
    ),
    key(
        "vaultCaCert",
        Kind::Text,
        "",
        ALL,
        "a PEM file with the authorities of its certificate, instead of the system's; by default what VAULT_CACERT says",
    ),
    key(
        "vaultRequestTimeout",
        Kind::Duration,
        "10s",
        ALL,
        "how long one request to it may take; a request for a credential is always waited for, and those of renewer and revoker take at most hardDeadline less renewInterval and retry of leaderElection",
    ),
    key(
        "vaultAuthPath",
        Kind::Text,
        "kubernetes",
        ALL,
        "the mount of the Kubernetes auth method, without auth/",
    ),
    key("kubeRole", Kind::Text, "", ALL, "required. The auth role with which this component logs in"),
    key(
        "serviceAccountTokenFile",
        Kind::Text,
        "/var/run/secrets/kubernetes.io/serviceaccount/token",
        ALL,
        "the token with which this component logs in; read anew for each login",
    ),
    key("vaultSecretName", Kind::Text, "", ALL, "required. The KV v2 mount of the ledger"),
    key("vaultSecretPrefix", Kind::Text, "", ALL, "required. The folder of the ledger in that mount"),
    key("vaultRateLimit", Kind::Number, "30", &[Renewer], "requests per second for renewals, at most"),
    key(
        "injectorLabel",
        Kind::Text,
        "vault-db-injector",
        &[Renewer, Revoker],
        "the label, with the value true, of the pods that take part; the webhook's own selector is in its MutatingWebhookConfiguration",
    ),
    key(
        "admissionAddress",
        Kind::Address,
        "0.0.0.0:8443",
        &[Injector],
        "where the webhook answers, with TLS",
    ),
    key(
        "admissionTimeout",
        Kind::Duration,
        "4s",
        &[Injector],
        "how long one admission may take, at most; 80 % of the webhook's timeoutSeconds where that is less",
    ),
    key(
        "certFile",
        Kind::Text,
        "",
        &[Injector],
        "required by the injector without webhook.selfManaged. The webhook's certificate, PEM; read again when it changes",
    ),
    key(
        "keyFile",
        Kind::Text,
        "",
        &[Injector],
        "required by the injector without webhook.selfManaged. The certificate's key, PEM",
    ),
    key(
        "webhook.maxInFlight",
        Kind::Integer,
        "256",
        &[Injector],
        "admissions under way at once, at most; the others wait",
    ),
    key(
        "webhook.maxQueued",
        Kind::Integer,
        "512",
        &[Injector],
        "admissions that wait at once, at most; beyond that they are denied at once",
    ),
    key(
        "webhook.clientCaFile",
        Kind::Text,
        "",
        &[Injector],
        "a PEM file with the authorities of client certificates: whoever shows none of theirs is not served. Read again when it changes",
    ),
    key(
        "webhook.clientAllowedNames",
        Kind::List,
        "",
        &[Injector],
        "common names or DNS names, one of which a client certificate has to carry; by default any certificate of webhook.clientCaFile will do",
    ),
    key(
        "webhook.drainDelay",
        Kind::Duration,
        "5s",
        &[Injector],
        "how long the webhook goes on answering after SIGTERM, unready, so that the Service sends nothing more; below shutdownGracePeriod",
    ),
    key(
        "webhook.selfManaged",
        Kind::Bool,
        "false",
        &[Injector],
        "the webhook has an authority of its own, in a Secret, and writes the caBundle of its MutatingWebhookConfiguration; instead of certFile",
    ),
    key(
        "webhook.secretName",
        Kind::Text,
        "",
        &[Injector],
        "the Secret of webhook.selfManaged, in the pod's namespace; by default <release>-webhook-tls",
    ),
    key(
        "webhook.configurationName",
        Kind::Text,
        "",
        &[Injector],
        "the MutatingWebhookConfiguration of webhook.selfManaged; by default <release>",
    ),
    key(
        "webhook.dnsNames",
        Kind::List,
        "",
        &[Injector],
        "the names in the certificate of webhook.selfManaged, such as <service>.<namespace>.svc; required by it",
    ),
    key(
        "defaultEngine",
        Kind::Text,
        "database",
        ISSUERS,
        "the mount of the database secrets engine, of pods without the annotation cluster",
    ),
    key(
        "tokenTTL",
        Kind::Duration,
        "768h",
        ISSUERS,
        "the period of the tokens that the legacy mode mints; a token role's token_period wins",
    ),
    key(
        "tokenRole",
        Kind::Text,
        "",
        ISSUERS,
        "the token role that mints tokens in legacy mode; by default auth/token/create-orphan, which needs sudo",
    ),
    key(
        "roleCacheTTL",
        Kind::Duration,
        "30s",
        ISSUERS,
        "how long an auth role is taken for unchanged; a denial reads it again",
    ),
    key(
        "useProjectedSA",
        Kind::Bool,
        "false",
        ISSUERS,
        "log in as the pod, with a token of its service account, instead of the legacy mode",
    ),
    key(
        "tokenRequestAudiences",
        Kind::List,
        "",
        ISSUERS,
        "the audiences of those tokens; required with useProjectedSA",
    ),
    key(
        "tokenRequestExpirationSeconds",
        Kind::Integer,
        "600",
        ISSUERS,
        "how long those tokens are valid; the API server refuses less than 600",
    ),
    key(
        "ledger.storeRawToken",
        Kind::Bool,
        "false",
        &[Injector, Nri, Revoker],
        "also store the raw token in each entry, for a way back to the Go product, and keep it in entries that are taken over; anybody who may read the ledger can use it",
    ),
    key(
        "shards",
        Kind::Integer,
        "1",
        &[Renewer, Revoker],
        "into how many parts the ledger is divided, each with a leader of its own, 1 to 64; the same in all replicas",
    ),
    key(
        "leaderElection.leaseName",
        Kind::Text,
        "",
        LEADERS,
        "the Lease for which the replicas compete; by default <release>-injector (with webhook.selfManaged), -renewer or -revoker. With several shards each has one, with -0, -1 ... behind the name",
    ),
    key(
        "leaderElection.leaseNamespace",
        Kind::Text,
        "",
        LEADERS,
        "its namespace, and that of webhook.secretName; by default what POD_NAMESPACE says",
    ),
    key(
        "leaderElection.leaseDuration",
        Kind::Duration,
        "15s",
        LEADERS,
        "how long others wait for a leader that is not heard of; whole seconds",
    ),
    key(
        "leaderElection.hardDeadline",
        Kind::Duration,
        "10s",
        LEADERS,
        "how long a leader may act after sending its last acknowledged renewal",
    ),
    key(
        "leaderElection.abortAfter",
        Kind::Duration,
        "13s",
        LEADERS,
        "when a process whose work does not stop aborts, counted likewise",
    ),
    key(
        "leaderElection.renewInterval",
        Kind::Duration,
        "3s",
        LEADERS,
        "how often the leader renews its lease",
    ),
    key("leaderElection.retry", Kind::Duration, "1s", LEADERS, "the pause after a failed request"),
    key(
        "leaderElection.requestTimeout",
        Kind::Duration,
        "3s",
        LEADERS,
        "how long one request of the election may take",
    ),
    key(
        "leaderElection.drainTimeout",
        Kind::Duration,
        "20s",
        LEADERS,
        "how long the work may take to stop after SIGTERM before the lease is left to expire",
    ),
    key(
        "syncTTLSecond",
        Kind::Integer,
        "300",
        &[Renewer],
        "how often the renewer lists the ledger for new entries, in seconds; below half of the shortest default_ttl",
    ),
    key(
        "renewer.renewAt",
        Kind::Number,
        "0.5",
        &[Renewer],
        "the fraction of a credential's time to live after which it is renewed, 0.1 to 0.9",
    ),
    key("renewer.maxInFlight", Kind::Integer, "16", &[Renewer], "renewals under way at once, at most"),
    key(
        "rotation.enabled",
        Kind::Bool,
        "true",
        &[Renewer],
        "evict pods with the annotation rotation before their credential reaches its maximum; needs create on pods/eviction",
    ),
    key(
        "rotation.maxInFlight",
        Kind::Integer,
        "5",
        &[Renewer],
        "rotations under way at once, at most; more only where some would otherwise be too late",
    ),
    key(
        "revoker.interval",
        Kind::Duration,
        "5m",
        &[Revoker],
        "how often the whole ledger is compared with the live pods; the end of a pod is acted on at once",
    ),
    key(
        "revoker.gracePeriod",
        Kind::Duration,
        "60s",
        &[Revoker],
        "how old an entry has to be before the absence of its pod means anything",
    ),
    key(
        "revoker.brakeShare",
        Kind::Number,
        "0.5",
        &[Revoker],
        "a comparison that finds more than this share of our credentials without a pod is not acted on, 0 to 1 ...",
    ),
    key("revoker.brakeMinimum", Kind::Integer, "20", &[Revoker], "... where that is more than this many"),
    key(
        "revoker.brakeOverrideUntil",
        Kind::Text,
        "",
        &[Revoker],
        "up to this time (RFC 3339, such as 2027-01-31T12:00:00Z) every comparison is acted on, for whoever has ended most pods on purpose",
    ),
    key(
        "revoker.labelRemoved",
        Kind::Text,
        "keep",
        &[Revoker],
        "keep or revoke: what becomes of the credentials of a pod that runs on without the label",
    ),
    key(
        "revoker.overdueAfter",
        Kind::Duration,
        "5m",
        &[Revoker],
        "how long after its grace period a pod that is still there counts as ended: its node is away, or a finalizer holds it",
    ),
    key("revoker.maxInFlight", Kind::Integer, "16", &[Revoker], "revocations under way at once, at most"),
    key(
        "revoker.rateLimit",
        Kind::Number,
        "1000",
        &[Revoker],
        "requests per second for revocations, at most; each takes three",
    ),
    key(
        "kubeRoleNri",
        Kind::Text,
        "",
        &[Nri],
        "the auth role with which the node plugin logs in, in place of kubeRole",
    ),
    key(
        "nri.enabled",
        Kind::Bool,
        "false",
        ISSUERS,
        "placeholders instead of credentials in the pod, replaced on the node; the node plugin does not start without it",
    ),
    key(
        "nri.tripwire",
        Kind::Bool,
        "true",
        &[Injector],
        "a mount in each container with placeholders, because of which it does not run until the node plugin has replaced them",
    ),
    key(
        "nri.requirePlugin",
        Kind::Bool,
        "false",
        &[Injector],
        "also ask containerd (from 2.2 on, where its default_validator is enabled) not to create such a container without the plugin of nri.pluginName",
    ),
    key(
        "nri.nodeName",
        Kind::Text,
        "",
        &[Nri],
        "required by the node plugin. The node whose pods it serves; by default what NODE_NAME says",
    ),
    key("nri.socketPath", Kind::Text, "/var/run/nri/nri.sock", &[Nri], "containerd's NRI socket"),
    key(
        "nri.cachePath",
        Kind::Text,
        "/run/vault-db-injector/nri/cache.json",
        &[Nri],
        "where the node plugin keeps the credentials of the node's pods, a file for each in the directory of this name without .json; on a tmpfs, and its own",
    ),
    key(
        "nri.pluginName",
        Kind::Text,
        "vault-db-injector",
        ISSUERS,
        "the name under which the plugin registers",
    ),
    key(
        "nri.pluginIndex",
        Kind::Text,
        "10",
        &[Nri],
        "two digits that order the plugins of a node; each release its own",
    ),
    key(
        "nri.podLabel",
        Kind::Text,
        "vault-db-injector",
        &[Nri],
        "the label, with the value true, of the pods that take part; the same as injectorLabel",
    ),
    key(
        "nri.fetchTimeout",
        Kind::Duration,
        "1500ms",
        &[Nri],
        "how long a container's creation may wait for a credential, and with it every other one on the node; 80 % of what containerd leaves where that is less",
    ),
    key(
        "nri.prewarmer.enabled",
        Kind::Bool,
        "true",
        &[Nri],
        "fetch credentials when a pod is bound to the node, before its containers are created",
    ),
    key(
        "nri.prewarmer.maxConcurrent",
        Kind::Integer,
        "50",
        &[Nri],
        "such fetches at once, at most; the others wait",
    ),
    key("sentry", Kind::Bool, "false", NONE, "of the Go product, without effect"),
    key("sentryDsn", Kind::Text, "", NONE, "of the Go product, without effect"),
    key("sentryEnvironment", Kind::Text, "production", NONE, "of the Go product, without effect"),
    key("sentrySampleRate", Kind::Number, "1.0", NONE, "of the Go product, without effect"),
];

impl Key {
    /// The environment variable that overrides it.
    pub fn variable(&self) -> String {
        let characters: Vec<char> = self.path.chars().collect();
        let mut variable = "INJECTOR_".to_owned();
        for (index, &c) in characters.iter().enumerate() {
            let previous_lower = index > 0 && characters[index - 1].is_ascii_lowercase();
            let next_lower = characters.get(index + 1).is_some_and(char::is_ascii_lowercase);
            let starts_word = index > 0 && characters[index - 1] != '.' && (previous_lower || next_lower);
            if c.is_ascii_uppercase() && starts_word {
                variable.push('_');
            }
            variable.push(if c == '.' { '_' } else { c.to_ascii_uppercase() });
        }
        variable
    }
}

/// The known name that looks most like a given one.
pub(super) fn nearest(name: &str, known: impl Iterator<Item = String>) -> String {
    let similarity =
        |candidate: &String| strsim::jaro_winkler(&candidate.to_lowercase(), &name.to_lowercase());
    known.max_by(|a, b| similarity(a).total_cmp(&similarity(b))).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_those_of_the_go_product() {
        let variable = |path: &str| KEYS.iter().find(|key| key.path == path).unwrap().variable();
        for (path, expected) in [
            ("tokenTTL", "INJECTOR_TOKEN_TTL"),
            ("syncTTLSecond", "INJECTOR_SYNC_TTL_SECOND"),
            ("useProjectedSA", "INJECTOR_USE_PROJECTED_SA"),
            ("tokenRequestExpirationSeconds", "INJECTOR_TOKEN_REQUEST_EXPIRATION_SECONDS"),
            ("kubeRoleNri", "INJECTOR_KUBE_ROLE_NRI"),
            ("sentryDsn", "INJECTOR_SENTRY_DSN"),
            ("nri.prewarmer.maxConcurrent", "INJECTOR_NRI_PREWARMER_MAX_CONCURRENT"),
        ] {
            assert_eq!(variable(path), expected);
        }
    }

    #[test]
    fn keys_and_variables_are_unique() {
        let mut variables: Vec<_> = KEYS.iter().map(Key::variable).collect();
        variables.sort();
        variables.dedup();
        assert_eq!(variables.len(), KEYS.len());
    }
}
