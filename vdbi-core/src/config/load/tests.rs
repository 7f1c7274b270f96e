use std::io::Write;

use tempfile::NamedTempFile;

use super::*;

/// A configuration file of the Go product with every key that it knows.
const GO: &str = r#"
certFile: /tls/tls.crt
keyFile: /tls/tls.key
vaultAddress: https://vault.example:8200
vaultAuthPath: kubernetes
logLevel: info
kubeRole: all-rw
kubeRoleNri: nri
tokenTTL: 8766h
vaultSecretName: vault-db-injector
vaultSecretPrefix: kubernetes
mode: MODE
sentry: true
sentryDsn: https://key@sentry/660
sentryEnvironment: production
sentrySampleRate: 1.0
syncTTLSecond: 300
injectorLabel: vault-db-injector
defaultEngine: databases
vaultRateLimit: 30
useProjectedSA: true
tokenRequestAudiences:
  - vault
tokenRequestExpirationSeconds: 600
nri:
  enabled: false
  socketPath: /var/run/nri/nri.sock
  cachePath: /run/vault-db-injector/nri/cache.json
  pluginName: vault-db-injector
  pluginIndex: "10"
  podLabel: vault-db-injector
  fetchTimeout: 1500ms
  prewarmer:
    enabled: true
    maxConcurrent: 50
"#;

fn load(text: &str, environment: &[(&str, &str)], component: Component) -> Result<Loaded, ConfigError> {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let environment = environment.chain([("POD_NAMESPACE".to_owned(), "vdbi-system".to_owned())]);
    Config::load(Some(file.path()), environment, component)
}

fn problems(text: &str, component: Component) -> String {
    load(text, &[], component).unwrap_err().to_string()
}

#[test]
fn a_file_of_the_go_product_starts_every_component() {
    for component in [Component::Injector, Component::Renewer, Component::Revoker] {
        for mode in ["all", component.name()] {
            let Loaded { config, notices } = load(&GO.replace("MODE", mode), &[], component).unwrap();
            assert_eq!(config.vault_address, "https://vault.example:8200");
            assert_eq!(config.token_ttl, Duration::from_secs(8766 * 3600));
            assert_eq!(config.sync_ttl_second, Duration::from_secs(300));
            assert_eq!(config.token_request_audiences, ["vault"]);
            let [notice] = &notices[..] else { panic!("{notices:?}") };
            assert!(notice.contains("sentry, sentryDsn"), "{notice}");
        }
    }
}

#[test]
fn a_mode_that_names_another_component_is_an_error_that_says_which_binary() {
    let error = problems(&GO.replace("MODE", "injector"), Component::Renewer);
    assert!(error.contains("this is vdbi-renewer: remove mode, or start vdbi-injector"), "{error}");
    let error = problems(&GO.replace("MODE", "everything"), Component::Renewer);
    assert!(error.contains("\"everything\" is no component"), "{error}");
}

#[test]
fn an_unknown_key_is_an_error_with_its_line_and_the_nearest_key() {
    let text = GO.replace("MODE", "all").replace("syncTTLSecond", "SyncTTLSeconds");
    let error = problems(&text, Component::Renewer);
    assert!(error.contains("unknown key SyncTTLSeconds (line 17): did you mean syncTTLSecond?"), "{error}");
    let error = problems("nri:\n  prewarmer:\n    enable: true\n", Component::Renewer);
    assert!(
        error.contains("unknown key nri.prewarmer.enable (line 3): did you mean nri.prewarmer.enabled?"),
        "{error}"
    );
}

#[test]
fn all_problems_are_reported_at_once() {
    let text = "syncTTLSecond: 0\nvaultRateLimit: 0\ntokenTTL: 8 days\nvaultSecretPrefix: ../x\nlogLevel: loud\n\
                useProjectedSA: true\nvaultAddress: vault:8200\nadminAddress: localhost\nleaderElection: 3\nrelease: [a]\n";
    let error = problems(text, Component::Injector);
    for word in [
        "syncTTLSecond",
        "vaultRateLimit",
        "tokenTTL",
        "vaultSecretPrefix",
        "logLevel",
        "tokenRequestAudiences",
        "vaultAddress",
        "adminAddress",
        "leaderElection",
        "release",
        "kubeRole",
        "vaultSecretName",
        "certFile",
        "keyFile",
    ] {
        assert!(error.contains(&format!("\n  {word}: ")), "{word} in {error}");
    }
}

