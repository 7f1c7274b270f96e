//! The rendered objects: confinement, names, labels, rights.

use std::collections::{BTreeMap, BTreeSet};

use e2e::Component;
use serde_json::{Value, json};

use crate::helm::{NAMESPACE, Rendered, VALUES, title, values, with};

#[test]
fn every_container_is_confined_bounded_and_probed() {
    for name in VALUES {
        let rendered = Rendered::new(&values(name));
        let pods = rendered.pods();
        assert!(pods.len() >= 3);
        for (component, pod) in pods {
            let spec = &pod["spec"];
            let container = &spec["containers"][0];
            let context = &container["securityContext"];
            assert_eq!(context["allowPrivilegeEscalation"], false, "{component}");
            assert_eq!(context["readOnlyRootFilesystem"], true, "{component}");
            assert_eq!(context["capabilities"], json!({ "drop": ["ALL"] }), "{component}");
            assert_eq!(spec["securityContext"]["seccompProfile"]["type"], "RuntimeDefault", "{component}");
            let node = component == "nri";
            assert_eq!(spec["securityContext"]["runAsNonRoot"] == json!(true), !node, "{component}");
            assert_eq!(
                spec["securityContext"]["runAsUser"],
                json!(if node { 0 } else { 65532 }),
                "{component}"
            );
            for absent in ["hostNetwork", "hostPID", "hostIPC"] {
                assert!(spec[absent].is_null(), "{component} has {absent}");
            }
            assert_eq!(container["livenessProbe"]["httpGet"], json!({ "path": "/livez", "port": "health" }));
            assert_eq!(
                container["readinessProbe"]["httpGet"],
                json!({ "path": "/readyz", "port": "health" })
            );
            for bound in ["requests", "limits"] {
                assert!(container["resources"][bound]["memory"].is_string(), "{component} has no {bound}");
            }
            assert!(spec["terminationGracePeriodSeconds"].as_u64().unwrap() >= 30, "{component}");
            let argument = if node { "nri-plugin" } else { component.as_str() };
            assert_eq!(container["args"][0], argument);
            let ports: Vec<&Value> =
                container["ports"].as_array().unwrap().iter().map(|port| &port["containerPort"]).collect();
            let expected = if component == "injector" { vec![8443, 8080, 8888] } else { vec![8080, 8888] };
            assert_eq!(ports, expected, "{component}");
        }
    }
}

#[test]
fn the_host_is_only_reached_by_the_node_plugin_and_only_where_it_has_to() {
    let rendered = Rendered::new(&values("node-plugin"));
    for (component, pod) in rendered.pods() {
        let volumes = pod["spec"]["volumes"].as_array().unwrap().iter();
        let paths: Vec<&Value> =
            volumes.map(|volume| &volume["hostPath"]["path"]).filter(|path| !path.is_null()).collect();
        let expected: &[&str] = if component == "nri" { &["/var/run/nri", "/run/vdbi/nri"] } else { &[] };
        assert_eq!(paths, expected, "{component}");
    }
}

#[test]
fn images_carry_the_tag_that_was_asked_for() {
    let images = |values: &Value| -> BTreeMap<String, String> {
        let rendered = Rendered::new(values);
        let pods = rendered.pods().into_iter();
        pods.map(|(component, pod)| {
            (component, pod["spec"]["containers"][0]["image"].as_str().unwrap().to_owned())
        })
        .collect()
    };
    let version = env!("CARGO_PKG_VERSION");
    for (component, image) in images(&values("node-plugin")) {
        assert_eq!(image, format!("vdbi:{version}"), "{component}");
    }
    let digest = format!("sha256:{}", "0".repeat(64));
    let all = images(&values("everything"));
    assert_eq!(all["renewer"], format!("mirror.example/vdbi:1.2.3@{digest}"));
    // Another image is not the one of the digest.
    assert_eq!(all["injector"], "mirror.example/webhook:1.2.4");
}

#[test]
fn values_of_the_go_chart_reach_the_component_that_is_meant() {
    let rendered = Rendered::new(&values("go-defaults"));
    let replicas = |name: &str| {
        let deployments = rendered.kind("Deployment");
        let found = deployments.iter().find(|deployment| deployment["metadata"]["name"] == name);
        found.map(|deployment| deployment["spec"]["replicas"].clone())
    };
    assert_eq!(replicas("vdbi"), Some(json!(2)));
    assert_eq!(replicas("vdbi-renewer"), Some(json!(4)));
    assert_eq!(replicas("vdbi-revoker"), Some(json!(4)));
}

