//! The values of `docs/examples` install what `docs/examples.md` says of them.

use std::{collections::BTreeSet, fs};

use serde_json::{Value, json};
use vdbi_core::config::Component;

use crate::{
    configuration::load,
    helm::{Rendered, root, title},
};

const EXAMPLES: [&str; 5] = ["first", "placeholders", "prod", "dev", "cert-manager"];

fn values(name: &str) -> Value {
    let text = fs::read_to_string(root().join(format!("docs/examples/values-{name}.yaml"))).unwrap();
    serde_saphyr::from_str(&text).unwrap()
}

fn rendered(name: &str) -> Rendered {
    Rendered::of(&format!("vdbi-{name}"), &format!("vdbi-{name}"), &values(name))
}

fn titles(rendered: &Rendered) -> BTreeSet<String> {
    rendered.all().iter().map(title).collect()
}

#[test]
fn every_values_file_is_installed_and_its_configuration_is_one_that_the_components_take() {
    let files = fs::read_dir(root().join("docs/examples")).unwrap();
    let files = files.filter(|it| it.as_ref().unwrap().file_name().to_str().unwrap().starts_with("values-"));
    assert_eq!(files.count(), EXAMPLES.len());
    for name in EXAMPLES {
        let rendered = rendered(name);
        for component in [Component::Injector, Component::Renewer, Component::Revoker] {
            load(&rendered, component);
        }
        let nri = rendered.kind("DaemonSet").len() == 1;
        assert_eq!(nri, !["first", "cert-manager"].contains(&name), "{name}");
        if nri {
            load(&rendered, Component::Nri);
        }
    }
}

#[test]
fn the_values_for_placeholders_keep_secrets_out_of_the_api_and_are_watched() {
    let rendered = rendered("placeholders");
    for kind in ["PodMonitor", "PrometheusRule"] {
        assert_eq!(rendered.kind(kind).len(), 1, "{kind}");
    }
    let (_, injector) = rendered.configuration("injector");
    assert_eq!(injector["nri"]["enabled"], true);
    assert_eq!(injector["useProjectedSA"], true);
    let policies = rendered.kind("ValidatingAdmissionPolicy");
    assert_eq!(policies.len(), 3, "{policies:?}");
}

#[test]
fn the_two_releases_of_the_examples_share_no_object_no_label_and_no_role() {
    let (prod, dev) = (rendered("prod"), rendered("dev"));
    assert_eq!(titles(&prod).intersection(&titles(&dev)).next(), None);
    for component in ["injector", "renewer", "revoker", "nri"] {
        let (_, prod) = prod.configuration(component);
        let (_, dev) = dev.configuration(component);
        assert_ne!(prod["kubeRole"], dev["kubeRole"], "{component}");
        assert_ne!(prod["release"], dev["release"], "{component}");
        assert_eq!(prod["vaultSecretPrefix"], dev["vaultSecretPrefix"], "{component}");
        if component == "nri" {
            for key in ["pluginIndex", "pluginName", "podLabel", "cachePath"] {
                assert_ne!(prod["nri"][key], dev["nri"][key], "{key}");
            }
        }
    }
}

#[test]
fn the_values_with_cert_manager_take_its_certificate_and_the_authority_of_openbao() {
    let rendered = rendered("cert-manager");
    let certificates = rendered.kind("Certificate");
    assert_eq!(certificates.len(), 1, "{certificates:?}");
    assert_eq!(certificates[0]["spec"]["issuerRef"], json!({ "kind": "ClusterIssuer", "name": "internal" }));
    let (_, injector) = rendered.configuration("injector");
    assert_eq!(injector["vaultCaCert"], "/etc/vdbi/vault-ca/ca.crt");
    assert_eq!(injector["vaultNamespace"], "platform");
}