#[test]
fn an_address_that_is_none_is_not_repeated_since_it_may_hold_a_password() {
    let error = problems("vaultAddress: user:hunter2@vault:8200\n", Component::Renewer);
    assert!(error.contains("vaultAddress: it has to begin with https://"), "{error}");
    assert!(!error.contains("hunter2"), "{error}");
}

#[test]
fn a_key_that_is_there_twice_is_refused_with_its_place() {
    let error = problems("logLevel: info\nlogLevel: debug\n", Component::Renewer);
    assert!(error.contains("duplicate") && error.contains("line 2"), "{error}");
}

#[test]
fn the_environment_wins_over_the_file_and_only_with_its_prefix() {
    let environment = [
        ("INJECTOR_VAULT_ADDRESS", "http://127.0.0.1:8200"),
        ("INJECTOR_TOKEN_REQUEST_AUDIENCES", "a, b"),
        ("INJECTOR_LEADER_ELECTION_LEASE_DURATION", "30s"),
        ("MODE", "injector"),
        ("ENABLED", "true"),
        ("INJECTOR_SERVICE_HOST", "10.0.0.1"),
        ("VAULT_NAMESPACE", "team-a"),
    ];
    let loaded = load(&GO.replace("MODE", "all"), &environment, Component::Renewer).unwrap();
    let config = loaded.config;
    assert_eq!(config.vault_address, "http://127.0.0.1:8200");
    assert_eq!(config.token_request_audiences, ["a", "b"]);
    assert_eq!(config.leader_election.lease_duration, Duration::from_secs(30));
    assert_eq!(config.vault_namespace.as_deref(), Some("team-a"));
    assert!(loaded.notices.iter().any(|notice| notice.contains("INJECTOR_SERVICE_HOST")));
}

#[test]
fn a_self_managed_webhook_needs_names_instead_of_files() {
    let text = "vaultAddress: http://v\nkubeRole: r\nvaultSecretName: n\nvaultSecretPrefix: p\nwebhook: {selfManaged: true}\n";
    let error = load(text, &[], Component::Injector).unwrap_err().to_string();
    assert!(error.contains("webhook.dnsNames"), "{error}");
    assert!(!error.contains("certFile"), "{error}");
    let environment = [("INJECTOR_WEBHOOK_DNS_NAMES", "vdbi.vdbi.svc"), ("POD_NAMESPACE", "vdbi")];
    let config = load(text, &environment, Component::Injector).unwrap().config;
    assert_eq!(config.webhook.secret_name, "vault-db-injector-webhook-tls");
    assert_eq!(config.webhook.configuration_name, "vault-db-injector");
}

#[test]
fn a_drain_that_would_outlast_the_process_and_names_without_an_authority_are_refused() {
    for (variable, value, key) in [
        ("INJECTOR_WEBHOOK_DRAIN_DELAY", "25s", "webhook.drainDelay"),
        ("INJECTOR_WEBHOOK_CLIENT_ALLOWED_NAMES", "kube-apiserver", "webhook.clientAllowedNames"),
    ] {
        let error = load(&GO.replace("MODE", "all"), &[(variable, value)], Component::Injector).unwrap_err();
        assert!(error.to_string().contains(key), "{error}");
    }
}

