//! Values that are refused, with a message that says which and what to do.

use serde_json::{Value, json};

use crate::helm::{refusal, with};

#[track_caller]
fn refused(values: Value, parts: &[&str]) {
    let message = refusal(&with(values));
    for part in parts {
        assert!(message.contains(part), "{part} is not in: {message}");
    }
}

/// Below `vaultDbInjector.configuration`.
fn configured(keys: Value) -> Value {
    json!({ "vaultDbInjector": { "configuration": keys } })
}

#[test]
fn a_value_that_does_not_exist_is_refused_by_name() {
    refused(json!({ "injector": { "replica": 3 } }), &["/injector", "'replica' not allowed"]);
    refused(json!({ "webhooks": {} }), &["'webhooks' not allowed"]);
    refused(
        configured(json!({ "tokenTtl": "1h" })),
        &["/vaultDbInjector/configuration", "'tokenTtl' not allowed"],
    );
    refused(
        configured(json!({ "renewer": { "renewat": 0.5 } })),
        &["/configuration/renewer", "'renewat' not allowed"],
    );
    refused(
        json!({ "renewer": { "configuration": { "log": "debug" } } }),
        &["/renewer/configuration", "'log' not allowed"],
    );
}

#[test]
fn a_value_of_another_kind_is_refused_by_name() {
    refused(json!({ "renewer": { "replicas": "many" } }), &["/renewer/replicas", "want integer"]);
    refused(
        json!({ "webhook": { "failurePolicy": "fail" } }),
        &["/webhook/failurePolicy", "'Fail', 'Ignore'"],
    );
    refused(json!({ "nri": { "pluginIndex": "7" } }), &["/nri/pluginIndex"]);
    refused(json!({ "podLabel": "a label" }), &["/podLabel"]);
    refused(configured(json!({ "syncTTLSecond": "5m" })), &["/syncTTLSecond", "want integer"]);
    refused(configured(json!({ "shutdownGracePeriod": "25" })), &["/shutdownGracePeriod"]);
}

#[test]
fn the_least_value_is_asked_for() {
    let message = refusal(&json!({}));
    assert!(message.contains("vaultDbInjector.configuration.vaultAddress: it is required"), "{message}");
}

#[test]
fn what_the_chart_sets_itself_is_refused_with_the_value_for_it() {
    let message = refusal(&with(json!({
        "vaultDbInjector": { "configuration": {
            "mode": "injector", "certFile": "/x", "webhook": { "selfManaged": true }, "leaderElection": { "leaseName": "one-for-all" },
        } },
        "renewer": { "configuration": { "release": "other" } },
    })));
    // All at once.
    for part in [
        "vaultDbInjector.configuration.mode: leave it out",
        "vaultDbInjector.configuration.certFile: use certificates.mode",
        "vaultDbInjector.configuration.webhook.selfManaged: use certificates.mode",
        "vaultDbInjector.configuration.leaderElection.leaseName: set it in renewer.configuration",
        "renewer.configuration.release: set it in vaultDbInjector.configuration",
    ] {
        assert!(message.contains(part), "{part} is not in: {message}");
    }
}

#[test]
fn two_values_for_the_same_thing_are_refused_if_they_differ() {
    let values =
        json!({ "podLabel": "one", "vaultDbInjector": { "configuration": { "webhookMatchLabels": "two" } } });
    refused(values, &["podLabel (one)", "webhookMatchLabels (two)", "set podLabel alone"]);
    refused(
        configured(json!({ "webhookMatchLabels": "one", "injectorLabel": "two" })),
        &["webhookMatchLabels (one)", "injectorLabel (two)"],
    );
    let values = json!({ "nri": { "pluginIndex": "11" }, "vaultDbInjector": { "configuration": { "nri": { "pluginIndex": "12" } } } });
    refused(values, &["nri.pluginIndex (11)", "vaultDbInjector.configuration.nri.pluginIndex (12)"]);
    let values = json!({
        "vaultCa": { "secretName": "ca" }, "vaultDbInjector": { "configuration": { "vaultCaCert": "/ca.crt" } },
    });
    refused(values, &["vaultDbInjector.configuration.vaultCaCert: vaultCa is set"]);
}

#[test]
fn values_that_need_each_other_are_asked_for() {
    refused(
        configured(json!({ "useProjectedSA": true })),
        &["tokenRequestAudiences: useProjectedSA needs at least one"],
    );
    refused(json!({ "certificates": { "mode": "secret" } }), &["certificates.secret", "caBundle"]);
    refused(
        json!({ "vaultCa": { "secretName": "a", "configMapName": "b" } }),
        &["vaultCa: set secretName or configMapName"],
    );
}

#[test]
fn components_do_not_share_a_service_account() {
    let values = json!({ "nri": { "enabled": true, "serviceAccountName": "vdbi-injector" } });
    refused(values, &["nri.serviceAccountName: vdbi-injector is that of injector"]);
}

#[test]
fn the_image_of_the_go_product_is_refused() {
    refused(
        json!({ "injector": { "image": { "repository": "mirror.example/vault-db-injector" } } }),
        &["injector.image: mirror.example/vault-db-injector is the Go product's image"],
    );
    refused(
        json!({ "vaultDbInjector": { "renewer": { "image": { "tag": "3.2.3" } } } }),
        &["/vaultDbInjector/renewer", "'image' not allowed"],
    );
}