#[test]
fn a_deployment_that_is_recreated_has_no_limits_of_a_rolling_update() {
    let rendered = Rendered::new(&with(json!({ "renewer": { "updateStrategy": { "type": "Recreate" } } })));
    let deployments = rendered.kind("Deployment");
    let renewer =
        deployments.iter().find(|deployment| deployment["metadata"]["name"] == "vdbi-renewer").unwrap();
    assert_eq!(renewer["spec"]["strategy"], json!({ "type": "Recreate" }));
}

/// Where the label of the pods stands, by what reads it.
fn labels(values: &Value) -> BTreeMap<&'static str, Value> {
    let rendered = Rendered::new(values);
    let selector = |object: &Value, pointer: &str| {
        let labels = object.pointer(pointer).unwrap().as_object().unwrap();
        assert_eq!(labels.values().collect::<Vec<_>>(), ["true"]);
        json!(labels.keys().next().unwrap())
    };
    let webhook = rendered.kind("MutatingWebhookConfiguration")[0];
    let policies = rendered.kind("ValidatingAdmissionPolicy");
    let mark = policies.iter().find(|policy| title(policy).ends_with("-require-mark")).unwrap();
    let uuid = policies.iter().find(|policy| title(policy).ends_with("-uuid")).unwrap();
    let variables = uuid["spec"]["variables"].as_array().unwrap();
    let label = variables.iter().find(|variable| variable["name"] == "label").unwrap();
    BTreeMap::from([
        ("webhook", selector(webhook, "/webhooks/0/objectSelector/matchLabels")),
        ("policy for the mark", selector(mark, "/spec/matchConstraints/objectSelector/matchLabels")),
        ("policy for the uuid", json!(label["expression"].as_str().unwrap().trim_matches('\''))),
        ("renewer", rendered.configuration("renewer").1["injectorLabel"].clone()),
        ("revoker", rendered.configuration("revoker").1["injectorLabel"].clone()),
        ("node plugin", rendered.configuration("nri").1["nri"]["podLabel"].clone()),
    ])
}

#[test]
fn one_value_sets_the_label_for_webhook_renewer_revoker_node_plugin_and_policies() {
    let shapes = [
        (json!({}), "vault-db-injector"),
        (json!({ "podLabel": "example.org/database" }), "example.org/database"),
        (json!({ "vaultDbInjector": { "configuration": { "webhookMatchLabels": "go" } } }), "go"),
        (json!({ "vaultDbInjector": { "configuration": { "injectorLabel": "go" } } }), "go"),
    ];
    for (shape, expected) in shapes {
        let mut values = with(shape);
        values["nri"] = json!({ "enabled": true });
        values["webhook"] = json!({ "failurePolicy": "Ignore" });
        for (reader, label) in labels(&values) {
            assert_eq!(label, expected, "{reader}");
        }
    }
}

/// What two releases on a cluster must not share.
fn identities(release: &str, namespace: &str, index: &str, label: &str) -> BTreeSet<String> {
    let mut values = values("node-plugin");
    values["nri"] = json!({ "enabled": true, "pluginIndex": index });
    values["vaultDbInjector"]["configuration"]["webhookMatchLabels"] = json!(label);
    let rendered = Rendered::of(release, namespace, &values);
    let cluster_wide =
        rendered.all().iter().filter(|object| object["metadata"]["namespace"].is_null()).map(title);
    let mut identities: BTreeSet<String> = cluster_wide.collect();
    let (_, plugin) = rendered.configuration("nri");
    for key in ["pluginName", "pluginIndex", "cachePath", "podLabel"] {
        identities.insert(format!("{key} {}", plugin["nri"][key].as_str().unwrap()));
    }
    for component in ["injector", "renewer", "revoker", "nri"] {
        // The default name of its Lease too.
        identities.insert(format!(
            "ledger owner {}",
            rendered.configuration(component).1["release"].as_str().unwrap()
        ));
    }
    for role in rendered.kind("Role") {
        for rule in role["rules"].as_array().unwrap() {
            for name in rule["resourceNames"].as_array().into_iter().flatten() {
                identities.insert(format!(
                    "{} {}",
                    rule["resources"][0].as_str().unwrap(),
                    name.as_str().unwrap()
                ));
            }
        }
    }
    for webhook in rendered.kind("MutatingWebhookConfiguration") {
        identities.insert(format!(
            "service {}",
            webhook["webhooks"][0]["clientConfig"]["service"]["name"].as_str().unwrap()
        ));
    }
    identities
}