#[test]
fn limits_and_intervals_with_which_nothing_would_happen_are_refused() {
    for (component, key, value) in [
        (Component::Renewer, "vaultRateLimit", "0"),
        (Component::Renewer, "syncTTLSecond", "0"),
        (Component::Renewer, "shards", "0"),
        (Component::Revoker, "revoker.interval", "0s"),
        (Component::Revoker, "revoker.rateLimit", "0"),
        (Component::Revoker, "revoker.labelRemoved", "delete"),
        (Component::Revoker, "revoker.brakeOverrideUntil", "tomorrow"),
        (Component::Injector, "tokenTTL", "\"\""),
    ] {
        let line = match key.split_once('.') {
            Some((section, key)) => format!("{section}: {{ {key}: {value} }}\n"),
            None => format!("{key}: {value}\n"),
        };
        let problems = problems(&line, component);
        assert!(problems.contains(&format!("{key}: ")), "{line}{problems}");
    }
}

#[test]
fn every_default_is_valid() {
    let text = "vaultAddress: http://v\nkubeRole: r\nvaultSecretName: n\nvaultSecretPrefix: p\ncertFile: c\nkeyFile: k\n";
    for component in [Component::Injector, Component::Renewer, Component::Revoker] {
        load(text, &[], component).unwrap();
    }
}

#[test]
fn a_missing_file_is_named() {
    let error = Config::load(Some(Path::new("/no/such.yaml")), [], Component::Renewer).unwrap_err();
    assert!(error.to_string().contains("/no/such.yaml"));
}

/// What the Go product's file says, with the node plugin on.
fn go_with_nri() -> String {
    GO.replace("MODE", "nri").replace("  enabled: false", "  enabled: true")
}

#[test]
fn a_file_of_the_go_product_starts_the_node_plugin_on_its_node() {
    let Loaded { config, .. } = load(&go_with_nri(), &[("NODE_NAME", "node-1")], Component::Nri).unwrap();
    assert_eq!(config.kube_role, "nri", "kubeRoleNri takes the place of kubeRole");
    let nri = config.nri;
    assert_eq!((nri.node_name.as_str(), nri.plugin_index.as_str()), ("node-1", "10"));
    assert_eq!(nri.cache_path, Path::new("/run/vault-db-injector/nri/cache"));
    assert_eq!((nri.fetch_timeout, nri.prewarmer.max_concurrent), (Duration::from_millis(1500), 50));
    assert!(nri.tripwire && !nri.require_plugin);
}

#[test]
fn what_the_node_plugin_cannot_work_with_is_refused() {
    let error = problems(&GO.replace("MODE", "nri"), Component::Nri);
    assert!(error.contains("nri.enabled: the node plugin has nothing to do"), "{error}");
    assert!(error.contains("nri.nodeName: it is required"), "{error}");
    let strange = go_with_nri()
        .replace("pluginIndex: \"10\"", "pluginIndex: \"7\"")
        .replace("socketPath: /var/run/nri/nri.sock", "socketPath: nri.sock");
    let error = problems(&strange, Component::Nri);
    assert!(error.contains("nri.pluginIndex: \"7\" is not two digits"), "{error}");
    assert!(error.contains("nri.socketPath: \"nri.sock\" is not an absolute path"), "{error}");
}

#[test]
fn the_webhook_is_told_of_tripwire_and_plugin() {
    let text = go_with_nri()
        .replace("mode: nri", "mode: all")
        .replace("nri:\n", "nri:\n  tripwire: false\n  requirePlugin: true\n");
    let Loaded { config, .. } = load(&text, &[], Component::Injector).unwrap();
    assert!(config.nri.enabled && !config.nri.tripwire && config.nri.require_plugin);
    assert_eq!((config.nri.plugin_name.as_str(), config.kube_role.as_str()), ("vault-db-injector", "all-rw"));
}

#[test]
fn another_backend_needs_no_key_of_vault() {
    let environment = || [("POD_NAMESPACE".to_owned(), "vdbi-system".to_owned())];
    for component in [Component::Renewer, Component::Revoker] {
        let Loaded { config, notices } = Config::load_without_vault(None, environment(), component).unwrap();
        assert_eq!((config.vault_address.as_str(), notices.len()), ("", 0));
        let error = Config::load(None, environment(), component).unwrap_err().to_string();
        for key in ["vaultAddress", "kubeRole", "vaultSecretName", "vaultSecretPrefix"] {
            assert!(error.contains(&format!("{key}: it is required")), "{error}");
        }
    }
}