#[test]
fn two_releases_that_differ_in_index_and_label_share_nothing() {
    let prod = identities("vdbi-prod", "vdbi-prod", "10", "vault-db-injector");
    let dev = identities("vdbi-dev", "vdbi-dev", "11", "vault-db-injector-dev");
    let shared: Vec<_> = prod.intersection(&dev).collect();
    assert!(prod.len() > 30, "{prod:?}");
    assert!(shared.is_empty(), "{shared:?}");
    for expected in [
        "cachePath /run/vdbi-prod/nri/cache.json",
        "pluginName vdbi-prod",
        "ledger owner vdbi-prod",
        "leases vdbi-prod-renewer",
    ] {
        assert!(prod.contains(expected), "{expected} is not in {prod:?}");
    }
    // In one namespace as well.
    let same = identities("vdbi-dev", "vdbi-prod", "11", "vault-db-injector-dev");
    assert!(prod.intersection(&same).next().is_none());
}

#[test]
fn whatever_has_a_namespace_is_in_that_of_the_release() {
    const CLUSTER_WIDE: [&str; 8] = [
        "ClusterRole",
        "ClusterRoleBinding",
        "MutatingWebhookConfiguration",
        "ValidatingAdmissionPolicy",
        "ValidatingAdmissionPolicyBinding",
        "FlowSchema",
        "ClusterPolicy",
        "Namespace",
    ];
    for name in VALUES {
        let rendered = Rendered::of("vdbi", "somewhere", &values(name));
        let mut titles = BTreeSet::new();
        for object in rendered.all() {
            let expected = if CLUSTER_WIDE.contains(&object["kind"].as_str().unwrap()) {
                Value::Null
            } else {
                json!("somewhere")
            };
            assert_eq!(object["metadata"]["namespace"], expected, "{}", title(object));
            assert_eq!(
                object["metadata"]["labels"]["app.kubernetes.io/instance"],
                "vdbi",
                "{}",
                title(object)
            );
            assert!(titles.insert(title(object)), "{} is there twice", title(object));
        }
    }
}

/// Rules as a set of "group/resource[/name] verb".
fn rights(rules: &Value) -> BTreeSet<String> {
    let texts = |value: &Value| -> Vec<String> {
        value.as_array().into_iter().flatten().map(|text| text.as_str().unwrap().to_owned()).collect()
    };
    let mut rights = BTreeSet::new();
    for rule in rules.as_array().unwrap() {
        let names = match texts(&rule["resourceNames"]) {
            names if names.is_empty() => vec!["any".to_owned()],
            names => names,
        };
        for group in texts(&rule["apiGroups"]) {
            for resource in texts(&rule["resources"]) {
                for verb in texts(&rule["verbs"]) {
                    rights.extend(names.iter().map(|name| format!("{group}/{resource} {name} {verb}")));
                }
            }
        }
    }
    rights
}

/// Every right of a service account: each role that is bound to it, and which is bound to nobody else.
fn granted(rendered: &Rendered, account: &str, kind: &str) -> BTreeSet<String> {
    let mut granted = BTreeSet::new();
    for binding in rendered.kind(&format!("{kind}Binding")) {
        if binding["subjects"]
            == json!([{ "kind": "ServiceAccount", "name": account, "namespace": NAMESPACE }])
        {
            let role = binding["roleRef"]["name"].as_str().unwrap();
            granted.extend(rights(&rendered.get(kind, role)["rules"]));
        }
    }
    granted
}

#[test]
fn each_component_has_the_rights_with_which_it_is_tested_and_no_other() {
    let mut values = values("node-plugin");
    values["vaultDbInjector"]["configuration"]["shards"] = json!(1);
    // The authority of the webhook's own has rights of its own, below.
    values["certificates"] = json!({ "mode": "certManager" });
    let rendered = Rendered::new(&values);
    for component in Component::ALL {
        let account = format!("vdbi-{}", component.name());
        let mut everywhere = granted(&rendered, &account, "ClusterRole");
        // Nothing is served under that name: the policy for the node's paths goes by it.
        everywhere.retain(|right| !right.contains("nodepaths"));
        assert_eq!(everywhere, rights(&component.cluster_rules()), "{account}");
        let namespaced = granted(&rendered, &account, "Role");
        // The same verbs, but on its own Lease; creation cannot be granted by name.
        let expected: BTreeSet<String> = rights(&component.namespaced_rules())
            .into_iter()
            .map(|right| {
                if right.ends_with("create") {
                    right
                } else {
                    right.replace(" any ", &format!(" {account} "))
                }
            })
            .collect();
        assert_eq!(namespaced, expected, "{account}");
    }
    assert_eq!(rendered.kind("ServiceAccount").len(), 4);
}

#[test]
fn a_webhook_with_an_authority_of_its_own_may_keep_that_and_no_other() {
    let rendered = Rendered::new(&values("least"));
    let namespaced = granted(&rendered, "vdbi-injector", "Role");
    let expected = [
        "/secrets any create",
        "/secrets vdbi-webhook-tls get",
        "/secrets vdbi-webhook-tls update",
        "coordination.k8s.io/leases any create",
        "coordination.k8s.io/leases vdbi-injector get",
        "coordination.k8s.io/leases vdbi-injector update",
        "coordination.k8s.io/leases vdbi-injector watch",
    ];
    assert_eq!(namespaced, expected.map(str::to_owned).into());
    let expected = [
        "/namespaces kube-system get",
        "admissionregistration.k8s.io/mutatingwebhookconfigurations vdbi get",
        "admissionregistration.k8s.io/mutatingwebhookconfigurations vdbi patch",
    ];
    assert_eq!(granted(&rendered, "vdbi-injector", "ClusterRole"), expected.map(str::to_owned).into());
}

#[test]
fn rights_that_nothing_needs_are_not_granted() {
    let rendered = Rendered::new(&values("everything"));
    let renewer = granted(&rendered, "credentials-renewer", "ClusterRole");
    // rotation.enabled: false, and clusterId is set.
    assert!(
        !renewer.iter().any(|right| right.contains("eviction") || right.contains("namespaces")),
        "{renewer:?}"
    );
    // Legacy authentication.
    let plugin = granted(&rendered, "credentials-nri", "ClusterRole");
    assert!(
        plugin.contains("/pods any get") && !plugin.iter().any(|right| right.contains("token")),
        "{plugin:?}"
    );
}

#[test]
fn the_leases_of_all_shards_are_granted_by_name() {
    let values = with(json!({
        "vaultDbInjector": { "configuration": { "shards": 2 } },
        "revoker": { "configuration": { "leaderElection": { "leaseName": "lock" } } },
    }));
    let rendered = Rendered::new(&values);
    let leases = |component: &str| {
        let role = rendered.get("Role", &format!("vdbi-{component}"));
        role["rules"]
            .as_array()
            .unwrap()
            .iter()
            .map(|rule| rule["resourceNames"].clone())
            .find(|names| !names.is_null())
            .unwrap()
    };
    // That of one shard too, for the replicas from before.
    assert_eq!(
        leases("renewer"),
        json!(["vdbi-renewer", "vdbi-renewer-0", "vdbi-renewer-1", "vdbi-renewer-wanted"])
    );
    assert_eq!(leases("revoker"), json!(["lock", "lock-0", "lock-1", "lock-wanted"]));
    assert_eq!(leases("injector"), json!(["vdbi-injector"]));
}

#[test]
fn the_webhook_leaves_the_cluster_and_itself_alone_and_asks_for_creations_only() {
    let rendered =
        Rendered::of("vdbi", "somewhere", &with(json!({ "webhook": { "excludedNamespaces": ["legacy"] } })));
    let webhook = &rendered.kind("MutatingWebhookConfiguration")[0]["webhooks"][0];
    assert_eq!(
        webhook["namespaceSelector"]["matchExpressions"],
        json!([{ "key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": ["kube-system", "somewhere", "legacy"] }])
    );
    assert_eq!(webhook["rules"][0]["operations"], json!(["CREATE"]));
    assert_eq!(webhook["failurePolicy"], "Fail");
    // helm then leaves it alone: see apiserver.rs.
    assert!(webhook["clientConfig"]["caBundle"].is_null());
}

#[test]
fn the_documented_manifests_are_what_the_chart_installs() {
    let document =
        |name: &str| std::fs::read_to_string(crate::helm::root().join("docs/manifests").join(name)).unwrap();
    let values =
        with(json!({ "fullnameOverride": "vault-db-injector", "webhook": { "failurePolicy": "Ignore" } }));
    let rendered = Rendered::of("vault-db-injector", "vault-db-injector", &values);
    let mut webhook: Value = serde_saphyr::from_str(&document("webhook.yaml")).unwrap();
    let installed = &rendered.kind("MutatingWebhookConfiguration")[0]["webhooks"];
    webhook["webhooks"][0]["failurePolicy"] = json!("Ignore");
    // Defaults of the API server, written out.
    webhook["webhooks"][0]["matchPolicy"] = json!("Equivalent");
    webhook["webhooks"][0]["clientConfig"]["service"]["path"] = json!("/");
    assert_eq!(*installed, webhook["webhooks"]);
    let policies = document("require-mark.yaml");
    let policy: Value = serde_saphyr::from_str(policies.split("\n---\n").next().unwrap()).unwrap();
    assert_eq!(
        rendered.get("ValidatingAdmissionPolicy", "vault-db-injector-require-mark")["spec"],
        policy["spec"]
    );
}

#[test]
fn a_labelled_pod_past_the_webhook_is_refused_where_it_may_fail_open() {
    let mark = |values: Value| {
        let rendered = Rendered::new(&with(values));
        rendered
            .kind("ValidatingAdmissionPolicy")
            .iter()
            .any(|policy| title(policy).ends_with("-require-mark"))
    };
    assert!(!mark(json!({})));
    assert!(mark(json!({ "webhook": { "failurePolicy": "Ignore" } })));
    assert!(mark(json!({ "policies": { "requireMark": { "enabled": true } } })));
    assert!(!mark(
        json!({ "webhook": { "failurePolicy": "Ignore" }, "policies": { "requireMark": { "enabled": false } } })
    ));
}

#[test]
fn kinds_of_operators_are_rendered_only_when_asked_for() {
    let foreign = |name: &str| -> BTreeSet<String> {
        let rendered = Rendered::new(&values(name));
        let groups = ["cert-manager.io/", "monitoring.coreos.com/", "cilium.io/", "kyverno.io/"];
        let foreign = rendered.all().iter().filter(|object| {
            groups.iter().any(|group| object["apiVersion"].as_str().unwrap().starts_with(group))
        });
        foreign.map(|object| object["kind"].as_str().unwrap().to_owned()).collect()
    };
    for name in ["least", "go-defaults", "node-plugin", "everything"] {
        assert_eq!(foreign(name), BTreeSet::new(), "{name}");
    }
    let mut expected =
        vec!["Certificate", "CiliumNetworkPolicy", "ClusterPolicy", "Issuer", "PodMonitor", "ServiceMonitor"];
    if crate::helm::chart().join("files/rules.yaml").exists() {
        expected.push("PrometheusRule");
    }
    assert_eq!(foreign("operators"), expected.into_iter().map(str::to_owned).collect());
}

#[test]
fn certificates_of_cert_manager_are_for_the_service_that_the_api_server_asks() {
    let rendered = Rendered::new(&values("operators"));
    let certificate = rendered.get("Certificate", "vdbi-webhook");
    assert!(certificate["spec"]["dnsNames"].as_array().unwrap().contains(&json!("vdbi.vdbi-system.svc")));
    let webhook = rendered.kind("MutatingWebhookConfiguration")[0];
    assert_eq!(
        webhook["metadata"]["annotations"]["cert-manager.io/inject-ca-from"],
        "vdbi-system/vdbi-webhook"
    );
    let service = &webhook["webhooks"][0]["clientConfig"]["service"];
    assert_eq!(
        rendered.get("Service", service["name"].as_str().unwrap())["spec"]["ports"][0]["port"],
        service["port"]
    );
    let (_, pod) = rendered.pods().into_iter().find(|(component, _)| component == "injector").unwrap();
    let tls =
        pod["spec"]["volumes"].as_array().unwrap().iter().find(|volume| volume["name"] == "tls").unwrap();
    assert_eq!(tls["secret"]["secretName"], certificate["spec"]["secretName"]);

    let named = with(
        json!({ "certificates": { "mode": "certManager", "certManager": { "issuerRef": { "name": "mine", "kind": "ClusterIssuer" } } } }),
    );
    let rendered = Rendered::new(&named);
    assert!(rendered.kind("Issuer").is_empty());
    assert_eq!(
        rendered.get("Certificate", "vdbi-webhook")["spec"]["issuerRef"],
        json!({ "name": "mine", "kind": "ClusterIssuer" })
    );
}
